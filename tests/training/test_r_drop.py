"""R-Drop in the training step of each kind of model, and in whole trainings."""

import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.config.loading import load_config
from nlp_rnn.distribution import replicas
from nlp_rnn.distribution.placement import ONE_DEVICE
from nlp_rnn.errors import ConfigError
from nlp_rnn.models.build import build_language_model, build_translator
from nlp_rnn.models.classifier import build_classifier
from nlp_rnn.models.objective import Objective
from nlp_rnn.training import fit
from tests import train_all
from tests.conftest import outcome, run_pipeline, told_to_stop

ROWS, STEPS, WORDS, ALPHA = 8, 12, 50, 2.0
GENERATOR = np.random.default_rng(0)
IDS = GENERATOR.integers(4, WORDS, (ROWS, STEPS), np.int32)
IDS[0, 7:] = 0
WEIGHTS = (IDS != 0).astype(np.float32)
SETTINGS = {
    "sentiment": ["model.num_layers=2"],
    "next_word": [
        "model.num_layers=2",
        f"training.window={STEPS}",
        "training.state_reset=0.5",
        "training.activation_regularization=1",
    ],
    "translation": ["training.scheduled_sampling=0.3", "training.label_smoothing=0.1"],
}  # fmt: skip
BATCHES = {
    "sentiment": (IDS, GENERATOR.integers(0, 2, ROWS, np.int32), np.float32([1, 2, 1, 1, 1, 1, 1, 0])),
    "next_word": (IDS, np.roll(IDS, -1, axis=1), WEIGHTS),
    "translation": ((IDS, IDS), IDS[:, ::-1].copy(), WEIGHTS),
}


def batch(task):
    return tf.nest.map_structure(tf.constant, BATCHES[task])


def build(task, r_drop, *settings, dropout=0.3):
    """A model that is ready to train, with the same weights and seeds each time."""
    keras.utils.set_random_seed(1)
    common = ["model.units=8", "model.embedding_dim=8", f"training.batch_size={ROWS}"]
    plain = ["training.optimizer=sgd", "training.clip_norm=0", "training.learning_rate=0.5"]
    config = load_config(None, [*common, *plain, *SETTINGS[task], *settings], task=task)
    model_config = dataclasses.replace(config.model, dropout=dropout)
    training = dataclasses.replace(config.training, r_drop=r_drop)
    if task == "sentiment":
        model = build_classifier(model_config, vocab_size=WORDS, num_classes=2)
        model.objective = Objective(r_drop=r_drop)
    elif task == "translation":
        model = build_translator(model_config, vocab_size=WORDS, training=training)
    else:
        model = build_language_model(model_config, vocab_size=WORDS, training=training)
    fit.compile_model(model, training, 10, ONE_DEVICE)
    return model


def after_a_step(model, task):
    """(loss, cross-entropy, weights) after one step."""
    figures = tf.function(model.train_step)(batch(task))
    weights = [weight.numpy() for weight in fit.kept_weights(model) if weight.dtype == "float32"]
    return float(figures["loss"]), float(figures["cross_entropy"]), weights


def passes(model, task):
    """The log-probabilities of two passes with dropout, and their outputs for `compute_loss`."""
    outputs = model(batch(task)[0], training=True)
    if task == "sentiment":
        found = tf.nn.log_softmax(outputs)
    else:
        found = model.head(tf.cast(outputs[0] if task == "next_word" else outputs, "float32"))
    return np.array(found[::2], float), np.array(found[1::2], float), outputs


KINDS = ["sentiment", *(pytest.param(task, marks=pytest.mark.further) for task in ("next_word", "translation"))]


