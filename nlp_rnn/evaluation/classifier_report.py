"""The scores of a classifier, whatever it answers, and the same for people."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nlp_rnn.config.types import Outputs
from nlp_rnn.evaluation.label_set_metrics import label_calibration_error, label_set_metrics
from nlp_rnn.evaluation.metrics import calibration_error, check_numbers, classification_metrics
from nlp_rnn.models.calibration import Calibration, predicted_classes, uncalibrated

MAX_ROWS = 30  # of labels, that are shown to people


def score(
    probabilities: np.ndarray,
    targets: np.ndarray,
    names: Sequence[str],
    outputs: Outputs,
    calibration: Calibration,
    min_probability: float = 0.0,
) -> dict[str, Any]:
    """All metrics, with those of the probabilities before they were calibrated.

    Args:
      probabilities: float [examples, classes], calibrated.
      targets: int [examples]; of label sets 0 and 1 [examples, labels].
      names: of the classes or labels.

    Returns:
      see `classification_metrics` and `label_set_metrics`; temperature; calibration_error_before: the expected
      calibration error at a temperature of 1.

    Raises:
      ConfigError: if the model answered NaN.
    """
    check_numbers(probabilities)
    before = uncalibrated(probabilities, outputs, calibration.temperature)
    if outputs == "label_sets":
        facts = label_set_metrics(probabilities, targets, calibration.thresholds, names)
        error_before = label_calibration_error(before, targets)
    else:
        facts = classification_metrics(
            probabilities, targets, names, is_ordinal=outputs == "ordinal", min_probability=min_probability
        )
        predicted = predicted_classes(before, outputs)
        error_before = calibration_error(before[np.arange(len(targets)), predicted], predicted == targets)
    if calibration.temperature == 1:
        error_before = facts["expected_calibration_error"]  # the way back rounds
    return {**facts, "temperature": calibration.temperature, "calibration_error_before": error_before}


def headline(metrics: dict[str, Any]) -> str:
    """The main score in a few words."""
    if "micro_f1" in metrics:
        return f"micro F1 {metrics['micro_f1']:.4f}, macro F1 {metrics['macro_f1']:.4f}"
    if "mean_absolute_error" in metrics:
        return f"mean absolute error {metrics['mean_absolute_error']:.4f}, accuracy {100 * metrics['accuracy']:.2f} %"
    return f"accuracy {100 * metrics['accuracy']:.2f} %"


def describe_scores(metrics: dict[str, Any], min_probability: float = 0.0) -> list[str]:
    """The lines of a report: scores, labels, and what abstaining would do."""
    error = f"calibration error {100 * metrics['expected_calibration_error']:.2f} %"
    if metrics["temperature"] != 1:
        error += (
            f" ({100 * metrics['calibration_error_before']:.2f} % before the temperature {metrics['temperature']:.3f})"
        )
    lines = [
        _first_line(metrics),
        f"cross-entropy {metrics['cross_entropy']:.4f} nats   {error}",
        *_label_lines(metrics),
    ]
    return [*lines, *_coverage_lines(metrics["coverage"], min_probability)] if "coverage" in metrics else lines


def _first_line(metrics: dict[str, Any]) -> str:
    if "micro_f1" in metrics:
        average = metrics["mean_average_precision"]
        precision = "" if average is None else f"   mean average precision {average:.4f}"
        return (
            f"micro F1 {metrics['micro_f1']:.4f}   macro F1 {metrics['macro_f1']:.4f}   weighted F1 "
            f"{metrics['weighted_f1']:.4f}"
            f"{precision}   all labels right {100 * metrics['accuracy']:.2f} %"
        )
    auc = "" if metrics["auc"] is None else f"   AUC {metrics['auc']:.4f}"
    error = f"   mean absolute error {metrics['mean_absolute_error']:.4f}" if "mean_absolute_error" in metrics else ""
    of_class = "" if metrics["f1_of"] == "macro" else f"   F1 of {metrics['f1_of']} {metrics['f1']:.4f}"
    return (
        f"accuracy {100 * metrics['accuracy']:.2f} %{error}{of_class}   macro F1 {metrics['macro_f1']:.4f}"
        f"   weighted F1 {metrics['weighted_f1']:.4f}{auc}"
    )


def _label_lines(metrics: dict[str, Any]) -> list[str]:
    rows = metrics["per_class"]
    has_thresholds = "threshold" in rows[0]
    lines = [
        f"  {'label':<14}{'examples':>9}{'precision':>11}{'recall':>9}{'F1':>9}{'average precision':>19}"
        + (f"{'threshold':>11}" if has_thresholds else "")
    ]
    for row in rows[:MAX_ROWS]:
        precision = "-" if row["average_precision"] is None else f"{row['average_precision']:.4f}"
        lines.append(
            f"  {row['label'][:40]:<14}{row['num_examples']:>9,}{row['precision']:>11.4f}{row['recall']:>9.4f}"
            f"{row['f1']:>9.4f}"
            f"{precision:>19}" + (f"{row['threshold']:>11.4f}" if has_thresholds else "")
        )
    return lines if len(rows) <= MAX_ROWS else [*lines, f"  and {len(rows) - MAX_ROWS} more labels: --json has all"]


def _coverage_lines(rows: list[dict[str, float | None]], min_probability: float) -> list[str]:
    lines = [
        "abstaining below a probability (predict --min-probability):",
        f"  {'below':>6}{'answered':>11}{'right':>10}",
    ]
    for row in rows:
        if not row["coverage"] and row["min_probability"] != min_probability:
            continue
        accuracy = "-" if row["accuracy"] is None else f"{100 * row['accuracy']:.2f} %"
        mark = "   (--min-probability)" if row["min_probability"] == min_probability else ""
        lines.append(f"  {row['min_probability']:>6.4g}{100 * (row['coverage'] or 0):>9.2f} %{accuracy:>10}{mark}")
    return lines
