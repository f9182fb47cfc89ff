"""Next-word models for phones and the console: LiteRT files of core operators, float and int8.

Each file is checked before it is kept.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nlp_rnn import files, manifest
from nlp_rnn.config.loading import to_yaml
from nlp_rnn.config.settings import Config
from nlp_rnn.decoding.suggestible_words import Vocabulary
from nlp_rnn.errors import ConfigError
from nlp_rnn.export.saved_model import next_version
from nlp_rnn.models.language_model import LanguageModel
from nlp_rnn.ondevice.continuous_cache import CacheSettings
from nlp_rnn.ondevice.litert_model import PRECISIONS, SETTINGS_FILE, SPLITTERS, OnDeviceModel
from nlp_rnn.special_ids import EOS_ID
from nlp_rnn.tokenization.tokenizer import Tokenizer

_NUM_CHECKED = 300  # ids
_PARITY = 1e-3  # largest difference of the float file's log-probabilities
_CLOSE = 0.5  # the same for int8; a larger difference means a broken file
_LARGE = 4096  # bytes of a constant that is worth sharing
_LARGE_FILE = 2_000_000  # bytes from which on the graph itself hardly counts
_LARGEST_SHARE = 1 / 3  # of the int8 file's size in the float file's


def export_litert(
    model: LanguageModel, tokenizer: Tokenizer, config: Config, metrics: dict[str, Any], folder: Path
) -> tuple[Path, dict[str, Any]]:
    """Writes model_float.tflite, model_int8.tflite, vocabulary.json and README.md as the next version, atomically.

    Args:
      folder: the version becomes a subfolder of it.

    Returns:
      (the version's folder, the checked facts: sizes in bytes, largest differences of log-probabilities).

    Raises:
      ConfigError: if the console cannot tokenise like the model, or a file fails its check.
    """
    if (
        tokenizer.level != "word"
        or tokenizer.splitter not in SPLITTERS
        or tokenizer.nfkc
        or tokenizer.reserved
        or tokenizer.oov_buckets
    ):
        raise ConfigError(
            "--format is litert, which splits words without TensorFlow: it needs tokenizer.level=word and "
            f"tokenizer.splitter {' or '.join(SPLITTERS)}, without nfkc, reserved and oov_buckets; "
            "use --format savedmodel"
        )
    while True:
        path = next_version(folder)
        try:
            with files.atomic_folder(path) as temporary:
                for precision in PRECISIONS:
                    (temporary / f"model_{precision}.tflite").write_bytes(_convert(model, precision))
                _write_settings(temporary, tokenizer, config, metrics)
                found = check(temporary, model)
                manifest.write(temporary)
            return path, found
        except FileExistsError:
            continue  # another export has taken the number


def check(folder: Path, model: LanguageModel) -> dict[str, Any]:
    """Compares both files with the model on a text that the model generates, and their sizes.

    Raises:
      ConfigError: if a file's results differ from the model's, or int8 is larger than a third of the float file.
    """
    ids = _written_by(model, _NUM_CHECKED)
    hidden, _ = model.run(ids[None], model.zero_states(1))
    expected = np.array(model.head(hidden))[0]
    sizes = {precision: (folder / f"model_{precision}.tflite").stat().st_size for precision in PRECISIONS}
    differences = {}
    for precision, limit in zip(PRECISIONS, (_PARITY, _CLOSE), strict=True):
        device = OnDeviceModel(folder, precision=precision)
        states, outputs = device.zero_states(), []
        for token in ids:
            step = device.step(int(token), states)
            states = step.states
            outputs.append(step.log_probabilities)
        likely = expected > np.log(1e-4)  # the ids that are suggested; int8 differs more for unlikely ones
        stepped = float(np.abs(np.stack(outputs) - expected)[likely].max())
        at_once = float(
            np.abs(device.prefill(ids, device.zero_states()).log_probabilities - expected[-1])[likely[-1]].max()
        )
        differences[precision] = max(stepped, at_once)
        if not differences[precision] <= limit:
            raise ConfigError(
                f"--format litert: the {precision} file's log-probabilities differ from the model's by "
                f"{differences[precision]:.4f}, but at most {limit} is allowed; nothing was written: "
                "export with --format savedmodel"
            )
    if sizes["float"] > _LARGE_FILE and sizes["int8"] > _LARGEST_SHARE * sizes["float"]:
        raise ConfigError(
            f"--format litert: the int8 file has {sizes['int8']:,} bytes, more than a third of the float file's "
            f"{sizes['float']:,}; nothing was written: export with --format savedmodel"
        )
    return {"bytes": sizes, "largest_difference": differences}


def _written_by(model: LanguageModel, count: int) -> np.ndarray:
    """int32 [count]: ids drawn in sequence from the model's own distribution, so that they resemble its texts."""
    generator, states, ids = np.random.default_rng(0), model.zero_states(1), [EOS_ID]
    while len(ids) < count:
        hidden, states = model.run(np.array([ids[-1:]], np.int32), states)
        scores = np.array(model.head(hidden))[0, -1].astype(np.float64)
        probabilities = np.exp(scores - scores.max())
        ids.append(int(generator.choice(len(probabilities), p=probabilities / probabilities.sum())))
    return np.array(ids, np.int32)


def _convert(model: LanguageModel, precision: str) -> bytes:
    module = _Steps(model, is_int8=precision == "int8")
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"prefill": module.prefill, "step": module.step})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["prefill", "step"])
        if precision == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]  # int8 weights, activations quantised at run time
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


