import numpy as np
import pytest

from nlp_rnn.evaluation.metrics import classification_metrics, expected_calibration_error, most_confident_errors
from nlp_rnn.evaluation.nbsvm import Nbsvm

PROBABILITIES = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]], np.float32)
LABELS = np.array([0, 1, 0, 1])


def test_binary_scores_worked_out_by_hand():
    scores = classification_metrics(PROBABILITIES, LABELS)
    assert scores["num_examples"] == 4
    assert scores["accuracy"] == 0.75
    assert scores["f1"] == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert scores["auc"] == 1.0  # every pos above every neg
    assert scores["cross_entropy"] == pytest.approx(-np.log([0.9, 0.8, 0.4, 0.7]).mean(), rel=1e-6)
    assert scores["confusion_matrix"] == [[1, 1], [0, 2]]


def test_calibration_error_worked_out_by_hand():
    """With 2 bins, all are in the upper one: |mean confidence 0.75 - accuracy 0.75| = 0; with 10, each has its own."""
    assert expected_calibration_error(PROBABILITIES, LABELS, num_bins=2) == pytest.approx(0, abs=1e-7)
    shifted = np.array([[0.95, 0.05], [0.15, 0.85], [0.35, 0.65], [0.25, 0.75]])
    assert expected_calibration_error(shifted, LABELS, num_bins=10) == pytest.approx((0.05 + 0.15 + 0.65 + 0.25) / 4)


def test_three_classes_and_an_absent_one():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.5, 0.3, 0.2]], np.float32)
    scores = classification_metrics(probabilities, np.array([0, 1, 2, 1]))
    assert scores["accuracy"] == 0.75
    assert scores["f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert 0 < scores["auc"] <= 1
    assert classification_metrics(probabilities, np.array([0, 1, 0, 1]))["auc"] is None


def test_most_confident_errors_come_first():
    assert most_confident_errors(PROBABILITIES, np.array([1, 0, 0, 1]), count=2) == [0, 1]
    assert most_confident_errors(PROBABILITIES, LABELS, count=5) == [2]


def test_nbsvm_weights_are_the_interpolated_log_count_ratio():
    """beta = 0 is naive Bayes alone: every weight is its log-count ratio times one constant."""
    texts = ["good good film", "good story", "bad film", "bad bad story"]
    machine = Nbsvm(ngrams=1, interpolation=0).fit(texts, np.array([1, 1, 0, 0]))
    words = machine._vectorizer.get_feature_names_out().tolist()
    weights, _ = machine._machines[0]
    # Presence counts + 1: good 3/1, bad 1/3, film 2/2, story 2/2, of 8 on either side.
    ratio = {"bad": np.log(1 / 3), "film": 0, "good": np.log(3), "story": 0}
    expected = np.array([ratio[word] for word in words])
    np.testing.assert_allclose(weights / np.abs(weights).max(), expected / np.abs(expected).max(), atol=1e-6)


def test_nbsvm_learns_two_and_three_classes():
    texts = ["a good film", "a bad film", "an odd film"] * 20
    for labels in (np.array([1, 0, 1] * 20), np.array([2, 0, 1] * 20)):
        assert (Nbsvm().fit(texts, labels).predict(texts) == labels).all()
    negated = ["good not bad", "bad not good"] * 20  # only word pairs tell
    labels = np.array([1, 0] * 20)
    assert (Nbsvm().fit(negated, labels).predict(negated) == labels).all()
    assert not (Nbsvm(ngrams=1).fit(negated, labels).predict(negated) == labels).all()
