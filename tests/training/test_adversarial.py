"""Adversarial training: the move of the vectors, the gradients of both passes, and whole trainings."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.config.loading import load_config
from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.distribution import replicas
from nlp_rnn.distribution.placement import ONE_DEVICE
from nlp_rnn.errors import ConfigError
from nlp_rnn.layers.adversarial import moves
from nlp_rnn.layers.r_drop import twice
from nlp_rnn.models.classifier import build_classifier
from nlp_rnn.models.objective import Objective
from nlp_rnn.training import fit, gradients
from nlp_rnn.training.checkpoints import load_arrays
from nlp_rnn.training.class_weights import make_objective
from tests.conftest import spawn_pipeline

ROWS, STEPS, WORDS, LENGTH = 8, 12, 50, 3.0
GENERATOR = np.random.default_rng(0)
IDS = GENERATOR.integers(4, WORDS, (ROWS, STEPS), np.int32)
IDS[0, 7:] = 0
LABELS = GENERATOR.integers(0, 2, ROWS, np.int32)
WEIGHTS = np.float32([1, 2, 1, 1, 1, 1, 1, 0])


def build(length, *settings, r_drop=0.0, dropout=0.0, virtual=0.0):
    """A classifier that is ready to train, with the same weights and seeds each time."""
    keras.utils.set_random_seed(1)
    plain = ["training.optimizer=sgd", "training.clip_norm=0", "training.learning_rate=0.5"]
    config = load_config(None, ["model.units=8", "model.embedding_dim=6", *plain, *settings], task="sentiment")
    model = build_classifier(dataclasses.replace(config.model, dropout=dropout), vocab_size=WORDS, num_classes=2)
    model.objective = Objective(adversarial=length, r_drop=r_drop, virtual_adversarial=virtual)
    fit.compile_model(model, config.training, 10, ONE_DEVICE)
    return model


def gradients_of(model, ids=IDS, labels=LABELS, weights=WEIGHTS):
    loss, found = gradients.of_loss(model, tf.constant(ids), tf.constant(labels), tf.constant(weights))
    return float(loss), [tf.convert_to_tensor(gradient).numpy() for gradient in found]


def loss_at(model, vectors):
    logits = model.classify(tf.constant(IDS), vectors, training=True)
    return float(model.loss_of(LABELS, logits, WEIGHTS, training=True)[0])


def test_a_text_moves_along_its_gradient_by_a_multiple_of_the_spread_of_its_vectors():
    vectors, slopes = GENERATOR.normal(2, 3, (2, ROWS, STEPS, 6)).astype(np.float32)
    slopes[3] = 0  # a text without gradient
    slopes[4] *= 1e-30  # whose square is 0 in float32
    move = moves(tf.constant(vectors), tf.constant(slopes), tf.constant(IDS != 0), LENGTH).numpy()
    for row, length in enumerate([7, *[STEPS] * (ROWS - 1)]):
        real, slope = vectors[row, :length], slopes[row, :length].astype(np.float64)
        if row == 3:
            assert not move[row].any()
            continue
        expected = LENGTH * (real - real.mean(axis=0)).std() * slope / np.linalg.norm(slope)
        np.testing.assert_allclose(move[row, :length], expected, rtol=1e-4)
        assert not move[row, length:].any()


def test_a_gradient_that_is_not_finite_moves_nothing_to_infinity():
    vectors, slopes = np.ones([2, 3, 4], np.float32), np.ones([2, 3, 4], np.float32)
    vectors[:, 0] = 2
    slopes[0, 1, 2] = np.inf  # of float16: the optimizer skips the step
    found = np.array(moves(vectors, slopes, np.ones([2, 3], bool), 1.0))
    assert np.isfinite(found).all()
    assert found[1].any()


def test_the_loss_grows_along_the_move_faster_than_along_others_of_the_same_length():
    model = build(1e-3)
    with tf.GradientTape() as tape:
        _, vectors = model.embed(tf.constant(IDS), training=True)
        tape.watch(vectors)
        logits = model.classify(tf.constant(IDS), vectors, training=True)
        loss = model.loss_of(LABELS, logits, WEIGHTS, training=True)[0]
    move = moves(vectors, tape.gradient(loss, vectors), tf.constant(IDS != 0), 0.1).numpy()
    gains = []
    for _ in range(20):
        other = GENERATOR.normal(size=move.shape) * (IDS != 0)[:, :, None]
        other *= np.sqrt((move**2).sum((1, 2)) / (other**2).sum((1, 2)))[:, None, None]
        gains.append(loss_at(model, vectors + other.astype(np.float32)) - float(loss))
    assert loss_at(model, vectors + move) - float(loss) > 1.5 * max(gains) > 0


@pytest.mark.parametrize("r_drop", [0.0, 1.0])
def test_a_move_of_almost_nothing_gives_the_gradients_of_one_pass(r_drop):
    one, two = (gradients_of(build(length, r_drop=r_drop)) for length in (0.0, 1e-7))
    assert two[0] == pytest.approx(one[0], rel=1e-5)
    for first, second in zip(one[1], two[1], strict=True):
        np.testing.assert_allclose(second, first, atol=1e-6)


@pytest.mark.parametrize("settings", [["model.ngrams=2"], ["model.layer_norm=true", "model.num_layers=2"]])
def test_the_gradients_are_the_mean_of_those_at_the_vectors_and_at_the_moved_ones(settings):
    model, reference = build(LENGTH, *settings), build(0.0, *settings)
    loss, found = gradients_of(model)
    ids = tf.constant(IDS)
    variables = reference.trainable_variables
    with tf.GradientTape() as tape:
        plain = reference.compute_loss(y=LABELS, y_pred=reference(ids, training=True), sample_weight=WEIGHTS)
    expected = tape.gradient(plain, variables)
    with tf.GradientTape() as tape:
        _, vectors = reference.embed(ids, training=True)
        tape.watch(vectors)
        value = reference.loss_of(LABELS, reference.classify(ids, vectors, training=True), WEIGHTS, training=True)[0]
    move = moves(vectors, tape.gradient(value, vectors), ids != 0, LENGTH)
    with tf.GradientTape() as tape:
        _, vectors = reference.embed(ids, training=True)
        logits = reference.classify(ids, vectors + move, training=True)
        moved = reference.loss_of(LABELS, logits, WEIGHTS, training=True)[0]
    assert float(moved) > float(plain)  # otherwise it would not be adversarial
    assert loss == pytest.approx((float(plain) + float(moved)) / 2, rel=1e-5)
    for gradient, first, second in zip(found, expected, tape.gradient(moved, variables), strict=True):
        mean = (tf.convert_to_tensor(first) + tf.convert_to_tensor(second)) / 2
        np.testing.assert_allclose(gradient, mean, atol=1e-5)


@pytest.mark.parametrize("kind", ["length", "virtual"])
def test_the_metrics_are_those_of_the_texts_as_they_are(kind):
    settings = [{"length": 0.0}, {"length": 0.0, kind: LENGTH}]
    figures = [tf.function(build(**each).train_step)((IDS, LABELS, WEIGHTS)) for each in settings]
    assert float(figures[0]["cross_entropy"]) == pytest.approx(float(figures[1]["cross_entropy"]), rel=1e-6)
    assert float(figures[0]["accuracy"]) == float(figures[1]["accuracy"])
    assert float(figures[1]["loss"]) > float(figures[0]["loss"])


def test_virtual_adversarial_training_of_layers_that_xla_compiles():
    """Two gradients of one pass failed there."""
    settings = ["model.units=64", "model.embedding_dim=32", "model.weight_dropout=0.3"]
    losses = [
        float(tf.function(build(0.0, *settings, virtual=each).train_step)((IDS, LABELS, WEIGHTS))["loss"])
        for each in (0.0, LENGTH)
    ]
    assert losses[1] > losses[0]


def test_the_parts_of_a_batch_add_up_to_the_whole():
    whole = gradients_of(build(LENGTH))
    model, total, loss = build(LENGTH), None, 0.0
    for part in range(2):
        rows = slice(part * ROWS // 2, (part + 1) * ROWS // 2)
        with replicas.computing_part(part, 2, float(np.count_nonzero(WEIGHTS))):
            part_loss, found = gradients_of(model, IDS[rows], LABELS[rows], WEIGHTS[rows])
        total = found if total is None else [first + second for first, second in zip(total, found, strict=True)]
        loss += part_loss
    assert loss == pytest.approx(whole[0], rel=1e-5)
    for first, second in zip(total, whole[1], strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_a_frozen_embedding_stays_and_its_vectors_move():
    model = build(LENGTH)
    model.get_layer("embedding").trainable = False
    loss, found = gradients_of(model)
    assert len(found) == len(model.trainable_variables)
    assert loss > gradients_of(build(0.0))[0]


def divergence_at(model, vectors, before):
    logits = model.classify(tf.constant(IDS), vectors, training=True)
    return float(model.divergence_of(before, logits, tf.constant(WEIGHTS)))


def away_from_own_answers(model):
    """The texts' vectors, their logits and the move of virtual adversarial training."""
    with tf.GradientTape() as tape:
        _, vectors = model.embed(tf.constant(IDS), training=True)
        tape.watch(vectors)
        logits = model.classify(tf.constant(IDS), vectors, training=True)
        doubt = -tf.reduce_sum(model.objective.confidences(logits))
    return vectors, logits, moves(vectors, tape.gradient(doubt, vectors), tf.constant(IDS != 0), LENGTH)


