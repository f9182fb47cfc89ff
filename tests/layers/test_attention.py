import keras
import numpy as np
import pytest

from nlp_rnn.layers.attention import Attention


def attend(layer, queries, memory, mask):
    if not layer.built:
        layer.build(queries.shape, memory.shape)
    found = layer(queries, layer.keys(memory), memory, mask)
    return [keras.ops.convert_to_numpy(each) for each in found]


def softmax(scores):
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_dot_worked_out_by_hand():
    queries, memory = np.array([[[1.0, 0.0]]], np.float32), np.array([[[2.0, 5.0], [1.0, 7.0], [9.0, 9.0]]], np.float32)
    contexts, weights = attend(Attention("dot"), queries, memory, np.array([[True, True, False]]))
    first = 1 / (1 + np.exp(-1 / np.sqrt(2)))  # the scores are 2 and 1, divided by the root of two features
    np.testing.assert_allclose(weights, [[[first, 1 - first, 0]]], rtol=1e-6)
    np.testing.assert_allclose(contexts, [[[2 * first + 1 - first, 5 * first + 7 * (1 - first)]]], rtol=1e-6)


@pytest.mark.parametrize("kind", ["general", "additive"])
def test_scores_are_the_papers(kind):
    generator = np.random.default_rng(0)
    queries, memory = (generator.normal(size=(2, time, size)).astype(np.float32) for time, size in ((3, 4), (5, 6)))
    mask = np.arange(5) < np.array([[5], [3]])
    layer = Attention(kind)
    contexts, weights = attend(layer, queries, memory, mask)
    keys = memory @ layer.memory_kernel.numpy()
    if kind == "general":
        scores = queries @ keys.transpose(0, 2, 1) / np.sqrt(4)
    else:
        scores = np.tanh((queries @ layer.query_kernel.numpy())[:, :, None] + keys[:, None]) @ layer.vector.numpy()[0]
    expected = softmax(np.where(mask[:, None], scores, -1e9))
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    np.testing.assert_allclose(contexts, expected @ memory, atol=1e-5)


@pytest.mark.parametrize("kind", ["dot", "general", "additive"])
def test_heads_attend_apart(kind):
    generator = np.random.default_rng(1)
    queries, memory = (generator.normal(size=(2, time, 6)).astype(np.float32) for time in (3, 4))
    mask = np.ones((2, 4), bool)
    layer = Attention(kind, num_heads=2)
    contexts, weights = attend(layer, queries, memory, mask)
    keys = np.array(layer.keys(memory))
    parts, shares = [], []
    for head in range(2):
        part = slice(3 * head, 3 * head + 3)
        if kind == "additive":
            sums = (queries @ layer.query_kernel.numpy())[:, :, None, part] + keys[:, None, :, part]
            scores = np.tanh(sums) @ layer.vector.numpy()[head]
        else:
            scores = queries[..., part] @ keys[..., part].transpose(0, 2, 1)
        shares.append(softmax(scores))
        parts.append(shares[-1] @ memory[..., part])
    np.testing.assert_allclose(contexts, np.concatenate(parts, -1), atol=1e-5)
    np.testing.assert_allclose(weights, np.mean(shares, axis=0), atol=1e-6)


def test_widths_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="queries have 4 features and the memory 6, which does not fit dot, 1 heads"):
        Attention("dot").build((1, 1, 4), (1, 1, 6))
    with pytest.raises(ValueError, match="does not fit general, 3 heads"):
        Attention("general", num_heads=3).build((1, 1, 6), (1, 1, 4))


def test_config_round_trip():
    layer = Attention.from_config(Attention("additive", num_heads=4, name="x").get_config())
    assert (layer.kind, layer.num_heads, layer.name) == ("additive", 4, "x")
