"""The divergence between two passes, worked out by hand, and as the fused losses compute it."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.errors import ConfigError
from nlp_rnn.layers import r_drop
from nlp_rnn.layers.fast import softmax as fast_softmax
from nlp_rnn.layers.fast.precision import matmul_precision
from nlp_rnn.layers.softmax_head import SoftmaxHead

VOCAB, SIZE, ROWS, ALPHA = 50, 16, 21, 1.5
GENERATOR = np.random.default_rng(1)
HIDDEN = tf.constant(GENERATOR.normal(size=(2 * ROWS, SIZE)), tf.float32)
TARGETS = tf.constant(GENERATOR.integers(0, VOCAB, ROWS), tf.int32)
WEIGHTS = tf.constant(GENERATOR.integers(0, 3, ROWS), tf.float32)


def make_head(**options):
    head = SoftmaxHead(VOCAB, seed=1, **options)
    head.build(HIDDEN.shape)
    generator = np.random.default_rng(2)
    head.set_weights([generator.normal(size=weight.shape, scale=0.5) for weight in head.weights])
    return head


def results(head, *, is_known=True, **options):
    """Loss, divergence, and the gradients of three times the loss."""

    @tf.function(input_signature=[tf.TensorSpec([2 * ROWS if is_known else None, SIZE])])
    def run(hidden):
        with tf.GradientTape() as tape:
            tape.watch(hidden)
            loss, divergence = head.r_drop_loss(hidden, TARGETS, WEIGHTS, r_drop=ALPHA, **options)
            scaled = 3.0 * loss
        sources = [hidden, *(weight.value for weight in head.trainable_weights)]
        return loss, divergence, *map(tf.convert_to_tensor, tape.gradient(scaled, sources))

    return run(HIDDEN)


def by_definition(head):
    """(cross-entropy, divergence): weighted sums, from the log-probabilities of both passes."""
    first, second = np.array(head(HIDDEN[::2]), float), np.array(head(HIDDEN[1::2]), float)
    rows, targets = np.arange(ROWS), TARGETS.numpy()
    cross_entropies = -(first[rows, targets] + second[rows, targets]) / 2
    one_way = (np.exp(first) * (first - second)).sum(1)
    other_way = (np.exp(second) * (second - first)).sum(1)
    weights = WEIGHTS.numpy()
    return float(cross_entropies @ weights), float((one_way + other_way) / 2 @ weights)


def test_the_divergence_is_the_mean_of_both_kullback_leibler_divergences():
    # (1/4 - 1/2) ln(1/4 / 1/2) + (3/4 - 1/2) ln(3/4 / 1/2) = (ln 2 + ln 3/2) / 4, halved
    log_probabilities = np.log(np.array([[1 / 4, 3 / 4], [1 / 2, 1 / 2], [0.9, 0.1], [0.9, 0.1]], np.float32))
    expected = [math.log(3) / 8] * 2 + [0, 0]
    np.testing.assert_allclose(r_drop.divergences(log_probabilities), expected, atol=1e-7)


def test_rows_stand_twice_and_steps_side_by_side():
    rows = np.arange(12).reshape(2, 3, 2)  # [batch, time, features]
    doubled = r_drop.twice(rows)
    np.testing.assert_array_equal(doubled, rows[[0, 0, 1, 1]])
    np.testing.assert_array_equal(r_drop.first_pass(doubled), rows)
    second = doubled + np.array([0, 100, 0, 100])[:, None, None]
    steps = np.array(r_drop.pair_steps(second))
    np.testing.assert_array_equal(steps[::2], rows.reshape(6, 2))
    np.testing.assert_array_equal(steps[1::2], rows.reshape(6, 2) + 100)
    np.testing.assert_array_equal(r_drop.other_pass(steps)[::2], steps[1::2])


@pytest.mark.parametrize("options", [{}, {"softmax": "sampled", "num_sampled": 2 * VOCAB}], ids=["full", "sampled"])
def test_the_loss_is_the_mean_of_both_passes_plus_alpha_times_their_divergence(options):
    head = make_head(**options)  # a sampled softmax of all words is exact
    loss, divergence, *_ = results(head)
    cross_entropy, expected = by_definition(head)
    assert float(divergence) == pytest.approx(expected, rel=1e-4)
    assert float(loss) == pytest.approx(cross_entropy + ALPHA * expected, rel=1e-4)


@pytest.mark.further
def test_a_sampled_softmax_estimates_the_divergence_over_the_vocabulary():
    def mean_error(num_sampled):
        head = make_head(softmax="sampled", num_sampled=num_sampled)
        found = [float(head.r_drop_loss(HIDDEN, TARGETS, WEIGHTS, r_drop=ALPHA)[1]) for _ in range(200)]
        return np.mean(found) / by_definition(head)[1] - 1

    errors = [mean_error(num_sampled) for num_sampled in (20, 40, 80)]
    assert abs(errors[0]) < 0.25
    assert abs(errors[2]) < 0.02


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("options", "max_logits", "more"),
    [
        ({}, 2**25, {}),
        ({}, 7 * VOCAB, {"label_smoothing": 0.2}),  # in pieces, which must not cut a pair
        ({"softmax": "sampled", "num_sampled": 20}, 2**25, {}),
    ],
    ids=["full", "in pieces", "sampled"],
)
@pytest.mark.parametrize("is_known", [True, False], ids=["known rows", "unknown rows"])
def test_the_fused_losses_and_gradients_equal_the_plain_ones(
    options, max_logits, more, is_known, precision, monkeypatch
):
    monkeypatch.setattr(fast_softmax, "_MAX_LOGITS", max_logits)
    with matmul_precision(precision):
        fused = results(make_head(**options), is_known=is_known, **more)
    monkeypatch.setattr(keras.backend, "backend", lambda: "another")
    plain = results(make_head(**options), **more)
    for one, other in zip(fused, plain, strict=True):
        assert np.linalg.norm(one - other) <= {"float32": 1e-5, "bfloat16": 0.03}[precision] * np.linalg.norm(other)


def test_equal_passes_do_not_diverge():
    head = make_head()
    hidden = r_drop.twice(HIDDEN[:ROWS])
    loss, divergence = head.r_drop_loss(hidden, TARGETS, WEIGHTS, r_drop=ALPHA)
    assert float(divergence) == 0
    assert float(loss) == pytest.approx(float(head.loss(HIDDEN[:ROWS], TARGETS, WEIGHTS, training=True)), rel=1e-5)


def test_an_adaptive_softmax_is_rejected():
    with pytest.raises(ConfigError, match=r"r_drop is 1\.5, but an adaptive softmax .* use softmax full or sampled"):
        make_head(softmax="adaptive", cutoffs=(10, 30)).r_drop_loss(HIDDEN, TARGETS, WEIGHTS, r_drop=ALPHA)
