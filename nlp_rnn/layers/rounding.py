"""Weights as integers and scales: int8, or int4 in groups."""

from typing import Any

import keras
import numpy as np

GROUP = 32  # values of a row that share a scale as int4
_LEAST = 1e-12  # of a scale, so that rows of zeros have one


def to_int8(weights: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Rounds the weights of a matrix to int8, symmetrically around zero.

    Args:
      weights: float [rows, columns].
      axis: 1 for a scale per row, 0 for a scale per column.

    Returns:
      (int8 [rows, columns], float32 scales [rows, 1] or [1, columns]); the weights are about their products.
    """
    scales = (np.maximum(np.abs(weights).max(axis=axis, keepdims=True), _LEAST) / 127).astype(np.float32)
    return np.round(weights / scales).astype(np.int8), scales


def to_int4(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rounds the weights of a matrix to 15 levels around zero, two in a byte.

    Args:
      weights: float [rows, columns]; the columns are a multiple of GROUP.

    Returns:
      (uint8 [rows, columns / 2], float16 scales [rows, columns / GROUP]); see `from_int4`.
    """
    rows, columns = weights.shape
    groups = weights.reshape(rows, columns // GROUP, GROUP)
    scales = (np.maximum(np.abs(groups).max(axis=2), 1e-6) / 7).astype(np.float16)
    levels = np.clip(np.round(groups / scales[:, :, None].astype(np.float32)), -7, 7) + 8
    pairs = levels.reshape(rows, columns // 2, 2).astype(np.uint8)
    return pairs[:, :, 0] * 16 + pairs[:, :, 1], scales


def from_int4(packed: Any, scales: Any) -> Any:
    """The weights float32 [rows, columns] of `to_int4`."""
    ops = keras.ops
    rows, half = packed.shape
    pairs = ops.cast(packed, "int32")
    levels = ops.cast(ops.stack([pairs // 16, pairs % 16], axis=2), "float32") - 8.0
    groups = ops.reshape(levels, (rows, 2 * half // GROUP, GROUP)) * ops.cast(scales, "float32")[:, :, None]
    return ops.reshape(groups, (rows, 2 * half))
