"""A continuous cache raises the probability of recent words. It adapts a language model without training it.

Source: Grave et al. 2017, "Improving neural language models with a continuous cache". NumPy only, for the console.
"""

import base64
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nlp_rnn.errors import ConfigError

SIZE = 2000  # number of recent words in the cache
LOWEST = np.float32(1e-30)  # probability of a mixture: a model's own ones can be 0 in float32


@dataclass(frozen=True)
class CacheSettings:
    """The settings of a cache.

    Attributes:
      share: of the cache in the mixture, 0-1.
      theta: the scale of the similarity of hidden vectors, 0 or more.
    """

    share: float
    theta: float


class ContinuousCache:
    """The last `SIZE` pairs of a hidden vector and the id that followed it.

    Args:
      vocab_size: number of ids.
      features: size of the hidden vectors.
    """

    def __init__(self, settings: CacheSettings, *, vocab_size: int, features: int) -> None:
        self.settings, self._vocab_size = settings, vocab_size
        self._keys, self._ids = np.zeros((SIZE, features), np.float32), np.zeros(SIZE, np.int64)
        self._count = 0

    def __len__(self) -> int:
        return min(self._count, SIZE)

    def add(self, hidden: np.ndarray, next_id: int) -> None:
        """Adds a pair: hidden float [features], and the id that followed."""
        place = self._count % SIZE
        self._keys[place], self._ids[place] = hidden, next_id
        self._count += 1

    def mix(self, log_probabilities: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        """Mixes the model's log-probabilities, float [vocabulary], with the cache's, given hidden float [features]."""
        if not self._count:
            return log_probabilities
        weights, ids = self.weights(hidden, self.settings.theta)
        share = self.settings.share
        probabilities = np.exp(log_probabilities) * np.float32(1 - share)
        probabilities += np.bincount(ids, weights * share, self._vocab_size).astype(np.float32)
        return np.log(np.maximum(probabilities, LOWEST))

    def weights(self, hidden: np.ndarray, theta: float) -> tuple[np.ndarray, np.ndarray]:
        """(weights of the pairs, which add up to 1; their ids)."""
        size = len(self)
        scores = theta * (self._keys[:size] @ hidden)
        weights = np.exp(scores - scores.max())
        return weights / weights.sum(), self._ids[:size]

    def clear(self) -> None:
        """Empties the cache."""
        self._count = 0

    def to_json(self) -> dict[str, Any]:
        """The cache as JSON; its arrays in base64."""
        arrays = {"keys": self._keys.astype("<f4"), "ids": self._ids.astype("<i8")}
        encoded = {name: base64.b64encode(array.tobytes()).decode() for name, array in arrays.items()}
        return {"count": self._count, "features": self._keys.shape[1], **encoded}

    def from_json(self, content: Any) -> None:
        """Replaces the cache by that of `to_json`.

        Raises:
          ConfigError: if the content is not of that form, or of another model.
        """
        try:
            count, features = int(content["count"]), int(content["features"])
            keys = np.frombuffer(base64.b64decode(content["keys"], validate=True), "<f4").reshape(SIZE, features)
            ids = np.frombuffer(base64.b64decode(content["ids"], validate=True), "<i8")
        except (KeyError, TypeError, ValueError, OverflowError):
            raise ConfigError("is damaged (its cache is not readable)") from None
        self._take(keys, ids, count)

    def load_arrays(self, path: Path) -> None:
        """Reads a file of NumPy arrays, as earlier versions wrote it.

        Raises:
          ConfigError: if the file is not readable or belongs to another model.
        """
        try:
            with np.load(path) as arrays:
                keys, ids, count = arrays["keys"], arrays["ids"], int(arrays["count"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ConfigError(f"is not readable as a memory of the console ({error})") from None
        self._take(keys, ids, count)

    def _take(self, keys: np.ndarray, ids: np.ndarray, count: int) -> None:
        if keys.shape != self._keys.shape or ids.shape != self._ids.shape or ids.max(initial=0) >= self._vocab_size:
            raise ConfigError("is the memory of another model")
        if not np.isfinite(keys).all() or ids.min(initial=0) < 0 or count < 0:
            raise ConfigError("is damaged (it holds impossible values)")
        self._keys, self._ids, self._count = keys.astype(np.float32), ids.astype(np.int64), count
