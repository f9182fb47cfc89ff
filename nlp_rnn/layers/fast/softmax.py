"""Softmax cross-entropy over a vocabulary, with its gradients, in less time and memory than separate operations.

The logits of a few rows at a time are computed, turned into losses and gradients by one XLA function, and multiplied
into the gradients of hidden vectors and kernel. So the logits of a whole batch are never in memory, and they are read
only once.
"""

import math
from typing import Any

import tensorflow as tf

from nlp_rnn.layers.masking import IMPOSSIBLE
from nlp_rnn.layers.r_drop import other_pass

_MAX_LOGITS = 2**25  # in memory at a time: 128 MB
# Rows per chunk if their number is unknown when the graph is built; a sampled softmax pads its rows to a multiple.
_ROWS = 256


def softmax_cross_entropy(
    hidden: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor, *, is_training: bool,
    label_smoothing: float = 0.0, r_drop: float = 0.0, dtype: tf.DType = tf.float32,
) -> tuple[tf.Tensor, tf.Tensor]:  # fmt: skip
    """Computes the exact weighted sum of cross-entropies, in nats.

    Args:
      hidden: float32 [rows, features].
      kernel: float32 [vocabulary, features], such as an embedding table; logits = hidden @ kernel^T + bias.
      bias: float32 [vocabulary].
      targets: int32 [rows], below the vocabulary size.
      weights: float32 [rows]; no gradient flows into them.
      is_training: whether the gradients of hidden, kernel and bias are computed along with the sum. Without them, the
        sum cannot be differentiated.
      label_smoothing: the share of each target that is spread over the whole vocabulary, 0-1.
      r_drop: if above 0, rows 2 n and 2 n + 1 are two passes over the same token with the same weight, and this times
        their divergence (see `nlp_rnn.layers.r_drop`) is added to the cross-entropy of each.
      dtype: of the matrix products, float32 or bfloat16; sums and the softmax are float32.

    Returns:
      (float32 scalar; the weighted sum of the divergences in it, float32 scalar without a gradient).

    Raises:
      ValueError: if the sum is differentiated without `is_training`.
    """

    @tf.custom_gradient
    def run(hidden: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> Any:
        num_rows, vocab_size, table = hidden.shape[0], kernel.shape[0], tf.cast(kernel, dtype)
        if num_rows:
            chunk = math.ceil(num_rows / math.ceil(num_rows * vocab_size / _MAX_LOGITS))
        else:
            chunk = max(1, min(_ROWS, _MAX_LOGITS // vocab_size))
        if r_drop:
            chunk += chunk % 2  # never cuts a pair
        rows = tf.shape(hidden)[0]
        padding = tf.maximum(chunk - rows, -rows % chunk)  # one chunk at least, also of no rows
        inputs = (
            tf.cast(tf.pad(hidden, [[0, padding], [0, 0]]), dtype),
            tf.pad(targets, [[0, padding]]),
            tf.pad(weights, [[0, padding]]),
        )

        def body(
            number: tf.Tensor, total: tf.Tensor, apart: tf.Tensor, dkernel: tf.Tensor, dbias: tf.Tensor,
            dhidden: tf.TensorArray,
        ) -> tuple[Any, ...]:  # fmt: skip
            some, *facts = (
                tf.ensure_shape(x[number * chunk : (number + 1) * chunk], [chunk, *x.shape[1:]]) for x in inputs
            )
            logits = tf.matmul(some, table, transpose_b=True)
            loss, divergence, dlogits = _loss_and_gradient(logits, bias, *facts, label_smoothing, r_drop)
            if is_training:
                dkernel += tf.cast(tf.matmul(dlogits, some, transpose_a=True), tf.float32)
                dbias += tf.cast(tf.ones([1, chunk], dtype) @ dlogits, tf.float32)[0]
                dhidden = dhidden.write(number, tf.cast(dlogits @ table, tf.float32))
            return number + 1, total + loss, apart + divergence, dkernel, dbias, dhidden

        num_chunks = (rows + padding) // chunk
        start = (
            0,
            0.0,
            0.0,
            tf.zeros_like(kernel),
            tf.zeros_like(bias),
            tf.TensorArray(tf.float32, num_chunks, infer_shape=False),
        )
        _, total, apart, dkernel, dbias, parts = tf.while_loop(
            lambda number, *_: number < num_chunks, body, start, parallel_iterations=1
        )
        dhidden = tf.ensure_shape(parts.concat()[:rows], hidden.shape) if is_training else tf.zeros_like(hidden)

        def gradient(upstream: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, ...]:
            if not is_training:
                raise ValueError("the loss of an evaluation has no gradients; compute it with training=True")
            return upstream * dhidden, upstream * dkernel, upstream * dbias

        return (total, apart), gradient

    # Tensors, since a custom gradient would have to name the variables that it reads.
    return run(*(tf.convert_to_tensor(each) for each in (hidden, kernel, bias)))


@tf.function(jit_compile=True, autograph=False)
def _loss_and_gradient(
    logits: tf.Tensor, bias: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor, label_smoothing: float, r_drop: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    dtype, logits = logits.dtype, tf.cast(logits, tf.float32) + bias
    highest = tf.reduce_max(logits, axis=1, keepdims=True)
    powers = tf.exp(logits - highest)
    total = tf.reduce_sum(powers, axis=1, keepdims=True)
    kept = 1 - label_smoothing
    wanted = kept * tf.gather(logits, targets, batch_dims=1)
    spread = 0.0
    if label_smoothing:
        wanted += label_smoothing * tf.reduce_mean(logits, axis=1)
        spread = label_smoothing / logits.shape[1]
    losses = tf.math.log(total[:, 0]) + highest[:, 0] - wanted
    dlogits = (powers / total - kept * tf.one_hot(targets, logits.shape[1]) - spread) * weights[:, None]
    if not r_drop:
        return tf.reduce_sum(losses * weights), tf.constant(0.0), tf.cast(dlogits, dtype)
    probabilities, log_probabilities = powers / total, logits - highest - tf.math.log(total)
    apart, dapart = _divergences_and_gradient(probabilities, log_probabilities)
    dlogits += r_drop * weights[:, None] * dapart
    return tf.reduce_sum((losses + r_drop * apart) * weights), tf.reduce_sum(apart * weights), tf.cast(dlogits, dtype)


def _divergences_and_gradient(probabilities: tf.Tensor, log_probabilities: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`r_drop.divergences`, and the gradient of both rows' divergences together by the logits of each row.

    With d = log p - log q, the mean of both divergences has the gradient (p (d - KL(p, q)) + p - q) / 2. Both rows of a
    pair hold it, so each row gets it twice.
    """
    others = other_pass(probabilities)
    apart = log_probabilities - other_pass(log_probabilities)
    one_way = tf.reduce_sum(probabilities * apart, axis=1, keepdims=True)
    divergences = tf.reduce_sum((probabilities - others) * apart, axis=1) / 2
    return divergences, probabilities * (apart - one_way) + probabilities - others


def sampled_cross_entropy(
    hidden: tf.Tensor, rows: tf.Tensor, biases: tf.Tensor, true_logits: tf.Tensor, ids: tf.Tensor, targets: tf.Tensor,
    weights: tf.Tensor,
    *, r_drop: float = 0.0, dtype: tf.DType = tf.float32,
) -> tuple[tf.Tensor, tf.Tensor]:  # fmt: skip
    """Computes the weighted sum of cross-entropies over the target and the sampled words, in nats.

    Args:
      hidden, targets, weights: see `softmax_cross_entropy`.
      rows: float32 [words, features], the kernel's rows of `ids`.
      biases: float32 [words], the biases of `ids` minus the logarithm of each word's expected number of draws.
      true_logits: float32 [rows], the logits of the targets.
      ids: int32 [words]; a word that equals a row's target is left out of that row's sum.
      r_drop: see `softmax_cross_entropy`. The divergence is that of the probabilities of target and sampled words. Both
        passes have the same words, so it estimates the divergence over the vocabulary as the sums estimate theirs.
      dtype: of the matrix products, float32 or bfloat16; sums are float32.

    Returns:
      (float32 scalar; the weighted sum of the divergences in it, float32 scalar without a gradient).
    """

    @tf.custom_gradient
    def run(hidden: tf.Tensor, rows: tf.Tensor, biases: tf.Tensor, true_logits: tf.Tensor) -> Any:
        num_rows = tf.shape(hidden)[0]
        padding = (
            0 if hidden.shape[0] else -num_rows % _ROWS
        )  # few shapes, each of which XLA compiles; their weights are 0
        inputs, kernel = tf.cast(tf.pad(hidden, [[0, padding], [0, 0]]), dtype), tf.cast(rows, dtype)
        facts = (tf.pad(each, [[0, padding]]) for each in (targets, true_logits, weights))
        total, apart, dlogits, dtrue = _sampled_loss_and_gradient(
            tf.matmul(inputs, kernel, transpose_b=True), biases, ids, *facts, r_drop
        )

        def gradient(upstream: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, ...]:
            dhidden = tf.cast(dlogits @ kernel, tf.float32)[:num_rows]
            drows = tf.cast(tf.matmul(dlogits, inputs, transpose_a=True), tf.float32)
            dbiases = tf.cast((tf.ones([1, tf.shape(dlogits)[0]], dtype) @ dlogits)[0], tf.float32)
            return upstream * dhidden, upstream * drows, upstream * dbiases, upstream * dtrue[:num_rows]

        return (total, apart), gradient

    return run(hidden, rows, biases, true_logits)


@tf.function(jit_compile=True, autograph=False)
def _sampled_loss_and_gradient(
    logits: tf.Tensor, biases: tf.Tensor, ids: tf.Tensor, targets: tf.Tensor, true_logits: tf.Tensor,
    weights: tf.Tensor, r_drop: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:  # fmt: skip
    others = tf.where(targets[:, None] == ids[None], IMPOSSIBLE, tf.cast(logits, tf.float32) + biases)
    highest = tf.maximum(tf.reduce_max(others, axis=1), true_logits)
    powers, true_power = tf.exp(others - highest[:, None]), tf.exp(true_logits - highest)
    total = tf.reduce_sum(powers, axis=1) + true_power
    losses = tf.math.log(total) + highest - true_logits
    if not r_drop:
        dlogits = tf.cast(powers * (weights / total)[:, None], logits.dtype)
        return tf.reduce_sum(losses * weights), tf.constant(0.0), dlogits, (true_power / total - 1) * weights
    probabilities = tf.concat([powers, true_power[:, None]], 1) / total[:, None]
    all_logits = tf.concat([others, true_logits[:, None]], 1)
    apart, dapart = _divergences_and_gradient(probabilities, all_logits - (highest + tf.math.log(total))[:, None])
    dall = weights[:, None] * (probabilities + r_drop * dapart)
    loss, divergence = tf.reduce_sum((losses + r_drop * apart) * weights), tf.reduce_sum(apart * weights)
    return loss, divergence, tf.cast(dall[:, :-1], logits.dtype), dall[:, -1] - weights


def adaptive_cross_entropy(
    hidden: tf.Tensor, head: tuple[tf.Tensor, tf.Tensor], tails: list[tuple[tf.Tensor, tf.Tensor, tf.Tensor]],
    targets: tf.Tensor, weights: tf.Tensor, *, is_training: bool, dtype: tf.DType = tf.float32,
) -> tf.Tensor:  # fmt: skip
    """Computes the exact weighted sum of an adaptive softmax's cross-entropies, in nats.

    Each cluster is computed only for the rows whose target it contains.

    Args:
      head: (kernel float32 [frequent words + clusters, features], bias float32 [frequent words + clusters]).
      tails: per cluster (projection [features, fewer], kernel [words, fewer], bias [words]), float32.
      hidden, targets, weights, is_training, dtype: see `softmax_cross_entropy`.

    Returns:
      float32 scalar.
    """
    start = num_frequent = head[0].shape[0] - len(tails)
    first, total = targets, tf.constant(0.0)
    for number, (projection, kernel, bias) in enumerate(tails):
        is_here = (targets >= start) & (targets < start + kernel.shape[0])
        first = tf.where(is_here, num_frequent + number, first)
        places = tf.where(is_here & (weights != 0))[:, 0]
        inputs = tf.cast(tf.cast(tf.gather(hidden, places), dtype) @ tf.cast(projection, dtype), tf.float32)
        facts = (tf.gather(targets, places) - start, tf.gather(weights, places))
        total += softmax_cross_entropy(inputs, kernel, bias, *facts, is_training=is_training, dtype=dtype)[0]
        start += kernel.shape[0]
    return total + softmax_cross_entropy(hidden, *head, first, weights, is_training=is_training, dtype=dtype)[0]
