"""What a replica of a model knows of the others: sums over all of them, and which rows of the global batch are its own.

Without a `tf.distribute` strategy, and on Keras's other backends, whose arrays are global, there is one replica.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import keras

_local = threading.local()  # replicas of one process are traced in threads of their own


def num_replicas() -> int:
    """Of the step being traced."""
    context = _context()
    return context.num_replicas_in_sync if context else 1


def number() -> Any:
    """Of this replica, from 0: an int or an int32 scalar."""
    context = _context()
    return context.replica_id_in_sync_group if context else 0


def total(value: Any) -> Any:
    """The sum of a tensor over all replicas."""
    context = _context()
    return context.all_reduce("SUM", value) if context else value


def batch_weight(weights: Any) -> Any:
    """The sum of the sample weights of the whole global batch, to which `weights`, of this replica and part, belong."""
    found = getattr(_local, "weight", None)
    return total(keras.ops.sum(weights)) if found is None else found


def share() -> float:
    """How much of the global batch's rows this replica and part hold."""
    return 1 / (num_replicas() * _part()[1])


def own_rows(table: Any) -> Any:
    """Of a table with a row for each of the global batch: those of this replica and part, in the batch's order."""
    context, (part, num_parts) = _context(), _part()
    replicas = context.num_replicas_in_sync if context else 1
    if replicas * num_parts == 1:
        return table
    size = table.shape[0] // (replicas * num_parts)
    start = number() * num_parts + part
    return keras.ops.slice(table, (start * size, 0), (size, table.shape[1]))


def with_own_rows(table: Any, rows: Any) -> Any:
    """`table` [rows of the global batch, features] with the `own_rows` of all replicas (of this part) replaced."""
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
    """While a replica computes one of several equal parts of its rows.

    Args:
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
    """TensorFlow's replica context, where there are several replicas."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context() if tf.distribute.has_strategy() else None
    return context if context is not None and context.num_replicas_in_sync > 1 else None
