import keras
import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.errors import ConfigError
from nlp_rnn.layers.fast import softmax as fast_softmax
from nlp_rnn.layers.fast.precision import matmul_precision
from nlp_rnn.layers.softmax_head import SoftmaxHead

VOCAB, SIZE, ROWS = 50, 16, 21
GENERATOR = np.random.default_rng(1)
HIDDEN = tf.constant(GENERATOR.normal(size=(ROWS, SIZE)), tf.float32)
TARGETS = tf.constant(GENERATOR.integers(0, VOCAB, ROWS), tf.int32)
WEIGHTS = tf.constant(GENERATOR.integers(0, 3, ROWS), tf.float32)


def make_head(**options):
    head = SoftmaxHead(VOCAB, seed=1, **options)
    head.build(HIDDEN.shape)
    generator = np.random.default_rng(2)
    head.set_weights([generator.normal(size=weight.shape, scale=0.5) for weight in head.weights])
    return head


def expected(head):
    return -tf.reduce_sum(tf.gather(head(HIDDEN), TARGETS, batch_dims=1) * WEIGHTS)


def found(head, *, is_training=True):
    return head.loss(HIDDEN, TARGETS, WEIGHTS, training=is_training)


def gradients(function, head):
    with tf.GradientTape() as tape:
        tape.watch(HIDDEN)
        loss = 3.0 * function(head)
    return tape.gradient(loss, [HIDDEN, *(weight.value for weight in head.trainable_weights)])


@pytest.mark.parametrize("options", [{}, {"softmax": "adaptive", "cutoffs": (10, 30)}], ids=["full", "adaptive"])
@pytest.mark.parametrize("max_logits", [2**25, 7 * VOCAB], ids=["at once", "in pieces"])
@pytest.mark.parametrize("is_known", [True, False], ids=["known rows", "unknown rows"])
def test_the_fused_loss_and_its_gradients_equal_those_of_the_log_probabilities(
    options, max_logits, is_known, monkeypatch
):
    monkeypatch.setattr(fast_softmax, "_MAX_LOGITS", max_logits)
    head = make_head(**options)
    signature = [
        tf.TensorSpec([ROWS if is_known else None, SIZE]),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None]),
    ]

    @tf.function(input_signature=signature)
    def run(hidden, targets, weights):
        with tf.GradientTape() as tape:
            tape.watch(hidden)
            loss = 3.0 * head.loss(hidden, targets, weights, training=True)
        return loss, tape.gradient(loss, [hidden, *(weight.value for weight in head.trainable_weights)])

    loss, grads = run(HIDDEN, TARGETS, WEIGHTS)
    np.testing.assert_allclose(loss, 3 * expected(head), rtol=1e-5)
    np.testing.assert_allclose(found(head, is_training=False), expected(head), rtol=1e-5)
    for one, other in zip(grads, gradients(expected, head), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{}, {"softmax": "sampled"}, {"softmax": "adaptive", "cutoffs": (10, 30)}],
    ids=["full", "sampled", "adaptive"],
)
def test_probabilities_add_up_to_one(options):
    np.testing.assert_allclose(tf.reduce_sum(tf.exp(make_head(**options)(HIDDEN)), axis=-1), np.ones(ROWS), rtol=1e-5)


@pytest.mark.further
def test_a_sampled_softmax_is_exact_in_evaluation_and_comes_near_it_in_training():
    head = make_head(softmax="sampled", num_sampled=40)
    np.testing.assert_allclose(found(head, is_training=False), expected(head), rtol=1e-5)
    draws = [found(head) for _ in range(200)]
    assert np.std(draws) > 0
    np.testing.assert_allclose(np.mean(draws), expected(head), rtol=0.02)
    sums = [
        sum(map(tf.convert_to_tensor, each)) for each in zip(*(gradients(found, head) for _ in range(200)), strict=True)
    ]
    for one, other in zip(sums, gradients(expected, head), strict=True):
        assert np.linalg.norm(one / 200 - other) < 0.1 * np.linalg.norm(other)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("bfloat16", 0.02)])
@pytest.mark.parametrize("is_known", [True, False], ids=["known rows", "unknown rows"])
def test_the_fused_sampled_loss_and_its_gradients_equal_the_plain_ones(precision, tolerance, is_known, monkeypatch):
    def results(precision):
        head = make_head(softmax="sampled", num_sampled=40)  # its first draw is always the same

        @tf.function(input_signature=[tf.TensorSpec([ROWS if is_known else None, SIZE])])
        def run(hidden):
            with tf.GradientTape() as tape:
                tape.watch(hidden)
                loss = 3.0 * head.loss(hidden, TARGETS, WEIGHTS, training=True)
            return loss, *map(
                tf.convert_to_tensor,
                tape.gradient(loss, [hidden, *(weight.value for weight in head.trainable_weights)]),
            )

        with matmul_precision(precision):
            return run(HIDDEN)

    fused = results(precision)
    monkeypatch.setattr(keras.backend, "backend", lambda: "another")
    for one, other in zip(fused, results("float32"), strict=True):
        assert np.linalg.norm(one - other) <= tolerance * np.linalg.norm(other)


