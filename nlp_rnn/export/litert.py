"""LiteRT exports, for phones and the console: what they share. Files of builtin operators, float and int8.

Each .tflite file is compared with the model on real texts before it is kept.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from nlp_rnn.config.loading import to_yaml
from nlp_rnn.config.settings import Config
from nlp_rnn.errors import ConfigError
from nlp_rnn.export.saved_model import write_next_version
from nlp_rnn.layers.rounding import to_int8
from nlp_rnn.ondevice.litert_file import PRECISIONS, SETTINGS_FILE
from nlp_rnn.ondevice.words import SPLITTERS
from nlp_rnn.tensorflow_import import without_noise
from nlp_rnn.tokenization.tokenizer import Tokenizer

_LARGE = 4096  # bytes of a constant that is worth sharing
_LARGE_FILE = 2_000_000  # bytes from which on the graph itself hardly counts
_NOISE = re.compile(rb"tf_tfl_flatbuffer_helpers")  # it says that options of every conversion were set
_USE_SAVEDMODEL = "nothing was written: export with --format savedmodel"


def write_version(
    folder: Path, write: Callable[[Path], dict[str, Any]], *, int8_only: bool
) -> tuple[Path, dict[str, Any]]:
    """Writes the next version under `folder`, atomically.

    Args:
      write: writes the files into a temporary folder, checks them and returns what it measured: `bytes` and more.
      int8_only: whether the float file is left out, after the check.

    Returns:
      (the version's folder, what `write` returned).
    """

    def write_wanted(version: Path) -> dict[str, Any]:
        facts = write(version)
        if int8_only:
            (version / "model_float.tflite").unlink()
            del facts["bytes"]["float"]
        return facts

    return write_next_version(folder, write_wanted)


def write_settings(folder: Path, settings: dict[str, Any], config: Config, readme: str) -> None:
    """Writes vocabulary.json, config.yaml and README.md.

    Args:
      readme: name of the template beside this module.
    """
    whole = settings | {"task": config.task, "name": config.name}
    (folder / SETTINGS_FILE).write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name(readme), folder / "README.md")


def word_settings(tokenizer: Tokenizer) -> dict[str, Any]:
    """How texts are split into words, for vocabulary.json.

    Raises:
      ConfigError: if `ondevice.words` cannot split them so.
    """
    if (
        tokenizer.level != "word"
        or tokenizer.splitter not in SPLITTERS
        or tokenizer.case == "markers"
        or tokenizer.nfkc
        or tokenizer.reserved
        or tokenizer.oov_buckets
    ):
        raise ConfigError(
            "--format is litert, which splits words without TensorFlow: it needs tokenizer.level=word and "
            f"tokenizer.splitter {' or '.join(SPLITTERS)}, without nfkc, case=markers, reserved and oov_buckets; "
            "use --format savedmodel"
        )
    return {
        "splitter": tokenizer.splitter,
        "lowercase": tokenizer.case == "lower",
        "html_breaks": tokenizer.html_breaks,
        "whole_emoji": tokenizer.whole_emoji,
    }


def write_files(folder: Path, make_module: Callable[[bool], tf.Module], signatures: tuple[str, ...]) -> None:
    """Writes model_float.tflite and model_int8.tflite.

    Args:
      make_module: whether it is for int8 -> a module with a function for each signature.
    """
    for precision in PRECISIONS:
        is_int8 = precision == "int8"
        content = _convert(make_module(is_int8), signatures, is_int8=is_int8)
        (folder / f"model_{precision}.tflite").write_bytes(content)


def check_tokens(texts: list[str], actual: list[list[int]], expected: list[list[int]]) -> None:
    """Compares the ids of texts that were split without TensorFlow with the model's.

    Raises:
      ConfigError: if a text has others.
    """
    for text, ours, models in zip(texts, actual, expected, strict=True):
        if list(ours) != list(models):
            raise ConfigError(
                f"--format is litert, but the text {text[:80]!r} has other token ids there than in the model; "
                f"{_USE_SAVEDMODEL}"
            )


def check_difference(precision: str, what: str, difference: float, limit: float) -> None:
    """Raises ConfigError if a file's results differ from the model's by more than `limit`, or are not numbers."""
    if not difference <= limit:
        raise ConfigError(
            f"--format is litert, but the {precision} file's {what} differ from the model's by {difference:.4f} on "
            f"validation texts, where at most {limit} is allowed; {_USE_SAVEDMODEL}"
        )


def check_sizes(folder: Path, *, int8_in_both: int = 0) -> dict[str, int]:
    """The sizes of both files in bytes.

    Args:
      int8_in_both: bytes of weights that are int8 in both files.

    Raises:
      ConfigError: if the rest of the int8 file is larger than a third of the float file's, unless that is small.
    """
    sizes = {precision: (folder / f"model_{precision}.tflite").stat().st_size for precision in PRECISIONS}
    rest = {precision: size - int8_in_both for precision, size in sizes.items()}
    if rest["float"] > _LARGE_FILE and 3 * rest["int8"] > rest["float"]:
        without = f", without {int8_in_both:,} bytes that are int8 in both" if int8_in_both else ""
        raise ConfigError(
            f"--format is litert, but the int8 file has {sizes['int8']:,} bytes, more than a third of the float file's "
            f"{sizes['float']:,}{without}; {_USE_SAVEDMODEL}"
        )
    return sizes


class ConstantWeights:
    """A model's weights as constants of a graph, since the converter would leave variables empty.

    The converter would quantise a table of embeddings with one scale for all rows, and a table that is also the output
    layer's twice, in two ways. So its rows are quantised here as the converter does for the output layer, and the
    embedding reads them: the file then holds the table once.

    Args:
      is_int8: whether the rows of the table are quantised.
    """

    def __init__(self, model: keras.Model, table: keras.Variable, *, is_int8: bool) -> None:
        self._values = [(weight, weight.numpy()) for weight in model.weights]
        self._table = None
        if is_int8:
            self._table = to_int8(table.numpy(), axis=1)
            values = self._table[0] * self._table[1]
            self._values = [(weight, values if weight is table else value) for weight, value in self._values]

    def scope(self) -> keras.StatelessScope:
        """In it, the model's variables are constants."""
        return keras.StatelessScope(state_mapping=[(weight, tf.constant(value)) for weight, value in self._values])

    def embed(self, embedding: keras.layers.Layer, token_ids: tf.Tensor) -> tf.Tensor:
        """The vectors of ids, int32 [...] -> float32 [..., features], within `scope`."""
        if self._table is None:
            return embedding(token_ids)
        table, scales = (tf.gather(tf.constant(part), token_ids) for part in self._table)
        return tf.cast(table, tf.float32) * scales


def _convert(module: tf.Module, signatures: tuple[str, ...], *, is_int8: bool) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={name: getattr(module, name) for name in signatures})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(signatures))
        if is_int8:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]  # int8 weights, activations quantised at run time
        with without_noise(_NOISE):
            return _share_constants(converter.convert())


def _share_constants(content: bytes) -> bytes:
    """Stores equal constants of a LiteRT file, such as the table of tied weights, only once."""
    from tensorflow.lite.tools import flatbuffer_utils

    file = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    first: dict[bytes, int] = {}
    for graph in file.subgraphs:
        for tensor in graph.tensors:
            data = file.buffers[tensor.buffer].data
            if data is not None and len(data) > _LARGE:
                tensor.buffer = first.setdefault(bytes(data), tensor.buffer)
    used = {tensor.buffer for graph in file.subgraphs for tensor in graph.tensors} | {
        each.buffer for each in file.metadata or []
    }
    for number, buffer in enumerate(file.buffers):
        if number not in used:
            buffer.data = None
    return bytes(flatbuffer_utils.convert_object_to_bytearray(file))
