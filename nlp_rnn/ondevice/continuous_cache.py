"""A continuous cache raises the probability of recent words. It adapts a language model without training it.

Source: Grave et al. 2017, "Improving neural language models with a continuous cache". NumPy only, for the console.
"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlp_rnn import files
from nlp_rnn.errors import ConfigError

SIZE = 2000  # number of recent words in the cache


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
        return np.log(np.maximum(probabilities, np.float32(1e-30)))

    def weights(self, hidden: np.ndarray, theta: float) -> tuple[np.ndarray, np.ndarray]:
        """(weights of the pairs, which add up to 1; their ids)."""
        size = len(self)
        scores = theta * (self._keys[:size] @ hidden)
        weights = np.exp(scores - scores.max())
        return weights / weights.sum(), self._ids[:size]

    def clear(self) -> None:
        """Empties the cache."""
        self._count = 0

    def save(self, path: Path) -> None:
        """Writes the cache to a file atomically."""
        with files.atomic_file(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, keys=self._keys, ids=self._ids, count=self._count)

    def load(self, path: Path) -> None:
        """Reads a file that `save` wrote.

        Raises:
          ConfigError: if the file is not readable or belongs to another model.
        """
        try:
            with np.load(path) as arrays:
                keys, ids, count = arrays["keys"], arrays["ids"], int(arrays["count"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ConfigError(
                f"{path}: not readable as a memory of the console ({error}); remove it, or give another file"
            ) from None
        if keys.shape != self._keys.shape or ids.shape != self._ids.shape or ids.max(initial=0) >= self._vocab_size:
            raise ConfigError(f"{path}: is the memory of another model; remove it, or give another file")
        if not np.isfinite(keys).all() or ids.min(initial=0) < 0 or count < 0:
            raise ConfigError(f"{path}: is damaged (it holds impossible values); remove it, or give another file")
        self._keys, self._ids, self._count = keys.astype(np.float32), ids.astype(np.int64), count
