"""An LSTM over time as one operation of core TensorFlow, for exported models that answer one text or a few.

`BlockLSTMV2` has no overhead per step, but uses one core: for larger batches a loop of matrix products is faster.
"""

from typing import Any

import tensorflow as tf

# Up to this batch the operation was faster than the loop for most sizes; benchmarks/exported_lstm.py measures it.
MAX_ROWS = 8


def run_block_lstm(
    sequences: tf.Tensor, mask: tf.Tensor | None, states: list[tf.Tensor], weights: list[tf.Tensor]
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Runs an LSTM with the activations tanh and sigmoid. The results equal Keras's up to rounding.

    Args:
      sequences: float32 [batch, time, features].
      mask: bool [batch, time], False on padding, which is on the right; None: nothing is padding.
      states: h and c before the first step, each float32 [batch, units].
      weights: kernel [features, 4 * units], recurrent kernel [units, 4 * units], bias [4 * units]; gates i, f, c, o.

    Returns:
      (outputs float32 [batch, time, units], of no meaning on padding; h and c after the last step of each row).
    """
    kernel, recurrent_kernel, bias = weights
    peepholes = tf.zeros(tf.shape(bias)[:1] // 4)
    result = tf.raw_ops.BlockLSTMV2(
        seq_len_max=tf.shape(sequences, tf.int64)[1],
        x=tf.transpose(sequences, [1, 0, 2]),
        cs_prev=states[1],
        h_prev=states[0],
        w=tf.concat([kernel, recurrent_kernel], axis=0),
        wci=peepholes,
        wcf=peepholes,
        wco=peepholes,
        b=bias,
        cell_clip=0.0,
        use_peephole=False,
    )
    outputs, cells = (tf.transpose(each, [1, 0, 2]) for each in (result.h, result.cs))
    if mask is None:
        return outputs, [outputs[:, -1], cells[:, -1]]
    lengths = lengths_of(mask)
    last, is_empty = tf.maximum(lengths - 1, 0), (lengths == 0)[:, None]
    after = [tf.gather(each, last, batch_dims=1) for each in (outputs, cells)]
    return outputs, [tf.where(is_empty, before, each) for before, each in zip(states, after, strict=True)]


def lengths_of(mask: tf.Tensor) -> tf.Tensor:
    """Numbers of unpadded steps: bool [batch, time] -> int32 [batch]."""
    return tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)


def reverse_texts(sequences: Any, mask: tf.Tensor | None) -> tf.Tensor:
    """Reverses each text of [batch, time, ...] and leaves its padding in place."""
    return tf.reverse(sequences, [1]) if mask is None else tf.reverse_sequence(sequences, lengths_of(mask), seq_axis=1)
