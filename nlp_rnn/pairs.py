"""Batches of pairs: the ids of source and target sentences, of like length."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from nlp_rnn.config import ConfigError, DataConfig, TrainingConfig
from nlp_rnn.corpus import Corpus
from nlp_rnn.datasets import Resampler, TokenCache, make_stepwise_dataset, plan_batches, prepare_stream
from nlp_rnn.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer

logger = logging.getLogger(__name__)

PairBatch = tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]


@dataclass(frozen=True)
class PairCache:
    """The token ids of one split's pairs, each sentence ended by EOS_ID, on disk.

    Attributes:
      rows: int64 [pairs]: those that are not too long, by their number in both caches.
    """

    source: TokenCache
    target: TokenCache
    rows: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """int64 [pairs, 2]: of source and target, in ids, EOS_ID included."""
        return np.stack([self.source.lengths, self.target.lengths], axis=1)[self.rows]

    @property
    def num_tokens(self) -> int:
        """Ids to predict: those of the targets."""
        return int(self.lengths[:, 1].sum())


def prepare_pairs(corpus: Corpus, split: str, data: DataConfig, tokenizer: Tokenizer) -> PairCache:
    """The token ids of one split; computed once, then found on disk. Pairs longer than data.max_length are left out.

    Raises:
      ConfigError: if none is left.
    """
    sides = [prepare_stream(corpus, split, data, tokenizer, side=side) for side in ("text", "label")]
    is_short = (sides[0].lengths - 1 <= data.max_length) & (sides[1].lengths - 1 <= data.max_length)
    if not is_short.any():
        raise ConfigError(f"data.max_length is {data.max_length} tokens, but every pair of data.{split} is longer; raise it")
    if not is_short.all():
        logger.info("left out of %s: %s pairs longer than data.max_length, %d tokens", split, f"{(~is_short).sum():,}", data.max_length)
    return PairCache(sides[0], sides[1], np.flatnonzero(is_short))


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


def _padded(rows: list[np.ndarray], batch_size: int) -> np.ndarray:
    ids = np.full((batch_size, max(len(row) for row in rows)), PAD_ID, np.int32)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
    return ids


def _read(cache: PairCache, indices: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    rows = cache.rows[indices]
    source, target = _padded(cache.source.rows(rows), batch_size), _padded(cache.target.rows(rows), batch_size)
    source[len(rows) :, 0] = EOS_ID  # missing rows are read, but weigh nothing
    return source, target


class PairStream:
    """The training batches, in an order that depends on seed and epoch only; can start in mid-epoch.

    Args:
      resample: (token_ids, epoch, step) -> token_ids, other segmentations of the same texts; or None.
    """

    def __init__(self, cache: PairCache, config: TrainingConfig, seed: int, resample: Resampler | None = None) -> None:
        self._cache, self._batch_size, self._seed, self._resample = cache, config.batch_size, seed, resample
        steps = math.ceil(len(cache.rows) / config.batch_size)
        self.steps_per_epoch = min(steps, config.max_steps_per_epoch or steps)
        self.epoch = self.first_step = 0
        # Batches are of like target length first: that is where most of the work is.
        self._keys = cache.lengths @ np.array([1, 1000])

    def plan(self) -> list[np.ndarray]:
        """The batches of the current epoch that are still to come."""
        batches = plan_batches(self._keys, self._batch_size, seed=self._seed, epoch=self.epoch)
        return batches[self.first_step : self.steps_per_epoch]

    def __call__(self) -> Iterator[PairBatch]:
        for step, indices in enumerate(self.plan(), start=self.first_step):
            sides = _read(self._cache, indices, self._batch_size)
            if self._resample:
                sides = (self._redraw(sides[0], self._resample, 2 * step), self._redraw(sides[1], self._resample, 2 * step + 1))
            yield pair_batch(*sides)

    def _redraw(self, ids: np.ndarray, resample: Resampler, step: int) -> np.ndarray:
        without_ends = np.where(ids == EOS_ID, PAD_ID, ids)
        drawn = resample(without_ends, self.epoch, step)
        lengths = np.where((without_ends == PAD_ID).all(axis=1), 0, (drawn != PAD_ID).sum(axis=1))
        found = np.full((len(drawn), drawn.shape[1] + 1), PAD_ID, np.int32)
        found[:, :-1] = np.where(np.arange(drawn.shape[1]) < lengths[:, None], drawn, PAD_ID)
        has_end = (ids == EOS_ID).any(axis=1)
        found[has_end, lengths[has_end]] = EOS_ID
        return found


def make_pair_evaluation(cache: PairCache, batch_size: int) -> tf.data.Dataset:
    """All pairs once, the shortest first."""
    order = np.argsort(cache.lengths @ np.array([1, 1000]), kind="stable")
    plan = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return make_stepwise_dataset(
        lambda: (pair_batch(*_read(cache, indices, batch_size)) for indices in plan), len(plan), batch_size, num_inputs=2
    )