@pytest.mark.parametrize("num_sampled", [2 * VOCAB, 3 * VOCAB])
def test_a_sampled_softmax_of_all_words_is_exact(num_sampled):
    head = make_head(softmax="sampled", num_sampled=num_sampled)
    np.testing.assert_allclose(found(head), expected(head), rtol=1e-5)


def test_tied_weights_are_one_weight():
    embedding = keras.layers.Embedding(VOCAB, SIZE)
    embedding.build(None)
    head = SoftmaxHead(VOCAB, embedding=embedding)
    head.build(HIDDEN.shape)
    assert [weight.name for weight in head.weights if "seed" not in weight.path] == ["bias"]
    embedding.set_weights([GENERATOR.normal(size=(VOCAB, SIZE))])
    expected_logits = HIDDEN @ tf.transpose(embedding.embeddings.value)
    np.testing.assert_allclose(head(HIDDEN), tf.nn.log_softmax(expected_logits), atol=1e-5)
    with tf.GradientTape() as tape:
        loss = found(head)
    assert np.abs(tape.gradient(loss, embedding.embeddings.value)).sum() > 0


@pytest.mark.parametrize("options", [{}, {"softmax": "adaptive", "cutoffs": (10, 30)}], ids=["full", "adaptive"])
def test_a_temperature_divides_the_logits_of_all_words_and_leaves_the_loss_alone(options):
    head = make_head(**options)
    before, loss = head(HIDDEN), found(head)
    head.temperature = 2.5
    np.testing.assert_allclose(head(HIDDEN), tf.nn.log_softmax(before / 2.5), atol=1e-5)
    assert found(head) == loss


def test_extreme_logits_stay_finite_and_nan_stays_nan():
    head = make_head()
    assert np.isfinite(head.loss(1e4 * HIDDEN, TARGETS, WEIGHTS, training=True))
    assert np.isnan(head.loss(np.nan * HIDDEN, TARGETS, WEIGHTS, training=True))


@pytest.mark.parametrize("cutoffs", [(), (30, 10), (0, 10), (10, VOCAB)])
def test_cutoffs_that_do_not_rise_are_refused(cutoffs):
    with pytest.raises(ConfigError, match="must rise"):
        SoftmaxHead(VOCAB, softmax="adaptive", cutoffs=cutoffs)


def test_tables_that_do_not_fit_are_refused():
    embedding = keras.layers.Embedding(VOCAB, SIZE + 1)
    embedding.build(None)
    with pytest.raises(ConfigError, match="tied weights must agree"):
        SoftmaxHead(VOCAB, embedding=embedding).build(HIDDEN.shape)
    with pytest.raises(ConfigError, match="do not tie"):
        SoftmaxHead(VOCAB, embedding=embedding, softmax="adaptive", cutoffs=(5,))


@pytest.mark.parametrize("is_known", [True, False], ids=["known rows", "unknown rows"])
def test_a_batch_without_a_word_of_some_cluster_is_learnt_too(is_known):
    head = make_head(softmax="adaptive", cutoffs=(10, 30))
    frequent = tf.minimum(TARGETS, 9)

    @tf.function(input_signature=[tf.TensorSpec([ROWS if is_known else None, SIZE])])
    def run(hidden):
        with tf.GradientTape() as tape:
            tape.watch(hidden)
            loss = head.loss(hidden, frequent, WEIGHTS, training=True)
        return loss, tape.gradient(loss, [hidden, *(weight.value for weight in head.trainable_weights)])

    loss, grads = run(HIDDEN)
    right = -tf.reduce_sum(tf.gather(head(HIDDEN), frequent, batch_dims=1) * WEIGHTS)
    np.testing.assert_allclose(loss, right, rtol=1e-5)
    np.testing.assert_allclose(head.loss(HIDDEN, frequent, WEIGHTS), right, rtol=1e-5)
    grads = [tf.convert_to_tensor(each).numpy() for each in grads]
    assert all(np.isfinite(each).all() for each in grads)
    assert not any(each.any() for each in grads[3:])  # of the clusters


@pytest.mark.parametrize("options", [{}, {"softmax": "adaptive", "cutoffs": (10, 30)}], ids=["full", "adaptive"])
def test_the_loss_of_an_evaluation_has_no_gradients_and_says_so(options):
    head = make_head(**options)
    with pytest.raises(ValueError, match="has no gradients; compute it with training=True"):
        gradients(lambda head: found(head, is_training=False), head)
