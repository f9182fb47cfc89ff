"""Searches for better settings of a config with trials on validation data, within a time budget.

A study keeps the trials, so that a search can be continued.
"""

import contextlib
import dataclasses
import gc
import logging
import math
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import optuna

from nlp_rnn import files
from nlp_rnn.config.loading import to_yaml
from nlp_rnn.config.rules import broken_rules
from nlp_rnn.config.settings import Config
from nlp_rnn.data.corpus import Corpus
from nlp_rnn.distribution.placement import Placement
from nlp_rnn.errors import ConfigError, DivergenceError, Stopped
from nlp_rnn.tensorflow_import import keras_backend
from nlp_rnn.training import initial_vectors, recipes, run_directory, setup
from nlp_rnn.training.origin import check_origins
from nlp_rnn.training.search_space import Steps, search_space, with_values
from nlp_rnn.training.study import Limits, Record, TuningStudy

logger = logging.getLogger(__name__)

_MAX_FAILURES = 5  # in a row, before the search ends
_KEPT_FILES = ("config.yaml", "history.csv", "log.txt")  # what is left of a trial that has ended


@dataclass(frozen=True)
class Tuned:
    """The result of a search.

    Attributes:
      folder: the folder of the study.
      config: the best config.
      config_file: YAML file of the best config.
      picture: PNG of the trials.
      best: the best trial.
      records: all trials.
    """

    folder: Path
    config: Config
    config_file: Path
    picture: Path
    best: Record
    records: list[Record]


def tune(config: Config, limits: Limits, fixed: Collection[str] = ()) -> Tuned:
    """Searches in the folder runs_dir/NAME-tune and writes best.yaml and tuning.png there.

    Args:
      config: the config of the first trial.
      limits: when the search ends, and the largest model.
      fixed: keys of settings that are not searched.

    Raises:
      ConfigError: if a setting or the data are wrong, no trial reached a validation, or five trials in a row failed.
      Stopped: on Ctrl-C or SIGTERM; the study, best.yaml and tuning.png are written.
    """
    if keras_backend() != "tensorflow":
        raise ConfigError("KERAS_BACKEND is jax, but tune reads texts, which needs TensorFlow; unset it")
    space = search_space(config, fixed)
    if not space:
        raise ConfigError("tune has no setting to search, since all are given on the command line; leave some out")
    folder = Path(config.runs_dir) / f"{config.name}-tune"
    new = dataclasses.replace(_trial_config(config, folder, 0, {}), name="new")
    check_origins(new)
    initial_vectors.check(new)
    run_directory.find_run(new)  # checks that its folder can be written
    is_first = not folder.parent.exists()
    with _locked(folder), _terminated_gently():
        is_new = {entry.name for entry in folder.iterdir()} <= {_LOCK}
        try:
            return _tune(config, limits, folder, TuningStudy(folder, config, space))
        except ConfigError:
            if is_new and not [*folder.glob("trials/*/history.csv"), *folder.glob("trials/*/checkpoints/*.npz")]:
                shutil.rmtree(folder, ignore_errors=True)  # nothing was trained that a later command could continue
                if is_first:
                    with contextlib.suppress(OSError):
                        folder.parent.rmdir()
            raise


def _tune(config: Config, limits: Limits, folder: Path, study: TuningStudy) -> Tuned:
    end: BaseException | None = None
    try:
        placement, corpus = setup.start(config, reads_test=False)
        if placement.num_workers > 1:
            raise ConfigError("tune runs on one machine, but TF_CONFIG names several workers; unset TF_CONFIG")
        study.check_data({split: corpus.facts[split].digest for split in ("train", "validation")})
        _Search(config, limits, folder, study, placement, corpus).run()
    except (KeyboardInterrupt, ConfigError) as error:
        end = error
        traceback.clear_frames(error.__traceback__)  # frees the data set's iterator
    tuned = _write(config, limits, folder, study)
    if isinstance(end, ConfigError):
        raise end
    if end is not None:
        best = f"; best so far: {tuned.config_file}" if tuned else ""
        raise Stopped(f"stopped{best}; everything is saved: rerun the same command to resume") from None
    if tuned is None:
        sizes = [each.megabytes for each in study.records() if each.megabytes]
        if limits.max_megabytes is not None and sizes and min(sizes) > limits.max_megabytes:
            raise ConfigError(
                f"--max-megabytes is {limits.max_megabytes:g}, but the smallest of {len(sizes)} models has "
                f"{min(sizes):.2f} MB; raise it, or start from smaller model.units, model.embedding_dim and "
                "tokenizer.vocab_size"
            )
        raise ConfigError(
            "no trial reached its first validation in the given time; rerun the same command with more --minutes to "
            f"continue ({folder}), or shorten the epochs with training.max_steps_per_epoch"
        )
    return tuned


