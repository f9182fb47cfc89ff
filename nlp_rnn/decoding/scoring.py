"""Scores given texts in the graph: the log-probability of each token after the tokens before it."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from nlp_rnn.special_ids import EOS_ID, PAD_ID


def score_tokens(
    token_ids: tf.RaggedTensor, states: Any, step: Callable[[tf.Tensor, Any], tuple[tf.Tensor, Any]]
) -> tf.Tensor:
    """Reads each text from its beginning to its end, one token at a time, in constant memory.

    Every text begins after an EOS_ID, the end of another text, and ends with one.

    Args:
      token_ids: ragged int32 [batch, (time)], with at least one row.
      states: the initial states.
      step: (int32 [batch], states) -> (log-probabilities float32 [batch, vocabulary] of the next id, new states).

    Returns:
      log-probabilities float32 [batch, time + 1], the last one of a text that of its end; 0 after it.
    """
    ends = tf.fill([token_ids.nrows(), 1], EOS_ID)
    targets = tf.concat([token_ids, ends], axis=1).to_tensor(PAD_ID)
    inputs = tf.concat([ends, targets[:, :-1]], axis=1)
    num_steps = tf.shape(targets)[1]

    def body(time: tf.Tensor, states: Any, scores: tf.TensorArray) -> tuple[Any, ...]:
        log_probabilities, states = step(inputs[:, time], states)
        return time + 1, states, scores.write(time, tf.gather(log_probabilities, targets[:, time], batch_dims=1))

    scores = tf.TensorArray(tf.float32, num_steps, element_shape=[None])
    _, _, scores = tf.while_loop(lambda time, *_: time < num_steps, body, (0, states, scores))
    return tf.where(targets == PAD_ID, 0.0, tf.transpose(scores.stack()))
