"""Cached token ids -> padded batches of like length, as NumPy arrays; no TensorFlow.

On IMDB, sorting by length takes padding from 74 % to 2 %. Every worker plans all batches and reads its own rows of each,
so that no example is lost or read twice, whatever their number.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nlp_rnn.config import TrainingConfig
from nlp_rnn.special_ids import BOS_ID, EOS_ID, PAD_ID, UNK_ID

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
PairBatch = tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]
Resampler = Callable[[np.ndarray, int, int], np.ndarray]

_POOL_BATCHES = 100  # so many batches are sorted by length at a time


# --- caches --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TokenCache:
    """Token ids and labels of one split, on disk.

    Attributes:
      path: folder with ids.bin (int32, one text after the other), offsets.npy and labels.npy.
      offsets: int64 [examples + 1]; text n is ids[offsets[n]:offsets[n + 1]].
      labels: int32 [examples].
    """

    path: Path
    offsets: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """int64 [examples], in tokens."""
        return np.diff(self.offsets)

    @classmethod
    def load(cls, path: Path) -> "TokenCache":
        """Reads what `datasets.write_cache` wrote."""
        return cls(path, np.load(path / "offsets.npy"), np.load(path / "labels.npy"))

    def rows(self, indices: Iterable[int]) -> list[np.ndarray]:
        """The ids of some texts, each int32 [time]; read, not mapped, since mapped pages would count as memory."""
        with open(self.path / "ids.bin", "rb") as file:
            return [self._row(file, index) for index in indices]

    def _row(self, file: BinaryIO, index: int) -> np.ndarray:
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        file.seek(4 * start)
        return np.frombuffer(file.read(4 * (end - start)), np.int32)


@dataclass(frozen=True)
class PairCache:
    """The token ids of one split's pairs, each sentence ended by EOS_ID, on disk.

    Attributes:
      rows: int64 [pairs]: those that are not too long, by their number in both caches.
    """

    source: TokenCache
    target: TokenCache
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> np.ndarray:
        """int64 [pairs, 2]: of source and target, in ids, EOS_ID included."""
        return np.stack([self.source.lengths, self.target.lengths], axis=1)[self.rows]

    @property
    def num_tokens(self) -> int:
        """Ids to predict: those of the targets."""
        return int(self.lengths[:, 1].sum())


# --- plans ---------------------------------------------------------------------------------------------------------


def plan_batches(lengths: np.ndarray, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]:
    """Shuffles examples into batches of like length; each example is in exactly one.

    All examples are shuffled, pools of 100 batches sorted by length and cut, and the batches shuffled again.

    Args:
      lengths: int64 [examples], in tokens.
      batch_size: examples a batch; the last one may hold fewer.
      seed, epoch: the order depends on these two only.

    Returns:
      int64 arrays of example numbers.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    pool_size = batch_size * _POOL_BATCHES
    batches = []
    for start in range(0, len(order), pool_size):
        pool = order[start : start + pool_size]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    generator.shuffle(batches)
    return batches


