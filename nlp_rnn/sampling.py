"""From the probabilities of the next id to the id that is taken: temperature, top-k, top-p, repetition penalty, in core TensorFlow ops.

Every row of a batch has its own settings and its own random numbers: what is drawn for one text depends on its seed and
its place in the text, and on nothing else in the batch.
"""

from typing import NamedTuple

import tensorflow as tf

IMPOSSIBLE = -1e9  # the score of an id that may not be taken
REPETITION_WINDOW = 64  # the penalty is for the ids among so many last ones


class Sampling(NamedTuple):
    """How the next id is drawn. Each is a tensor [batch].

    temperature: float32; log-probabilities are divided by it; 0 or less takes the likeliest id.
    top_k: int32; only so many of the likeliest ids are left; 0 or less: all.
    top_p: float32; only the likeliest ids are left that together have this probability (Holtzman et al. 2020); outside (0, 1): all.
    repetition_penalty: float32; the probabilities of the last 64 ids are divided by it (after Keskar et al. 2019); 1 or less: none.
    seed: int32.
    """

    temperature: tf.Tensor
    top_k: tf.Tensor
    top_p: tf.Tensor
    repetition_penalty: tf.Tensor
    seed: tf.Tensor


def choose(log_probabilities: tf.Tensor, sampling: Sampling, positions: tf.Tensor, last_seen: tf.Tensor) -> tf.Tensor:
    """Draws an id a row.

    Args:
      log_probabilities: float32 [batch, vocabulary]; IMPOSSIBLE for ids that may not be taken.
      positions: int32 [batch], the place in the text: the same seed and place give the same random numbers.
      last_seen: int32 [batch, vocabulary], the place at which each id stood last.

    Returns:
      int32 [batch]. Of ids with equal scores the lowest is taken.
    """
    is_recent = positions[:, None] - last_seen <= REPETITION_WINDOW
    penalty = tf.math.log(tf.maximum(sampling.repetition_penalty, 1.0))
    scores = log_probabilities - tf.where(is_recent, penalty[:, None], 0.0)
    is_greedy = sampling.temperature <= 0
    scores /= tf.where(is_greedy, 1.0, sampling.temperature)[:, None]
    is_nucleus = (sampling.top_p > 0) & (sampling.top_p < 1)
    scores = tf.cond(
        tf.reduce_any((sampling.top_k > 0) | is_nucleus),
        lambda: _keep_likeliest(scores, sampling.top_k, tf.where(is_nucleus, sampling.top_p, 2.0)),
        lambda: scores,
    )
    # The largest of scores with Gumbel noise is a draw by their softmax.
    noise = -tf.math.log(-tf.math.log(random_uniform(sampling.seed, positions, log_probabilities.shape[1])))
    return tf.argmax(tf.where(is_greedy[:, None], scores, scores + noise), axis=1, output_type=tf.int32)


def _keep_likeliest(scores: tf.Tensor, top_k: tf.Tensor, top_p: tf.Tensor) -> tf.Tensor:
    """Scores in which ids beyond the k likeliest, and then beyond the probability p, are IMPOSSIBLE; equals of the last one kept stay."""
    ranked = tf.sort(scores, axis=1, direction="DESCENDING")
    ranks = tf.range(tf.shape(scores)[1])[None]
    is_kept = (ranks < top_k[:, None]) | (top_k[:, None] <= 0)
    kept = tf.where(is_kept, ranked, IMPOSSIBLE)
    shares = tf.exp(kept - tf.reduce_logsumexp(kept, axis=1, keepdims=True))
    is_kept &= tf.cumsum(shares, axis=1, exclusive=True) < top_p[:, None]
    lowest = tf.reduce_min(tf.where(is_kept, ranked, scores.dtype.max), axis=1, keepdims=True)
    return tf.where(scores >= lowest, scores, IMPOSSIBLE)


def random_uniform(seeds: tf.Tensor, positions: tf.Tensor, size: int) -> tf.Tensor:
    """int32 [batch], int32 [batch] -> float32 [batch, size] between 0 and 1, neither included; a function of seed, place and index.

    A hash instead of TensorFlow's generators, which draw for a whole batch at once. Source: MurmurHash3's finaliser
    (Appleby 2008).
    """
    state = _mix(tf.cast(seeds, tf.uint32) + tf.constant(0x9E3779B9, tf.uint32))
    state = _mix(state + tf.cast(positions, tf.uint32) * tf.constant(0x85EBCA77, tf.uint32))
    state = _mix(state[:, None] + tf.cast(tf.range(size), tf.uint32)[None] * tf.constant(0xC2B2AE3D, tf.uint32))
    # The upper 23 bits: with the half added a float32 still has them all, and none becomes 1.
    return (tf.cast(tf.bitwise.right_shift(state, tf.constant(9, tf.uint32)), tf.float32) + 0.5) / 2**23


def _mix(value: tf.Tensor) -> tf.Tensor:
    """uint32 -> uint32, one to one; each bit of the result depends on all bits."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        value = tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(shift, tf.uint32)))
        value *= tf.constant(factor, tf.uint32)
    return value
