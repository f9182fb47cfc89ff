"""Temperatures, thresholds and class weights worked out by hand."""

import math
from pathlib import Path

import keras
import numpy as np
import pytest

from nlp_rnn.config.loading import load_config
from nlp_rnn.config.settings import ModelConfig, TrainingConfig
from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.errors import ConfigError
from nlp_rnn.models.build import build_language_model
from nlp_rnn.models.calibration import Calibration, load_calibration
from nlp_rnn.models.objective import Objective
from nlp_rnn.special_ids import EOS_ID
from nlp_rnn.training import calibrate, stacking
from nlp_rnn.training.calibrate import fit_calibration, fit_language_model, fit_temperature, fit_threshold
from nlp_rnn.training.class_weights import balanced_label_weights, balanced_weights, make_objective


def test_the_temperature_makes_the_confidence_the_share_of_right_answers():
    logits = np.tile(np.array([[0.0, 2.0]], np.float32), (4, 1))
    # sigmoid(2 / T) = 3 / 4
    assert fit_temperature(logits, np.array([1, 1, 1, 0]), "classes") == pytest.approx(2 / math.log(3), rel=1e-6)
    sets = np.array([[2.0, -2.0], [2.0, -2.0]], np.float32)
    assert fit_temperature(sets, np.array([[1, 0], [1, 1]]), "label_sets") == pytest.approx(2 / math.log(3), rel=1e-6)


def test_the_temperature_of_a_language_model_is_that_of_its_logits(tmp_path):
    training = TrainingConfig(batch_size=4, window=6)
    model_config = ModelConfig(is_bidirectional=False, embedding_dim=8, units=8)
    keras.utils.set_random_seed(1)
    model = build_language_model(model_config, vocab_size=30, training=training)
    generator = np.random.default_rng(0)
    for weight in model.kept_weights:
        weight.assign(generator.normal(size=weight.shape))
    ids = generator.integers(4, 30, 4 * 50).astype(np.int32)
    ids.tofile(tmp_path / "ids.bin")
    text = TokenCache(tmp_path, np.array([0, len(ids)]), np.zeros(1, np.int32))
    found = fit_language_model(model, text, training).temperature
    hidden = [model.run(np.array([[EOS_ID, *ids[:49]]]), model.zero_states(1))[0][0]]
    for row in range(1, 4):
        hidden.append(model.run(ids[None, 50 * row - 1 : 50 * row + 49], model.zero_states(1))[0][0])
    logits = np.array(model.head(np.concatenate(hidden)))
    assert found == pytest.approx(fit_temperature(logits, ids, "classes"), rel=1e-3)
    assert found > 2  # random texts: the model is too sure


def test_a_language_model_that_knows_its_text_stays_as_it_is(monkeypatch):
    class Model:
        def head(self, hidden):
            return np.log(np.array([[0.9, 0.1]] * len(hidden), np.float32))

    monkeypatch.setattr(calibrate, "_read", lambda *_: (np.zeros((5, 1)), np.zeros(5, np.int32)))
    assert fit_language_model(Model(), None, TrainingConfig()).temperature == 1


def test_the_temperature_of_three_classes_has_no_slope():
    generator = np.random.default_rng(1)
    logits, labels = generator.normal(size=(200, 3)), generator.integers(0, 3, 200)
    logits[np.arange(200), labels] += 1

    def loss(temperature):
        scaled = logits / temperature
        return np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(200), labels])

    found = fit_temperature(logits, labels, "classes")
    assert loss(found) < min(loss(found * 1.01), loss(found / 1.01))


def test_the_temperature_stays_1_where_all_is_right_and_is_bounded_where_most_is_wrong():
    logits = np.tile(np.array([[0.0, 2.0]]), (4, 1))
    assert fit_temperature(logits, np.array([1, 1, 1, 1]), "classes") == 1
    assert fit_temperature(logits, np.array([0, 0, 0, 1]), "classes") == 100
    assert fit_temperature(np.array([[3.0], [-3.0]]), np.array([[1], [0]]), "label_sets") == 1