def plan_ordered_batches(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Batches for evaluation: all examples, from the shortest to the longest."""
    order = np.argsort(lengths, kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def pair_keys(cache: PairCache) -> np.ndarray:
    """int64 [pairs], by which pairs are of like length: of like target length first, where most of the work is."""
    return cache.lengths @ np.array([1, 1000])


def padding_waste(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    """The share of padded positions in the batches, 0-1."""
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    return 1 - sum(int(lengths[batch].sum()) for batch in batches) / padded


# --- batches -------------------------------------------------------------------------------------------------------


def classification_batch(cache: TokenCache, indices: np.ndarray, rows: slice, multiple: int = 1) -> Batch:
    """Reads some rows of one batch; missing ones are filled up with UNK_ID at weight 0, so that every batch has the same size.

    Args:
      indices: the batch's examples.
      rows: which of its rows.
      multiple: of which the number of time steps is one.

    Returns:
      (token_ids int32 [rows, time] right-padded with PAD_ID to the batch's longest text or above, labels int32 [rows],
      sample_weight float32 [rows]).
    """
    own = indices[rows]
    token_ids = _padded(cache.rows(own), rows, int(cache.lengths[indices].max()), multiple)
    token_ids[len(own) :, 0] = UNK_ID  # cuDNN takes no row of padding only
    labels, weights = np.zeros(len(token_ids), np.int32), np.zeros(len(token_ids), np.float32)
    labels[: len(own)], weights[: len(own)] = cache.labels[own], 1
    return token_ids, labels, weights


def read_pairs(cache: PairCache, indices: np.ndarray, rows: slice, multiple: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Reads some rows of one batch of pairs; missing ones have an EOS_ID for a source and no target.

    Returns:
      (source, target), int32 [rows, time], right-padded with PAD_ID to the batch's longest sentence, or above; see
      `classification_batch`.
    """
    lengths, numbers = cache.lengths[indices].max(axis=0), cache.rows[indices[rows]]
    source = _padded(cache.source.rows(numbers), rows, int(lengths[0]), multiple)
    source[len(numbers) :, 0] = EOS_ID  # missing rows are read, but weigh nothing
    return source, _padded(cache.target.rows(numbers), rows, int(lengths[1]), multiple)


def pair_batch(source: np.ndarray, target: np.ndarray) -> PairBatch:
    """What the translator is trained on, of padded ids that end with EOS_ID.

    Args:
      source, target: int32 [batch, time], right-padded with PAD_ID.

    Returns:
      ((source, target inputs int32 [batch, time], which begin with BOS_ID), target outputs int32 [batch, time], weights
      float32 [batch, time]: 0 on padding).
    """
    inputs = np.concatenate([np.full((len(target), 1), BOS_ID, np.int32), target[:, :-1]], axis=1)
    inputs[inputs == EOS_ID] = PAD_ID  # EOS_ID is predicted, not read
    return (source, inputs), target, (target != PAD_ID).astype(np.float32)


def _padded(found: list[np.ndarray], rows: slice, length: int, multiple: int) -> np.ndarray:
    token_ids = np.full((rows.stop - rows.start, math.ceil(length / multiple) * multiple), PAD_ID, np.int32)
    for place, row in enumerate(found):
        token_ids[place, : len(row)] = row
    return token_ids


@dataclass(frozen=True)
class Batches:
    """A data set: `read()` yields its `count` batches, anew each time; all have the same number of rows."""

    read: Callable[[], Iterator[Any]]
    count: int


# --- streams -------------------------------------------------------------------------------------------------------


class BatchStream:
    """The training batches, in an order that depends on seed and epoch only; can start in mid-epoch.

    Args:
      keys: int64 [examples], by which examples are of like length.
      read: (examples of a batch, epoch, step) -> the batch.
    """

    def __init__(self, keys: np.ndarray, read: Callable[[np.ndarray, int, int], Any], config: TrainingConfig, seed: int) -> None:
        self._keys, self._read, self._batch_size, self._seed = keys, read, config.batch_size, seed
        steps = math.ceil(len(keys) / config.batch_size)
        self.steps_per_epoch = min(steps, config.max_steps_per_epoch or steps)
        self.epoch = self.first_step = 0

    def plan(self) -> list[np.ndarray]:
        """The batches of the current epoch that are still to come."""
        batches = plan_batches(self._keys, self._batch_size, seed=self._seed, epoch=self.epoch)
        return batches[self.first_step : self.steps_per_epoch]

    def __call__(self) -> Iterator[Any]:
        for step, indices in enumerate(self.plan(), start=self.first_step):
            yield self._read(indices, self.epoch, step)


def classification_stream(
    cache: TokenCache,
    config: TrainingConfig,
    seed: int,
    *,
    rows: slice | None = None,
    multiple: int = 1,
    resample: Resampler | None = None,
) -> BatchStream:
    """The batches of a classifier.

    Args:
      rows: which rows of each batch; None: all.
      multiple: of which the number of time steps is one.
      resample: (token_ids, epoch, step) -> token_ids, other segmentations of the same texts; or None.
    """
    own = rows or slice(0, config.batch_size)

    def read(indices: np.ndarray, epoch: int, step: int) -> Batch:
        token_ids, labels, weights = classification_batch(cache, indices, own, multiple)
        return resample(token_ids, epoch, step) if resample else token_ids, labels, weights

    return BatchStream(cache.lengths, read, config, seed)


def pair_stream(
    cache: PairCache,
    config: TrainingConfig,
    seed: int,
    *,
    rows: slice | None = None,
    multiple: int = 1,
    resample: Resampler | None = None,
) -> BatchStream:
    """The batches of a translator; see `classification_stream`."""
    own = rows or slice(0, config.batch_size)

    def read(indices: np.ndarray, epoch: int, step: int) -> PairBatch:
        source, target = read_pairs(cache, indices, own, multiple)
        if resample:
            source, target = _redrawn(source, resample, epoch, 2 * step), _redrawn(target, resample, epoch, 2 * step + 1)
        return pair_batch(source, target)

    return BatchStream(pair_keys(cache), read, config, seed)


def _redrawn(ids: np.ndarray, resample: Resampler, epoch: int, step: int) -> np.ndarray:
    without_ends = np.where(ids == EOS_ID, PAD_ID, ids)
    drawn = resample(without_ends, epoch, step)
    lengths = np.where((without_ends == PAD_ID).all(axis=1), 0, (drawn != PAD_ID).sum(axis=1))
    found = np.full((len(drawn), drawn.shape[1] + 1), PAD_ID, np.int32)
    found[:, :-1] = np.where(np.arange(drawn.shape[1]) < lengths[:, None], drawn, PAD_ID)
    has_end = (ids == EOS_ID).any(axis=1)
    found[has_end, lengths[has_end]] = EOS_ID
    return found
