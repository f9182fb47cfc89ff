"""The study of a search: its trials in an SQLite file, with the config and the searched settings."""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.exc
from optuna.trial import FrozenTrial, Trial, TrialState

from nlp_rnn import files
from nlp_rnn.config.loading import differences, load_saved_config, to_yaml
from nlp_rnn.config.settings import Config
from nlp_rnn.errors import ConfigError
from nlp_rnn.training.search_space import Dimension, own_parameters, suggest

logger = logging.getLogger(__name__)

_NUM_RANDOM = 8  # trials with random settings before the sampler uses the results
_NUM_UNPRUNED = 3  # complete trials before the first one can be pruned
_MAX_STARTS = 2  # starts of a trial during which the process was killed, before it counts as failed


@dataclass(frozen=True)
class Record:
    """A trial of a study.

    Attributes:
      number: from 0.
      state: "complete", "pruned" (worse than the others at the same epoch), "too large", "failed", or "stopped" (the
        next command continues it).
      settings: section.name -> value of each searched setting.
      value: the best value of the monitored metric so far, or None.
      reason: why the trial failed; otherwise "".
      megabytes: size of the model's weights in millions of bytes; None before they were counted.
    """

    number: int
    state: str
    settings: dict[str, Any]
    value: float | None
    reason: str = ""
    megabytes: float | None = None


@dataclass(frozen=True)
class Limits:
    """When a search ends, and the largest model.

    Attributes:
      deadline: end of the search, as a value of `time.monotonic` in seconds.
      max_megabytes: largest size of a model's weights in millions of bytes; None: no limit.
      max_trials: largest number of trials in the study, over all commands; None: no limit.
    """

    deadline: float
    max_megabytes: float | None = None
    max_trials: int | None = None


