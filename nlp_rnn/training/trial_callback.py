"""Watches over the training of one trial of a search."""

import math
import time
from typing import Any

import keras
import optuna
import tensorflow as tf

from nlp_rnn.errors import DivergenceError, Stopped
from nlp_rnn.training.run_callback import kept_weights
from nlp_rnn.training.study import Limits, TuningStudy


class TrialCallback(keras.callbacks.Callback):
    """Reports a trial's epochs; ends it where it is too large, worse than the others or out of time.

    Args:
      more_bytes: of weights that the model of the config has and that of the trial does not.
    """

    def __init__(self, study: TuningStudy, trial: optuna.Trial, limits: Limits, more_bytes: int) -> None:
        super().__init__()
        self._study, self._trial, self._limits, self._more_bytes = study, trial, limits, more_bytes
        self._is_worse = False
        self.is_out_of_time = False
        self.first_step: float | None = None  # when it ended, by `time.monotonic`

    def on_train_begin(self, logs: Any = None) -> None:
        sizes = (math.prod(weight.shape) * tf.as_dtype(weight.dtype).size for weight in kept_weights(self.model))
        megabytes = (sum(sizes) + self._more_bytes) / 1e6
        is_too_large = self._limits.max_megabytes is not None and megabytes > self._limits.max_megabytes
        self._study.note_size(self._trial, megabytes, is_too_large=is_too_large)
        if is_too_large:
            raise optuna.TrialPruned

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.first_step = self.first_step or time.monotonic()
        if self._is_over():
            self.model.stop_training = True  # RunCallback saves and raises Stopped

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._is_over():
            raise Stopped

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        training = self._study.config.training
        value = float(logs[training.monitor])
        if not math.isfinite(value):
            raise DivergenceError(f"{training.monitor} became {value} in epoch {epoch + 1}")
        self._is_worse = self._study.report(self._trial, value, epoch) and epoch + 1 < training.epochs

    def on_train_end(self, logs: Any = None) -> None:  # each epoch is a `fit` of its own
        if self._is_worse:
            raise optuna.TrialPruned

    def _is_over(self) -> bool:
        self.is_out_of_time = time.monotonic() > self._limits.deadline
        return self.is_out_of_time