@pytest.mark.parametrize("task", KINDS)
def test_without_it_a_step_is_one_pass_to_the_last_bit(task):
    """The step with r_drop 0 equals one that knows nothing of it: the gradient of the loss of one pass."""
    model, reference = build(task, 0.0), build(task, 0.0)
    found = after_a_step(model, task)

    @tf.function
    def plain_step(x, y, weights):
        with tf.GradientTape() as tape:
            outputs = reference(x, training=True)
            if task == "sentiment":
                losses = keras.ops.sparse_categorical_crossentropy(y, outputs, from_logits=True)
                loss = tf.reduce_sum(losses * weights) / tf.reduce_sum(tf.cast(weights != 0, tf.float32))
            else:
                hidden = tf.reshape(outputs[0] if task == "next_word" else outputs, (-1, 8))
                smoothing = 0.1 if task == "translation" else 0.0
                facts = (hidden, tf.reshape(y, [-1]), tf.reshape(weights, [-1]))
                loss = reference.head.loss(*facts, training=True, label_smoothing=smoothing) / tf.reduce_sum(weights)
            if task == "next_word":
                loss += tf.reduce_mean(tf.square(hidden))
        assert outputs[0].shape[0] == ROWS if task == "next_word" else outputs.shape[0] == ROWS
        reference.optimizer.apply(tape.gradient(loss, reference.trainable_variables), reference.trainable_variables)
        return loss

    assert float(plain_step(*batch(task))) == found[0]
    expected = [weight.numpy() for weight in fit.kept_weights(reference) if weight.dtype == "float32"]
    for one, other in zip(found[2], expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("task", KINDS)
def test_without_dropout_both_passes_are_the_same(task):
    first, second, _ = passes(build(task, ALPHA, dropout=0.0), task)
    np.testing.assert_array_equal(first, second)
    if task == "translation":  # scheduled sampling draws for twice as many rows
        return
    plain, doubled = (after_a_step(build(task, alpha, dropout=0.0), task) for alpha in (0.0, ALPHA))
    np.testing.assert_allclose(doubled[:2], plain[:2], rtol=1e-5)
    for one, other in zip(doubled[2], plain[2], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("task", SETTINGS)
def test_the_loss_adds_the_divergence_of_the_steps_that_count(task):
    model, (_, targets, weights) = build(task, ALPHA), batch(task)
    first, second, outputs = passes(model, task)
    loss = float(model.compute_loss(y=targets, y_pred=outputs, sample_weight=weights, training=True))
    cross_entropy = float(model.cross_entropy.result())

    means = (first + second) / 2
    losses = -np.take_along_axis(means, targets.numpy()[..., None], axis=-1)[..., 0]
    if task == "translation":
        losses = 0.9 * losses - 0.1 * means.mean(-1)
    divergences = ((np.exp(first) - np.exp(second)) * (first - second)).sum(-1) / 2
    assert divergences.min() > 0
    weights = weights.numpy()
    assert cross_entropy == pytest.approx((losses * weights).sum() / weights.sum(), rel=1e-5)
    num_counted = (weights != 0).sum()
    expected = ((losses + ALPHA * divergences) * weights).sum() / num_counted
    expected += np.square(outputs[0]).mean() if task == "next_word" else 0
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("task", SETTINGS)
def test_the_shares_of_parts_add_up_to_the_loss_of_the_batch(task):
    model, (_, targets, weights) = build(task, ALPHA), batch(task)
    outputs = passes(model, task)[2]
    whole = float(model.compute_loss(y=targets, y_pred=outputs, sample_weight=weights, training=True))
    total, size = 0.0, ROWS // 4
    for part in range(4):
        own, doubled = slice(part * size, (part + 1) * size), slice(2 * part * size, 2 * (part + 1) * size)
        with replicas.computing_part(part, 4, tf.reduce_sum(tf.cast(weights != 0, tf.float32))):
            some = tf.nest.map_structure(lambda tensor, rows=doubled: tensor[rows], outputs)
            total += float(model.compute_loss(y=targets[own], y_pred=some, sample_weight=weights[own], training=True))
    assert total == pytest.approx(whole, rel=1e-5)


def test_the_first_pass_of_a_language_model_is_carried_on():
    model = build("next_word", ALPHA, "training.state_reset=0", "model.recurrent_dropout=0.5", dropout=0.0)
    final = []
    run = model._run

    def keep(*arguments):
        final.append(run(*arguments)[2])
        return *run(*arguments)[:2], final[-1]

    model._run = keep
    model(IDS, training=True)
    for layer, variables in zip(final[0], model._carried["training"], strict=True):
        for state, variable in zip(layer, variables, strict=True):
            assert np.abs(state[::2] - state[1::2]).max() > 1e-3
            np.testing.assert_array_equal(state[::2], variable.numpy())


def test_label_sets_and_class_weights_by_hand():
    logits = np.array([[0.0, 0.0], [math.log(3), 0.0]], np.float32)  # 1/2 and 3/4 of the first label
    divergence = (3 / 4 - 1 / 2) * math.log(3) / 2 / 2  # mean over two labels
    found = Objective("label_sets", r_drop=1.0).divergences(logits)
    np.testing.assert_allclose(found, [divergence] * 2, rtol=1e-6)
    model = build("sentiment", ALPHA)
    model.objective = Objective(class_weights=(3.0, 1.0), r_drop=ALPHA)
    log_probabilities = np.log(np.array([[1 / 4, 3 / 4], [1 / 2, 1 / 2]], np.float32))
    facts = {"y_pred": log_probabilities, "sample_weight": np.ones(1, np.float32), "training": True}
    loss = float(model.compute_loss(y=np.array([0], np.int32), **facts))
    assert loss == pytest.approx(3 * ((math.log(4) + math.log(2)) / 2 + ALPHA * math.log(3) / 8), rel=1e-6)
    evaluated = float(model.compute_loss(y=np.array([0, 0], np.int32), **(facts | {"training": False,
                                         "sample_weight": np.ones(2, np.float32)})))  # fmt: skip
    assert evaluated == pytest.approx(3 * (math.log(4) + math.log(2)) / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        (
            "sentiment",
            ["model.dropout=0", "model.weight_dropout=0.5"],
            "training.r_drop is 1.0, but without dropout its two passes are the same; set model.dropout, or another "
            "dropout that is drawn per row, or use training.r_drop=0",
        ),
        (
            "next_word",
            ["model.softmax=adaptive", "model.cutoffs=[10]", "model.tie_embeddings=false"],
            "training.r_drop is 1.0, but model.softmax is adaptive, which computes a cluster only for its own targets; "
            "use model.softmax=full or sampled, or training.r_drop=0",
        ),
        ("next_word", ["training.r_drop=-1"], "training.r_drop is -1, but must be"),
    ],
)
def test_settings_without_a_meaning_are_rejected(task, settings, message):
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["training.r_drop=1.0", *settings], task=task)
    assert message in str(caught.value)