def test_predictions_diverge_along_the_virtual_move_faster_than_along_others_of_the_same_length():
    model = build(0.0)
    vectors, logits, move = away_from_own_answers(model)
    move, gains = move.numpy() / 30, []
    for _ in range(20):
        other = GENERATOR.normal(size=move.shape) * (IDS != 0)[:, :, None]
        other *= np.sqrt((move**2).sum((1, 2)) / (other**2).sum((1, 2)))[:, None, None]
        gains.append(divergence_at(model, vectors + other.astype(np.float32), logits))
    assert divergence_at(model, vectors + move, logits) > 1.5 * max(gains) > 0


@pytest.mark.parametrize("length", [0.0, LENGTH])
def test_virtual_adversarial_training_adds_the_divergence(length):
    loss, found = gradients_of(build(length, virtual=10 * LENGTH))
    plain_loss, plain = gradients_of(build(length))
    reference = build(0.0)
    vectors, before, move = away_from_own_answers(reference)
    with tf.GradientTape() as tape:
        _, vectors = reference.embed(tf.constant(IDS), training=True)
        logits = reference.classify(tf.constant(IDS), vectors + 10 * move, training=True)
        divergence = reference.divergence_of(tf.stop_gradient(before), logits, tf.constant(WEIGHTS))
    assert float(divergence) > 1e-3
    assert loss == pytest.approx(plain_loss + float(divergence), rel=1e-5)
    expected = tape.gradient(divergence, reference.trainable_variables)
    for gradient, first, second in zip(found, plain, expected, strict=True):
        np.testing.assert_allclose(gradient, first + tf.convert_to_tensor(second), atol=1e-6)