class _Steps(tf.Module):
    """Single steps for one text, in the form that LiteRT needs.

    The converter would quantise the table of tied weights twice, in two ways. So its rows are quantised here as the
    converter
    does for the output layer, and the embedding reads them: the file then holds the table once.
    """

    def __init__(self, model: LanguageModel, *, is_int8: bool) -> None:
        super().__init__()
        self._model = model
        self._values = [(weight, weight.numpy()) for weight in model.weights]
        self._table = None
        if is_int8:
            table = model.embedding.embeddings.numpy()
            scales = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12) / 127
            self._table = (np.round(table / scales).astype(np.int8), scales.astype(np.float32))
            values = self._table[0] * self._table[1]
            self._values = [
                (weight, values if weight is model.embedding.embeddings else value) for weight, value in self._values
            ]
        states = tf.TensorSpec([1, sum(model.state_sizes)], name="states")
        self.step = tf.function(
            self._step, input_signature=[tf.TensorSpec([1], tf.int32, name="token_ids"), states], autograph=False
        )
        self.prefill = tf.function(
            self._prefill,
            input_signature=[tf.TensorSpec([1, None], tf.int32, name="token_ids"), states],
            autograph=False,
        )

    def _step(self, token_ids: tf.Tensor, states: tf.Tensor) -> dict[str, tf.Tensor]:
        with self._constants():
            hidden, states = self._advance(token_ids, states)
            return {"log_probabilities": self._model.head(hidden), "hidden": hidden, "states": states}

    def _prefill(self, token_ids: tf.Tensor, states: tf.Tensor) -> dict[str, tf.Tensor]:
        def body(time: tf.Tensor, states: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            hidden, states = self._advance(token_ids[:, time], states)
            return time + 1, states, hidden

        start = (0, states, tf.zeros([1, self._model.features]))
        with self._constants():
            _, states, hidden = tf.while_loop(lambda time, *_: time < tf.shape(token_ids)[1], body, start)
            return {"log_probabilities": self._model.head(hidden), "hidden": hidden, "states": states}

    def _advance(self, token_ids: tf.Tensor, states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes one step with the cells alone, without a loop over time."""
        if self._table is None:
            vectors = self._model.embedding(token_ids)
        else:
            table, scales = (tf.gather(tf.constant(part), token_ids) for part in self._table)
            vectors = tf.cast(table, tf.float32) * scales
        hidden, after = self._model.advance_vectors(vectors, self._model.unpack_states(states))
        return hidden, self._model.pack_states(after)

    def _constants(self) -> keras.StatelessScope:
        """A scope in which the weights are constants, since the converter would leave variables empty."""
        return keras.StatelessScope(state_mapping=[(weight, tf.constant(value)) for weight, value in self._values])


def _write_settings(folder: Path, tokenizer: Tokenizer, config: Config, metrics: dict[str, Any]) -> None:
    vocabulary = Vocabulary(tokenizer)
    cache = CacheSettings(**metrics["cache"]) if "cache" in metrics else CacheSettings(share=0.15, theta=0.3)
    settings = {
        "words": vocabulary.words,
        "proposable": np.flatnonzero(vocabulary.is_suggestible).tolist(),
        "profane": np.flatnonzero(vocabulary.is_profane).tolist(),
        "splitter": tokenizer.splitter,
        "lowercase": tokenizer.case == "lower",
        "html_breaks": tokenizer.html_breaks,
        "whole_emoji": tokenizer.whole_emoji,
        "cache": {"share": cache.share, "theta": cache.theta},
        "task": config.task,
        "name": config.name,
    }
    (folder / SETTINGS_FILE).write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
    (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name("litert_readme.md"), folder / "README.md")
