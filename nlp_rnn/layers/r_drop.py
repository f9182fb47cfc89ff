"""R-Drop: two passes with different dropout over one batch, and how far their predictions are apart.

Source: Liang et al. 2021, "R-Drop: Regularized Dropout for Neural Networks", section 2.1. Both passes are one batch in
which each row stands twice, so masks of dropout that are drawn per row differ between the passes. Masks that a whole
batch shares (weight drop; whole words in language models and translators) are the same for both.
"""

from typing import Any

import keras


def twice(rows: Any) -> Any:
    """Repeats each row: [batch, ...] -> [2 * batch, ...], in the order 0, 0, 1, 1, ..."""
    ops = keras.ops
    size, *others = ops.shape(rows)
    return ops.reshape(ops.stack([rows, rows], axis=1), (2 * size, *others))


def first_pass(rows: Any) -> Any:
    """The first of each pair of rows: [2 * batch, ...] -> [batch, ...]."""
    return rows[::2]


def pair_steps(sequences: Any) -> Any:
    """Brings both passes of each time step together.

    Args:
      sequences: float [2 * batch, time, features], in the order of `twice`.

    Returns:
      float [2 * batch * time, features], in the order of `twice` of the steps [batch * time].
    """
    ops = keras.ops
    rows, steps, features = ops.shape(sequences)
    both = ops.reshape(sequences, (rows // 2, 2, steps, features))
    return ops.reshape(ops.transpose(both, (0, 2, 1, 3)), (rows * steps, features))


def other_pass(rows: Any) -> Any:
    """Exchanges both rows of each pair: [2 * batch, features]."""
    ops = keras.ops
    size, features = ops.shape(rows)
    return ops.reshape(ops.flip(ops.reshape(rows, (size // 2, 2, features)), axis=1), (size, features))


def divergences(log_probabilities: Any) -> Any:
    """The mean of both Kullback-Leibler divergences between the passes, in nats; the same for both rows of a pair.

    It is sum((p - q) (log p - log q)) / 2. Source: Liang et al. 2021, equation 2.

    Args:
      log_probabilities: float [2 * batch, classes], in the order of `twice`.

    Returns:
      float [2 * batch].
    """
    ops = keras.ops
    others = other_pass(log_probabilities)
    return ops.sum((ops.exp(log_probabilities) - ops.exp(others)) * (log_probabilities - others), axis=-1) / 2
