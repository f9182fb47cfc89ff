"""Weights of exports as integers, which take little space on disk and are expanded to float32 once, at load.

The SavedModel's checkpoint holds the integers. Its initializer, which every loader runs after it has restored the
checkpoint, writes their float32 values into variables in memory, so that answers are as fast as without.
"""

import contextlib
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nlp_rnn.layers.rounding import GROUP, from_int4, to_int4, to_int8
from nlp_rnn.models.unique import unique

_SMALLEST = 4096  # values of a matrix; smaller ones, and vectors, stay float32
_LEAST_PER_SCALE = 32  # values that share a scale


class CompactWeights(tf.Module):
    """Weights as int8, one scale for each row or column; embeddings also as int4, one scale for each group of a row.

    Args:
      holders: objects with a list `weights` of Keras variables, such as models. Their values of now are kept.
      has_int4: whether embeddings are int4.
    """

    def __init__(self, holders: Iterable[Any], *, has_int4: bool = False) -> None:
        super().__init__()
        self._places: dict[int, int] = {}
        self._kept: list[Any] = []
        name = uuid.uuid4().hex
        for number, weight in enumerate(unique(weight for holder in holders for weight in holder.weights)):
            self._places[id(weight)] = number
            is_int4 = has_int4 and weight.name == "embeddings" and weight.shape[1] % GROUP == 0
            self._kept.append(_kept(weight.numpy(), f"{name}_{number}", is_int4=is_int4))

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Functions that are traced in the context read these weights instead of the variables."""
        with _Scope(self):
            yield

    @tf.function(input_signature=[], autograph=False)
    def release(self) -> None:
        """Frees the float32 values of a load, which cannot be used after it. Each load has its own."""
        for each in self._kept:
            each.release()

    def read(self, weight: keras.Variable) -> tf.Tensor | None:
        """The value of a weight; None if this object does not hold it."""
        place = self._places.get(id(weight))
        return None if place is None else self._kept[place].read()


class _Scope(keras.StatelessScope):
    """Answers Keras's question for a variable's value, anew in each graph that asks."""

    def __init__(self, weights: CompactWeights) -> None:
        super().__init__()
        self._weights = weights

    def get_current_value(self, variable: keras.Variable) -> Any:
        return self._weights.read(variable)


def quantized(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 values and float32 scales of a matrix.

    Args:
      values: float32 [rows, columns].

    Returns:
      (int8 [rows, columns], scales [rows, 1] or [1, columns], whichever loses less and takes little space).
    """
    candidates = []
    for axis in [axis for axis in (1, 0) if values.shape[axis] >= _LEAST_PER_SCALE]:
        rounded, scales = to_int8(values, axis)
        candidates.append((float(np.square(rounded * scales - values).sum()), rounded, scales))
    _, best, scales = min(candidates, key=lambda each: each[0])
    return best, scales


def _kept(values: np.ndarray, name: str, *, is_int4: bool) -> Any:
    is_large = values.ndim == 2 and values.size >= _SMALLEST and max(values.shape) >= _LEAST_PER_SCALE
    is_matrix = is_large and values.dtype == np.float32  # the linear part is int8 already
    if not is_matrix:
        return _Plain(values)
    return _Expanded(*to_int4(values), name) if is_int4 else _Expanded(*quantized(values), name)


class _Plain(tf.Module):
    """A weight as it is."""

    def __init__(self, values: np.ndarray) -> None:
        super().__init__()
        self._values = tf.Variable(values, trainable=False)

    def read(self) -> tf.Tensor:
        return self._values.read_value()

    def release(self) -> None:
        """There is nothing to free."""


class _Expanded(tf.Module):
    """A weight whose integers are in the checkpoint, and whose float32 values the initializer computes."""

    def __init__(self, values: np.ndarray, scales: np.ndarray, name: str) -> None:
        super().__init__()
        self._values, self._scales = (tf.Variable(each, trainable=False) for each in (values, scales))
        self._memory = _Memory(self._values, self._scales, name)
        self._handle = self._memory.resource_handle  # made here, outside all graphs

    def read(self) -> tf.Tensor:
        value = tf.raw_ops.ReadVariableOp(resource=self._handle, dtype=tf.float32)
        value.set_shape(self._memory.shape)
        return value

    def release(self) -> None:
        tf.raw_ops.DestroyResourceOp(resource=self._handle, ignore_lookup_error=True)


class _Memory(tf.saved_model.experimental.TrackableResource):
    """A float32 variable that is not in the checkpoint. Its name is unique in a process, also in a TF 1 session."""

    def __init__(self, values: tf.Variable, scales: tf.Variable, name: str) -> None:
        super().__init__()
        self._values_and_scales, self._name = (values, scales), f"expanded_{name}"

    @property
    def shape(self) -> tuple[int, int]:
        """Of the float32 values."""
        values, _ = self._values_and_scales
        return (values.shape[0], 2 * values.shape[1]) if values.dtype == tf.uint8 else tuple(values.shape)

    def _create_resource(self) -> tf.Tensor:
        return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=self.shape, shared_name=self._name)

    def _initialize(self) -> None:
        values, scales = (each.read_value() for each in self._values_and_scales)
        expanded = from_int4(values, scales) if values.dtype == tf.uint8 else tf.cast(values, tf.float32) * scales
        tf.raw_ops.AssignVariableOp(resource=self.resource_handle, value=expanded)
