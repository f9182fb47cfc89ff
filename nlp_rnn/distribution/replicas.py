"""Sums over all replicas of a model, and each replica's rows of the global batch.

There is one replica without a `tf.distribute` strategy, and on Keras's other backends, whose arrays are global.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import keras

_local = threading.local()  # the replicas of a process are traced in separate threads


def num_replicas() -> int:
    """Number of replicas of the step being traced."""
    context = _context()
    return context.num_replicas_in_sync if context else 1


def number() -> Any:
    """Index of this replica, from 0: an int or an int32 scalar."""
    context = _context()
    return context.replica_id_in_sync_group if context else 0


def total(value: Any) -> Any:
    """Sums a tensor over all replicas."""
    context = _context()
    return context.all_reduce("SUM", value) if context else value


def rows_of(weights: Any) -> Any:
    """1 where a sample weight is not 0, else 0, in the weights' shape and dtype: what losses are divided by."""
    return keras.ops.cast(weights != 0, weights.dtype)


def batch_weight(weights: Any) -> Any:
    """Sums the sample weights of the whole global batch. `weights`: those of this replica and part."""
    weight = getattr(_local, "weight", None)
    return total(keras.ops.sum(weights)) if weight is None else weight


def share() -> float:
    """The share of the global batch's rows in this replica and part, 0-1."""
    return 1 / (num_replicas() * _part()[1])


def own_rows(table: Any) -> Any:
    """Selects this replica's and part's rows, in the batch's order, from a table with one row per row of the batch."""
    context, (part, num_parts) = _context(), _part()
    replicas = context.num_replicas_in_sync if context else 1
    if replicas * num_parts == 1:
        return table
    size = table.shape[0] // (replicas * num_parts)
    start = number() * num_parts + part
    return keras.ops.slice(table, (start * size, 0), (size, table.shape[1]))


def with_own_rows(table: Any, rows: Any) -> Any:
    """Replaces the `own_rows` of all replicas (of this part) in `table`, [rows of the global batch, features]."""
    context, (part, num_parts) = _context(), _part()
    gathered = context.all_gather(rows, axis=0) if context else rows
    if num_parts == 1:
        return gathered
    ops = keras.ops
    size, features = rows.shape[0], table.shape[1]
    parts = ops.reshape(table, (-1, num_parts, size, features))
    own = ops.reshape(gathered, (-1, 1, size, features))
    return ops.reshape(ops.concatenate([parts[:, :part], own, parts[:, part + 1 :]], axis=1), table.shape)


@contextlib.contextmanager
def computing_part(part: int, num_parts: int, weight: Any) -> Iterator[None]:
    """A context in which a replica computes one of several equal parts of its rows.

    Args:
      part: index of the part, from 0.
      weight: `batch_weight` of all parts.
    """
    _local.part, _local.weight = (part, num_parts), weight
    try:
        yield
    finally:
        _local.part, _local.weight = (0, 1), None


def _part() -> tuple[int, int]:
    return getattr(_local, "part", (0, 1))


def _context() -> Any:
    """TensorFlow's replica context; None if there is one replica."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context() if tf.distribute.has_strategy() else None
    return context if context is not None and context.num_replicas_in_sync > 1 else None
