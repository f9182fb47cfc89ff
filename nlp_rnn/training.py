"""Compile, fit, resume, predict."""

import csv
import importlib.util
import logging
import math
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nlp_rnn import files
from nlp_rnn.checkpoints import Progress, load_checkpoint, load_progress, save_checkpoint
from nlp_rnn.config import ConfigError, HardwareConfig, TrainingConfig
from nlp_rnn.datasets import (
    Batch,
    Resampler,
    TokenCache,
    classification_batch,
    make_dataset,
    padding_waste,
    plan_batches,
    plan_ordered_batches,
)
from nlp_rnn.optimizers import build_optimizer
from nlp_rnn.progress import Bar
from nlp_rnn.runs import Run

logger = logging.getLogger(__name__)


def configure_hardware(hardware: HardwareConfig, seed: int) -> None:
    """Seeds everything and sets kernels and precision; call it before a model is built."""
    keras.utils.set_random_seed(seed)
    if hardware.is_deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy("float32" if hardware.mixed_precision == "off" else f"mixed_{hardware.mixed_precision}")


# --- training ------------------------------------------------------------------------------------------------------


class Stopped(KeyboardInterrupt):
    """The user stopped the training; its state is saved."""


class BatchStream:
    """The training batches, in an order that depends on seed and epoch only; can start in mid-epoch.

    Args:
      resample: (token_ids, epoch, step) -> token_ids, other segmentations of the same texts; or None.
    """

    def __init__(self, cache: TokenCache, config: TrainingConfig, seed: int, resample: Resampler | None = None) -> None:
        self._cache, self._batch_size, self._seed, self._resample = cache, config.batch_size, seed, resample
        steps = math.ceil(len(cache.labels) / config.batch_size)
        self.steps_per_epoch = min(steps, config.max_steps_per_epoch or steps)
        self.epoch = self.first_step = 0

    def plan(self) -> list[np.ndarray]:
        """The batches of the current epoch that are still to come."""
        batches = plan_batches(self._cache.lengths, self._batch_size, seed=self._seed, epoch=self.epoch)
        return batches[self.first_step : self.steps_per_epoch]

    def __call__(self) -> Iterator[Batch]:
        for step, indices in enumerate(self.plan(), start=self.first_step):
            token_ids, labels, weights = classification_batch(self._cache, indices, self._batch_size)
            yield self._resample(token_ids, self.epoch, step) if self._resample else token_ids, labels, weights


def train_classifier(
    model: keras.Model, run: Run, train: TokenCache, validation: TokenCache, resample: Resampler | None = None
) -> Progress:
    """Trains the model, or goes on where the run stopped; the best weights end up in the run's best checkpoint.

    Args:
      resample: what `BatchStream` takes.

    Raises:
      ConfigError: if the loss is no longer finite; the last good checkpoint stays.
      Stopped: on Ctrl-C or SIGTERM, after saving.
    """
    config = run.config.training
    stream = BatchStream(train, config, run.config.seed, resample)
    progress = load_progress(run.last_checkpoint)
    optimizer = build_optimizer(config, config.epochs * stream.steps_per_epoch)
    model.compile(
        optimizer,
        # The mean over real examples: filled-up rows weigh 0.
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight"),
        weighted_metrics=[
            keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
            keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="cross_entropy"),
        ],
        jit_compile=False,  # XLA would compile anew for every length
    )
    waste = padding_waste(train.lengths, stream.plan())
    logger.info(
        "training on %d examples, %d steps an epoch, batch %d, %.1f %% padding, %s parameters",
        len(train.labels), stream.steps_per_epoch, config.batch_size, 100 * waste, f"{model.count_params():,}",
    )  # fmt: skip
    keeper = RunKeeper(run, stream, progress)
    callbacks: list[keras.callbacks.Callback] = [keeper]
    if config.ema_momentum:
        callbacks.insert(0, keeper.averages)
    if config.tensorboard:
        callbacks.append(_tensorboard(run))
    model.test_on_batch(*next(stream()))  # builds the metrics, whose state is part of a checkpoint
    model.optimizer.build(model.trainable_variables)  # float16 wraps the optimizer for loss scaling
    if progress.is_finished:
        logger.info("%s is finished already: nothing to train", run.path)
    elif run.last_checkpoint.exists():
        logger.info("resuming after epoch %d, step %d", progress.epoch, progress.step)
    evaluation = make_evaluation_dataset(validation, config.batch_size)
    with keeper.signals():
        while not progress.is_finished:
            if run.last_checkpoint.exists():  # also after a first fit, which leaves averages where the weights were
                keeper.restore(model)
            # A broken-off epoch is shorter than the others, and fit wants all of one call to be of one length.
            epochs = progress.epoch + 1 if progress.step else config.epochs
            dataset = make_dataset(stream, stream.steps_per_epoch - progress.step, config.batch_size)
            model.fit(
                dataset, validation_data=evaluation, initial_epoch=progress.epoch, epochs=epochs,
                callbacks=callbacks, shuffle=False, verbose=0,
            )  # fmt: skip
    keeper.finish()
    return progress


