"""What a classifier of any number of labels per text is worth. Fractions are 0-1."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nlp_rnn.evaluation.metrics import calibration_error, cross_entropy, label_scores


def label_set_metrics(
    probabilities: np.ndarray, targets: np.ndarray, thresholds: Sequence[float], names: Sequence[str]
) -> dict[str, Any]:
    """Scores label sets.

    Args:
      probabilities: float [examples, labels], of each label by itself.
      targets: 0 and 1 [examples, labels].
      thresholds: of each label: the probability from which on it is chosen.
      names: of the labels.

    Returns:
      num_examples; accuracy (texts with exactly the right labels); micro_f1 (over all decisions), macro_f1 (mean over
      labels), weighted_f1 (by texts that have the label); mean_average_precision (mean over the labels that some text
      has; None without any); cross_entropy in nats per decision; expected_calibration_error over all decisions;
      per_class: rows of label, num_examples, precision, recall, f1, average_precision and threshold.
    """
    limits = np.asarray(thresholds, np.float32)
    has_label, is_chosen = targets > 0, probabilities >= limits
    rows = [
        {**label_scores(name, has_label[:, number], is_chosen[:, number], probabilities[:, number]), "threshold": limit}
        for number, (name, limit) in enumerate(zip(names, map(float, thresholds), strict=True))
    ]
    hits, counted = int((has_label & is_chosen).sum()), int(has_label.sum() + is_chosen.sum())
    precisions = [row["average_precision"] for row in rows if row["average_precision"] is not None]
    counts = np.array([row["num_examples"] for row in rows])
    f1 = np.array([row["f1"] for row in rows])
    return {
        "num_examples": len(targets),
        "accuracy": float((has_label == is_chosen).all(axis=1).mean()),
        "micro_f1": 2 * hits / counted if counted else 0.0,
        "macro_f1": float(f1.mean()),
        "weighted_f1": float((f1 * counts).sum() / counts.sum()) if counts.any() else 0.0,
        "mean_average_precision": float(np.mean(precisions)) if precisions else None,
        "cross_entropy": cross_entropy(probabilities, targets),
        "expected_calibration_error": label_calibration_error(probabilities, targets),
        "per_class": rows,
    }


def label_calibration_error(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """`calibration_error` over all pairs of text and label; the confidence is that of the likelier decision."""
    confidence = np.maximum(probabilities, 1 - probabilities).ravel()
    return calibration_error(confidence, ((probabilities >= 0.5) == (targets > 0)).ravel())


def most_confident_label_errors(
    probabilities: np.ndarray, targets: np.ndarray, thresholds: Sequence[float], *, count: int
) -> list[tuple[int, int]]:
    """(example, label) of wrong decisions, the most confident first."""
    is_wrong = (probabilities >= np.asarray(thresholds, np.float32)) != (targets > 0)
    places = np.argwhere(is_wrong)
    distances = np.abs(probabilities - targets)[is_wrong]
    return [(int(row), int(label)) for row, label in places[np.argsort(-distances, kind="stable")][:count]]
