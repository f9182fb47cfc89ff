"""Writes and loads SavedModels that take and return strings, built of core TensorFlow ops; shared by all tasks.

The graph contains tokenizer, weights and decoding. `assets.extra/` holds the resolved config, metrics, vocabulary and a
model card. A server needs only `import tensorflow`.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import keras
import tensorflow as tf
from google.protobuf.message import DecodeError

from nlp_rnn import __version__, files, manifest
from nlp_rnn.config.loading import load_saved_config, to_yaml
from nlp_rnn.config.settings import Config
from nlp_rnn.errors import ConfigError
from nlp_rnn.export.compact_weights import CompactWeights
from nlp_rnn.export.graph_ops import check_ops
from nlp_rnn.export.warm_up import write_warm_up
from nlp_rnn.layers.recurrent import unwrapped
from nlp_rnn.models.calibration import Calibration, load_calibration
from nlp_rnn.models.unique import unique
from nlp_rnn.ondevice.litert_file import is_ondevice
from nlp_rnn.special_ids import PAD_ID
from nlp_rnn.tokenization.tokenizer import Tokenizer

_EXPORT_AGAIN = "export it again"
_Result = TypeVar("_Result")


def per_text(dtype: tf.DType, name: str) -> tf.TensorSpec:
    """An input of a signature that has one value for each text: [batch]."""
    return tf.TensorSpec([None], dtype, name=name)


TEXT = per_text(tf.string, "text")


@contextlib.contextmanager
def portable(layers: Iterable[keras.layers.Layer]) -> Iterator[None]:
    """Makes recurrent layers avoid cuDNN's op and XLA while the context lasts, since the export must load anywhere."""
    before = []
    for layer in layers:
        recurrent = unwrapped(layer)
        for name, value in (("use_cudnn", False), ("is_portable", True)):
            if hasattr(recurrent, name):
                before.append((recurrent, name, getattr(recurrent, name)))
                setattr(recurrent, name, value)
    try:
        yield
    finally:
        for recurrent, name, value in before:
            setattr(recurrent, name, value)


def export_module(
    module: tf.Module,
    folder: Path,
    signatures: dict[str, Any],
    extras: dict[str, str],
    defaults: dict[str, dict[str, Any]] | None = None,
    *,
    weights: str = "float32",
) -> Path:
    """Writes the SavedModel as the next version under `folder`, atomically.

    Args:
      folder: saved_models/<task>.
      module: its `portable_layers`, if any, are exported with portable loops over time. None of its functions may have
        been called before, since they would keep the loops of this machine.
      signatures: name -> tf.function of the module.
      extras: file name -> text, for assets.extra/.
      defaults: see `write_warm_up`.
      weights: how the weights of the module's `holders_of_weights` are stored: "float32", or "int8" or "int4", see
        `compact_weights`.

    Returns:
      the version's folder.
    """
    files.check_path("--to", folder)
    _check_path(folder.absolute(), f"--to is {folder}")

    def write(version: Path) -> None:
        is_compact = weights != "float32"
        compact = CompactWeights(module.holders_of_weights, has_int4=weights == "int4") if is_compact else None
        with portable(getattr(module, "portable_layers", [])), compact.in_use() if compact else nullcontext():
            root = _without_weights(module, compact) if compact else module
            holders = getattr(module, "holders_of_weights", [])
            if not compact and len(holders) == 1 and isinstance(holders[0], keras.Model):
                root.ordered_weights = unique(holders[0].weights)  # training.exported_weights reads them
            tf.saved_model.save(root, str(version), signatures=signatures)
        (version / "assets.extra").mkdir()
        for name, text in extras.items():
            (version / "assets.extra" / name).write_text(text, encoding="utf-8", newline="\n")
        _check_core_ops(version)
        check_ops(version)
        write_warm_up(version, defaults or {})

    return write_next_version(folder, write)[0]


def _without_weights(module: Any, compact: CompactWeights) -> tf.Module:
    """What to save in place of a module: its functions and its tokenizer, which holds tables, but not its models."""
    root = tf.Module()
    for name in dir(module):
        if isinstance(value := getattr(module, name), tf.types.experimental.PolymorphicFunction):
            setattr(root, name, value)
    root.tokenizer, root.compact_weights = module._tokenizer, compact
    return root


