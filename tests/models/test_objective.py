"""Losses and answers worked out by hand."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.config.settings import ModelConfig
from nlp_rnn.distribution.placement import ONE_DEVICE
from nlp_rnn.models.calibration import median_class, probabilities_of, uncalibrated
from nlp_rnn.models.classifier import build_classifier
from nlp_rnn.models.objective import Objective
from nlp_rnn.training import train_step

LOGITS = np.log(np.array([[0.25, 0.75], [0.25, 0.75]], np.float32))  # probabilities
TARGETS = np.array([1, 0], np.int32)
LN2 = math.log(2)


def classifier(outputs="classes", num_classes=2, **settings):
    keras.utils.set_random_seed(1)
    config = ModelConfig(units=3, embedding_dim=4, dropout=0.0, **settings)
    return build_classifier(config, vocab_size=9, num_classes=num_classes, outputs=outputs)


def loss_of(model, targets, logits, weights):
    return float(model.compute_loss(y=targets, y_pred=logits, sample_weight=np.array(weights, np.float32)))


def test_class_weights_multiply_the_cross_entropy_and_the_number_of_examples_divides_it():
    model = classifier()
    assert loss_of(model, TARGETS, LOGITS, [1, 1]) == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    model.objective = Objective(class_weights=(2.0, 0.5))
    model.reset_metrics()
    assert loss_of(model, TARGETS, LOGITS, [1, 1]) == pytest.approx((0.5 * math.log(4 / 3) + 2 * math.log(4)) / 2)
    # The figures of an epoch are weighted means.
    assert float(model.cross_entropy.result()) == pytest.approx((0.5 * math.log(4 / 3) + 2 * math.log(4)) / 2.5)
    assert float(model.accuracy.result()) == pytest.approx(0.5 / 2.5)


def test_sample_weights_multiply_and_rows_of_weight_0_do_not_count():
    found = loss_of(classifier(), TARGETS, LOGITS, [0.5, 0])
    assert found == pytest.approx(0.5 * math.log(4 / 3) / 1)


def test_focal_loss():
    model = classifier()
    model.objective = Objective(focal_gamma=2.0)
    expected = (0.25**2 * math.log(4 / 3) + 0.75**2 * math.log(4)) / 2
    assert loss_of(model, TARGETS, LOGITS, [1, 1]) == pytest.approx(expected)
    assert float(model.cross_entropy.result()) == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)  # without focus


def test_the_focal_loss_of_a_sure_answer_has_a_finite_gradient():
    with tf.GradientTape() as tape:
        logits = tf.constant([[0.0, 200.0]])
        tape.watch(logits)
        objective = Objective(focal_gamma=0.5)
        loss = objective.focused(objective.cross_entropies(np.array([1]), logits))
    assert np.isfinite(tape.gradient(loss, logits).numpy()).all()


def test_label_sets_are_a_cross_entropy_for_each_label():
    model = classifier("label_sets")
    logits, targets = np.array([[0.0, math.log(3)]], np.float32), np.array([[1, 0]], np.uint8)
    assert loss_of(model, targets, logits, [1]) == pytest.approx((LN2 + 2 * LN2) / 2)
    model.objective = Objective("label_sets", class_weights=(3.0, 1.0), negative_weights=(1.0, 0.5))
    assert loss_of(model, targets, logits, [1]) == pytest.approx((3 * LN2 + 0.5 * 2 * LN2) / 2)
    model.objective = Objective("label_sets", class_weights=(3.0, 1.0))
    assert loss_of(model, targets, logits, [1]) == pytest.approx((3 * LN2 + 2 * LN2) / 2)
    model.objective = Objective("label_sets", focal_gamma=1.0)
    assert loss_of(model, targets, logits, [1]) == pytest.approx((0.5 * LN2 + 0.75 * 2 * LN2) / 2)


def test_what_is_right():
    sets = Objective("label_sets").are_right(np.array([[1, 0], [1, 1]]), np.array([[2.0, -1.0], [2.0, -1.0]]))
    assert np.array(sets).tolist() == [True, False]
    scale = np.log(np.array([[0.4, 0.2, 0.4], [0.6, 0.2, 0.2]], np.float32))  # medians 1 and 0
    assert np.array(Objective("ordinal").are_right(np.array([1, 1]), scale)).tolist() == [True, False]
    assert np.array(Objective().are_right(np.array([0, 1]), scale)).tolist() == [True, False]


def test_the_median_of_a_scale():
    assert median_class(np.array([[0.4, 0.2, 0.4], [0.5, 0.1, 0.4], [0.0, 0.0, 1.0]])).tolist() == [1, 0, 2]


@pytest.mark.parametrize("outputs", ["classes", "label_sets"])
def test_probabilities_before_the_temperature_come_back(outputs):
    logits = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])
    calibrated = probabilities_of(logits, outputs, 2.5)
    np.testing.assert_allclose(uncalibrated(calibrated, outputs, 2.5), probabilities_of(logits, outputs), rtol=1e-9)
    assert probabilities_of(np.array([[0.0, 2 * math.log(3)]]), outputs, 2.0)[0, 1] == pytest.approx(0.75)


@pytest.mark.parametrize("outputs", ["classes", "label_sets", "ordinal"])
def test_a_step_in_parts_is_the_step_of_the_whole_batch(outputs):
    """With weights, too: what divides the loss is the number of all rows that count."""
    targets = np.array([[1, 0, 1], [0, 0, 1], [1, 1, 1], [0, 1, 0]], np.uint8)
    targets = targets if outputs == "label_sets" else np.array([0, 2, 1, 2], np.int32)
    ids = np.array([[3, 4, 0], [5, 0, 0], [6, 7, 8], [2, 0, 0]], np.int32)
    weights = np.array([2.0, 0.5, 0.0, 1.0], np.float32)
    after = []
    for num_parts in (1, 2):
        model = classifier(outputs, 3)
        before = [weight.numpy() for weight in model.trainable_weights]
        model.objective = Objective(outputs, class_weights=(1.0, 2.0, 0.5))
        model.compile(keras.optimizers.SGD(0.5), jit_compile=False)
        train_step.prepare(model, ONE_DEVICE, num_parts)
        model.fit(tf.data.Dataset.from_tensors((ids, targets, weights)), verbose=0)
        after.append([weight.numpy() for weight in model.trainable_weights])
        assert all((one != other).any() for one, other in zip(before, after[-1], strict=True))
    for one, other in zip(*after, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
