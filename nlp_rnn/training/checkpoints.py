"""Checkpoints: variables and progress in one .npz file, replaced atomically."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nlp_rnn import files
from nlp_rnn.errors import ConfigError


@dataclass
class Progress:
    """Where a training stands; saved with every checkpoint.

    Attributes:
      epoch: finished epochs.
      step: finished steps of the epoch under way.
      history: a row an epoch.
      best: the best value of the monitored metric; wait: epochs since then.
      seconds: of training so far, over all sessions.
      is_finished: whether the training has ended by itself.
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
        """Whether a step was made."""
        return bool(self.epoch or self.step)


def checkpoint_arrays(variables: list[Any]) -> dict[str, np.ndarray]:
    """The values of variables by number and path, in order; what replicas count apart, such as metrics, is added up."""
    return {f"{number}:{variable.path}": variable.numpy() for number, variable in enumerate(variables)}


def save_checkpoint(path: Path, arrays: dict[str, np.ndarray], progress: Progress | None = None) -> None:
    """Writes what `checkpoint_arrays` found to an .npz file, whole or not at all."""
    if progress is not None:
        arrays = arrays | {"progress": np.frombuffer(json.dumps(asdict(progress)).encode(), np.uint8)}
    with files.atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_progress(path: Path) -> Progress:
    """Reads how far a training came; a fresh Progress if there is no checkpoint."""
    if not path.exists():
        return Progress()
    with np.load(path) as arrays:
        return Progress(**json.loads(arrays["progress"].tobytes()))


def load_checkpoint(path: Path, variables: list[Any]) -> None:
    """Assigns what `save_checkpoint` wrote.

    Raises:
      ConfigError: if there is no such file or it belongs to another model.
    """
    arrays = load_arrays(path)
    if len(arrays) != len(variables) or any(
        values.shape != tuple(v.shape) for values, v in zip(arrays.values(), variables, strict=True)
    ):
        raise ConfigError(f"{path}: was written by another model or version; train again under another name=...")
    for values, variable in zip(arrays.values(), variables, strict=True):
        variable.assign(values)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """What `checkpoint_arrays` found, as a checkpoint holds it.

    Raises:
      ConfigError: if there is no such file.
    """
    if not path.exists():
        raise ConfigError(
            f"{path}: no such checkpoint; train the run first: it was stopped before its first validation"
        )
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files if name != "progress"}
