"""Fits the temperature of the probabilities and the label thresholds on validation data after training."""

import logging

import numpy as np

from nlp_rnn.config.types import Outputs
from nlp_rnn.models.calibration import Calibration, probabilities_of

logger = logging.getLogger(__name__)

_COLDEST, _HOTTEST = 0.01, 100.0


def fit_calibration(logits: np.ndarray, targets: np.ndarray, outputs: Outputs) -> Calibration:
    """Fits what the outputs need.

    Args:
      logits: float [examples, classes], of texts that the model was not trained on.
      targets: int [examples]; of label sets 0 and 1 [examples, labels].
    """
    temperature = fit_temperature(logits, targets, outputs)
    thresholds: tuple[float, ...] = ()
    if outputs == "label_sets":
        probabilities = probabilities_of(logits, outputs, temperature)
        columns = zip(probabilities.T, targets.T, strict=True)
        thresholds = tuple(fit_threshold(scores, has_label) for scores, has_label in columns)
    logger.info("calibrated on %s validation examples: temperature %.3f", f"{len(targets):,}", temperature)
    return Calibration(temperature, thresholds)


def fit_temperature(logits: np.ndarray, targets: np.ndarray, outputs: Outputs) -> float:
    """The temperature with the least cross-entropy, from 0.01 to 100. Source: Guo et al. 2017, section 4.2.

    Where every answer is right, the cross-entropy falls with the temperature without end: then it stays 1.
    """
    from scipy import optimize

    wide = logits.astype(np.float64)
    are_right = (wide > 0) == (targets > 0) if outputs == "label_sets" else wide.argmax(axis=1) == targets
    if are_right.all():
        return 1.0

    def slope(sharpness: float) -> float:
        """Of the mean cross-entropy, which is convex in the sharpness, 1 / temperature."""
        probabilities = probabilities_of(wide * sharpness, outputs)
        if outputs == "label_sets":
            return float(np.mean((probabilities - targets) * wide))
        expected = np.sum(probabilities * wide, axis=1)
        return float(np.mean(expected - wide[np.arange(len(targets)), targets]))

    if slope(1 / _HOTTEST) >= 0:
        return _HOTTEST
    if slope(1 / _COLDEST) <= 0:
        return _COLDEST
    return float(1 / optimize.brentq(slope, 1 / _HOTTEST, 1 / _COLDEST, xtol=1e-12))


def fit_threshold(scores: np.ndarray, has_label: np.ndarray) -> float:
    """The threshold of one label with the best F1, in the middle between two scores. Source: Yang 2001, "SCut".

    Of equally good ones that nearest to 0.5, and 0.5 where no text has the label.

    Args:
      scores: float [examples], probabilities; a text has the label from the threshold on.
      has_label: 0 and 1 [examples].
    """
    if not has_label.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order].astype(np.float64)
    found = np.cumsum(has_label[order], dtype=np.int64)
    f1 = 2 * found / (np.arange(1, len(ordered) + 1) + found[-1])
    following = np.append(ordered[1:], 0.0)
    is_cut = ordered > following  # equal scores are on one side
    best = np.flatnonzero(is_cut & (f1 >= f1[is_cut].max() - 1e-12))
    thresholds = (ordered[best] + following[best]) / 2
    return float(thresholds[np.argmin(np.abs(thresholds - 0.5))])
