"""Keeps a run directory up to date during training: checkpoints, history, best weights, interruptions."""

import csv
import logging
import math
import signal
import threading
import time
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from nlp_rnn import files
from nlp_rnn.data.bptt import WindowStream
from nlp_rnn.distribution.placement import Placement
from nlp_rnn.errors import DivergenceError, Stopped
from nlp_rnn.models.unique import unique
from nlp_rnn.progress import Bar
from nlp_rnn.training.checkpoints import Progress, checkpoint_arrays, load_checkpoint, save_checkpoint
from nlp_rnn.training.run_directory import Run

logger = logging.getLogger(__name__)

_STEPS_BETWEEN_QUESTIONS = 4  # how often workers check whether one of them was told to stop


class Stream(Protocol):
    """What the callback reads from the training batches."""

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in the current epoch."""


class RunCallback(keras.callbacks.Callback):
    """Keeps the run directory up to date: checkpoints, history, best weights, early stopping, interruptions."""

    def __init__(self, run: Run, stream: Stream, progress: Progress, placement: Placement) -> None:
        super().__init__()
        self.run, self.stream, self.progress, self.placement = run, stream, progress, placement
        self.averages = keras.callbacks.SwapEMAWeights()
        self._signal: int | None = None
        self._metrics_to_restore: list[np.ndarray] | None = None
        self._bar: Bar | None = None
        self._unread: tuple[int, Any] | None = None  # a step, from 1, and its results, which are not read yet
        self._session_start = self._last_save = time.monotonic()
        self._seconds_before = progress.seconds

    def restore(self, model: keras.Model) -> None:
        """Loads the last checkpoint into a built and compiled model."""
        load_checkpoint(self.run.last_checkpoint, training_variables(model))
        if self.progress.step:  # fit resets the metrics first; on_epoch_begin assigns their values
            self._metrics_to_restore = list(checkpoint_arrays(_metric_variables(model)).values())

    def write_history(self) -> None:
        """Writes history.csv from the history in the checkpoint, which is ahead of it after a kill between the two."""
        if self.placement.is_chief and self.progress.history:
            _write_history(self.run.path / "history.csv", self.progress.history)

    def on_train_begin(self, logs: Any = None) -> None:
        self._last_save = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch_start = time.monotonic()
        if isinstance(self.stream, WindowStream) and not self.progress.step and not self.stream.goes_on(epoch):
            self.model.reset_states("training")
        if self._metrics_to_restore is not None:
            for variable, value in zip(_metric_variables(self.model), self._metrics_to_restore, strict=True):
                variable.assign(value)
            self._metrics_to_restore = None
        self._bar = Bar(
            f"epoch {epoch + 1}/{self.run.config.training.epochs}", self.stream.steps_per_epoch, self.progress.step
        )

    def on_test_begin(self, logs: Any = None) -> None:
        if hasattr(self.model, "reset_states"):
            self.model.reset_states("evaluation")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._read_results()
        self.progress.step += 1
        self._unread = self.progress.step, logs
        if self.progress.step == self.stream.steps_per_epoch:
            self._read_results()
            return  # the end of the epoch saves and stops
        stops, saves = self._agreed_actions()
        if stops or saves:
            self._read_results()
        if stops:
            self._save()
            self._close_bar()
            raise Stopped(
                f"stopped in epoch {self.progress.epoch + 1} after step {self.progress.step} of "
                f"{self.stream.steps_per_epoch}; "
                "everything is saved: rerun the same command to resume"
            )
        if saves:
            self._save()

    def _read_results(self) -> None:
        """Shows the results of the last step, if that was not done yet.

        Reading them waits for the step. Therefore a step's results are read when the next one is already computing.

        Raises:
          DivergenceError: if the loss is not finite.
        """
        if self._unread is None:
            return
        (step, logs), self._unread = self._unread, None
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise self._diverged(f"the training loss became {loss}", step)
        if self._bar:
            self._bar.advance(f"cross-entropy {float(logs['cross_entropy']):.4f}")

    def _agreed_actions(self, *, asks: bool = False) -> tuple[bool, bool]:
        """Whether to stop, and whether to save. All workers get the same answer after the same step.

        A signal, or another callback through `model.stop_training`, tells a worker to stop.

        Args:
          asks: whether workers exchange the answer at any step; otherwise only every few steps.
        """
        if self.placement.num_workers > 1 and not asks and self.progress.step % _STEPS_BETWEEN_QUESTIONS:
            return False, False
        is_due = time.monotonic() - self._last_save > self.run.config.training.checkpoint_seconds
        is_told = self._signal is not None or self._model.stop_training  # on JAX, `model` copies all variables
        stops, saves = self.placement.sum_over_workers(int(is_told), int(is_due and self.placement.is_chief))
        return bool(stops), bool(saves)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._close_bar()
        progress, config = self.progress, self.run.config.training
        self._sync()
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        for name in ("val_cross_entropy", config.monitor):
            if not math.isfinite(float(logs[name])):
                raise self._diverged(f"{name} became {float(logs[name])}", progress.step)
        row = {"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}, "learning_rate": rate}
        progress.history.append(row)
        progress.epoch, progress.step = epoch + 1, 0
        value = row[config.monitor]
        sign = 1 if config.monitor == "val_accuracy" else -1
        progress.wait += 1
        if progress.best is None or sign * value > sign * progress.best:
            progress.best, progress.best_epoch, progress.wait = value, epoch + 1, 0
            self._save_best()
        is_stale = bool(config.patience) and progress.wait >= config.patience
        progress.is_finished = epoch + 1 == config.epochs or is_stale
        self._save()
        self.write_history()
        logger.info(
            "epoch %d: cross-entropy %.4f%s; validation %.4f%s; %.0f s%s",
            epoch + 1, row["cross_entropy"], _share(row, "accuracy"), row["val_cross_entropy"],
            _share(row, "val_accuracy"),
            time.monotonic() - self._epoch_start, " (best)" if progress.wait == 0 else "",
        )  # fmt: skip
        if is_stale:
            logger.info("stopped early: %s has not improved for %d epochs", config.monitor, config.patience)
        if self._agreed_actions(asks=True)[0] and not progress.is_finished:
            raise Stopped(
                f"stopped after epoch {progress.epoch}; everything is saved: rerun the same command to resume"
            )

    def signals(self) -> Any:
        """A context in which Ctrl-C and SIGTERM stop the training after the current step."""
        return _Signals(self)

    def finish(self) -> None:
        """Logs how the training ended."""
        progress = self.progress
        monitor = self.run.config.training.monitor
        logger.info(
            "finished: best %s %.4f in epoch %d, %.0f s", monitor, progress.best, progress.best_epoch, progress.seconds
        )

    def _diverged(self, what: str, step: int) -> DivergenceError:
        config = self.run.config.training
        clip = f"lower training.clip_norm ({config.clip_norm})" if config.clip_norm else "set training.clip_norm=1"
        kept = f"; the last good checkpoint is kept in {self.run.path}" if self.run.last_checkpoint.exists() else ""
        return DivergenceError(
            f"{what} in epoch {self.progress.epoch + 1}, step {step}{kept}: lower training.learning_rate "
            f"({config.learning_rate}) or {clip}, and train under another name=..."
        )

    def _sync(self) -> None:
        """Updates the model's variables: on JAX, `fit` holds their current values elsewhere."""
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()

    def _save(self) -> None:
        self._sync()
        if not all(np.isfinite(weight.numpy()).all() for weight in self.model.trainable_variables):
            what = "the weights became infinite"  # although the loss was still finite
            raise self._diverged(what, self.progress.step + 1)
        self.progress.seconds = self._seconds_before + time.monotonic() - self._session_start
        self._write(self.run.last_checkpoint, training_variables(self.model), self.progress)
        self._last_save = time.monotonic()

    def _save_best(self) -> None:
        has_averages = bool(self.run.config.training.ema_momentum)
        if has_averages:  # the averaged weights were validated
            self.averages.on_test_begin()
        self._write(self.run.best_checkpoint, kept_weights(self.model))
        if has_averages:
            self.averages.on_test_end()

    def _write(self, path: Path, variables: list[Any], progress: Progress | None = None) -> None:
        arrays = checkpoint_arrays(variables)  # called by all workers, since metrics are summed over them
        if self.placement.is_chief:
            save_checkpoint(path, arrays, progress)
        self.placement.wait_for_all()

    def _close_bar(self) -> None:
        if self._bar:
            self._bar.close()
            self._bar = None