class RunKeeper(keras.callbacks.Callback):
    """Keeps the run directory true: checkpoints, history, best weights, early stopping, progress bar, interruptions."""

    def __init__(self, run: Run, stream: BatchStream, progress: Progress) -> None:
        super().__init__()
        self.run, self.stream, self.progress = run, stream, progress
        self.averages = keras.callbacks.SwapEMAWeights()
        self._signal: int | None = None
        self._metrics_to_restore: list[np.ndarray] | None = None
        self._bar: Bar | None = None
        self._session_start = self._last_save = time.monotonic()
        self._seconds_before = progress.seconds

    def restore(self, model: keras.Model) -> None:
        """Loads the last checkpoint into a built and compiled model."""
        load_checkpoint(self.run.last_checkpoint, _training_variables(model))
        if self.progress.step:  # fit resets the metrics before its first batch: their state waits until then
            self._metrics_to_restore = [keras.ops.convert_to_numpy(variable) for variable in _metric_variables(model)]
        self.stream.first_step = self.progress.step

    def on_train_begin(self, logs: Any = None) -> None:
        self._last_save = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.stream.epoch = epoch
        self._epoch_start = time.monotonic()
        if self._metrics_to_restore is not None:
            for variable, value in zip(_metric_variables(self.model), self._metrics_to_restore, strict=True):
                variable.assign(value)
            self._metrics_to_restore = None
        self._bar = Bar(f"epoch {epoch + 1}/{self.run.config.training.epochs}", self.stream.steps_per_epoch, self.progress.step)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise self._diverged(f"the training loss became {loss}")
        self.progress.step += 1
        if self._bar:
            self._bar.advance(f"cross-entropy {float(logs['cross_entropy']):.4f}")
        if self._signal is not None:
            self._save()
            self._close_bar()
            raise Stopped(
                f"stopped in epoch {self.progress.epoch + 1} after step {self.progress.step} of {self.stream.steps_per_epoch}; "
                "everything is saved: run the same command again to go on"
            )
        if time.monotonic() - self._last_save > self.run.config.training.checkpoint_seconds:
            self._save()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._close_bar()
        progress, config = self.progress, self.run.config.training
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row = {"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}, "learning_rate": rate}
        progress.history.append(row)
        progress.epoch, progress.step, self.stream.first_step = epoch + 1, 0, 0
        value = row[config.monitor]
        sign = 1 if config.monitor == "val_accuracy" else -1
        progress.wait += 1
        if progress.best is None or sign * value > sign * progress.best:
            progress.best, progress.best_epoch, progress.wait = value, epoch + 1, 0
            self._save_best()
        is_stale = bool(config.patience) and progress.wait >= config.patience
        progress.is_finished = epoch + 1 == config.epochs or is_stale
        self._save()
        _write_history(self.run.path / "history.csv", progress.history)
        logger.info(
            "epoch %d: cross-entropy %.4f, accuracy %.2f %%; validation %.4f, %.2f %%; %.0f s%s",
            epoch + 1, row["cross_entropy"], 100 * row["accuracy"], row["val_cross_entropy"], 100 * row["val_accuracy"],
            time.monotonic() - self._epoch_start, " (best)" if progress.wait == 0 else "",
        )  # fmt: skip
        if is_stale:
            logger.info("stopped early: %s has not improved for %d epochs", config.monitor, config.patience)
            self.model.stop_training = True

    def signals(self) -> Any:
        """A context in which Ctrl-C and SIGTERM end the training after the step under way."""
        return _Signals(self)

    def finish(self) -> None:
        """Logs how the training ended."""
        progress = self.progress
        monitor = self.run.config.training.monitor
        logger.info("finished: best %s %.4f in epoch %d, %.0f s", monitor, progress.best, progress.best_epoch, progress.seconds)

    def _diverged(self, what: str) -> ConfigError:
        config = self.run.config.training
        return ConfigError(
            f"{what} in epoch {self.progress.epoch + 1}, step {self.progress.step + 1}; the last good checkpoint is kept in "
            f"{self.run.path}: lower training.learning_rate ({config.learning_rate}) or training.clip_norm ({config.clip_norm}) "
            "and train under another name=..."
        )

    def _save(self) -> None:
        if not all(np.isfinite(weight.numpy()).all() for weight in self.model.trainable_variables):
            raise self._diverged("the weights became infinite")  # after a loss that was finite still
        self.progress.seconds = self._seconds_before + time.monotonic() - self._session_start
        save_checkpoint(self.run.last_checkpoint, _training_variables(self.model), self.progress)
        self._last_save = time.monotonic()

    def _save_best(self) -> None:
        has_averages = bool(self.run.config.training.ema_momentum)
        if has_averages:  # the validated weights were the averages
            self.averages.on_test_begin()
        save_checkpoint(self.run.best_checkpoint, self.model.weights)
        if has_averages:
            self.averages.on_test_end()

    def _close_bar(self) -> None:
        if self._bar:
            self._bar.close()
            self._bar = None


class _Signals:
    """Puts a flag in the place of KeyboardInterrupt: the step under way ends first, so that the saved state is whole."""

    def __init__(self, keeper: RunKeeper) -> None:
        self._keeper, self._previous = keeper, {}  # type: ignore[var-annotated]

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: object) -> None:
        self._keeper._close_bar()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: Any) -> None:
        if self._keeper._signal is not None:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait
        self._keeper._signal = number
        logger.info("stopping after this step (a second Ctrl-C does not save)")