def write_next_version(folder: Path, write: Callable[[Path], _Result]) -> tuple[Path, _Result]:
    """Writes the next version under saved_models/<task>, with its manifest, atomically.

    Args:
      write: fills the folder that it is given, which is not yet in its place.

    Returns:
      (the version's folder, what `write` returned).
    """
    while True:
        path = _next_version(folder)
        try:
            with files.atomic_folder(path) as temporary:
                result = write(temporary)
                manifest.write(temporary)
            return path, result
        except FileExistsError:
            if _next_version(folder) == path:
                raise
            # Otherwise another export has taken the number.


def _next_version(folder: Path) -> Path:
    taken = files.versions(folder, folders_only=False)
    return folder / str(max(taken, default=0) + 1)


@dataclass(frozen=True)
class ExportedModel:
    """An exported model.

    Attributes:
      loaded: its signatures as functions, such as `loaded.classify(text)`.
      labels: of classifiers, the class names.
      calibration: of classifiers, what their probabilities are calibrated by.
    """

    loaded: Any
    config: Config
    labels: list[str]
    path: Path
    calibration: Calibration


def load_model(path: str | os.PathLike[str], task: str | None = None) -> ExportedModel:
    """Loads an exported model: `saved_models/<task>/<version>`, or `saved_models/<task>` for its newest version.

    Raises:
      ConfigError: if there is none, or it is of another task.
    """
    folder = find_model(path, task)
    check_files(folder)
    config = load_saved_config(folder / "assets.extra" / "config.yaml", task)
    path_of_labels = folder / "assets.extra" / "labels.json"  # classifiers only
    labels = files.read_json(path_of_labels, list, _EXPORT_AGAIN) if path_of_labels.is_file() else []
    calibration, path_of_calibration = Calibration(), folder / "assets.extra" / "calibration.json"
    if path_of_calibration.is_file():  # not of earlier versions
        calibration = load_calibration(path_of_calibration, len(labels), config.data.outputs)
    return ExportedModel(load_graph(folder), config, labels, folder, calibration)


def check_files(folder: Path) -> None:
    """Compares the files of an export with its manifest, if it has one.

    Raises:
      ConfigError: if files are missing or damaged.
    """
    if not manifest.check(folder, _EXPORT_AGAIN):
        manifest.log_missing(folder)


def load_graph(folder: Path) -> Any:
    """Loads a SavedModel, also one that this package has not written.

    Raises:
      ConfigError: if it does not load, or could write files or run code.
    """
    _check_path(folder, f"--model is {folder}")
    check_ops(folder)
    try:
        return tf.saved_model.load(str(folder))
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RuntimeError,
        DecodeError,
        tf.errors.OpError,
    ) as error:
        told = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ConfigError(f"--model is {folder}, but it does not load ({told[:200]}); {_EXPORT_AGAIN}") from error


def find_model(path: str | os.PathLike[str], task: str | None = None) -> Path:
    """The folder of the newest version at or under `path`."""
    files.check_path("--model", path)
    folder = files.newest_version(Path(path))
    if not (folder / "saved_model.pb").is_file() or not (folder / "assets.extra" / "config.yaml").is_file():
        if is_ondevice(path):
            raise ConfigError(
                f"--model is {path}, a LiteRT export, which this command does not take; give a SavedModel, or the run"
            )
        raise ConfigError(
            f"--model is {path}, but holds no exported model; give a folder that export wrote, "
            f"such as saved_models/{task or 'sentiment'}"
        )
    return folder


def kind_of(what: str, num_models: int) -> str:
    """What a model is, for its card: also how many models it is an ensemble of."""
    return what if num_models == 1 else f"{what}, an ensemble of {num_models} models,"


