"""Adversarial training on Keras's backend JAX. On TensorFlow it is in `gradients`."""

import functools
from collections.abc import Callable
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
    """What Keras's `train_step` on JAX does, with the losses of `gradients`.

    The metrics are those of the texts as they are.

    Args:
      state: the values of the trainable, other, optimizer's and metrics' variables.
      data: (int32 ids [batch, time], right-padded; targets and sample weights as in `Classifier.compute_loss`).
    """
    trainable, other, for_optimizer, metrics = state
    x, y, sample_weight = data
    objective = model.objective
    share = 0.5 if objective.adversarial else 1.0

    def scope(trainable: Any, other: Any) -> keras.StatelessScope:
        variables = [*model.trainable_variables, *model.non_trainable_variables, *model.metrics_variables]
        variables += model.optimizer.variables
        values = [*trainable, *other, *metrics, *for_optimizer]
        return keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True)))

    def passed(trainable: Any, other: Any, move: Any, loss_of: Callable[[Any], Any]) -> tuple[Any, Any]:
        """The scaled loss of the texts moved by `move`; the loss, the logits, ids, vectors and the variables after."""
        with scope(trainable, other) as after:
            ids, vectors = model.embed(x, training=True)
            logits = model.classify(ids, vectors + move, training=True)
            loss = loss_of(logits)
            scaled = model.optimizer.scale_loss(loss)
        other_now, metrics_now = (
            [after.get_current_value(variable) for variable in variables]
            for variables in (model.non_trainable_variables, model.metrics_variables)
        )
        return scaled, (loss, logits, ids, vectors, other_now, metrics_now)

    def of_texts(logits: Any) -> Any:
        return share * model.compute_loss(x, y, logits, sample_weight, training=True)

    def of_moved(logits: Any) -> Any:
        return share * model.loss_of(y, logits, sample_weight, training=True)[0]

    def of_doubt(logits: Any) -> Any:
        return -keras.ops.sum(objective.confidences(logits))

    no_move = jax.numpy.zeros_like(
        jax.eval_shape(functools.partial(passed, loss_of=of_texts), trainable, other, 0.0)[1][3]
    )
    by_both = jax.grad(passed, argnums=(0, 2), has_aux=True)
    (gradients, direction), (loss, logits, ids, vectors, other_now, metrics_now) = by_both(
        trainable, other, no_move, of_texts
    )
    moved: list[tuple[Any, float, Callable[[Any], Any]]] = []
    if objective.adversarial:
        moved.append((direction, objective.adversarial, of_moved))
    if objective.virtual_adversarial:
        away, _ = jax.grad(passed, argnums=2, has_aux=True)(trainable, other, no_move, of_doubt)
        of_divergence = functools.partial(model.divergence_of, logits, sample_weight=sample_weight)
        moved.append((away, objective.virtual_adversarial, of_divergence))
    for direction, length, loss_of in moved:
        move = moves(vectors, direction, keras.ops.not_equal(ids, PAD_ID), length)
        more, (moved_loss, *_, other_now, _) = jax.grad(passed, has_aux=True)(trainable, other_now, move, loss_of)
        gradients = jax.tree.map(jax.numpy.add, gradients, more)
        loss += moved_loss
    trainable_now, optimizer_now = model.optimizer.stateless_apply(for_optimizer, gradients, trainable)
    logs, metrics_now = model._update_metrics_variables(metrics_now, loss, x, y, logits, sample_weight)
    return logs, (trainable_now, other_now, optimizer_now, metrics_now)