def test_the_divergence_does_not_read_the_labels():
    losses = [
        [gradients_of(build(0.0, virtual=each), labels=labels)[0] for each in (0.0, LENGTH)]
        for labels in (LABELS, 1 - LABELS)
    ]
    assert losses[0][0] != pytest.approx(losses[1][0], rel=1e-3)
    assert losses[0][1] - losses[0][0] == pytest.approx(losses[1][1] - losses[1][0], rel=1e-4)


@pytest.mark.parametrize(("length", "r_drop"), [(0.0, 0.0), (2.0, 0.0), (2.0, 1.0)])
def test_texts_without_a_label_count_in_the_divergences_alone(length, r_drop):
    some = np.where(np.arange(ROWS) % 2, LABELS, -1)
    model = build(length, virtual=2.0, r_drop=r_drop)  # without dropout, the divergence of R-Drop is 0
    whole_loss, whole = gradients_of(model)
    model.objective = dataclasses.replace(model.objective, labelled_share=0.5)
    loss, found = gradients_of(model, labels=some)
    # Without the divergences: as if the other texts were not there, but for the weight of a text.
    plain = build(length)
    all_loss, of_all = gradients_of(plain)
    weights = np.where(some < 0, 0, WEIGHTS).astype(np.float32)
    factor = (WEIGHTS != 0).sum() / (weights != 0).sum()
    labelled_loss, of_labelled = gradients_of(plain, weights=weights)
    assert loss == pytest.approx(whole_loss - all_loss + 2 / factor * labelled_loss, rel=1e-5)
    for each, *others in zip(found, whole, of_all, of_labelled, strict=True):
        np.testing.assert_allclose(each, others[0] - others[1] + 2 / factor * others[2], atol=2e-6)


def test_r_drop_reads_no_labels():
    keras.utils.set_random_seed(1)
    model = build(0.0, r_drop=3.0)
    logits = tf.random.normal((2 * ROWS, 2))
    model.objective = dataclasses.replace(model.objective, labelled_share=0.5)

    def loss(labels):
        return float(model.loss_of(labels, logits, WEIGHTS, training=True)[0])

    nobody = np.full(ROWS, -1, np.int32)
    divergences = model.objective.divergences(logits).numpy() * np.array(twice(WEIGHTS)) / 2
    assert loss(nobody) == pytest.approx(3 * divergences.sum() / 7, rel=1e-5)  # 7 texts have a weight
    assert loss(LABELS) > loss(nobody)