class _Search:
    """The trials of one command."""

    def __init__(
        self, config: Config, limits: Limits, folder: Path, study: TuningStudy, placement: Placement, corpus: Corpus
    ) -> None:
        self._config, self._limits, self._folder, self._study = config, limits, folder, study
        self._placement, self._corpus = placement, corpus
        self._start_up = 0.0  # the longest time from the beginning of a trial to its first step, in seconds
        self._failures = 0

    def run(self) -> None:
        """Trains trials until a limit is reached."""
        import keras

        from nlp_rnn.training.trial_callback import TrialCallback

        while self._has_time() and not self._has_all():
            trial, settings = self._study.next_trial()
            shown = " ".join(f"{key}={value}" for key, value in settings.items())
            logger.info("trial %d: %s", trial.number, shown if trial.number else f"the config's own settings: {shown}")
            callback = TrialCallback(self._study, trial, self._limits, self._linear_bytes())
            start = time.monotonic()
            try:
                self._try(trial, settings, callback)
            except KeyboardInterrupt:
                self._study.stop(trial)
                if not callback.is_out_of_time:
                    raise
                logger.info("trial %d: stopped since the time is over; the next command continues it", trial.number)
                return
            finally:
                keras.backend.clear_session()
                gc.collect()
            self._start_up = max(self._start_up, (callback.first_step or start) - start)
            record = next(each for each in self._study.records() if each.number == trial.number)
            self._tidy(self._folder / "trials" / _name(trial.number))
            self._log(record, time.monotonic() - start)

    def _try(self, trial: Any, settings: dict[str, Any], callback: Any) -> None:
        """Trains one trial and records in the study how it ended."""
        import tensorflow as tf

        config = _trial_config(self._config, self._folder, trial.number, settings)
        try:
            if mistakes := broken_rules(config, None):
                raise ConfigError(mistakes[0][1])
            value = self._train(config, callback)
        except optuna.TrialPruned:
            self._study.finish(trial, None, is_pruned=True)
        except (ConfigError, MemoryError, tf.errors.OpError) as error:
            is_first = not any(each.state != "stopped" for each in self._study.records())
            if is_first and isinstance(error, ConfigError) and not isinstance(error, DivergenceError):
                self._study.stop(trial)
                raise  # a mistake in the config or its data, which would fail all trials
            traceback.clear_frames(error.__traceback__)
            self._study.fail(trial, str(error).splitlines()[0] if str(error) else type(error).__name__)
        else:
            self._study.finish(trial, value)

    def _train(self, config: Config, callback: Any) -> float:
        """The best value of the monitored metric."""
        self._placement.check(config.training)
        run, inputs = setup.make_inputs(config, self._placement, self._corpus)
        with run_directory.locked(run):
            _, progress = recipes.fit_model(setup.PreparedTraining(self._placement, run, inputs), [callback])
        if progress.best is None or not math.isfinite(progress.best):
            raise DivergenceError(f"{config.training.monitor} became {progress.best}")
        return progress.best

    def _log(self, record: Record, seconds: float) -> None:
        best = self._study.best(self._limits.max_megabytes)
        value = "" if record.value is None else f", {self._config.training.monitor} {record.value:.4f}"
        size = "" if record.megabytes is None else f", {record.megabytes:.2f} MB"
        reason = f": {record.reason}" if record.reason else ""
        best_so_far = "" if best is None else f"; best so far {best.value:.4f} (trial {best.number})"
        logger.info(
            "trial %d: %s%s%s%s, %.0f s%s", record.number, record.state, reason, value, size, seconds, best_so_far
        )
        self._failures = self._failures + 1 if record.state == "failed" else 0
        if self._failures == _MAX_FAILURES:
            raise ConfigError(
                f"{_MAX_FAILURES} trials in a row failed, the last one with: {record.reason}; "
                "change the settings of the "
                "config"
            )

    def _has_time(self) -> bool:
        """Whether a new trial would reach its first step."""
        return time.monotonic() + self._start_up < self._limits.deadline

    def _has_all(self) -> bool:
        finished = [each for each in self._study.records() if each.state != "stopped"]
        return self._limits.max_trials is not None and len(finished) >= self._limits.max_trials

    def _linear_bytes(self) -> int:
        """The size in bytes of a classifier's linear part, which trials leave out: one byte per weight."""
        if not self._config.model.ngrams or self._config.kind != "classifier":
            return 0
        from nlp_rnn.layers.ngrams import num_buckets

        num_labels = len(set(self._corpus.facts["train"].labels) - {""})
        return num_buckets(self._config.model.ngrams) * (1 if num_labels == 2 else num_labels)

    def _tidy(self, folder: Path) -> None:
        """Removes the checkpoints of a trial that has ended.

        Trials must not be used as models, since repeated texts of the test split were not removed from train.
        """
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in _KEPT_FILES:
                path.unlink()


