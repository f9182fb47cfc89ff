"""Metrics of a classifier from its probabilities. Fractions are 0-1."""

from collections.abc import Sequence
from typing import Any

import numpy as np

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
    """Computes the metrics of a classifier of one label per text.

    Args:
      probabilities: float [examples, classes]; each row sums to 1.
      labels: int [examples].
      names: of the classes; empty: their numbers.
      is_ordinal: whether the classes are a scale, whose names are numbers: a text's class is then the median, and
        mean_absolute_error is of the numbers.
      min_probability: also says how many answers have it at least, and how many of these are right.

    Returns:
      num_examples; accuracy; f1 (two classes: of class 1; more: unweighted mean over classes) and f1_of, the class it is
      of; macro_f1 and weighted_f1 (by examples); auc (area under the ROC curve; more than two classes: one against the
      rest, unweighted mean; None if a class has no example); cross_entropy in nats; expected_calibration_error;
      confusion_matrix (rows: true class, columns: predicted class); per_class: rows of label, num_examples, precision,
      recall, f1 and average_precision (None if the class has no example); coverage: rows of min_probability, coverage
      (share of the texts answered with at least that probability) and accuracy of these.
    """
    from sklearn import metrics

    num_classes = probabilities.shape[1]
    names = list(names) or [str(number) for number in range(num_classes)]
    predicted = predicted_classes(probabilities, "ordinal" if is_ordinal else "classes")
    is_binary = num_classes == 2
    rows = _per_class(probabilities, predicted, labels, names)
    macro, weighted = (
        metrics.f1_score(labels, predicted, labels=range(num_classes), average=kind, zero_division=0)
        for kind in ("macro", "weighted")
    )
    auc = None
    if len(np.unique(labels)) == num_classes:
        scores = probabilities[:, 1] if is_binary else _normalized(probabilities)
        auc = float(metrics.roc_auc_score(labels, scores, multi_class="ovr"))
    confidence, is_right = probabilities[np.arange(len(labels)), predicted], predicted == labels
    facts = {
        "num_examples": len(labels),
        "accuracy": float(is_right.mean()),
        "f1": rows[1]["f1"] if is_binary else _seen_macro_f1(labels, predicted),
        "f1_of": names[1] if is_binary else "macro",
        "macro_f1": float(macro),
        "weighted_f1": float(weighted),
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


def _seen_macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """The mean F1 over the classes that are in the truth or in the answers."""
    from sklearn import metrics

    return float(metrics.f1_score(labels, predicted, average="macro", zero_division=0))


def label_scores(name: str, has_label: np.ndarray, is_chosen: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    """Precision, recall and F1 of one label, 0 where they have nothing to count, and its average precision over all texts by score.

    Args:
      has_label, is_chosen: bool [examples].
      scores: float [examples].
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
    """Mean of -log of the truth's probability, in nats; of label sets ([examples, labels]) over texts and labels."""
    wide = probabilities.astype(np.float64)
    truth = np.where(labels > 0, wide, 1 - wide) if labels.ndim == 2 else wide[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(truth, 1e-12, 1)).mean())


def coverage_rows(
    confidence: np.ndarray, is_right: np.ndarray, min_probability: float = 0.0
) -> list[dict[str, float | None]]:
    """What abstaining below a probability would do: rows of min_probability, coverage and accuracy (None: nothing is answered).

    Args:
      confidence: float [examples], the probability of the answer.
      is_right: bool [examples].
      min_probability: a row for it too; 0: none.
    """
    rows: list[dict[str, float | None]] = []
    for limit in sorted({*COVERAGE_AT, *([min_probability] if min_probability else [])}):
        is_answered = confidence >= limit
        accuracy = float(is_right[is_answered].mean()) if is_answered.any() else None
        rows.append({"min_probability": limit, "coverage": float(is_answered.mean()), "accuracy": accuracy})
    return rows


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, num_bins: int = 15) -> float:
    """`calibration_error` of the likeliest classes.

    Args:
      probabilities: float [examples, classes]; each row sums to 1.
      labels: int [examples].
      num_bins: number of bins.

    Returns:
      the mean over examples, 0-1.
    """
    return calibration_error(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, num_bins=num_bins)


def calibration_error(confidence: np.ndarray, is_right: np.ndarray, *, num_bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over bins of equal width. Source: Guo et al. 2017, equation 3.

    Args:
      confidence: float [answers], the probability of each.
      is_right: bool [answers].
    """
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    gaps = np.bincount(bins, confidence, num_bins) - np.bincount(bins, is_right, num_bins)
    return float(np.abs(gaps).sum() / counts.sum())


def most_confident_errors(
    probabilities: np.ndarray, labels: np.ndarray, predicted: np.ndarray | None = None, *, count: int
) -> list[int]:
    """The wrongly classified examples, the most confident first.

    Args:
      predicted: int [examples]; None: the likeliest classes.
    """
    predicted = probabilities.argmax(axis=1) if predicted is None else predicted
    wrong = np.flatnonzero(predicted != labels)
    confidence = probabilities[wrong, predicted[wrong]]
    return [int(index) for index in wrong[np.argsort(-confidence, kind="stable")][:count]]


def _normalized(probabilities: np.ndarray) -> np.ndarray:
    """Rows that also sum to 1 in float64, which scikit-learn checks."""
    wide = probabilities.astype(np.float64)
    return wide / wide.sum(axis=1, keepdims=True)
