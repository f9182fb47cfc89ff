"""A run directory: all files to resume, evaluate, export and reproduce one training."""

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import filelock

from nlp_rnn import files, manifest
from nlp_rnn.config.loading import differences, load_saved_config, to_yaml
from nlp_rnn.config.settings import Config
from nlp_rnn.errors import ConfigError
from nlp_rnn.models.calibration import Calibration, load_calibration
from nlp_rnn.training import word_vectors

logger = logging.getLogger(__name__)
_Seen = TypeVar("_Seen")
_SECONDS_OF_A_SLOW_DISK = 90.0


@dataclass(frozen=True)
class Run:
    """A run on disk.

    Attributes:
      path: the folder with config.yaml, labels.json, data.json, tokenizer/ and manifest.json with their checksums;
        checkpoints/, history.csv, metrics.json, log.txt; calibration.json if it was calibrated; ids/ if the run was
        prepared; and vectors.npz if its embedding begins with model.vectors.
      config: the resolved config.
    """

    path: Path
    config: Config

    @property
    def last_checkpoint(self) -> Path:
        """Model, optimizer and progress to resume from."""
        return self.path / "checkpoints" / "last.npz"

    @property
    def best_checkpoint(self) -> Path:
        """The weights with the best validation result."""
        return self.path / "checkpoints" / "best.npz"

    @property
    def ids(self) -> Path:
        """The folder of token ids that the command prepare writes; it may not exist."""
        return self.path / "ids"

    @property
    def labels(self) -> list[str]:
        """Class names, in the order of the class numbers."""
        labels: list[str] = files.read_json(self.path / "labels.json", list, files.RESTORE_RUN)
        return labels

    @property
    def data_facts(self) -> dict[str, Any] | None:
        """Examples, labels and digest of the splits that it trains on; None for runs of earlier versions."""
        path = self.path / "data.json"
        return files.read_json(path, dict, files.RESTORE_RUN) if path.exists() else None

    @property
    def calibration(self) -> Calibration:
        """What was fitted on validation data after training; empty for runs of earlier versions and others without it.

        Raises:
          ConfigError: if the file is damaged.
        """
        path = self.path / "calibration.json"
        if not path.exists():
            return Calibration(1.0, (0.5,) * len(self.labels) if self.config.data.multi_label else ())
        return load_calibration(path, len(self.labels), self.config.data.outputs)

    @property
    def is_calibrated(self) -> bool:
        """Whether what is fitted on validation data is there."""
        return (self.path / "calibration.json").is_file()

    def write_calibration(self, calibration: Calibration) -> None:
        """Keeps what was fitted on validation data."""
        with files.atomic_file(self.path / "calibration.json") as path:
            path.write_text(calibration.to_json(), encoding="utf-8")

    @property
    def metrics(self) -> dict[str, Any]:
        """The figures measured so far, by split."""
        path = self.path / "metrics.json"
        return files.read_json(path, dict, "remove it and evaluate again") if path.exists() else {}

    def write_metrics(self, **figures: Any) -> None:
        """Adds figures to metrics.json. Several processes may do so at once, such as evaluations of two splits."""
        with files.one_at_a_time(self.path), files.atomic_file(self.path / "metrics.json") as path:
            path.write_text(json.dumps(self.metrics | figures, indent=2) + "\n", encoding="utf-8")


def find_run(config: Config) -> Run | None:
    """Finds the run directory of a config; None if there is none.

    Raises:
      ConfigError: if the directory holds a run of another config, or its parent is not writable.
    """
    path = Path(config.runs_dir) / config.name
    if not path.exists():
        _check_writable(path.parent)
        return None
    run = load_run(path, config.task)
    changed = differences(run.config, config)
    if changed:
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise ConfigError(
            f"name is {config.name}, but {path} holds a run of another config: {changed[0]}{more}; "
            f"choose another name=..., or remove {path}"
        )
    return Run(path, config)


def load_run(path: Path, task: str | None = None) -> Run:
    """Opens a run directory.

    Args:
      task: the task that the run must have; None allows any.

    Raises:
      ConfigError: if it is not a run directory, of another task, or one of its files was changed.
    """
    files.check_path("the run directory", path)
    if not (path / "config.yaml").is_file() or not (path / "tokenizer").is_dir():
        raise ConfigError(
            f"{path} is not a run directory (no config.yaml and tokenizer in it); give one that train wrote"
        )
    if not manifest.check(path, files.RESTORE_RUN):
        manifest.log_missing(path)
    return Run(path, load_saved_config(path / "config.yaml", task))


