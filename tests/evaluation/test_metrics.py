import numpy as np
import pytest

from nlp_rnn.errors import ConfigError
from nlp_rnn.evaluation.classifier import Evaluation, describe
from nlp_rnn.evaluation.classifier_report import describe_scores, score
from nlp_rnn.evaluation.label_set_metrics import (
    label_calibration_error,
    label_set_metrics,
    most_confident_label_errors,
)
from nlp_rnn.evaluation.metrics import (
    calibration_error,
    classification_metrics,
    coverage_rows,
    most_confident_errors,
)
from nlp_rnn.evaluation.nbsvm import Nbsvm
from nlp_rnn.evaluation.typing_metrics import PerplexityMeter
from nlp_rnn.models.calibration import Calibration

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

    def error_of(probabilities, num_bins):
        return calibration_error(probabilities.max(axis=1), probabilities.argmax(axis=1) == LABELS, num_bins=num_bins)

    assert error_of(PROBABILITIES, 2) == pytest.approx(0, abs=1e-7)
    shifted = np.array([[0.95, 0.05], [0.15, 0.85], [0.35, 0.65], [0.25, 0.75]])
    assert error_of(shifted, 10) == pytest.approx((0.05 + 0.15 + 0.65 + 0.25) / 4)


def test_three_classes_and_an_absent_one():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.5, 0.3, 0.2]], np.float32)
    scores = classification_metrics(probabilities, np.array([0, 1, 2, 1]))
    assert scores["accuracy"] == 0.75
    assert scores["f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert scores["auc"] == 1  # each class's texts have more of it than all others
    assert scores["macro_f1"] == scores["f1"]
    alone = classification_metrics(probabilities[:1], np.array([0]))
    assert (alone["f1"], alone["macro_f1"]) == (1, 1)  # of the classes that occur
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


def test_scores_of_each_class_worked_out_by_hand():
    """Truth a a a b b c, said a a b b c c."""
    said = np.array([0, 0, 1, 1, 2, 2])
    probabilities = np.full((6, 3), 0.1)
    probabilities[np.arange(6), said] = 0.8
    found = classification_metrics(probabilities, np.array([0, 0, 0, 1, 1, 2]), ["a", "b", "c"])
    rows = {row["label"]: row for row in found["per_class"]}
    assert (rows["a"]["precision"], rows["a"]["recall"], rows["a"]["f1"]) == pytest.approx((1, 2 / 3, 0.8))
    assert (rows["b"]["precision"], rows["b"]["recall"], rows["b"]["f1"]) == pytest.approx((0.5, 0.5, 0.5))
    assert (rows["c"]["precision"], rows["c"]["recall"], rows["c"]["f1"]) == pytest.approx((0.5, 1, 2 / 3))
    assert [row["num_examples"] for row in found["per_class"]] == [3, 2, 1]
    # Of c: two scores of 0.8, of which one is right; then all the rest.
    assert rows["c"]["average_precision"] == pytest.approx(0.5)
    assert found["macro_f1"] == pytest.approx((0.8 + 0.5 + 2 / 3) / 3)
    assert found["weighted_f1"] == pytest.approx((3 * 0.8 + 2 * 0.5 + 2 / 3) / 6)
    assert (found["f1_of"], found["f1"]) == ("macro", pytest.approx(found["macro_f1"]))


def test_a_class_that_is_absent_has_no_average_precision():
    found = classification_metrics(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 0]), ["neg", "pos"])
    assert found["per_class"][1] == {
        "label": "pos", "num_examples": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0, "average_precision": None,
    }  # fmt: skip
    assert (found["f1_of"], found["f1"], found["auc"]) == ("pos", 0.0, None)


def test_coverage_against_accuracy():
    rows = coverage_rows(np.array([0.95, 0.85, 0.55, 0.65]), np.array([True, True, False, False]), 0.75)
    assert [(row["min_probability"], row["coverage"], row["accuracy"]) for row in rows] == [
        (0.5, 1.0, 0.5), (0.6, 0.75, pytest.approx(2 / 3)), (0.7, 0.5, 1.0), (0.75, 0.5, 1.0), (0.8, 0.5, 1.0),
        (0.9, 0.25, 1.0),
        (0.95, 0.25, 1.0), (0.99, 0.0, None),
    ]  # fmt: skip


