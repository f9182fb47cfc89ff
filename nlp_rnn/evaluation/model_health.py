"""Whether an exported model loads, answers, and belongs to a run."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from nlp_rnn import files
from nlp_rnn.errors import ConfigError
from nlp_rnn.export import saved_model
from nlp_rnn.ondevice import litert_file
from nlp_rnn.ondevice.classifier import OnDeviceClassifier
from nlp_rnn.ondevice.generator import OnDeviceGenerator
from nlp_rnn.ondevice.litert_model import OnDeviceModel
from nlp_rnn.training.run_directory import load_run
from nlp_rnn.training.trained_models import load_tokenizer

_ONDEVICE = {"words": OnDeviceModel, "labels": OnDeviceClassifier, "characters": OnDeviceGenerator}


def examine(path: Path) -> tuple[Path, dict[str, Any], str]:
    """Loads an exported model and asks it about an empty and a short text.

    Returns:
      (its folder, its figures by split, what is wrong with its answers, or "").

    Raises:
      ConfigError: if it does not load.
    """
    folder = saved_model.find_model(path)
    loaded = saved_model.load_model(folder).loaded
    metrics = folder / "assets.extra" / "metrics.json"
    figures = files.read_json(metrics, dict, "export it again") if metrics.is_file() else {}
    function = loaded.signatures["serving_default"]
    (name,) = function.structured_input_signature[1]
    try:
        outputs = function(**{name: tf.constant(["", "a"])})
    except tf.errors.OpError as error:
        return folder, figures, f"its signature serving_default fails ({type(error).__name__})"
    for key, value in outputs.items():
        if value.dtype.is_floating and not np.isfinite(value.numpy()).all():
            return folder, figures, f"its output {key} is not finite"
    return folder, figures, ""


def litert_problems(path: Path) -> list[str] | None:
    """What is wrong with the files of a LiteRT export; None if it is none."""
    if not litert_file.is_ondevice(path):
        return None
    version, problems = litert_file.find(path), []
    precisions = {file.stem.removeprefix("model_") for file in version.glob("model_*.tflite")} | {"int8"}
    for precision in sorted(precisions):
        try:
            kind = litert_file.kind_of(litert_file.read_settings(version))
            open_model: Any = _ONDEVICE.get(kind, litert_file.open_model)
            open_model(version, precision=precision)
        except ConfigError as error:
            problems.append(str(error))
    return problems


def has_vocabulary_of(folder: Path, run: Path) -> bool:
    """Whether an export holds the vocabulary of a run.

    Raises:
      ConfigError: if the run cannot be read.
    """
    file = folder / "assets.extra" / "vocabulary"
    return file.is_file() and file.read_text(encoding="utf-8") == load_tokenizer(load_run(run)).vocabulary_text()
