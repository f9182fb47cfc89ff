"""SavedModels that take and return strings, built of core TensorFlow ops; and loading them again.

The graph holds tokenizer, weights and decoding. `assets.extra/` tells the rest: resolved config, metrics, vocabulary
and a model card. `import tensorflow` is all a server needs.
"""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nlp_rnn import __version__, files
from nlp_rnn.config import Config, ConfigError, load_config, to_yaml
from nlp_rnn.tokenizer import PAD_ID, Tokenizer, encode, truncate

_TEXT = tf.TensorSpec([None], tf.string, name="text")
_EXPLAIN_STEPS = 32


class ClassifierModule(tf.Module):
    """What an exported classifier holds: text in, labels out.

    Args:
      model: from `build_classifier`, with its weights.
      labels: class names.
    """

    def __init__(self, model: keras.Model, tokenizer: Tokenizer, config: Config, labels: list[str]) -> None:
        super().__init__()
        self._model, self._tokenizer, self._data = model, tokenizer, config.data
        _make_portable(model.get_layer("encoder").layers)
        self._embedding, self._encoder = model.get_layer("embedding"), model.get_layer("encoder")
        self._labels = tf.constant(labels)

    @tf.function(input_signature=[_TEXT])
    def classify(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """string [batch] -> probability float32 [batch] (of the positive class, the second of two; of the label where
        there are more), label string [batch], probabilities float32 [batch, classes]."""
        probabilities = tf.nn.softmax(self._model(self._token_ids(text).to_tensor(PAD_ID), training=False))
        winner = tf.argmax(probabilities, axis=1)
        probability = probabilities[:, 1] if len(self._labels) == 2 else tf.reduce_max(probabilities, axis=1)
        return {"probability": probability, "label": tf.gather(self._labels, winner), "probabilities": probabilities}

    @tf.function(input_signature=[_TEXT])
    def explain(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """string [batch] -> tokens string [batch, time], padded with "", attributions float32 [batch, time].

        Integrated gradients of the positive class's (of two; else the predicted class's) log-odds along the straight
        path from zero embeddings: a row's attributions add up to log-odds minus log-odds of the empty path start, up
        to the error of 32 midpoint steps. Source: Sundararajan et al. 2017, equation 3.
        """
        token_ids = self._token_ids(text).to_tensor(PAD_ID)  # [batch, time]
        mask = token_ids != PAD_ID
        vectors = self._embedding(token_ids)
        winner = tf.argmax(self._encoder([vectors, mask], training=False), axis=1)
        target = tf.ones_like(winner) if len(self._labels) == 2 else winner
        attributions = tf.map_fn(self._attribute, (vectors, mask, target), fn_output_signature=tf.TensorSpec([None], tf.float32))
        return {"tokens": self._tokens(text, token_ids), "attributions": attributions}

    @tf.function(input_signature=[_TEXT])
    def tokenize(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """string [batch] -> tokens string [batch, time], padded with "", token_ids int32 [batch, time], padded with 0,
        text string [batch]: the ids as text again."""
        ids = self._token_ids(text)
        token_ids = ids.to_tensor(PAD_ID)
        return {"tokens": self._tokens(text, token_ids), "token_ids": token_ids, "text": self._tokenizer.detokenize(ids)}

    def _token_ids(self, text: tf.Tensor) -> tf.RaggedTensor:
        return encode(self._tokenizer, text, self._data.max_length, self._data.keep)

    def _tokens(self, text: tf.Tensor, token_ids: tf.Tensor) -> tf.Tensor:
        """The pieces as they stand in the text (unknown ones too), beside their ids."""
        pieces = truncate(self._tokenizer.pieces(text), self._data.max_length, self._data.keep)
        return pieces.to_tensor("", shape=tf.stack([-1, tf.shape(token_ids)[1]]))

    def _attribute(self, row: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """One text: all points of its path as one batch."""
        vectors, mask, target = row  # [time, embedding_dim], [time], []
        shares = (tf.range(_EXPLAIN_STEPS, dtype=vectors.dtype) + 0.5) / _EXPLAIN_STEPS
        points = shares[:, None, None] * vectors  # [steps, time, embedding_dim]
        with tf.GradientTape() as tape:
            tape.watch(points)
            logits = self._encoder([points, tf.repeat(mask[None], _EXPLAIN_STEPS, axis=0)], training=False)
            odds = log_odds(logits, tf.repeat(target, _EXPLAIN_STEPS))
        return tf.reduce_sum(vectors * tf.reduce_mean(tape.gradient(odds, points), axis=0), axis=-1)


def _make_portable(layers: Iterable[keras.layers.Layer]) -> None:
    """Keeps recurrent layers from cuDNN's op, where there is a GPU, and from XLA: the export would not load elsewhere."""
    for layer in layers:
        recurrent = getattr(layer, "layer", layer)  # what WeightDrop wraps
        if hasattr(recurrent, "use_cudnn"):
            recurrent.use_cudnn = False
        if hasattr(recurrent, "is_portable"):
            recurrent.is_portable = True


def log_odds(logits: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """float [batch, classes], int64 [batch] -> log p / (1 - p) of one class a row, float [batch]."""
    chosen = tf.one_hot(classes, tf.shape(logits)[1], on_value=True, off_value=False)
    others = tf.where(chosen, tf.constant(-np.inf, logits.dtype), logits)
    return tf.gather(logits, classes, batch_dims=1) - tf.reduce_logsumexp(others, axis=1)


def export_classifier(module: ClassifierModule, folder: Path, extras: dict[str, str]) -> Path:
    """Writes the SavedModel as the next version under `folder`; see `export_module`."""
    signatures = {"serving_default": module.classify, "explain": module.explain, "tokenize": module.tokenize}
    return export_module(module, folder, signatures, extras)


def export_module(module: tf.Module, folder: Path, signatures: dict[str, Any], extras: dict[str, str]) -> Path:
    """Writes the SavedModel as the next version under `folder`, whole or not at all.

    Args:
      folder: saved_models/<task>.
      signatures: name -> tf.function of the module.
      extras: file name -> text, for assets.extra/.

    Returns:
      the version's folder.
    """
    while True:
        path = next_version(folder)
        try:
            with files.atomic_folder(path) as temporary:
                tf.saved_model.save(module, str(temporary), signatures=signatures)
                (temporary / "assets.extra").mkdir()
                for name, text in extras.items():
                    (temporary / "assets.extra" / name).write_text(text, encoding="utf-8", newline="\n")
                _refuse_foreign_ops(temporary)
            return path
        except FileExistsError:
            continue  # another export took the number


def next_version(folder: Path) -> Path:
    """The folder of the next version under saved_models/<task>."""
    return folder / str(max(_versions(folder), default=0) + 1)


@dataclass(frozen=True)
class ExportedModel:
    """An exported model: its signatures as functions (`loaded.classify(text)`), its config, its class names, its folder."""

    loaded: Any
    config: Config
    labels: list[str]
    path: Path


def load_model(path: str | os.PathLike[str], task: str) -> ExportedModel:
    """Loads an exported model: `saved_models/<task>/<version>`, or `saved_models/<task>` for its newest version.

    Raises:
      ConfigError: if there is none, or it is of another task.
    """
    folder = find_model(path, task)
    config = load_config(folder / "assets.extra" / "config.yaml", task=task)
    path_of_labels = folder / "assets.extra" / "labels.json"  # classifiers only
    labels = json.loads(path_of_labels.read_text(encoding="utf-8")) if path_of_labels.is_file() else []
    try:
        return ExportedModel(tf.saved_model.load(str(folder)), config, labels, folder)
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise ConfigError(f"--model is {folder}, but it does not load ({str(error).splitlines()[0]}); export it again") from None


def find_model(path: str | os.PathLike[str], task: str) -> Path:
    """The folder of the newest version at or under `path`."""
    folder = Path(path)
    versions = _versions(folder)
    if versions:
        folder = folder / str(max(versions))
    if not (folder / "saved_model.pb").is_file() or not (folder / "assets.extra" / "config.yaml").is_file():
        raise ConfigError(f"--model is {path}, but holds no exported model; give a folder that export wrote, such as saved_models/{task}")
    return folder


def model_card(config: Config, labels: list[str], metrics: dict[str, Any], num_parameters: int) -> str:
    """A short Markdown text: what the model is, what it was trained on, what it scored."""
    scores = "".join(
        f"| {split} | {found['num_examples']:,} | {100 * found['accuracy']:.2f} % | {found['f1']:.4f} | {found['cross_entropy']:.4f} |"
        f" {found['expected_calibration_error']:.4f} |\n"
        for split, found in metrics.items()
        if split in ("validation", "test")
    )
    return f"""# {config.task}: {config.name}

A {"bidirectional " if config.model.is_bidirectional else ""}{config.model.cell} text classifier of {num_parameters:,} parameters, \
trained by nlp-rnn {__version__} on TensorFlow {tf.__version__}, Keras {keras.__version__}.

- Labels: {", ".join(labels)}
- Training data: source `{config.data.source}`, seed {config.seed}
- Input: UTF-8 text; of a text longer than {config.data.max_length} tokens, {_KEPT[config.data.keep]} is read
- Tokenizer: {config.tokenizer.level} level; see `vocabulary`

## Measured

| split | examples | accuracy | F1 | cross-entropy | calibration error |
|---|---|---|---|---|---|
{scores}
The weights were chosen on the validation split. Figures hold for text like the training data; on other domains or
languages measure first. Settings: `config.yaml`; all figures: `metrics.json`.
"""


_KEPT = {"start": "the start", "end": "the end", "both": "the first and the last half of that length"}


def classifier_extras(module: ClassifierModule, config: Config, labels: list[str], metrics: dict[str, Any]) -> dict[str, str]:
    """The texts of assets.extra/."""
    return {
        "config.yaml": to_yaml(config),
        "labels.json": json.dumps(labels, ensure_ascii=False) + "\n",
        "metrics.json": json.dumps(metrics, indent=2) + "\n",
        "vocabulary": module._tokenizer.vocabulary_text(),
        "MODEL_CARD.md": model_card(config, labels, metrics, module._model.count_params()),
    }


def _versions(folder: Path) -> list[int]:
    return [int(entry.name) for entry in folder.glob("*") if re.fullmatch(r"\d+", entry.name) and entry.is_dir()]


def _refuse_foreign_ops(folder: Path) -> None:
    """The contract: core ops only. An op of an add-on library would load here and nowhere else."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    ops = {node.op for node in graph.node} | {node.op for function in graph.library.function for node in function.node_def}
    functions = {function.signature.name for function in graph.library.function}
    from tensorflow.python.framework import op_def_registry

    foreign = sorted(op for op in ops - functions if op_def_registry.get(op) is None or op.startswith(("Cudnn", "Xla")))
    if foreign:
        raise RuntimeError(f"the exported graph holds ops that are not core TensorFlow on every machine: {', '.join(foreign)}")