def test_scores_on_a_scale_are_judged_by_the_median():
    probabilities = np.array([[0.4, 0.2, 0.4], [0.1, 0.1, 0.8], [0.6, 0.2, 0.2]])  # medians 1, 5 and 0.5
    found = classification_metrics(probabilities, np.array([1, 0, 0]), ["0.5", "1", "5"], is_ordinal=True)
    assert found["mean_absolute_error"] == pytest.approx(4.5 / 3)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["confusion_matrix"] == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_label_sets_worked_out_by_hand():
    probabilities = np.array([[0.9, 0.4], [0.8, 0.1], [0.2, 0.3]])
    targets = np.array([[1, 1], [0, 0], [0, 1]])
    found = label_set_metrics(probabilities, targets, [0.5, 0.35], ["a", "b"])
    rows = found["per_class"]
    assert (rows[0]["precision"], rows[0]["recall"], rows[0]["f1"]) == pytest.approx((0.5, 1, 2 / 3))
    assert (rows[1]["precision"], rows[1]["recall"], rows[1]["f1"]) == pytest.approx((1, 0.5, 2 / 3))
    assert (rows[0]["threshold"], rows[1]["threshold"]) == (0.5, 0.35)
    assert found["micro_f1"] == pytest.approx(2 * 2 / (3 + 3))
    assert found["macro_f1"] == found["weighted_f1"] == pytest.approx(2 / 3)
    assert found["mean_average_precision"] == pytest.approx(1)  # both labels' texts stand first
    assert found["accuracy"] == pytest.approx(1 / 3)
    expected = -np.log([0.9, 0.4, 0.2, 0.9, 0.8, 0.3]).mean()
    assert found["cross_entropy"] == pytest.approx(expected)
    # The furthest from the truth of the three wrong decisions: a of the second text, then b of the third.
    assert most_confident_label_errors(probabilities, targets, [0.5, 0.35], count=2) == [(1, 0), (2, 1)]


def test_calibration_error_of_label_sets():
    """Confidences 0.9, 0.9 (one right) and 0.6, 0.6 (both right)."""
    probabilities, targets = np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([[1, 1], [1, 0]])
    assert label_calibration_error(probabilities, targets) == pytest.approx((abs(1.8 - 1) + abs(1.2 - 2)) / 4)


def test_the_report_has_the_error_before_and_after():
    probabilities = np.array([[0.25, 0.75]] * 4)
    calibration = Calibration(temperature=2.0)
    found = score(probabilities, np.array([1, 1, 1, 0]), ["neg", "pos"], "classes", calibration)
    assert found["expected_calibration_error"] == pytest.approx(0)
    assert found["calibration_error_before"] == pytest.approx(0.9 - 0.75)  # 9 to 1 is 3 to 1 squared
    text = "\n".join(describe_scores(found, 0.7))
    assert "calibration error 0.00 % (15.00 % before the temperature 2.000)" in text
    assert "F1 of pos 0.8571" in text
    assert "     0.7   100.00 %   75.00 %   (--min-probability)" in text
    assert "\n    0.8" not in text  # nothing is left


def test_a_model_that_answers_nan_is_told():
    damaged = np.array([[0.9, 0.1], [np.nan, np.nan]], np.float32)
    with pytest.raises(ConfigError, match="the model answers NaN instead of probabilities"):
        score(damaged, np.array([0, 1]), ["neg", "pos"], "classes", Calibration())
    with pytest.raises(ConfigError, match="the model answers NaN"):
        PerplexityMeter().update(damaged, np.array([0, 1]))


def test_the_confusion_of_many_classes_is_left_to_json_and_an_error_is_one_line():
    names = [f"class {number}" for number in range(40)]
    metrics = score(np.eye(40, dtype=np.float32), np.arange(40), names, "classes", Calibration())
    error = {"predicted": "a", "probability": 0.9, "label": "b", "text": "one\ntwo"}
    facts = {"split": "test", "labels": names, "metrics": metrics, "errors": [error]}
    lines = describe(Evaluation(facts, None)).splitlines()
    assert "confusion of 40 labels: --json has it" in lines
    assert lines[-1] == r"  predicted a (90.0 %), is b: one\ntwo"
    assert max(map(len, lines)) < 120