TRAININGS = {
    "sentiment": ["model.fast=auto", "training.gradient_accumulation=2"],
    "next_word": [
        "model.cell=lstm", "model.weight_dropout=0.2", "training.state_reset=0.1", "training.gradient_accumulation=2",
        "hardware.matmul_precision=bfloat16", "model.softmax=sampled", "model.num_sampled=20",
    ],
    "translation": ["training.label_smoothing=0.1"],
}  # fmt: skip


@pytest.mark.further  # three trainings each
@pytest.mark.parametrize("task", ["sentiment", "next_word", "translation"])
def test_each_kind_of_model_trains_and_resumes_with_the_same_weights(corpora, tmp_path, task):
    for file in corpora.glob("*.csv"):
        (tmp_path / file.name).symlink_to(file)
    settings = [*train_all.settings_of(task), "model.dropout=0.3", "training.r_drop=1.0", *TRAININGS[task]]

    def train(name):
        return run_pipeline("train", f"name={name}", *settings, cwd=tmp_path, task=task)

    whole = train("whole")
    assert whole.returncode == 0, whole.stderr
    with told_to_stop(lambda callback: (callback.progress.epoch, callback.progress.step) == (1, 2)):
        assert train("stopped").returncode == 130
    assert "resuming after epoch 1, step 3" in train("stopped").stderr
    assert outcome(tmp_path / "runs" / "stopped") == outcome(tmp_path / "runs" / "whole")
