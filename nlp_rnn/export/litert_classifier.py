"""LiteRT files of classifiers: from the ids of one text to probabilities."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nlp_rnn.config.settings import Config
from nlp_rnn.export import litert
from nlp_rnn.export.classifier import ClassifierModule
from nlp_rnn.export.saved_model import portable
from nlp_rnn.models.calibration import Calibration
from nlp_rnn.ondevice.classifier import OnDeviceClassifier
from nlp_rnn.ondevice.litert_file import PRECISIONS
from nlp_rnn.special_ids import PAD_ID
from nlp_rnn.tokenization.encoding import encode
from nlp_rnn.tokenization.tokenizer import Tokenizer

_LIMITS = {"float": 1e-3, "int8": 0.1}  # largest differences of probabilities; larger ones mean a broken file
_BATCH_SIZE = 32


def export_classifier(
    model: keras.Model, tokenizer: Tokenizer, config: Config, labels: list[str], calibration: Calibration,
    texts: list[str], folder: Path, *, int8_only: bool = False,
) -> tuple[Path, dict[str, Any]]:  # fmt: skip
    """Writes model_float.tflite, model_int8.tflite, vocabulary.json and README.md as the next version, atomically.

    Args:
      model: from `build_classifier` with `fast=off`, with its weights.
      calibration: part of the files.
      texts: on which the files are compared with the model.
      folder: the version becomes a subfolder of it.
      int8_only: whether only the int8 file is kept, after the check of both.

    Returns:
      (the version's folder, the checked facts: sizes in bytes, largest differences of probabilities, and the share of
      texts with the model's answer, 0-1).

    Raises:
      ConfigError: if the words cannot be split without TensorFlow, or a file fails its check.
    """
    settings = litert.word_settings(tokenizer) | {
        "answers": "labels", "words": tokenizer.texts(), "labels": labels, "outputs": config.data.outputs,
        "thresholds": calibration.thresholds, "max_length": config.data.max_length, "keep": config.data.keep,
    }  # fmt: skip

    def write(temporary: Path) -> dict[str, Any]:
        with portable(model.get_layer("encoder").layers):
            litert.write_files(
                temporary,
                lambda is_int8: _Classify(model, calibration, config.data.outputs, is_int8=is_int8),
                ("classify",),
            )
        litert.write_settings(temporary, settings, config, "litert_classifier.md")
        return check(temporary, ClassifierModule([model], tokenizer, config, labels, [calibration]), config, texts)

    return litert.write_version(folder, write, int8_only=int8_only)


def check(folder: Path, module: ClassifierModule, config: Config, texts: list[str]) -> dict[str, Any]:
    """Compares both files, from text to probabilities, with the model, and their sizes.

    Raises:
      ConfigError: if the results differ, or int8 is hardly smaller than float.
    """
    expected: dict[str, list[Any]] = {}
    for start in range(0, len(texts), _BATCH_SIZE):
        for name, values in module.classify(tf.constant(texts[start : start + _BATCH_SIZE])).items():
            expected.setdefault(name, []).extend(values.numpy())
    answers = "chosen" if config.data.outputs == "label_sets" else "label"
    differences, agreements = {}, {}
    for precision in PRECISIONS:
        device = OnDeviceClassifier(folder, precision=precision)
        if precision == PRECISIONS[0]:
            ids = encode(module._tokenizer, tf.constant(texts), config.data.max_length, config.data.keep)
            litert.check_tokens(texts, [device.ids(text) for text in texts], ids.to_list())
        actual = device.answer("classify", [text.encode() for text in texts])
        differences[precision] = float(np.abs(actual["probabilities"] - np.array(expected["probabilities"])).max())
        agreements[precision] = _agreement(actual[answers], expected[answers])
        litert.check_difference(precision, "probabilities", differences[precision], _LIMITS[precision])
    tables = [
        layer.table.shape.num_elements() for layer in module.holders_of_weights[0].layers if layer.name == "ngrams"
    ]
    sizes = litert.check_sizes(folder, int8_in_both=sum(tables))
    return {"bytes": sizes, "largest_difference": differences, "same_answers": agreements, "texts": len(texts)}


def _agreement(actual: Any, expected: list[Any]) -> float:
    """The share of texts with the same label, or the same labels."""
    same = np.array(actual) == np.array(expected)
    return float(same.reshape(len(same), -1).all(axis=1).mean())


class _Classify(tf.Module):
    """One text in the form that LiteRT needs. Padding with PAD_ID on the right does not change the result."""

    def __init__(self, model: keras.Model, calibration: Calibration, outputs: str, *, is_int8: bool) -> None:
        super().__init__()
        layers = {layer.name: layer for layer in model.layers}
        self._embedding, self._encoder = layers["embedding"], layers["encoder"]
        self._wide = (layers["ngrams"], layers["stack"]) if "stack" in layers else None
        self._temperature, self._outputs = calibration.temperature, outputs
        self._weights = litert.ConstantWeights(model, self._embedding.embeddings, is_int8=is_int8)
        ids = tf.TensorSpec([1, None], tf.int32, name="token_ids")
        self.classify = tf.function(self._classify, input_signature=[ids], autograph=False)

    def _classify(self, token_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        with self._weights.scope():
            vectors, is_token = self._weights.embed(self._embedding, token_ids), token_ids != PAD_ID
            logits = self._encoder([vectors, is_token], training=False)
            if self._wide:
                ngrams, stack = self._wide
                logits = stack(logits, ngrams(token_ids), is_token)
            logits = logits / self._temperature
            probabilities = tf.sigmoid(logits) if self._outputs == "label_sets" else tf.nn.softmax(logits)
            return {"probabilities": probabilities}
