"""Which part of each text a classifier is trained on in an epoch. This module does not import TensorFlow."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Excerpts:
    """Draws an excerpt, a part of consecutive tokens, of some of the texts (training.excerpts).

    Attributes:
      offsets: int64 [texts + 1], the places of the texts; see `TokenCache`.
      share: share of the texts of which an excerpt is drawn, 0-1.
      seed: a draw depends on seed and epoch only.
    """

    offsets: np.ndarray
    share: float
    seed: int

    def draw(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws the excerpts of an epoch. Their lengths, from one token to the whole text, are equally likely.

        Returns:
          (starts, lengths), both int64 [texts], in tokens. A text of which none is drawn is whole.
        """
        starts, lengths = self.offsets[:-1], np.diff(self.offsets)
        if not self.share:
            return starts, lengths
        is_drawn, length, start = np.random.default_rng([self.seed, epoch, 1]).random((3, len(lengths)))
        drawn = np.where(is_drawn < self.share, np.minimum(lengths, 1 + (length * lengths).astype(np.int64)), lengths)
        return starts + (start * (lengths - drawn + 1)).astype(np.int64), drawn
