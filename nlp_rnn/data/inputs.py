"""The inputs of a training: the token ids of two splits, computed once. Training needs nothing else of the data.

This module does not import TensorFlow.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nlp_rnn import files, manifest
from nlp_rnn.data.bucketing import Resampler
from nlp_rnn.data.token_cache import PairCache, TokenCache, load_array

_PREPARE = "remove the folder ids of the run, and prepare it again"


@dataclass(frozen=True)
class Inputs:
    """Token ids of the train and validation splits, with their vocabulary size and labels.

    Attributes:
      train, validation: PairCaches for the task translation, otherwise TokenCaches.
      vocab_size: number of ids.
      labels: class names of a classifier by class number; otherwise empty.
      digests: name of an input of the ids, such as the vocabulary -> its digest.
      resample: draws other segmentations (tokenizer.sampling); None: off.
    """

    train: Any
    validation: Any
    vocab_size: int
    labels: list[str]
    digests: dict[str, str]
    resample: Resampler | None = None


def save_inputs(inputs: Inputs, folder: Path) -> None:
    """Copies the ids into an empty folder."""
    for name, cache in (("train", inputs.train), ("validation", inputs.validation)):
        if isinstance(cache, PairCache):
            _save_cache(cache.source, folder / f"{name}_source")
            _save_cache(cache.target, folder / f"{name}_target")
            np.save(folder / f"{name}_rows.npy", cache.rows)
        else:
            _save_cache(cache, folder / name)
    facts = {"vocab_size": inputs.vocab_size, "labels": inputs.labels, "digests": inputs.digests}
    (folder / "facts.json").write_text(json.dumps(facts, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    manifest.write(folder)


def load_inputs(folder: Path) -> Inputs:
    """Loads what `save_inputs` wrote.

    Raises:
      manifest.DamagedFileError: if a file is missing or was changed.
    """
    manifest.check(folder, _PREPARE, is_thorough=False)
    train, validation = (_load_cache(folder, name) for name in ("train", "validation"))
    facts = files.read_json(folder / "facts.json", dict, _PREPARE)
    return Inputs(train, validation, **facts)


def _save_cache(cache: TokenCache, folder: Path) -> None:
    folder.mkdir()
    for path in cache.path.iterdir():  # `copytree` hides that a disk is full
        shutil.copy2(path, folder)
    if cache.targets is not None:  # of training.teacher, beside the ids of the cache
        np.save(folder / "targets.npy", cache.targets)
        manifest.write(folder)


def _load_cache(folder: Path, name: str) -> TokenCache | PairCache:
    if (folder / name).is_dir():
        return TokenCache.load(folder / name)
    source, target = (TokenCache.load(folder / f"{name}_{side}") for side in ("source", "target"))
    return PairCache(source, target, load_array(folder / f"{name}_rows.npy"))
