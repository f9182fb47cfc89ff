"""The gradients of a batch's loss: of one pass, or with adversarial training of more.

Adversarial training of classifiers adds a pass with the texts' vectors moved against the label, virtual adversarial
training one with the vectors moved against the model's own answer; see `nlp_rnn.layers.adversarial`.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from nlp_rnn.layers.adversarial import moves
from nlp_rnn.models.classifier import Classifier
from nlp_rnn.special_ids import PAD_ID


def of_loss(model: keras.Model, x: Any, y: Any, sample_weights: Any) -> tuple[Any, list[Any]]:
    """Returns the loss of the rows, and its gradients by the trainable variables, scaled as the optimizer wants."""
    if isinstance(model, Classifier) and model.objective.moves_texts:
        return _with_moved_texts(model, x, y, sample_weights)
    with tf.GradientTape() as tape:
        predicted = model(x, training=True)
        loss = model.compute_loss(x, y, predicted, sample_weights, training=True)
        scaled = model.optimizer.scale_loss(loss)
    return loss, tape.gradient(scaled, model.trainable_variables)


def _with_moved_texts(model: Classifier, x: Any, y: Any, sample_weights: Any) -> tuple[Any, list[Any]]:
    """The loss of the texts and of their moved vectors, and its gradients by the trainable variables.

    Adversarial training takes the mean of both losses, virtual adversarial training adds a divergence. The metrics are
    those of the texts as they are. The gradients are scaled as the optimizer wants.

    Args:
      x: int32 ids [batch, time], right-padded.
      y: the targets, as in `Classifier.compute_loss`.
      sample_weights: float [batch].
    """
    objective, variables = model.objective, model.trainable_variables
    share = 0.5 if objective.adversarial else 1.0
    with tf.GradientTape() as tape:
        ids, vectors = model.embed(x, training=True)
        tape.watch(vectors)  # also where the embedding is not trained
        logits = model.classify(ids, vectors, training=True)
        loss = share * model.compute_loss(x, y, logits, sample_weights, training=True)
        scaled = model.optimizer.scale_loss(loss)
    *gradients, direction = tape.gradient(scaled, [*variables, vectors])

    def add_moved(direction: Any, length: float, loss_of: Callable[[Any], Any]) -> None:
        """Adds the loss and the gradients of the texts' vectors moved in a direction."""
        nonlocal loss, gradients
        move = tf.stop_gradient(moves(vectors, direction, tf.not_equal(ids, PAD_ID), length))
        with tf.GradientTape() as tape:
            ids_now, vectors_now = model.embed(x, training=True)
            moved_loss = loss_of(model.classify(ids_now, vectors_now + move, training=True))
            scaled = model.optimizer.scale_loss(moved_loss)
        loss += moved_loss
        gradients = [add(*pair) for pair in zip(gradients, tape.gradient(scaled, variables), strict=True)]

    if objective.adversarial:
        add_moved(
            direction,
            objective.adversarial,
            lambda moved: share * model.loss_of(y, moved, sample_weights, training=True)[0],
        )
    if objective.virtual_adversarial:
        before = tf.stop_gradient(logits)
        add_moved(
            _against_own_answers(model, x),
            objective.virtual_adversarial,
            lambda moved: model.divergence_of(before, moved, sample_weights),
        )
    return loss, gradients


def _against_own_answers(model: Classifier, x: Any) -> Any:
    """The direction in which the texts' own answers lose probability fastest, in the shape of their vectors.

    It takes a pass of its own: a second gradient of one pass fails where XLA compiles the recurrent layers' loops.
    """
    with tf.GradientTape() as tape:
        ids, vectors = model.embed(x, training=True)
        tape.watch(vectors)
        doubt = -tf.reduce_sum(model.objective.confidences(model.classify(ids, vectors, training=True)))
    return tape.gradient(doubt, vectors)


def add(one: Any, other: Any) -> Any:
    """The sum of two gradients of a variable; of two that have only some of its rows, again such a one."""
    if isinstance(one, tf.IndexedSlices) and isinstance(other, tf.IndexedSlices):
        values, indices = tf.concat([one.values, other.values], 0), tf.concat([one.indices, other.indices], 0)
        return tf.IndexedSlices(values, indices, one.dense_shape)
    return tf.convert_to_tensor(one) + tf.convert_to_tensor(other)