@pytest.mark.parametrize(
    ("weights", "share"),
    [(None, 0.75), ([1, 2, 3, 4], 8 / 4), ([2, 0, 1, 1], 4 / 3)],
)
def test_the_share_of_labelled_texts_is_that_of_their_weights(weights, share, caplog):
    labels = np.int32([0, -1, 1, 1])
    given = None if weights is None else np.float32(weights)
    train = TokenCache(Path("none"), np.arange(5), labels, given)
    config = load_config(None, ["training.virtual_adversarial=5", "training.batch_size=2"], task="sentiment")
    caplog.set_level("INFO")
    assert make_objective(config, ["neg", "pos"], train).labelled_share == pytest.approx(share)
    assert "3 of 4 training texts have a label: 1.5 of each batch" in caplog.text
    balanced = load_config(None, ["training.class_weights=balanced"], task="sentiment")
    assert make_objective(balanced, ["neg", "pos"], train).class_weights == (1.5, 0.75)
    assert make_objective(config, ["neg", "pos"], dataclasses.replace(train, labels=abs(labels))).labelled_share == 0
    nothing = dataclasses.replace(train, weights=np.float32([0, 4, 0, 0]))
    with pytest.raises(ConfigError, match=r"data\.weight_column is 0 for all texts with a label"):
        make_objective(config, ["neg", "pos"], nothing)


def test_the_divergence_of_two_passes_is_that_of_one_without_dropout():
    one, two = (gradients_of(build(0.0, r_drop=r_drop, virtual=LENGTH)) for r_drop in (0.0, 1.0))
    assert two[0] == pytest.approx(one[0], rel=1e-5)
    for first, second in zip(one[1], two[1], strict=True):
        np.testing.assert_allclose(second, first, atol=1e-5)


@pytest.mark.parametrize(
    ("outputs", "reference", "logits", "divergence", "confidence"),
    [
        ("classes", [0.5, 0.5], [0.25, 0.75], 0.5 * np.log(2) + 0.5 * np.log(2 / 3), np.log(0.5)),
        ("classes", [0.1, 0.2, 0.7], [0.1, 0.2, 0.7], 0.0, np.log(0.7)),
        ("ordinal", [0.25, 0.75], [0.5, 0.5], 0.25 * np.log(0.5) + 0.75 * np.log(1.5), np.log(0.75)),
        ("label_sets", [0.5, 0.9], [0.25, 0.9], (0.5 * np.log(2) + 0.5 * np.log(2 / 3)) / 2, np.log(0.45)),
    ],
)
def test_divergences_and_confidences_by_hand(outputs, reference, logits, divergence, confidence):
    def as_logits(probabilities):
        values = np.float32([probabilities])
        return tf.constant(np.log(values / (1 - values)) if outputs == "label_sets" else np.log(values))

    objective = Objective(outputs)
    found = objective.divergences_from(as_logits(reference), as_logits(logits))
    np.testing.assert_allclose(found, [divergence], atol=1e-6)
    np.testing.assert_allclose(objective.confidences(as_logits(reference)), [confidence], rtol=1e-5)


@pytest.mark.parametrize("kind", ["adversarial", "virtual_adversarial"])
def test_only_classifiers_can_have_it(kind):
    with pytest.raises(ConfigError, match=rf"training\.{kind} is 5, but applies only to classifiers"):
        load_config(None, [f"training.{kind}=5"], task="next_word")


@pytest.mark.further  # two processes
def test_two_devices_train_as_one(reviews, tmp_path):
    (tmp_path / "reviews.csv").write_bytes(reviews.read_bytes())
    settings = [
        "data.source=csv", "data.train=reviews.csv", "data.max_length=20", "model.units=6", "model.embedding_dim=6",
        "model.dropout=0", "training.batch_size=16", "training.epochs=1", "training.optimizer=sgd",
        "training.learning_rate=0.5", "training.clip_norm=0", "training.adversarial=3",
        "training.virtual_adversarial=3", "data.max_examples=150",
    ]  # fmt: skip
    devices = {"one": ["hardware.strategy=cpu"], "two": ["hardware.strategy=mirrored", "hardware.num_replicas=2"]}
    for name, more in devices.items():
        done = spawn_pipeline("train", f"name={name}", *settings, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    one, two = (load_arrays(tmp_path / "runs" / name / "checkpoints" / "best.npz") for name in devices)
    for first, second in zip(one.values(), two.values(), strict=True):
        np.testing.assert_allclose(second, first, atol=1e-5)