def _training_variables(model: keras.Model) -> list[Any]:
    """Weights, seeds of the random layers, optimizer and metrics: what the next step depends on."""
    return _unique([*model.variables, *model.optimizer.variables, *_metric_variables(model)])


def _metric_variables(model: keras.Model) -> list[Any]:
    return _unique([variable for metric in model.metrics for variable in metric.variables])


def _unique(variables: list[Any]) -> list[Any]:
    return list({id(variable): variable for variable in variables}.values())


def _write_history(path: Path, history: list[dict[str, float]]) -> None:
    with files.atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)


def _tensorboard(run: Run) -> keras.callbacks.Callback:
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError("training.tensorboard is true, which needs the package tensorboard: pip install 'nlp-rnn[tensorboard]'")
    return keras.callbacks.TensorBoard(str(run.path / "tensorboard"), write_graph=False)


# --- evaluation ----------------------------------------------------------------------------------------------------


def make_evaluation_dataset(cache: TokenCache, batch_size: int) -> tf.data.Dataset:
    """All examples once, the shortest first."""
    plan = plan_ordered_batches(cache.lengths, batch_size)
    return make_dataset(lambda: (classification_batch(cache, indices, batch_size) for indices in plan), len(plan), batch_size)


def predict_probabilities(model: keras.Model, cache: TokenCache, batch_size: int) -> np.ndarray:
    """float32 [examples, classes], in the cache's order."""
    logits = model.predict(make_evaluation_dataset(cache, batch_size), verbose=0)[: len(cache.labels)]
    order = np.concatenate(plan_ordered_batches(cache.lengths, batch_size))
    probabilities = np.empty_like(logits)
    probabilities[order] = keras.ops.convert_to_numpy(keras.ops.softmax(logits, axis=-1))
    return probabilities
