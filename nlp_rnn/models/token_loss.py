"""The loss of the models that predict tokens: language models and translators. Plain Keras, on any backend."""

from typing import Any

import keras

from nlp_rnn.layers import r_drop as passes
from nlp_rnn.layers.softmax_head import SoftmaxHead


def token_loss(
    head: SoftmaxHead, hidden: Any, *, y: Any, weights: Any, training: bool, r_drop: float = 0.0,
    label_smoothing: float = 0.0,
) -> tuple[Any, Any]:  # fmt: skip
    """Sums up the cross-entropies of a batch, in nats.

    Args:
      head: the output layer.
      hidden: float [batch, time, features]; in training with R-Drop [2 * batch, time, features].
      y: int32 [batch, time], the true tokens; or, with training.teacher, a dict: `ids`, these, and `likely`, float32
        [batch, time, 2 * k], the ids of k likely tokens, then their probabilities times training.teacher_share.
      weights: float [batch, time].
      training: whether R-Drop and smoothing apply.
      r_drop: weight of the divergence between two passes with different dropout; 0: there is one pass.
      label_smoothing: the share of each target, true token and teachers together, that is spread over all tokens, 0-1.

    Returns:
      (loss, cross-entropy to the true tokens alone, with the smoothing); both are sums over the weighted tokens.
    """
    ops, likely = keras.ops, None
    if isinstance(y, dict):
        y, likely = y["ids"], ops.reshape(y["likely"], (-1, y["likely"].shape[-1]))
    targets, weights = ops.reshape(y, (-1,)), ops.reshape(weights, (-1,))
    smoothing = label_smoothing if training else 0.0
    if training and r_drop:
        rows = ops.cast(passes.pair_steps(hidden), "float32")
        total, divergence = head.r_drop_loss(rows, targets, weights, r_drop=r_drop, label_smoothing=smoothing)
        cross_entropy = total - r_drop * divergence
        targets, weights = passes.twice(targets), passes.twice(weights) / 2
        likely = None if likely is None else passes.twice(likely)
    else:
        rows = ops.cast(ops.reshape(hidden, (-1, hidden.shape[-1])), "float32")
        cross_entropy = total = head.loss(rows, targets, weights, training=training, label_smoothing=smoothing)
    if likely is not None:
        total += (1 - smoothing) * head.likely_loss(rows, targets, likely, weights)
    return total, cross_entropy
