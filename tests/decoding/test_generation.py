import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.config.loading import load_config
from nlp_rnn.decoding.sampling import (
    REPETITION_WINDOW,
    Sampling,
    is_plain,
    random_uniform,
    restrict,
    scaled_noise,
)
from nlp_rnn.decoding.stepper import Stepper
from nlp_rnn.export import saved_model
from nlp_rnn.export.generation import GenerationModule, generation_extras
from nlp_rnn.layers.masking import IMPOSSIBLE
from nlp_rnn.models.build import build_language_model
from nlp_rnn.special_ids import EOS_ID
from nlp_rnn.tokenization.tokenizer import Tokenizer

RNG = np.random.default_rng(0)
ALPHABET = "abcdefghij .\n"


def make_module(*settings, scale=4.0):
    config = load_config(None, ["model.units=12", "model.embedding_dim=8", *settings], task="char_generation")
    tokenizer = Tokenizer("char", case="keep", vocabulary=ALPHABET)
    keras.utils.set_random_seed(1)
    model = build_language_model(config.model, vocab_size=tokenizer.vocab_size)
    for weight in model.kept_weights:  # far from uniform, so that texts differ
        weight.assign(RNG.normal(scale=scale / np.sqrt(weight.shape[0]), size=weight.shape))
    return GenerationModule(model, tokenizer, config), model, tokenizer


@pytest.fixture(scope="module")
def made():
    return make_module("model.num_layers=2")


def arguments(prompts, *, stop=(), **settings):
    whole = {
        "min_length": 0,
        "max_length": 30,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "repetition_penalty": 1.0,
        "seed": 7,
    } | settings
    rows = len(prompts)
    found = {
        name: tf.constant(np.broadcast_to(value, rows), tf.int32 if isinstance(value, int) else tf.float32)
        for name, value in whole.items()
    }
    return {
        "prompt": tf.constant(prompts, tf.string),
        "stop": tf.constant([list(stop)] * rows, tf.string, shape=[rows, len(stop)]),
        **found,
    }


def write(module, prompts, **settings):
    found = module.generate(**arguments(prompts, **settings))
    return [text.decode() for text in found["text"].numpy()]


@pytest.mark.parametrize(
    "settings",
    [
        ("model.cell=lstm", "model.num_layers=2", "model.is_residual=true"),
        ("model.cell=gru", "model.num_layers=2", "model.layer_norm=true", "model.weight_dropout=0.2"),
        ("model.cell=simple_rnn", "model.embedding_dim=12", "model.is_residual=true"),
        ("model.cell=min_gru", "model.num_layers=3"),
        ("model.cell=min_lstm", "model.tie_embeddings=true"),
    ],
)
def test_the_step_is_that_of_the_layers(settings):
    _, model, tokenizer = make_module(*settings, scale=1.0)
    model.head.temperature = 1.7
    stepper = Stepper(model)
    ids = RNG.integers(4, tokenizer.vocab_size, (3, 6)).astype(np.int32)
    expected, after = model.run(ids, model.zero_states(3))
    states = stepper.zero_states(3)
    for time in range(6):
        hidden, states = stepper.step(tf.constant(ids[:, time]), states)
        np.testing.assert_allclose(hidden, expected[:, time], atol=1e-5)
    np.testing.assert_allclose(stepper.predict(hidden), model.head(expected[:, -1]), atol=1e-5)
    np.testing.assert_allclose(
        np.concatenate([state for layer in states for state in layer], axis=1), model.pack_states(after), atol=1e-5
    )


def test_without_temperature_each_character_is_the_likeliest(made):
    module, model, tokenizer = made
    ids = [EOS_ID, *tokenizer.tokenize(["abc"]).values.numpy()]
    total, states = 0.0, model.zero_states(1)
    for each in ids[:-1]:
        _, states = model.advance(np.array([each]), states)
    for _ in range(30):
        hidden, states = model.advance(np.array([ids[-1]]), states)
        scores = np.array(model.head(hidden)[0])
        scores = np.where(np.arange(len(scores)) < EOS_ID, -np.inf, scores)
        ids.append(int(np.where(np.arange(len(scores)) == EOS_ID, -np.inf, scores).argmax()))
        total += float(scores[ids[-1]] - np.log(np.exp(scores).sum()))
    found = module.generate(**arguments(["abc"], temperature=0.0, min_length=31))
    assert found["text"].numpy()[0] == tokenizer.detokenize([ids[4:]]).numpy()[0]
    np.testing.assert_allclose(found["log_probability"], [total], rtol=1e-4)
    assert write(module, ["abc"], top_k=1, min_length=31) == [found["text"].numpy()[0].decode()]