class TuningStudy:
    """The study in a folder. It is created if the folder has none.

    Args:
      folder: an existing folder.
      config: the config of the first trial.
      space: the searched settings.

    Raises:
      ConfigError: if the folder holds the study of another config or of other searched settings, or is damaged.
    """

    def __init__(self, folder: Path, config: Config, space: list[Dimension]) -> None:
        self.config, self.space, self.is_higher_better = config, space, config.training.monitor == "val_accuracy"
        self._path = folder / "study.sqlite"
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        is_new = not (folder / "config.yaml").exists()
        with study_errors(self._path):
            self._study = optuna.create_study(
                storage=f"sqlite:///{self._path.resolve()}", study_name="tune", load_if_exists=True,
                direction="maximize" if self.is_higher_better else "minimize",
                pruner=optuna.pruners.MedianPruner(n_startup_trials=_NUM_UNPRUNED),
            )  # fmt: skip
            # With the same seed, a resumed study would draw its first random trials again.
            seed = config.seed + len(self._study.trials)
            self._study.sampler = optuna.samplers.TPESampler(n_startup_trials=_NUM_RANDOM, seed=seed)
            if is_new:
                self._study.set_user_attr("space", _as_json(space))
                self._study.enqueue_trial(own_parameters(config, space), skip_if_exists=True)
                with files.atomic_file(folder / "config.yaml") as temporary:
                    temporary.write_text(to_yaml(config), encoding="utf-8")
            else:
                self._check(folder)

    def _check(self, folder: Path) -> None:
        changed = differences(load_saved_config(folder / "config.yaml", self.config.task), self.config)
        was = self._study.user_attrs.get("space", "[]")
        if not changed and was != _as_json(self.space):
            keys, old_keys = ({each["key"] for each in json.loads(text)} for text in (_as_json(self.space), was))
            key = min(keys ^ old_keys, default="")
            what = (
                f"{key} is {'searched' if key in keys else 'given'} and was not"
                if key
                else "the values searched differ"
            )
            changed = [what]
        if changed:
            raise ConfigError(
                f"name is {self.config.name}, but {folder} holds the study of other settings: {changed[0]}; use the "
                f"settings of its first command, choose another name=..., or remove {folder}"
            )

    def check_data(self, digests: dict[str, str]) -> None:
        """Checks that the texts are those with which the study began.

        Args:
          digests: split -> digest of its texts.

        Raises:
          ConfigError: if a digest differs.
        """
        with study_errors(self._path):
            was = self._study.user_attrs.get("digests")
            if was is None:
                self._study.set_user_attr("digests", digests)
        changed = [split for split in digests if was and was.get(split) != digests[split]]
        if changed:
            raise ConfigError(
                f"the texts of data.{changed[0]} are not those with which the study in {self._path.parent} began, "
                "so its "
                f"values cannot be compared; restore them, choose another name=..., or remove {self._path.parent}"
            )

    def next_trial(self) -> tuple[Trial, dict[str, Any]]:
        """A stopped trial if there is one, otherwise a new one, and its settings: section.name -> value."""
        with study_errors(self._path):
            for frozen in self._study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
                trial, facts = Trial(self._study, frozen._trial_id), frozen.user_attrs
                if "settings" in facts and facts["starts"] < _MAX_STARTS:
                    trial.set_user_attr("starts", facts["starts"] + 1)
                    return trial, facts["settings"]
                self.fail(trial, "the process was killed during it")
            trial = self._study.ask()
            settings = suggest(trial, self.space)
            trial.set_user_attr("starts", 1)
            trial.set_user_attr("settings", settings)
            return trial, settings

    def note_size(self, trial: Trial, megabytes: float, *, is_too_large: bool) -> None:
        """Saves the size of a trial's model, in millions of bytes."""
        with study_errors(self._path):
            trial.set_user_attr("megabytes", megabytes)
            trial.set_user_attr("is_too_large", is_too_large)

    def report(self, trial: Trial, value: float, epoch: int) -> bool:
        """Saves the value of an epoch; returns whether it is worse than the median of the others at that epoch."""
        with study_errors(self._path), warnings.catch_warnings():
            # A process that was killed before it saved the epoch has already reported it.
            warnings.filterwarnings("ignore", message=".*already reported")
            trial.report(value, epoch)
            return trial.should_prune()

    def stop(self, trial: Trial) -> None:
        """Marks a trial as stopped, so that the next command continues it."""
        with study_errors(self._path):
            trial.set_user_attr("starts", 0)

    def finish(self, trial: Trial, value: float | None, *, is_pruned: bool = False) -> None:
        """Ends a trial that succeeded or was pruned. Optuna gives a pruned trial the value of its last epoch."""
        with study_errors(self._path):
            if is_pruned:
                self._study.tell(trial, state=TrialState.PRUNED)
            else:
                self._study.tell(trial, value)

    def fail(self, trial: Trial, reason: str) -> None:
        """Ends a trial that failed."""
        with study_errors(self._path):
            trial.set_user_attr("reason", reason)
            self._study.tell(trial, state=TrialState.FAIL)

    def records(self) -> list[Record]:
        """All trials, in order."""
        with study_errors(self._path):
            trials = self._study.get_trials(deepcopy=False)
        return [self._record(each) for each in trials if "settings" in each.user_attrs]

    def _record(self, trial: FrozenTrial) -> Record:
        facts, best = trial.user_attrs, max if self.is_higher_better else min
        state = {
            TrialState.COMPLETE: "complete",
            TrialState.PRUNED: "too large" if facts.get("is_too_large") else "pruned",
            TrialState.FAIL: "failed",
        }.get(trial.state, "stopped")
        value = best(trial.intermediate_values.values(), default=None)
        return Record(trial.number, state, facts["settings"], value, facts.get("reason", ""), facts.get("megabytes"))

    def best(self, max_megabytes: float | None) -> Record | None:
        """The trial with the best value among those of an allowed size; None if none has a value yet."""
        sign = -1 if self.is_higher_better else 1
        candidates = [each for each in self.candidates(max_megabytes) if each.value is not None]
        return min(candidates, key=lambda each: sign * (each.value or 0.0), default=None)

    def candidates(self, max_megabytes: float | None) -> list[Record]:
        """All trials; those that cannot be the best, since they failed or are too large, have no value."""
        records = []
        for each in self.records():
            is_too_large = max_megabytes is not None and (each.megabytes or 0) > max_megabytes
            state = "too large" if is_too_large else each.state
            can_be_best = state in ("complete", "pruned", "stopped")
            records.append(replace(each, state=state, value=each.value if can_be_best else None))
        return records

    def importances(self) -> dict[str, float]:
        """The share of the variance of complete trials that each setting explains, 0-1.

        Empty for fewer than four trials, and where all have the same value.
        """
        values = [each.value for each in self.records() if each.state == "complete"]
        if len(values) < 4 or len(set(values)) == 1 or not self.space:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self.config.seed)
        with study_errors(self._path):
            return optuna.importance.get_param_importances(self._study, evaluator=evaluator)


@contextlib.contextmanager
def study_errors(path: Path) -> Iterator[None]:
    """Turns errors of a damaged study or a full disk into a one-line ConfigError."""
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ or error
        reason = str(getattr(cause, "orig", None) or cause).splitlines()[0]
        raise ConfigError(
            f"{path}: the study cannot be read or written ({reason}); "
            f"check the disk, or remove the folder {path.parent} "
            "to start again"
        ) from None


def _as_json(space: list[Dimension]) -> str:
    return json.dumps([{"kind": type(each).__name__, **asdict(each)} for each in space])
