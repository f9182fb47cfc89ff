"""Turns a classifier's logits into predictions: temperature and label thresholds. It imports no Keras or TensorFlow."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nlp_rnn.config.types import Outputs
from nlp_rnn.errors import ConfigError


@dataclass(frozen=True)
class Calibration:
    """What was fitted on validation data after the training.

    Attributes:
      temperature: by which logits are divided. Source: Guo et al. 2017, section 4.2.
      thresholds: of label sets: the probability from which on a text has each label; else empty.
    """

    temperature: float = 1.0
    thresholds: tuple[float, ...] = ()

    def to_json(self) -> str:
        """As JSON that `load_calibration` reads back to an equal one, with a checksum."""
        return json.dumps(asdict(self) | {"checksum": self._checksum()}) + "\n"

    def _checksum(self) -> str:
        return hashlib.blake2b(json.dumps(asdict(self)).encode(), digest_size=16).hexdigest()


def calibration_of_ensemble(members: list[Calibration]) -> Calibration:
    """The calibration of averaged probabilities, each calibrated already: thresholds are averaged too."""
    if len(members) == 1:
        return members[0]
    return Calibration(1.0, tuple(map(float, np.mean([member.thresholds for member in members], axis=0))))


def load_calibration(path: Path, num_labels: int, outputs: Outputs) -> Calibration:
    """Reads what `Calibration.to_json` wrote.

    Raises:
      ConfigError: if the file is damaged, or of another model.
    """
    num_thresholds = num_labels if outputs == "label_sets" else 0
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        calibration = Calibration(float(facts["temperature"]), tuple(float(each) for each in facts["thresholds"]))
    except (OSError, ValueError, TypeError, KeyError):
        calibration = None
    if calibration is not None and facts.get("checksum", calibration._checksum()) != calibration._checksum():
        calibration = None
    if (
        calibration is None
        or not 0 < calibration.temperature < float("inf")
        or len(calibration.thresholds) != num_thresholds
    ):
        raise ConfigError(
            f"{path}: is damaged or of another model: it must hold a temperature above 0 and {num_thresholds} "
            "thresholds; restore it, or "
            "rerun the training's command, which writes it anew"
        )
    return calibration


def probabilities_of(logits: np.ndarray, outputs: Outputs, temperature: float = 1.0) -> np.ndarray:
    """Logits float [examples, classes] -> probabilities of the same shape; in label sets, each label independently."""
    from scipy import special

    scaled = logits if temperature == 1 else logits / np.asarray(temperature, logits.dtype)
    return special.expit(scaled) if outputs == "label_sets" else special.softmax(scaled, axis=1)


def uncalibrated(probabilities: np.ndarray, outputs: Outputs, temperature: float) -> np.ndarray:
    """The probabilities at a temperature of 1 that become the given ones at `temperature`."""
    from scipy import special

    wide = np.clip(probabilities.astype(np.float64), 1e-30, 1)
    logits = special.logit(np.clip(wide, 1e-15, 1 - 1e-15)) if outputs == "label_sets" else np.log(wide)
    return probabilities_of(logits * temperature, outputs)


def median_class(probabilities: Any, ops: Any = np) -> Any:
    """float [examples, classes] of a scale -> int [examples]: the first class up to which half of the probability lies.

    It makes the expected absolute error the smallest.

    Args:
      ops: numpy, or keras.ops.
    """
    return ops.sum(ops.where(ops.cumsum(probabilities, axis=-1) < 0.5, 1, 0), axis=-1)


def predicted_classes(probabilities: np.ndarray, outputs: Outputs) -> np.ndarray:
    """int [examples]: the likeliest class, or of a scale the median."""
    return median_class(probabilities) if outputs == "ordinal" else probabilities.argmax(axis=1)
