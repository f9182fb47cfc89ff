"""Adversarial training on Keras's backend JAX. On TensorFlow it is in `gradients`."""

import functools
from typing import Any

import jax
import keras

from nlp_rnn.layers.adversarial import moves
from nlp_rnn.models.classifier import Classifier
from nlp_rnn.special_ids import PAD_ID


def prepare(model: Classifier) -> None:
    """Makes `fit` of a compiled classifier train on its texts and on their moved vectors."""
    model.train_step = functools.partial(_train_step, model)


def _train_step(model: Classifier, state: Any, data: Any) -> tuple[dict[str, Any], Any]:
    """What Keras's `train_step` on JAX does, with the mean of the losses of the texts and of their moved vectors.

    The metrics are those of the texts as they are.

    Args:
      state: the values of the trainable, other, optimizer's and metrics' variables.
      data: (int32 ids [batch, time], right-padded; targets and sample weights as in `Classifier.compute_loss`).
    """
    trainable, other, for_optimizer, metrics = state
    x, y, sample_weight = data

    def scope(trainable: Any, other: Any) -> keras.StatelessScope:
        variables = [*model.trainable_variables, *model.non_trainable_variables, *model.metrics_variables]
        variables += model.optimizer.variables
        values = [*trainable, *other, *metrics, *for_optimizer]
        return keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True)))

    def of_texts(trainable: Any, move: Any) -> Any:
        with scope(trainable, other) as after:
            ids, vectors = model.embed(x, training=True)
            logits = model.classify(ids, vectors + move, training=True)
            loss = model.compute_loss(x, y, logits, sample_weight, training=True) / 2
            scaled = model.optimizer.scale_loss(loss)
        other_now, metrics_now = (
            [after.get_current_value(variable) for variable in variables]
            for variables in (model.non_trainable_variables, model.metrics_variables)
        )
        return scaled, (loss, logits, ids, vectors, other_now, metrics_now)

    def of_moved(trainable: Any, other: Any, move: Any) -> Any:
        with scope(trainable, other) as after:
            ids, vectors = model.embed(x, training=True)
            logits = model.classify(ids, vectors + move, training=True)
            loss = model.loss_of(y, logits, sample_weight, training=True)[0] / 2
            scaled = model.optimizer.scale_loss(loss)
        return scaled, (loss, [after.get_current_value(variable) for variable in model.non_trainable_variables])

    no_move = jax.numpy.zeros_like(jax.eval_shape(of_texts, trainable, 0.0)[1][3])
    by_both = jax.grad(of_texts, argnums=(0, 1), has_aux=True)
    (gradients, direction), (loss, logits, ids, vectors, other_now, metrics_now) = by_both(trainable, no_move)
    move = moves(vectors, direction, keras.ops.not_equal(ids, PAD_ID), model.objective.adversarial)
    more, (moved_loss, other_now) = jax.grad(of_moved, has_aux=True)(trainable, other_now, move)
    gradients = jax.tree.map(jax.numpy.add, gradients, more)
    trainable_now, optimizer_now = model.optimizer.stateless_apply(for_optimizer, gradients, trainable)
    total = loss + moved_loss
    logs, metrics_now = model._update_metrics_variables(metrics_now, total, x, y, logits, sample_weight)
    return logs, (trainable_now, other_now, optimizer_now, metrics_now)