class _Signals:
    """Replaces KeyboardInterrupt by a flag, so that the current step ends first and the saved state is complete."""

    def __init__(self, callback: RunCallback) -> None:
        self._callback, self._previous = callback, {}  # type: ignore[var-annotated]

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: object) -> None:
        self._callback._close_bar()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: Any) -> None:
        if self._callback._signal is not None:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait
        self._callback._signal = number
        logger.info("stopping after this step (a second Ctrl-C does not save)")


def _share(row: dict[str, float], name: str) -> str:
    return (
        f", {100 * row[name]:.2f} %"
        if name in row
        else f" (perplexity {math.exp(min(row[name.replace('accuracy', 'cross_entropy')], 50)):.2f})"
    )


def kept_weights(model: keras.Model) -> list[Any]:
    """The weights in the best checkpoint: all except the carried states of a language model."""
    return getattr(model, "kept_weights", model.weights)


def training_variables(model: keras.Model) -> list[Any]:
    """All variables that the next step depends on: weights, seeds of random layers, optimizer, metrics."""
    return unique([*model.variables, *model.optimizer.variables, *_metric_variables(model)])


def _metric_variables(model: keras.Model) -> list[Any]:
    return unique([variable for metric in model.metrics for variable in metric.variables])


def _write_history(path: Path, history: list[dict[str, float]]) -> None:
    with files.atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)
