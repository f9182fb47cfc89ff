"""The folder of a LiteRT export: finds, checks and opens its files, without TensorFlow."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nlp_rnn import extras, files, manifest
from nlp_rnn.errors import ConfigError

EXPORT_AGAIN = "export it again"
SETTINGS_FILE = "vocabulary.json"
PRECISIONS = ("float", "int8")
# What the models answer, `Task.answers`, and what they are called. Next-word exports of earlier versions do not say it.
_KINDS = {"words": "a next-word model", "labels": "a classifier", "characters": "a character model"}
_DEFAULT_KIND = "words"


def is_ondevice(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a LiteRT model, or versions of one."""
    return _newest(Path(path)) is not None


def find(folder: Path) -> Path:
    """The folder of the newest version, or `folder` itself if it holds a model.

    Raises:
      ConfigError: if there is none.
    """
    version = _newest(folder)
    if version is None:
        raise ConfigError(
            f"--model is {folder}, but holds no LiteRT model; give a folder that export --format litert wrote, such as "
            "saved_models/next_word_litert"
        )
    return version


def read_settings(path: Path) -> dict[str, Any]:
    """The content of a version's vocabulary.json.

    Raises:
      ConfigError: if it is damaged.
    """
    settings: dict[str, Any] = files.read_json(path / SETTINGS_FILE, dict, EXPORT_AGAIN)
    return settings


def kind_of(settings: dict[str, Any]) -> str:
    """What the model answers: "words", "labels" or "characters"."""
    return str(settings.get("answers", _DEFAULT_KIND))


def check_kind(folder: str | os.PathLike[str], settings: dict[str, Any], kind: str) -> None:
    """Raises ConfigError if the model answers something else."""
    actual = kind_of(settings)
    if actual != kind:
        raise ConfigError(
            f"--model is {folder}, which holds {_KINDS.get(actual, 'another model')} for LiteRT, but must hold "
            f"{_KINDS[kind]}; give another folder"
        )


@contextlib.contextmanager
def damage_reported(path: Path) -> Iterator[None]:
    """Turns missing or wrong entries of a version's vocabulary.json into ConfigError."""
    try:
        yield
    except ConfigError:
        raise
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ConfigError(f"{path / SETTINGS_FILE}: is damaged ({error!r}); {EXPORT_AGAIN}") from None


def open_model(path: Path, precision: str) -> Any:
    """The interpreter of a version's file.

    Args:
      precision: "float" or "int8".

    Raises:
      ConfigError: if the file is damaged, or the package ai-edge-litert is missing.
    """
    extras.require("console", f"--model is {path}, a LiteRT model", "ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter

    name = f"model_{precision}.tflite"
    manifest.check(path, EXPORT_AGAIN, names=(SETTINGS_FILE, name))
    try:
        with _quiet():
            interpreter = Interpreter(str(path / name), num_threads=1)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        told = next(iter(str(error).splitlines()), "")
        raise ConfigError(f"{path / name}: is missing or damaged ({told[:100]}); {EXPORT_AGAIN}") from None
    return interpreter


def _newest(folder: Path) -> Path | None:
    versions = {number: path for number, path in files.versions(folder).items() if (path / SETTINGS_FILE).is_file()}
    version = versions[max(versions)] if versions else folder
    return version if (version / SETTINGS_FILE).is_file() else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses LiteRT's message about its delegate, which C++ prints to standard error. Errors are still raised."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
