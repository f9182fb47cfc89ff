"""Weights as int8 values and scales."""

import numpy as np

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