def create_run(
    config: Config, labels: list[str], data_facts: dict[str, Any], save_tokenizer: Callable[[Path], None],
    vectors: word_vectors.Match | None = None,
) -> Run:  # fmt: skip
    """Creates the run directory atomically.

    Args:
      data_facts: what `Run.data_facts` gives back.
      vectors: of model.vectors, if the config has them.

    Raises:
      ConfigError: if another command made it meanwhile, with another config or other data.
    """
    path = Path(config.runs_dir) / config.name
    try:
        with files.atomic_folder(path) as temporary:
            (temporary / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
            (temporary / "labels.json").write_text(json.dumps(labels, ensure_ascii=False) + "\n", encoding="utf-8")
            (temporary / "data.json").write_text(json.dumps(data_facts, ensure_ascii=False) + "\n", encoding="utf-8")
            save_tokenizer(temporary / "tokenizer")
            if vectors is not None:
                vectors.save(temporary / word_vectors.VECTORS_FILE)
            manifest.write(temporary)
    except FileExistsError:  # another command made it meanwhile
        run = find_run(config)
        if run is None:
            raise
        check_data(run, data_facts)
        return run
    return Run(path, config)


def check_data(run: Run, facts: dict[str, Any]) -> None:
    """Checks that a run goes on with the data that it began with: other words would get the ids that its weights know.

    Args:
      facts: of the data now, as in `Run.data_facts`.

    Raises:
      ConfigError: naming the difference and the two ways on.
    """
    before = run.data_facts
    if before is None:
        logger.info("%s: an earlier version made it, so whether its data are still the same is not known", run.path)
        return
    changes = [
        f"data.{split} {change}" for split, now in facts.items() if (change := _change(before.get(split, {}), now))
    ]
    if changes:
        raise ConfigError(
            f"{run.path} was trained on other data: {'; '.join(changes)}; "
            "train on these data under another name=..., from the "
            f"weights of this run with training.start_from={run.path} if you like, or bring the earlier data back"
        )


def _change(before: dict[str, Any], now: dict[str, Any]) -> str:
    """How a split's data differ; "" if they do not."""
    if before.get("teachers") != now.get("teachers"):
        return "has other teachers (training.teacher), or they were trained further"
    if before.get("digest") == now["digest"]:
        return ""
    parts = []
    labels_before, labels_now = before.get("labels", {}), now.get("labels", {})
    if gone := [label for label in labels_before if label not in labels_now]:
        parts.append(f"no longer has the labels {_shown(gone)}")
    if new := [label for label in labels_now if label not in labels_before]:
        parts.append(f"has the new labels {_shown(new)}")
    if count := now["examples"] - before.get("examples", 0):
        parts.append(f"has {now['examples']:,} examples, {abs(count):,} {'more' if count > 0 else 'fewer'} than then")
    return " and ".join(parts) or "has as many examples, but other texts or labels"


def _shown(labels: list[str]) -> str:
    names = [repr(label) if label else "'' (texts without a label)" for label in labels[:5]]
    return ", ".join(names) + (", ..." if len(labels) > 5 else "")


@contextlib.contextmanager
def locked(run: Run, *, is_chief: bool = True) -> Iterator[None]:
    """Locks the run directory against other trainings, and logs to log.txt. The lock of a killed process is released.

    Args:
      is_chief: whether this process writes; the other workers only read.

    Raises:
      ConfigError: if another process holds the lock.
    """
    if not is_chief:
        yield
        return
    lock = filelock.FileLock(run.path / ".lock")
    with files.disk_errors(run.path):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ConfigError(
                f"{run.path}: another process is training there; wait for it, or choose another name=..."
            ) from None
        handler = logging.FileHandler(run.path / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.getLogger("nlp_rnn").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("nlp_rnn").removeHandler(handler)
        handler.close()
        lock.release()


def _check_writable(folder: Path) -> None:
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"runs_dir: {folder} is not writable; make it writable or set runs_dir to a folder that is")


def wait_for_disk(look: Callable[[], _Seen | None]) -> _Seen | None:
    """Waits until this worker sees on the shared disk what the chief has written there.

    Args:
      look: returns what is there, or None if that is not yet what the chief has written.

    Returns:
      What `look` returned; None after a minute and a half without it.
    """
    deadline = time.monotonic() + _SECONDS_OF_A_SLOW_DISK
    while (seen := look()) is None and time.monotonic() <= deadline:
        time.sleep(0.5)
    return seen
