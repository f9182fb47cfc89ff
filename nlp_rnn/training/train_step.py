"""One step of Keras's `fit` on any number of replicas, with the fixes that Keras 3.15 needs.

`prepare` makes all fixes on the given model:
- Keras sums gradients over replicas only after it has clipped them and checked them for overflow. Here they are summed
  over all replicas first.
- Keras draws the same random numbers on all replicas. Here each replica has its own.
- Keras's gradient accumulation fails under strategies. Here a replica computes its rows in several parts within one
  step.
- Under `MultiWorkerMirroredStrategy`, `fit` fails (keras issue 20585): it averages integer inputs to build a model that
  is already built, and averages a step's scalar results over an axis. `tests/distribution/test_distribution.py` fails
  as soon as Keras no longer needs this fix.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from nlp_rnn.distribution import replicas
from nlp_rnn.distribution.placement import Placement
from nlp_rnn.training import gradients

logger = logging.getLogger(__name__)

_TRIED_WITH = (3, 15)  # Keras version


def prepare(model: keras.Model, placement: Placement, num_parts: int) -> None:
    """Makes `fit` of a built and compiled model use our training step.

    Args:
      num_parts: the number of parts into which each replica splits its rows; see `replicas`.
    """
    model.train_step = functools.partial(train_step, model, num_parts)
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    optimizer._all_reduce_sum_gradients = lambda pairs: pairs  # already summed
    if placement.strategy is not None:
        model._maybe_symbolic_build = lambda *_, **__: None
        for layer in model._flatten_layers():
            for generator in layer._seed_generators:
                generator.next = functools.partial(_next_seed, generator)
    if placement.num_workers > 1:
        version = tuple(int(number) for number in keras.__version__.split(".")[:2])
        if version > _TRIED_WITH:
            logger.warning("Keras %s: several machines were tried with Keras %d.%d", keras.__version__, *_TRIED_WITH)
        model.train_step, model.test_step = _with_axis(model.train_step), _with_axis(model.test_step)


def train_step(model: keras.Model, num_parts: int, data: Any) -> dict[str, Any]:
    """Does what `keras.Model.train_step` does, for this replica's rows.

    `model.compute_loss` must return this replica's and part's share of the global batch's loss, so that the shares sum
    to it.

    Args:
      data: (inputs, targets, sample weights), each [rows of this replica, ...]; the rows are a multiple of `num_parts`.
    """
    optimizer = model.optimizer
    weight = replicas.batch_weight(replicas.rows_of(data[2]))
    total: list[Any] = []
    loss: Any = 0.0
    for part in range(num_parts):
        x, y, weights = tf.nest.map_structure(lambda tensor, part=part: _part_of(tensor, part, num_parts), data)
        # One part after the other: computed at once, they would need the memory that they are meant to save.
        with tf.control_dependencies(total), replicas.computing_part(part, num_parts, weight):
            part_loss, added = gradients.of_loss(model, x, y, weights)
            total = [gradients.add(*pair) for pair in zip(total, added, strict=True)] if total else added
            loss += part_loss
    model._loss_tracker.update_state(replicas.num_replicas() * loss, sample_weight=tf.shape(data[2])[0])
    optimizer.apply(replicas.total(total), model.trainable_variables)
    return model.get_metrics_result()


def _next_seed(generator: keras.random.SeedGenerator, ordered: bool = True) -> Any:
    """Returns the result of `keras.random.SeedGenerator.next`, but different on each replica."""
    return type(generator).next(generator, ordered=ordered) + tf.stack(
        [tf.cast(replicas.number(), "int64") * 1_000_003, 0]
    )


def _part_of(tensor: tf.Tensor, part: int, num_parts: int) -> tf.Tensor:
    size = tensor.shape[0] // num_parts if num_parts > 1 else 0
    return tensor[part * size : (part + 1) * size] if num_parts > 1 else tensor


def _with_axis(step: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    return lambda data: {name: tf.reshape(value, [1]) for name, value in step(data).items()}
