"""Metrics of a classifier from its probabilities. Fractions are 0-1."""

from typing import Any

import numpy as np


def classification_metrics(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Computes the metrics of a classifier.

    Args:
      probabilities: float [examples, classes]; each row sums to 1.
      labels: int [examples].

    Returns:
      num_examples; accuracy; f1 (two classes: of class 1; more: unweighted mean over classes); auc (area under the ROC
      curve; more than two classes: one against the rest, unweighted mean; None if a class has no example);
      cross_entropy in nats; expected_calibration_error; confusion_matrix (rows: true class, columns: predicted class).
    """
    from sklearn import metrics

    num_classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    is_binary = num_classes == 2
    f1 = metrics.f1_score(labels, predicted, average="binary" if is_binary else "macro", zero_division=0)
    auc = None
    if len(np.unique(labels)) == num_classes:
        scores = probabilities[:, 1] if is_binary else _normalized(probabilities)
        auc = float(metrics.roc_auc_score(labels, scores, multi_class="ovr"))
    picked = np.clip(probabilities[np.arange(len(labels)), labels].astype(np.float64), 1e-12, 1)
    return {
        "num_examples": len(labels),
        "accuracy": float((predicted == labels).mean()),
        "f1": float(f1),
        "auc": auc,
        "cross_entropy": float(-np.log(picked).mean()),
        "expected_calibration_error": expected_calibration_error(probabilities, labels),
        "confusion_matrix": metrics.confusion_matrix(labels, predicted, labels=range(num_classes)).tolist(),
    }


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, num_bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over bins of equal width. Source: Guo et al. 2017, equation 3.

    Args:
      probabilities: float [examples, classes]; each row sums to 1.
      labels: int [examples].
      num_bins: number of bins.

    Returns:
      the mean over examples, 0-1.
    """
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    gaps = np.bincount(bins, confidence, num_bins) - np.bincount(bins, is_right, num_bins)
    return float(np.abs(gaps).sum() / counts.sum())


def most_confident_errors(probabilities: np.ndarray, labels: np.ndarray, *, count: int) -> list[int]:
    """Finds the wrongly classified examples with the most confident predictions.

    Args:
      probabilities: float [examples, classes].
      labels: int [examples].
      count: largest number of examples to return.

    Returns:
      indices of examples, the most confident first.
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return [int(index) for index in wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:count]]


def _normalized(probabilities: np.ndarray) -> np.ndarray:
    """Rows that also sum to 1 in float64, which scikit-learn checks."""
    wide = probabilities.astype(np.float64)
    return wide / wide.sum(axis=1, keepdims=True)
