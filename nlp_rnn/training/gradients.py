"""The gradients of a batch's loss: of one pass, or with adversarial training of two.

Adversarial training of classifiers adds a pass with the texts' vectors moved against the model, by
`nlp_rnn.layers.adversarial.moves`.
"""

from typing import Any

import keras
import tensorflow as tf

from nlp_rnn.layers.adversarial import moves
from nlp_rnn.models.classifier import Classifier
from nlp_rnn.special_ids import PAD_ID


def of_loss(model: keras.Model, x: Any, y: Any, sample_weights: Any) -> tuple[Any, list[Any]]:
    """Returns the loss of the rows, and its gradients by the trainable variables, scaled as the optimizer wants."""
    if isinstance(model, Classifier) and model.objective.adversarial:
        return _of_two_passes(model, x, y, sample_weights)
    with tf.GradientTape() as tape:
        predicted = model(x, training=True)
        loss = model.compute_loss(x, y, predicted, sample_weights, training=True)
        scaled = model.optimizer.scale_loss(loss)
    return loss, tape.gradient(scaled, model.trainable_variables)


def _of_two_passes(model: Classifier, x: Any, y: Any, sample_weights: Any) -> tuple[Any, list[Any]]:
    """The mean of the losses of the texts and of their moved vectors, and its gradients by the trainable variables.

    The metrics are those of the texts as they are. The gradients are scaled as the optimizer wants.

    Args:
      x: int32 ids [batch, time], right-padded.
      y: the targets, as in `Classifier.compute_loss`.
      sample_weights: float [batch].
    """
    variables, optimizer = model.trainable_variables, model.optimizer
    with tf.GradientTape() as tape:
        ids, vectors = model.embed(x, training=True)
        tape.watch(vectors)  # also where the embedding is not trained
        logits = model.classify(ids, vectors, training=True)
        loss = model.compute_loss(x, y, logits, sample_weights, training=True) / 2
        scaled = optimizer.scale_loss(loss)
    *gradients, direction = tape.gradient(scaled, [*variables, vectors])
    move = tf.stop_gradient(moves(vectors, direction, tf.not_equal(ids, PAD_ID), model.objective.adversarial))
    with tf.GradientTape() as tape:
        ids, vectors = model.embed(x, training=True)
        logits = model.classify(ids, vectors + move, training=True)
        moved_loss = model.loss_of(y, logits, sample_weights, training=True)[0] / 2
        scaled = optimizer.scale_loss(moved_loss)
    moved = tape.gradient(scaled, variables)
    return loss + moved_loss, [add(*pair) for pair in zip(gradients, moved, strict=True)]


def add(one: Any, other: Any) -> Any:
    """The sum of two gradients of a variable; of two that have only some of its rows, again such a one."""
    if isinstance(one, tf.IndexedSlices) and isinstance(other, tf.IndexedSlices):
        values, indices = tf.concat([one.values, other.values], 0), tf.concat([one.indices, other.indices], 0)
        return tf.IndexedSlices(values, indices, one.dense_shape)
    return tf.convert_to_tensor(one) + tf.convert_to_tensor(other)
