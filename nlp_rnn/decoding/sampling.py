"""Draws the next id from log-probabilities: temperature, top-k, top-p, repetition penalty, in core TensorFlow ops.

Every row of a batch has its own settings and random numbers. The drawn id depends only on the row's seed and its
position in the text, not on the other rows.
"""

from typing import NamedTuple

import tensorflow as tf

from nlp_rnn.layers.masking import IMPOSSIBLE

REPETITION_WINDOW = 64  # the repetition penalty applies to so many of the last ids


class Sampling(NamedTuple):
    """How the next id is drawn. Each attribute is a tensor [batch].

    Attributes:
      temperature: float32; divides the log-probabilities; 0 or less takes the most likely id.
      top_k: int32; keeps only so many of the most likely ids; 0 or less keeps all.
      top_p: float32; keeps only the most likely ids that together have this probability (Holtzman et al. 2020); outside
        (0, 1) keeps all.
      repetition_penalty: float32; divides the probabilities of the last 64 ids (after Keskar et al. 2019); 1 or less:
        none.
      seed: int32.
    """

    temperature: tf.Tensor
    top_k: tf.Tensor
    top_p: tf.Tensor
    repetition_penalty: tf.Tensor
    seed: tf.Tensor


def is_plain(sampling: Sampling) -> tf.Tensor:
    """Whether all rows use the temperature only: bool []."""
    return ~tf.reduce_any((sampling.top_k > 0) | _is_nucleus(sampling) | (sampling.repetition_penalty > 1))


def restrict(scores: tf.Tensor, sampling: Sampling, positions: tf.Tensor, last_seen: tf.Tensor) -> tf.Tensor:
    """Applies repetition penalty, top-k and top-p. Top-p uses the probabilities at the temperature.

    Args:
      scores: float32 [batch, vocabulary], log-probabilities; IMPOSSIBLE for forbidden ids.
      positions: int32 [batch], in the text.
      last_seen: int32 [batch, vocabulary], the last position of each id.

    Returns:
      float32 [batch, vocabulary].
    """
    is_recent = positions[:, None] - last_seen <= REPETITION_WINDOW
    penalty = tf.math.log(tf.maximum(sampling.repetition_penalty, 1.0))
    scores -= tf.where(is_recent, penalty[:, None], 0.0)
    heated = scores / tf.where(sampling.temperature > 0, sampling.temperature, 1.0)[:, None]
    is_kept = _are_likeliest(heated, sampling.top_k, tf.where(_is_nucleus(sampling), sampling.top_p, 2.0))
    return tf.where(is_kept, scores, IMPOSSIBLE)


def scaled_noise(sampling: Sampling, positions: tf.Tensor, num_steps: int, size: int) -> tf.Tensor:
    """Draws Gumbel noise times the temperature.

    The id with the largest sum of log-probability and noise is a draw at that temperature.

    Args:
      positions: int32 [batch], the position of the first step in each text.

    Returns:
      float32 [num_steps, batch, size].
    """
    rows, places = tf.meshgrid(sampling.seed, tf.range(num_steps))
    uniform = random_uniform(tf.reshape(rows, [-1]), tf.reshape(places + positions, [-1]), size)
    noise = -tf.math.log(-tf.math.log(tf.reshape(uniform, [num_steps, -1, size])))
    return tf.maximum(sampling.temperature, 0.0)[:, None] * noise


def _is_nucleus(sampling: Sampling) -> tf.Tensor:
    return (sampling.top_p > 0) & (sampling.top_p < 1)


def _are_likeliest(scores: tf.Tensor, top_k: tf.Tensor, top_p: tf.Tensor) -> tf.Tensor:
    """Whether each id is among the k most likely, and within the probability p: bool [batch, vocabulary].

    Includes ties.
    """
    ranked = tf.sort(scores, axis=1, direction="DESCENDING")
    ranks = tf.range(tf.shape(scores)[1])[None]
    is_kept = (ranks < top_k[:, None]) | (top_k[:, None] <= 0)
    kept = tf.where(is_kept, ranked, IMPOSSIBLE)
    shares = tf.exp(kept - tf.reduce_logsumexp(kept, axis=1, keepdims=True))
    is_kept &= tf.cumsum(shares, axis=1, exclusive=True) < top_p[:, None]
    lowest = tf.reduce_min(tf.where(is_kept, ranked, scores.dtype.max), axis=1, keepdims=True)
    return scores >= lowest


def random_uniform(seeds: tf.Tensor, positions: tf.Tensor, size: int) -> tf.Tensor:
    """Random numbers in the open interval (0, 1) that depend only on seed, position and index.

    A hash replaces TensorFlow's generators, which draw for a whole batch at once. Source: MurmurHash3's finaliser
    (Appleby 2008).

    Args:
      seeds, positions: int32 [batch].

    Returns:
      float32 [batch, size].
    """
    state = _mix(tf.cast(seeds, tf.uint32) + tf.constant(0x9E3779B9, tf.uint32))
    state = _mix(state + tf.cast(positions, tf.uint32) * tf.constant(0x85EBCA77, tf.uint32))
    state = _mix(state[:, None] + tf.cast(tf.range(size), tf.uint32)[None] * tf.constant(0xC2B2AE3D, tf.uint32))
    # The upper 23 bits: plus one half, they still fit into a float32, and none becomes 1.
    return (tf.cast(tf.bitwise.right_shift(state, tf.constant(9, tf.uint32)), tf.float32) + 0.5) / 2**23


def _mix(value: tf.Tensor) -> tf.Tensor:
    """A bijection uint32 -> uint32 in which each bit of the result depends on all bits of the input."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        value = tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(shift, tf.uint32)))
        value *= tf.constant(factor, tf.uint32)
    return value