@pytest.mark.parametrize(
    ("scores", "has_label", "expected"),
    [
        ([0.9, 0.8, 0.6, 0.3, 0.1], [1, 0, 1, 0, 0], 0.45),  # F1 2/3, 1/2, 4/5, 2/3, 4/7
        ([0.5, 0.5, 0.1], [1, 0, 0], 0.3),  # equal scores stay together
        ([0.9, 0.7, 0.4, 0.2], [1, 0, 0, 1], 0.8),  # F1 2/3 at 0.8 and at 0.1: nearer to 0.5
        ([0.2, 0.1], [1, 1], 0.05),  # all have it
        ([0.9, 0.8], [0, 0], 0.5),  # none has it
        ([0.0, 0.0], [1, 0], 0.5),  # nothing to cut
    ],
)
def test_thresholds(scores, has_label, expected):
    order = np.random.default_rng(0).permutation(len(scores))
    assert fit_threshold(np.array(scores)[order], np.array(has_label)[order]) == pytest.approx(expected)


def test_calibration_of_label_sets_has_a_threshold_per_label():
    logits = np.array([[2.0, -2.0], [2.0, 2.0], [-2.0, 2.0], [2.0, 1.0]], np.float32)
    found = fit_calibration(logits, np.array([[1, 0], [1, 1], [0, 1], [0, 0]]), "label_sets")
    share = 1 / (1 + math.exp(-1 / found.temperature))
    assert found.thresholds[0] == pytest.approx(0.5)  # between 2 and -2
    assert found.thresholds[1] == pytest.approx((1 / (1 + math.exp(-2 / found.temperature)) + share) / 2)


def test_calibration_reads_back_equal_and_damage_is_named(tmp_path):
    path = tmp_path / "calibration.json"
    found = Calibration(1.25, (0.5, 0.125))
    path.write_text(found.to_json())
    assert load_calibration(path, 2, "label_sets") == found
    for text, num_labels in (
        (found.to_json(), 3),
        ("{}", 2),
        ("[]", 2),
        ('{"temperature": 0, "thresholds": [0.5, 0.5]}', 2),
        ('{"temperature": NaN, "thresholds": [0.5, 0.5]}', 2),
        ("{", 2),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=f"is damaged or of another model: .* and {num_labels} thresholds"):
            load_calibration(path, num_labels, "label_sets")


def cache(labels, weights=None):
    labels = np.array(labels)
    return TokenCache(Path("none"), np.zeros(len(labels) + 1, np.int64), labels, weights)


def config(*settings):
    return load_config(None, ["data.source=text", "data.train=x", *settings])


def test_balanced_weights():
    assert balanced_weights(np.array([3, 1])) == pytest.approx((2 / 3, 2))
    assert balanced_weights(np.array([3, 0])) == pytest.approx((0.5, 0))
    positive, negative = balanced_label_weights(np.array([[1, 0], [0, 0], [0, 1], [0, 1]], np.uint8))
    assert positive == pytest.approx((2, 1))
    assert negative == pytest.approx((2 / 3, 1))


def test_the_objective_of_the_settings():
    train = cache([0, 0, 0, 1])
    assert make_objective(config(), ["a", "b"], train) == Objective()
    found = make_objective(config("training.class_weights=balanced", "training.focal_gamma=2"), ["a", "b"], train)
    assert (found.class_weights, found.focal_gamma) == (pytest.approx((2 / 3, 2)), 2)
    assert make_objective(config("training.class_weights={b: 5}"), ["a", "b"], train).class_weights == (1, 5)
    sets = make_objective(
        config("data.multi_label=true", "training.class_weights=[{b: 5}]"), ["a", "b"], cache([[1, 0], [1, 1]])
    )
    assert (sets.outputs, sets.class_weights, sets.negative_weights) == ("label_sets", (1, 5), ())


def test_how_much_texts_count_in_the_linear_part():
    assert stacking._counts(np.array([0, 1]), 1, None, Objective()) is None
    weights = np.array([0.5, 1.5])
    assert stacking._counts(np.array([0, 1]), 1, weights, Objective()).tolist() == [0.5, 1.5]
    assert stacking._counts(np.array([0, 1]), 1, weights, Objective(class_weights=(2, 4))).tolist() == [1, 6]
    sets = Objective("label_sets", (2, 4), (1, 0.5))
    assert stacking._counts(np.array([[1, 0], [0, 1]]), 1, None, sets).tolist() == [0.5, 4]


def test_stacking_label_sets_finds_the_part_that_is_right():
    from nlp_rnn.layers.ngrams import Stack

    generator = np.random.default_rng(0)
    right, noise = generator.normal(size=(2, 400, 3))
    targets = (generator.random((400, 3)) < 1 / (1 + np.exp(-2 * right))).astype(np.uint8)
    layer = Stack()
    layer.build((None, 3))
    stacking.fit_stack(layer, noise, right, targets, np.full(400, 9))
    assert layer.shares.numpy() == pytest.approx([0, 2], abs=0.2)
