"""A continuous cache: what was written before makes its words likelier. It adapts a language model without training it.

Source: Grave et al. 2017, "Improving neural language models with a continuous cache". NumPy only: the console uses it.
"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlp_rnn import files
from nlp_rnn.errors import ConfigError

SIZE = 2000  # of the words before, so many count


@dataclass(frozen=True)
class CacheSettings:
    """share: of the cache in the mixture, 0-1. theta: how much a likeness of hidden vectors counts."""

    share: float
    theta: float


class ContinuousCache:
    """The last `SIZE` pairs of a hidden vector and the id that followed it.

    Args:
      vocab_size: number of ids.
    """

    def __init__(self, settings: CacheSettings, *, vocab_size: int, features: int) -> None:
        self.settings, self._vocab_size = settings, vocab_size
        self._keys, self._ids = np.zeros((SIZE, features), np.float32), np.zeros(SIZE, np.int64)
        self._count = 0

    def __len__(self) -> int:
        return min(self._count, SIZE)

    def add(self, hidden: np.ndarray, next_id: int) -> None:
        """Remembers float [features], after which `next_id` came."""
        place = self._count % SIZE
        self._keys[place], self._ids[place] = hidden, next_id
        self._count += 1

    def mix(self, log_probabilities: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        """A model's float [vocabulary] -> log-probabilities in which the remembered ids have their share."""
        if not self._count:
            return log_probabilities
        weights, ids = self.weights(hidden, self.settings.theta)
        share = self.settings.share
        found = np.exp(log_probabilities) * np.float32(1 - share)
        found += np.bincount(ids, weights * share, self._vocab_size).astype(np.float32)
        return np.log(np.maximum(found, np.float32(1e-30)))

    def weights(self, hidden: np.ndarray, theta: float) -> tuple[np.ndarray, np.ndarray]:
        """(weights that add up to 1, ids) of what is remembered."""
        size = len(self)
        scores = theta * (self._keys[:size] @ hidden)
        weights = np.exp(scores - scores.max())
        return weights / weights.sum(), self._ids[:size]

    def clear(self) -> None:
        """Forgets everything."""
        self._count = 0

    def save(self, path: Path) -> None:
        """Writes what is remembered, whole or not at all."""
        with files.atomic_file(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, keys=self._keys, ids=self._ids, count=self._count)

    def load(self, path: Path) -> None:
        """Reads what `save` wrote.

        Raises:
          ConfigError: if it is the memory of another model.
        """
        try:
            with np.load(path) as arrays:
                keys, ids, count = arrays["keys"], arrays["ids"], int(arrays["count"])
                is_sound = np.isfinite(keys).all() and ids.min(initial=0) >= 0 and count >= 0
                if not is_sound or keys.dtype != np.float32 or ids.dtype != np.int64:
                    raise ValueError("it holds impossible values")
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ConfigError(
                f"{path}: not readable as a memory of the console ({error}); remove it, or give another file"
            ) from None
        if keys.shape != self._keys.shape or ids.shape != self._ids.shape or ids.max(initial=0) >= self._vocab_size:
            raise ConfigError(f"{path}: is the memory of another model; remove it, or give another file")
        self._keys, self._ids, self._count = keys, ids, count
