"""The batches of language models: a split as one long text, cut into rows that continue from batch to batch.

The ids of all texts are concatenated; each text ends with EOS_ID. Row b of a batch continues row b of the batch before.
Source: Zaremba et al. 2014; random window lengths: Merity et al. 2018, section 4.1; rotated rows: Press 2019.
"""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from nlp_rnn.config.settings import TrainingConfig
from nlp_rnn.data.bucketing import Batch
from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.errors import ConfigError
from nlp_rnn.special_ids import EOS_ID, PAD_ID

_STEP = 5  # drawn window lengths are multiples of this, like the chunks that the fast layers compute
_SHORT_SHARE = 0.05  # share of windows that have about half the length
_OFFSETS = 1  # tells the seed of the offsets from that of the lengths


class TokenStream:
    """The ids of a split, cut into `batch_size` rows of equal length.

    The first id is predicted from EOS_ID, so every id is a target once.

    Args:
      cache: from `datasets.prepare_stream`.
      batch_size: number of rows.
      drop_remainder: True (training): leaves out the last ids, fewer than `batch_size`. False: pads the last row, with
        weight 0.
      rows: the rows to read; None: all rows.
    """

    def __init__(self, cache: TokenCache, batch_size: int, *, drop_remainder: bool, rows: slice | None = None) -> None:
        self._rows = np.arange(batch_size)[rows or slice(None)]
        self._path, self.num_tokens, self.batch_size = cache.path / "ids.bin", int(cache.offsets[-1]), batch_size
        self._targets = cache.targets
        self.row_length = self.num_tokens // batch_size if drop_remainder else -(-self.num_tokens // batch_size)

    def read(self, start: int, length: int, offsets: Sequence[int] | None = None) -> Batch:
        """Reads the positions from `start` to `start + length` of the rows.

        Args:
          offsets: of all rows of the batch, by how many ids each is rotated to the left, 0 to row_length - 1; only for
            full rows. None: not at all.

        Returns:
          (token_ids int32 [rows, length], next ids int32 [rows, length], weights float32 [rows, length]). The weight is
          0 after a row's last id. With training.teacher, the second is a dict: `ids`, these, and `likely`, float32
          [rows, length, 2 * k], the cache's targets of them, 0 where the weight is.
        """
        token_ids = np.full((len(self._rows), length + 1), PAD_ID, np.int32)
        with open(self._path, "rb") as file:
            for place, row in enumerate(self._rows.tolist()):
                num_ids = min(length, self.row_length - start, self.num_tokens - row * self.row_length - start)
                if num_ids > 0:
                    ids = self._read_row(file, row, start, num_ids, offsets[row] if offsets is not None else 0)
                    token_ids[place, : num_ids + 1] = ids
        steps = start + np.arange(length)
        is_own = (steps < self.row_length) & (self._rows[:, None] * self.row_length + steps < self.num_tokens)
        ids, weights = token_ids[:, 1:], is_own.astype(np.float32)
        if self._targets is None:
            return token_ids[:, :-1], ids, weights
        shifts = np.zeros(len(self._rows), int) if offsets is None else np.array(offsets)[self._rows]
        places = self._rows[:, None] * self.row_length + (steps + shifts[:, None]) % self.row_length
        likely = np.where(is_own[:, :, None], self._targets[np.where(is_own, places, 0)], np.float32(0))
        return token_ids[:, :-1], {"ids": ids, "likely": likely}, weights

    def _read_row(self, file: BinaryIO, row: int, start: int, num_ids: int, offset: int) -> np.ndarray:
        """Reads the `num_ids` targets from `start` of a rotated row, with the id before them."""
        place = (start + offset) % self.row_length
        first, until_end = row * self.row_length + place, min(num_ids, self.row_length - place)
        ids = _read_ids(file, first - 1, until_end + 1)
        if not offset:
            return ids
        if start and not place:  # the end of the row comes before its beginning
            ids = np.concatenate([_read_ids(file, first + self.row_length - 1, 1), ids[1:]])
        return np.concatenate([ids, _read_ids(file, first - place, num_ids - until_end)])

    def windows(self, length: int, *, is_fixed: bool = False) -> list[tuple[int, int]]:
        """(start, length) of windows of equal length.

        The last window is shorter; if `is_fixed`, it has the same length and extends beyond the end of the rows.
        """
        return [
            (start, length if is_fixed else min(length, self.row_length - start))
            for start in range(0, self.row_length, length)
        ]