def test_a_text_depends_on_its_own_row_only(made):
    module, _, _ = made
    prompts = ["abc", "", "j" * 700, "hidden ", "abc"]
    together = write(module, prompts, seed=3, top_p=0.9, max_length=80)
    assert together == [write(module, [prompt], seed=3, top_p=0.9, max_length=80)[0] for prompt in prompts]
    assert together[0] == together[4]
    assert len(set(together)) == 4
    mixed = module.generate(
        **arguments(["abc", "abc"], seed=3, top_p=0.9, max_length=80) | {"seed": tf.constant([3, 4])}
    )["text"].numpy()
    assert mixed[0].decode() == together[0] != mixed[1].decode()
    assert write(module, []) == []


def test_python_and_saved_model_write_the_same(made, tmp_path):
    module, _, _ = made
    signatures = {
        "serving_default": module.write,
        "generate": module.generate,
        "begin": module.begin,
        "extend": module.extend,
    }
    path = saved_model.export_module(module, tmp_path, signatures, generation_extras(module, module._config, {}))
    loaded = tf.saved_model.load(str(path))
    given = arguments(["abc", "def"], temperature=0.7, top_k=5, repetition_penalty=1.3)
    assert (
        loaded.signatures["generate"](**given)["text"].numpy().tolist()
        == module.generate(**given)["text"].numpy().tolist()
    )
    texts = loaded.signatures["serving_default"](prompt=tf.constant(["abc", "\xff".encode("latin-1")]))["text"].numpy()
    assert texts.tolist() == module.write(["abc", ""])["text"].numpy().tolist()


def test_pieces_make_up_the_whole_text(made):
    module, _, _ = made
    given = arguments(["abc", "d"], stop=["a.", ".\n"], max_length=70, seed=5)
    prompt, settings = given.pop("prompt"), given
    expected = module.generate(prompt, **settings)["text"].numpy()
    session, texts, stops = module.begin(prompt), [b"", b""], np.zeros(2, int)
    counts = itertools.cycle([[7, 7], [3, 12], [9, 0]])  # each row at its own pace
    while not all(session["is_done"]):
        found = module.extend(
            *[session[name] for name in ("states", "log_probabilities", "last_seen", "recent", "length", "is_done")],
            next(counts),
            **settings,
        )
        texts = [before + piece for before, piece in zip(texts, found["text"].numpy(), strict=True)]
        stops += found["stop_length"].numpy()
        session = {name: found[name] for name in session}
    assert [text[: len(text) - stop] for text, stop in zip(texts, stops, strict=True)] == expected.tolist()


def test_where_a_text_ends(made):
    module, _, _ = made
    (whole,) = write(module, ["abc"], max_length=60, min_length=60)
    assert len(whole) == 60
    stop = whole[20:23]
    assert write(module, ["abc"], max_length=60, min_length=23, stop=[stop, "é", ""]) == [whole[:20]]
    assert write(module, ["abc"], max_length=60, min_length=0, stop=[whole[:4]]) == [""]
    assert len(write(module, ["abc"], max_length=60, min_length=24, stop=[whole[:23]])[0]) == 60
    assert write(module, ["abc"], max_length=0) == [""] == write(module, ["abc"], max_length=-5)
    assert write(module, ["abc"], max_length=1, min_length=1) == [whole[:1]]


def test_unknown_characters_of_a_prompt_are_skipped(made):
    module, _, _ = made
    assert write(module, ["a€bc", "\U0001f600"]) == write(module, ["abc", ""])


# --- drawing ----------------------------------------------------------------------------------------------------------


