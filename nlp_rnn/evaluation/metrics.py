"""Metrics of a classifier from its probabilities. Fractions are 0-1."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nlp_rnn.errors import ConfigError
from nlp_rnn.models.calibration import predicted_classes

COVERAGE_AT = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def classification_metrics(
    probabilities: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str] = (),
    *,
    is_ordinal: bool = False,
    min_probability: float = 0.0,
) -> dict[str, Any]:
    """Computes the metrics of a classifier with one label per text.

    Args:
      probabilities: float [examples, classes]; each row sums to 1.
      labels: int [examples].
      names: names of the classes; empty: their numbers.
      is_ordinal: whether the classes are a scale with numbers as names. The predicted class is then the median, and
        mean_absolute_error is in units of the names.
      min_probability: adds a row to coverage for this probability; 0: none.

    Returns:
      num_examples; accuracy; f1 (two classes: of class 1; more: macro_f1) and f1_of (the class, or "macro"); macro_f1
      (unweighted mean over the classes that occur, in truth or prediction); weighted_f1 (weighted by examples); auc
      (area under the ROC curve; more than two classes: one against the rest, unweighted mean; None if a class has no
      example); cross_entropy in nats; expected_calibration_error; confusion_matrix (rows: true class, columns:
      predicted class); per_class (rows of label, num_examples, precision, recall, f1, average_precision; None if the
      class has no example); coverage (rows of min_probability, coverage: the share of texts whose answer has at least
      this probability, and their accuracy); for a scale also mean_absolute_error.
    """
    from sklearn import metrics

    num_classes = probabilities.shape[1]
    names = list(names) or [str(number) for number in range(num_classes)]
    predicted = predicted_classes(probabilities, "ordinal" if is_ordinal else "classes")
    is_binary = num_classes == 2
    rows = _per_class(probabilities, predicted, labels, names)
    macro, weighted = (
        float(metrics.f1_score(labels, predicted, average=kind, zero_division=0)) for kind in ("macro", "weighted")
    )
    auc = None
    if len(np.unique(labels)) == num_classes:
        scores = probabilities[:, 1] if is_binary else _normalized(probabilities)
        auc = float(metrics.roc_auc_score(labels, scores, multi_class="ovr"))
    confidence, is_right = probabilities[np.arange(len(labels)), predicted], predicted == labels
    facts = {
        "num_examples": len(labels),
        "accuracy": float(is_right.mean()),
        "f1": rows[1]["f1"] if is_binary else macro,
        "f1_of": names[1] if is_binary else "macro",
        "macro_f1": macro,
        "weighted_f1": weighted,
        "auc": auc,
        "cross_entropy": cross_entropy(probabilities, labels),
        "expected_calibration_error": calibration_error(confidence, is_right),
        "confusion_matrix": metrics.confusion_matrix(labels, predicted, labels=range(num_classes)).tolist(),
        "per_class": rows,
        "coverage": coverage_rows(confidence, is_right, min_probability),
    }
    if is_ordinal:
        values = np.array([float(name) for name in names])
        facts["mean_absolute_error"] = float(np.abs(values[predicted] - values[labels]).mean())
    return facts


def _per_class(
    probabilities: np.ndarray, predicted: np.ndarray, labels: np.ndarray, names: Sequence[str]
) -> list[dict[str, Any]]:
    return [
        label_scores(name, labels == number, predicted == number, probabilities[:, number])
        for number, name in enumerate(names)
    ]


def label_scores(name: str, has_label: np.ndarray, is_chosen: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    """Precision, recall, F1 and average precision of one label. The first three are 0 if they have nothing to count.

    Args:
      name: the label.
      has_label: bool [examples], whether an example has the label.
      is_chosen: bool [examples], whether the label is predicted.
      scores: float [examples], the label's probability.
    """
    from sklearn import metrics

    hits, num_chosen, num_true = int((has_label & is_chosen).sum()), int(is_chosen.sum()), int(has_label.sum())
    return {
        "label": name,
        "num_examples": num_true,
        "precision": hits / num_chosen if num_chosen else 0.0,
        "recall": hits / num_true if num_true else 0.0,
        "f1": 2 * hits / (num_chosen + num_true) if num_chosen + num_true else 0.0,
        "average_precision": float(metrics.average_precision_score(has_label, scores)) if num_true else None,
    }


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log of the true label's probability, in nats.

    Args:
      probabilities: float [examples, classes].
      labels: int [examples], or for label sets [examples, labels], whose mean is over examples and labels.
    """
    wide = probabilities.astype(np.float64)
    truth = np.where(labels > 0, wide, 1 - wide) if labels.ndim == 2 else wide[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(truth, 1e-12, 1)).mean())


def coverage_rows(
    confidence: np.ndarray, is_right: np.ndarray, min_probability: float = 0.0
) -> list[dict[str, float | None]]:
    """Accuracy of the predictions with at least a given probability.

    Args:
      confidence: float [examples], the probability of the prediction.
      is_right: bool [examples].
      min_probability: adds a row for this probability; 0: none.

    Returns:
      rows of min_probability, coverage (share of examples, 0-1) and accuracy (0-1; None if there are no examples).
    """
    rows: list[dict[str, float | None]] = []
    for limit in sorted({*COVERAGE_AT, *([min_probability] if min_probability else [])}):
        is_answered = confidence >= limit
        accuracy = float(is_right[is_answered].mean()) if is_answered.any() else None
        rows.append({"min_probability": limit, "coverage": float(is_answered.mean()), "accuracy": accuracy})
    return rows


def calibration_error(confidence: np.ndarray, is_right: np.ndarray, *, num_bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over bins of equal width. Source: Guo et al. 2017, equation 3.

    Args:
      confidence: float [predictions], the probability of each prediction.
      is_right: bool [predictions].
      num_bins: number of bins.

    Returns:
      the mean over predictions, 0-1.
    """
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    gaps = np.bincount(bins, confidence, num_bins) - np.bincount(bins, is_right, num_bins)
    return float(np.abs(gaps).sum() / counts.sum())


def most_confident_errors(
    probabilities: np.ndarray, labels: np.ndarray, predicted: np.ndarray | None = None, *, count: int
) -> list[int]:
    """Finds the wrongly classified examples with the most confident predictions.

    Args:
      probabilities: float [examples, classes].
      labels: int [examples].
      predicted: int [examples]; None: the likeliest classes.
      count: largest number of examples to return.

    Returns:
      indices of examples, the most confident first.
    """
    predicted = probabilities.argmax(axis=1) if predicted is None else predicted
    wrong = np.flatnonzero(predicted != labels)
    confidence = probabilities[wrong, predicted[wrong]]
    return [int(index) for index in wrong[np.argsort(-confidence, kind="stable")][:count]]


def check_numbers(values: np.ndarray) -> None:
    """Checks what a model answered.

    Raises:
      ConfigError: if it answered NaN.
    """
    if np.isnan(values).any():
        raise ConfigError("the model answers NaN instead of probabilities: its weights are damaged; train it again")


def _normalized(probabilities: np.ndarray) -> np.ndarray:
    """Rows that also sum to 1 in float64, which scikit-learn checks."""
    wide = probabilities.astype(np.float64)
    return wide / wide.sum(axis=1, keepdims=True)