def _read_ids(file: BinaryIO, first: int, count: int) -> np.ndarray:
    """Reads int32 [count] from the id `first`; before the text, at -1, stands EOS_ID."""
    file.seek(4 * max(first, 0))
    if first >= 0:
        return np.frombuffer(file.read(4 * count), np.int32)
    return np.concatenate([np.array([EOS_ID], np.int32), np.frombuffer(file.read(4 * (count - 1)), np.int32)])


def check_length(cache: TokenCache, config: TrainingConfig) -> None:
    """Checks that the training text fills at least one window in each row of a batch.

    Raises:
      ConfigError: if it does not.
    """
    text = TokenStream(cache, config.batch_size, drop_remainder=True)
    if text.row_length < config.window:
        raise ConfigError(
            f"data.train has {text.num_tokens:,} tokens, too few for training.batch_size {config.batch_size} rows of "
            "one "
            f"window of training.window {config.window}; give more text, or lower both"
        )


class WindowStream:
    """The training batches of a `TokenStream`. The cuts depend only on seed and epoch, so it can start within an epoch.

    Args:
      stream: the rows.
      window: length of a window, in tokens.
      is_random: whether lengths are drawn around `window`.
      is_rotated: whether each row is rotated by a drawn offset in each epoch, so that the batches of two epochs differ.
        Source: Press 2019, "Partially Shuffling the Training Data to Improve Language Models".
      seed: seed of the drawn lengths and offsets.
      max_steps: steps per epoch; the next epoch continues where the last one stopped. 0: an epoch is the whole text.
      is_fixed: see `TokenStream.windows`.
    """

    def __init__(
        self,
        stream: TokenStream,
        *,
        window: int,
        is_random: bool,
        seed: int,
        max_steps: int = 0,
        is_fixed: bool = False,
        is_rotated: bool = False,
    ) -> None:
        self._stream, self._window, self._is_random, self._seed, self._max_steps = (
            stream,
            window,
            is_random,
            seed,
            max_steps,
        )
        self._is_fixed, self._is_rotated = is_fixed, is_rotated
        # The plan of the latest epoch, kept since callbacks read it after every step.
        self._planned: dict[int, list[tuple[int, int]]] = {}
        self._epoch = self._first_step = 0

    def start_at(self, epoch: int, step: int) -> None:
        """Sets the epoch, from 0, and its first batch to read."""
        self._epoch, self._first_step = epoch, step

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps of the current epoch."""
        return len(self.plan(self._epoch))

    def num_steps(self, epochs: int) -> int:
        """Number of steps of all epochs together."""
        return sum(len(self.plan(epoch)) for epoch in range(epochs))

    def plan(self, epoch: int) -> list[tuple[int, int]]:
        """(start, length) of an epoch's windows."""
        if epoch not in self._planned:
            self._planned = {epoch: self._plan(epoch)}
        return self._planned[epoch]

    def _plan(self, epoch: int) -> list[tuple[int, int]]:
        if not self._max_steps:
            return self._windows(epoch)
        reading, first = 0, epoch * self._max_steps  # the text is read again and again, each time in other windows
        while first >= len(plan := self._windows(reading)):
            reading, first = reading + 1, first - len(plan)
        plan = plan[first:]
        while len(plan) < self._max_steps:
            reading += 1
            plan = plan + self._windows(reading)
        return plan[: self._max_steps]

    def _windows(self, reading: int) -> list[tuple[int, int]]:
        """(start, length) of the windows of the whole text."""
        return self._draw(reading) if self._is_random else self._stream.windows(self._window, is_fixed=self._is_fixed)

    def goes_on(self, epoch: int) -> bool:
        """Whether an epoch begins where the one before it has stopped reading."""
        return not self._is_rotated and self.plan(epoch)[0][0] > 0

    def _draw(self, reading: int) -> list[tuple[int, int]]:
        generator, plan, start = np.random.default_rng([self._seed, reading]), [], 0
        while start < self._stream.row_length:
            usual = self._window / 2 if generator.random() < _SHORT_SHARE else self._window
            length = max(_STEP, _STEP * round(generator.normal(usual, 5) / _STEP))
            plan.append((start, min(length, self._stream.row_length - start)))
            start += length
        return plan

    def offsets(self, epoch: int) -> list[int] | None:
        """The rotation of each row of the batch in an epoch; None without rotation."""
        if not self._is_rotated:
            return None
        generator = np.random.default_rng([self._seed, epoch, _OFFSETS])
        return generator.integers(0, self._stream.row_length, self._stream.batch_size).tolist()

    def __call__(self) -> Iterator[Batch]:
        offsets = self.offsets(self._epoch)
        for start, length in self.plan(self._epoch)[self._first_step :]:
            yield self._stream.read(start, length, offsets)
