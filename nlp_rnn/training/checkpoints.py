"""Checkpoints: variables and progress in one .npz file, replaced atomically."""

import contextlib
import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nlp_rnn import files, manifest
from nlp_rnn.errors import ConfigError

_OWNED = ("tokenizer", "labels.json")  # what the weights were trained with
_PROGRESS, _OWNER = "progress", "run"  # arrays beside those of variables, whose names begin with a number


@dataclass
class Progress:
    """The progress of a training, saved with every checkpoint.

    Attributes:
      epoch: number of finished epochs.
      step: number of finished steps in the current epoch.
      history: one row per epoch.
      best: the best value of the monitored metric.
      best_epoch: its epoch, from 1.
      wait: number of epochs since then.
      seconds: training time so far, over all sessions.
      is_finished: whether all epochs are done or the training was stopped early.
    """

    epoch: int = 0
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: float | None = None
    best_epoch: int = 0
    wait: int = 0
    seconds: float = 0.0
    is_finished: bool = False

    @property
    def has_begun(self) -> bool:
        """Whether at least one step is done."""
        return bool(self.epoch or self.step)


def checkpoint_arrays(variables: list[Any]) -> dict[str, np.ndarray]:
    """Values of variables by number and path, in order.

    Values that replicas hold apart, such as metrics, are summed.
    """
    return {f"{number}:{variable.path}": variable.numpy() for number, variable in enumerate(variables)}


def save_checkpoint(path: Path, arrays: dict[str, np.ndarray], progress: Progress | None = None) -> None:
    """Writes the result of `checkpoint_arrays` to an .npz file in a run's folder checkpoints, atomically.

    The file also has a digest of the run's vocabulary and labels, so that weights are not used with others.
    """
    if progress is not None:
        arrays = arrays | {_PROGRESS: np.frombuffer(json.dumps(asdict(progress)).encode(), np.uint8)}
    owner = manifest.identity(path.parent.parent, _OWNED)
    if owner is not None:
        arrays = arrays | {_OWNER: np.frombuffer(owner.encode(), np.uint8)}
    with files.atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_progress(path: Path) -> Progress:
    """Reads the progress of a checkpoint; a fresh Progress if there is none."""
    if not path.exists():
        return Progress()
    with _opened(path) as arrays:
        return Progress(**json.loads(arrays[_PROGRESS].tobytes()))


def load_checkpoint(path: Path, variables: list[Any]) -> None:
    """Assigns the values that `save_checkpoint` wrote.

    Raises:
      ConfigError: if there is no such file or it belongs to another model.
    """
    assign_arrays(load_arrays(path), variables, path)


def assign_arrays(arrays: dict[str, np.ndarray], variables: list[Any], path: str | Path) -> None:
    """Assigns the values of a checkpoint, in order.

    Args:
      path: where they come from, for the message.

    Raises:
      ConfigError: if they belong to another model.
    """
    if len(arrays) != len(variables) or any(
        values.shape != tuple(v.shape) for values, v in zip(arrays.values(), variables, strict=True)
    ):
        raise ConfigError(f"{path}: was written by another model or version; train again under another name=...")
    for values, variable in zip(arrays.values(), variables, strict=True):
        variable.assign(values)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a checkpoint, by number and path.

    Raises:
      ConfigError: if there is no such file.
    """
    if not path.exists():
        raise ConfigError(
            f"{path}: no such checkpoint; train the run first: it was stopped before its first validation"
        )
    with _opened(path) as arrays:
        return {name: arrays[name] for name in arrays.files if name not in (_PROGRESS, _OWNER)}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A checkpoint's arrays; reading one checks its checksum.

    Raises:
      ConfigError: if the file is damaged, or belongs to another run.
    """
    try:
        with np.load(path) as arrays:
            owner = manifest.identity(path.parent.parent, _OWNED)
            if _OWNER in arrays.files and owner is not None and arrays[_OWNER].tobytes().decode() != owner:
                raise ConfigError(
                    f"{path}: belongs to a run with another vocabulary or other labels; "
                    "restore the run's own file from a "
                    "copy, or train again under another name=..."
                )
            yield arrays
    except ConfigError:
        raise
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
    ) as error:
        raise ConfigError(
            f"{path}: is damaged ({str(error)[:100] or type(error).__name__}); "
            "restore it from a copy, or train again under "
            "another name=..."
        ) from None
