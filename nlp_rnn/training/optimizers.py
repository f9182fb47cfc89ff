"""Optimizers and learning-rate schedules: plain Keras, on any of its backends."""

import math
from typing import Any

import keras

from nlp_rnn.config.settings import TrainingConfig
from nlp_rnn.errors import ConfigError


@keras.saving.register_keras_serializable("nlp_rnn")
class WarmUpSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate by step: a warm-up, then constant, cosine, one-cycle or flat with a cosine.

    "constant" and "cosine" rise linearly to the peak; "cosine" then falls to 0 along a half cosine. "one_cycle" rises
    from peak / 25 along a half cosine and falls to peak / 10,000. Source: Smith 2018; the shape is fastai's.
    "flat_cosine" rises linearly from peak / 10, stays at the peak until half of the steps are done, falls along a half
    cosine to peak / 10, and in the last steps, as many as it rose, linearly to 0.

    Args:
      shape: see above.
      peak: the highest learning rate.
      num_steps: of the whole training.
      warmup_fraction: the share of steps before the peak, 0-1.
    """

    def __init__(self, shape: str, peak: float, num_steps: int, warmup_fraction: float) -> None:
        self.shape, self.peak, self.num_steps, self.warmup_fraction = shape, peak, num_steps, warmup_fraction

    def __call__(self, step: Any) -> Any:
        ops = keras.ops
        warmup_steps = max(self.num_steps * self.warmup_fraction, 1.0)
        step = ops.cast(step, "float32")
        rise = ops.minimum((step + 1) / warmup_steps, 1.0)
        fall = ops.clip((step - warmup_steps) / max(self.num_steps - warmup_steps, 1.0), 0.0, 1.0)
        if self.shape == "constant":
            return self.peak * rise
        if self.shape == "cosine":
            return self.peak * rise * _half_cosine(fall)
        if self.shape == "flat_cosine":
            low, half = self.peak / 10, self.num_steps / 2
            cosine = (step - half) / max(self.num_steps - warmup_steps - half, 1.0)
            falling = low + (self.peak - low) * _half_cosine(ops.clip(cosine, 0.0, 1.0))
            ending = ops.clip((self.num_steps - step) / warmup_steps, 0.0, 1.0)
            return ops.where(step < warmup_steps, low + (self.peak - low) * rise, falling) * ending
        start, end = self.peak / 25, self.peak / 1e4
        falling = end + (self.peak - end) * _half_cosine(fall)
        return ops.where(step < warmup_steps, self.peak - (self.peak - start) * _half_cosine(rise), falling)

    def get_config(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "peak": self.peak,
            "num_steps": self.num_steps,
            "warmup_fraction": self.warmup_fraction,
        }


def _half_cosine(share: Any) -> Any:
    """Falls from 1 at 0 to 0 at 1."""
    return (1 + keras.ops.cos(math.pi * share)) / 2


def build_optimizer(config: TrainingConfig, num_steps: int) -> keras.optimizers.Optimizer:
    """Builds the config's optimizer with schedule, clipping and averaging.

    Args:
      num_steps: of the whole training.

    Raises:
      ConfigError: if the optimizer does not exist on Keras's current backend.
    """
    options: dict[str, Any] = {}
    if config.optimizer != "sgd":
        options = {"beta_1": config.beta_1, "beta_2": config.beta_2, "epsilon": config.epsilon}
    if config.optimizer == "adamw":
        options["weight_decay"] = config.weight_decay
    if config.clip_norm:
        options["global_clipnorm"] = config.clip_norm
    if config.ema_momentum:
        options |= {"use_ema": True, "ema_momentum": config.ema_momentum}
    rate = WarmUpSchedule(config.schedule, config.learning_rate, num_steps, config.warmup_fraction)
    optimizer = _optimizer_class(config.optimizer)(rate, **options)
    if config.ema_ramp:
        _ramp_momentum(optimizer)
    return optimizer


def _ramp_momentum(optimizer: keras.optimizers.Optimizer) -> None:
    """Limits the momentum of the averaged weights at step t to (1 + t) / (10 + t).

    Source: `num_updates` of tf.train.ExponentialMovingAverage. The average then weighs step s of t like (s / t)^9.
    """
    limit, usual = optimizer.ema_momentum, optimizer._update_model_variables_moving_average

    def update(variables: Any) -> None:
        step = keras.ops.cast(optimizer.iterations, "float32")
        optimizer.ema_momentum = keras.ops.minimum((1 + step) / (10 + step), limit)
        usual(variables)
        optimizer.ema_momentum = limit  # a number again, for the optimizer's config

    optimizer._update_model_variables_moving_average = update


def scale_rates(
    optimizer: keras.optimizers.Optimizer, groups: list[list[Any]], *, decay: float, starts: list[int]
) -> None:
    """Scales the learning rate per group: group n learns at rate / decay ** n, from step starts[n] on.

    Source: Howard & Ruder 2018, sections 3.2 and 3.3.

    Args:
      optimizer: built, without weight decay, which would not follow the scaled rates.
      groups: variables, from the output down.
      starts: first step of each group; its variables stay unchanged before.
    """
    facts = {}  # by the optimizer's index of a variable, which its copies on replicas share
    for number, (group, start) in enumerate(zip(groups, starts, strict=True)):
        facts.update({optimizer._get_variable_index(variable): (decay**-number, start) for variable in group})
    usual = optimizer.update_step

    def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        factor, start = facts[optimizer._get_variable_index(variable)]
        has_started = keras.ops.cast(optimizer.iterations >= start, "float32")
        usual(gradient, variable, keras.ops.cast(learning_rate, "float32") * factor * has_started)

    optimizer.update_step = update_step


def _optimizer_class(name: str) -> type[keras.optimizers.Optimizer]:
    if keras.backend.backend() == "tensorflow":
        from nlp_rnn.layers.fast import fused_adam

        return {
            "sgd": fused_adam.SummedSGD, "adam": fused_adam.FusedAdam, "adamw": fused_adam.FusedAdamW,
            "lazy_adam": fused_adam.LazyAdam,
        }[name]  # fmt: skip
    if name == "lazy_adam":
        raise ConfigError("training.optimizer is lazy_adam, which needs Keras's backend tensorflow; use adam")
    return {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}[name]