def _trial_config(config: Config, folder: Path, number: int, settings: dict[str, Any]) -> Config:
    """The config of a trial. Its run directory is in the study's folder."""
    changed = with_values(config, settings | {"model.ngrams": 0, "training.tensorboard": False})
    return dataclasses.replace(changed, runs_dir=str(folder / "trials"), name=_name(number))


def _name(number: int) -> str:
    return f"trial-{number:03d}"


def _write(config: Config, limits: Limits, folder: Path, study: TuningStudy) -> Tuned | None:
    """Writes the best config and the picture; None if there is no value yet."""
    best, records = study.best(limits.max_megabytes), study.records()
    if best is None:
        return None
    best_config = dataclasses.replace(with_values(config, best.settings), name=f"{config.name}-tuned")
    from nlp_rnn.visualization import plots

    config_file, picture = folder / "best.yaml", folder / "tuning.png"
    monitor = config.training.monitor
    with files.atomic_file(config_file) as temporary:
        heading = f"# Trial {best.number} of {len(records)} of a search on validation data: {monitor} {best.value:.4f}."
        temporary.write_text(f"{heading}\n{to_yaml(best_config)}", encoding="utf-8")
    shown = study.candidates(limits.max_megabytes)
    plots.plot_tuning(
        [(each.number, each.value, each.state) for each in shown],
        _slices(study, shown),
        picture,
        title=f"{config.name}: {len(records)} trials, best {monitor} {best.value:.4f} (trial {best.number})",
        monitor=monitor,
    )
    return Tuned(folder, best_config, config_file, picture, best, records)


def _slices(study: TuningStudy, records: list[Record]) -> list[Any]:
    """The three most important settings with the value of each trial; before importances exist, the first three."""
    from nlp_rnn.visualization import plots

    importances = study.importances()
    spaces = sorted(study.space, key=lambda each: -importances.get(each.key, 0.0))
    shown = [each for each in records if each.value is not None]
    return [
        plots.Slice(
            each.key,
            importances.get(each.key),
            [record.settings[each.key] for record in shown],
            [record.value or 0.0 for record in shown],
            is_logarithmic=min(each.values) > 0 if isinstance(each, Steps) else getattr(each, "is_logarithmic", False),
        )
        for each in spaces[:3]
    ]


_LOCK = ".lock"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Prevents other processes from searching in the same folder. A killed process leaves no lock."""
    lock = filelock.FileLock(folder / _LOCK)
    with files.disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ConfigError(
                f"{folder}: another process is searching there; wait for it, or choose another name=..."
            ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _terminated_gently() -> Iterator[None]:
    """Turns SIGTERM into KeyboardInterrupt. It covers the time between trainings, which have their own handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
