"""Fits the temperature of the probabilities and the label thresholds on validation data after training."""

import logging
from collections.abc import Callable

import keras
import numpy as np

from nlp_rnn.config.settings import TrainingConfig
from nlp_rnn.config.types import Outputs
from nlp_rnn.data.bptt import TokenStream
from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.models.calibration import Calibration, probabilities_of
from nlp_rnn.models.language_model import LanguageModel

logger = logging.getLogger(__name__)

_COLDEST, _HOTTEST = 0.01, 100.0
_LANGUAGE_TOKENS = 20_000  # of the validation split, on which a language model's temperature is fitted
_LANGUAGE_ROWS = 500  # tokens whose probabilities over the vocabulary are in memory at a time


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

    return _temperature_of(slope, 1e-12)


def _temperature_of(slope: Callable[[float], float], tolerance: float) -> float:
    """The temperature at which the slope of the cross-entropy, by the sharpness, is 0; within the bounds."""
    from scipy import optimize

    if slope(1 / _HOTTEST) >= 0:
        return _HOTTEST
    if slope(1 / _COLDEST) <= 0:
        return _COLDEST
    return float(1 / optimize.brentq(slope, 1 / _HOTTEST, 1 / _COLDEST, xtol=tolerance))


def fit_language_model(model: LanguageModel, validation: TokenCache, config: TrainingConfig) -> Calibration:
    """Fits the temperature of a language model on the first windows of a validation text, read in rows as in `fit`.

    Args:
      model: with its best weights; built for training by the same config.
    """
    hidden, targets = _read(model, validation, config)
    ops, head = keras.ops, model.head
    pieces = [slice(start, start + _LANGUAGE_ROWS) for start in range(0, len(targets), _LANGUAGE_ROWS)]

    def slope(sharpness: float) -> float:
        total = 0.0
        for piece in pieces:
            logits = head(hidden[piece])
            expected = ops.sum(ops.softmax(logits * sharpness, axis=-1) * logits, axis=-1)
            own = ops.take_along_axis(logits, targets[piece, None], axis=1)[:, 0]
            total += float(ops.sum(expected - own))
        return total / len(targets)

    temperature = _temperature_of(slope, 1e-4)
    if temperature == _COLDEST:  # every answer is right: the cross-entropy falls without end
        temperature = 1.0
    logger.info("calibrated on %s validation tokens: temperature %.3f", f"{len(targets):,}", temperature)
    return Calibration(temperature)


def _read(model: LanguageModel, validation: TokenCache, config: TrainingConfig) -> tuple[np.ndarray, np.ndarray]:
    """(hidden float32 [tokens, features], targets int [tokens]) of the first windows of all rows."""
    text = TokenStream(validation, config.batch_size, drop_remainder=False)
    model.compile(jit_compile=keras.backend.backend() != "tensorflow")
    model.reset_states("evaluation")
    vectors: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    for place in text.windows(config.window)[: max(1, _LANGUAGE_TOKENS // (config.batch_size * config.window))]:
        token_ids, following, weights = text.read(*place)
        hidden, _ = model.predict_on_batch(token_ids)
        vectors.append(np.asarray(hidden, np.float32)[weights > 0])
        targets.append(following[weights > 0])
    return np.concatenate(vectors), np.concatenate(targets)


def fit_threshold(scores: np.ndarray, has_label: np.ndarray) -> float:
    """The threshold of one label with the best F1, in the middle between two scores. Source: Yang 2001, "SCut".

    Of equally good ones that nearest to 0.5; 0.5 where no text has the label, or all scores are 0.

    Args:
      scores: float [examples], probabilities; a text has the label from the threshold on.
      has_label: 0 and 1 [examples].
    """
    if not has_label.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order].astype(np.float64)
    true_positives = np.cumsum(has_label[order], dtype=np.int64)
    f1 = 2 * true_positives / (np.arange(1, len(ordered) + 1) + true_positives[-1])
    following = np.append(ordered[1:], 0.0)
    is_cut = ordered > following  # equal scores are on one side
    if not is_cut.any():  # all scores are 0
        return 0.5
    best = np.flatnonzero(is_cut & (f1 >= f1[is_cut].max() - 1e-12))
    thresholds = (ordered[best] + following[best]) / 2
    return float(thresholds[np.argmin(np.abs(thresholds - 0.5))])