def card(config: Config, what: str, facts: list[str], table: list[str], warning: str) -> str:
    """A model card in Markdown: what the model is, its training data and its scores.

    Args:
      what: the kind of model and its size.
      facts: about input and output, one line each.
      table: header and rows of its scores, in Markdown.
      warning: the limits of the figures.
    """
    lines = "\n".join(
        f"- {fact}" for fact in [f"Training data: source `{config.data.source}`, seed {config.seed}", *facts]
    )
    scores = "\n".join([table[0], "|---" * (table[0].count("|") - 1) + "|", *table[1:]])
    return f"""# {config.task}: {config.name}

A {what}, exported by nlp-rnn {__version__} with TensorFlow {tf.__version__}, Keras {keras.__version__}.

{lines}

## Measured

{scores}

The weights were chosen on the validation split. {warning} Settings: `config.yaml`; all figures: `metrics.json`.
"""


def extras(config: Config, tokenizer: Tokenizer, metrics: dict[str, Any], model_card: str) -> dict[str, str]:
    """The files of assets.extra/ that every model has, by name."""
    return {
        "config.yaml": to_yaml(config),
        "metrics.json": json.dumps(metrics, indent=2) + "\n",
        "tokenizer.json": tokenizer.settings_text(),
        "vocabulary": tokenizer.vocabulary_text(),
        "MODEL_CARD.md": model_card,
    }


def tokenized(tokenizer: Tokenizer, pieces: tf.RaggedTensor, ids: tf.RaggedTensor) -> dict[str, tf.Tensor]:
    """The result of a signature `tokenize`.

    Returns:
      tokens string [batch, time], padded with "", token_ids int32 [batch, time], padded with PAD_ID, text string
      [batch], the decoded ids.
    """
    token_ids = ids.to_tensor(PAD_ID)
    tokens = pieces.to_tensor("", shape=tf.stack([-1, tf.shape(token_ids)[1]]))
    return {"tokens": tokens, "token_ids": token_ids, "text": tokenizer.detokenize(ids)}


def scored(pieces: tf.RaggedTensor, log_probabilities: tf.Tensor) -> dict[str, tf.Tensor]:
    """The result of a signature `score`.

    Returns:
      tokens string [batch, time + 1], each text ended by "</s>", padded with ""; log_probabilities float32 of the same
      shape, in nats, of each token after the ones before it, padded with 0.
    """
    tokens = tf.concat([pieces, tf.fill([pieces.nrows(), 1], "</s>")], axis=1)
    return {"tokens": tokens.to_tensor("", shape=tf.shape(log_probabilities)), "log_probabilities": log_probabilities}


def at_least_one(rows: tf.Tensor) -> tf.Tensor:
    """Adds a row of zeros or "" to an empty batch, since loops and reductions need one; see `without_added`."""
    is_empty = tf.cast(tf.equal(tf.shape(rows)[0], 0), tf.int32)
    return tf.concat([rows, tf.zeros(tf.concat([[is_empty], tf.shape(rows)[1:]], axis=0), rows.dtype)], axis=0)


def without_added(answer: dict[str, tf.Tensor], rows: tf.Tensor) -> dict[str, tf.Tensor]:
    """The answers about `rows` without that about the row that `at_least_one` added."""
    return {name: values[: tf.shape(rows)[0]] for name, values in answer.items()}


def _check_path(folder: Path, setting: str) -> None:
    # as_posix: on Windows, where "\\" separates names, it is no part of one.
    if mark := re.search(r"[*?\[\]\\]", folder.as_posix()):
        raise ConfigError(
            f"{setting}, but TensorFlow takes the character {mark[0]!r} in a path for a pattern, "
            "so the model would not load; "
            "use a folder without it"
        )


def _check_core_ops(folder: Path) -> None:
    """Checks that all ops are core TensorFlow: an op of an add-on library would not load elsewhere."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    ops = {node.op for node in graph.node} | {
        node.op for function in graph.library.function for node in function.node_def
    }
    functions = {function.signature.name for function in graph.library.function}
    from tensorflow.python.framework import op_def_registry

    foreign = sorted(op for op in ops - functions if op_def_registry.get(op) is None or op.startswith(("Cudnn", "Xla")))
    if foreign:
        raise RuntimeError(
            f"the exported graph holds ops that are not core TensorFlow on every machine: {', '.join(foreign)}"
        )