def draw(probabilities, count=20_000, last_seen=None, position=0, **settings):
    """How often each id is drawn."""
    whole = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0} | settings
    scores = tf.repeat(tf.math.log(tf.constant([probabilities], tf.float32)), count, axis=0)
    seen = (
        tf.fill(tf.shape(scores), -10_000) if last_seen is None else tf.repeat(tf.constant([last_seen]), count, axis=0)
    )
    sampling = Sampling(seed=tf.range(count), **{
        name: tf.fill([count], tf.constant(value, tf.int32 if name == "top_k" else tf.float32))
        for name, value in whole.items()
    })  # fmt: skip
    positions = tf.fill([count], position)
    scores = scores if is_plain(sampling) else restrict(scores, sampling, positions, seen)
    ids = tf.argmax(scores + scaled_noise(sampling, positions, 3, len(probabilities))[1], axis=1)
    return np.bincount(ids, minlength=len(probabilities)) / count


SHARES = np.array([0.1, 0.5, 0.03, 0.25, 0.12])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, SHARES),
        ({"temperature": 0.5}, SHARES**2),
        ({"temperature": 2.0}, SHARES**0.5),
        ({"top_k": 2}, SHARES * [0, 1, 0, 1, 0]),
        ({"top_k": 99}, SHARES),
        ({"top_p": 0.5}, SHARES * [0, 1, 0, 0, 0]),
        ({"top_p": 0.51}, SHARES * [0, 1, 0, 1, 0]),
        ({"top_p": 1e-6}, SHARES * [0, 1, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.8}, SHARES * [0, 1, 0, 1, 0]),  # of 0.87
        ({"temperature": 0.0}, [0, 1, 0, 0, 0]),
        ({"temperature": -1.0}, [0, 1, 0, 0, 0]),
        ({"top_p": -1.0, "top_k": -1}, SHARES),
        (
            {"repetition_penalty": 5.0, "last_seen": [0, 35, 99, 36, -(2**30)], "position": 100},
            SHARES / [1, 1, 5, 5, 1],
        ),
    ],
    ids=str,
)
def test_ids_are_drawn_by_their_probability(settings, expected):
    expected = np.array(expected) / np.sum(expected)
    np.testing.assert_allclose(draw(SHARES, **settings), expected, atol=4 * np.sqrt(0.25 / 20_000))
    assert REPETITION_WINDOW == 64


def test_impossible_ids_are_never_drawn():
    assert draw([1e-30, 1, 1e-30], count=1000, temperature=5.0, top_k=3, top_p=0.99)[1] == 1
    sampling = Sampling(*(tf.fill([50], value) for value in (5.0, 3, 0.99, 1.0, 7)))
    scores = restrict(
        tf.constant([[IMPOSSIBLE, 0.0, IMPOSSIBLE]] * 50), sampling, tf.zeros([50], tf.int32), tf.fill([50, 3], -999)
    )
    assert set((scores + scaled_noise(sampling, tf.range(50), 1, 3)[0]).numpy().argmax(axis=1)) == {1}


def test_noise_of_a_place_does_not_depend_on_where_a_block_begins():
    sampling = Sampling(*(tf.constant(value) for value in ([1.0, 2.0], [0, 0], [1.0, 1.0], [1.0, 1.0], [5, 6])))
    whole = scaled_noise(sampling, tf.constant([0, 10]), 8, 4).numpy()
    np.testing.assert_array_equal(whole[3:], scaled_noise(sampling, tf.constant([3, 13]), 5, 4))
    np.testing.assert_array_equal(
        whole[:, 1:], scaled_noise(Sampling(*(each[1:] for each in sampling)), tf.constant([10]), 8, 4)
    )


def test_random_numbers_are_even_and_independent():
    found = random_uniform(tf.zeros([20_000], tf.int32), tf.range(20_000), 30).numpy()
    assert found.min() > 0
    assert found.max() < 1
    np.testing.assert_allclose([found.mean(), found.var() * 12], [0.5, 1], atol=0.01)
    assert np.abs(np.corrcoef(found.T) - np.eye(30)).max() < 0.035
    other = random_uniform(tf.ones([20_000], tf.int32), tf.range(20_000), 30).numpy()
    for left, right in ((found, other), (found[1:], found[:-1])):
        assert abs(np.corrcoef(left[:, 0], right[:, 0])[0, 1]) < 0.03
    np.testing.assert_array_equal(found[5:6], random_uniform(tf.constant([0]), tf.constant([5]), 30))
