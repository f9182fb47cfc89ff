"""LiteRT files of language models, for next words and for characters: single steps for one text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from nlp_rnn.config.settings import Config
from nlp_rnn.decoding.suggestible_words import Vocabulary
from nlp_rnn.errors import ConfigError
from nlp_rnn.export import litert
from nlp_rnn.models.language_model import LanguageModel
from nlp_rnn.ondevice.continuous_cache import CacheSettings
from nlp_rnn.ondevice.generator import OnDeviceGenerator
from nlp_rnn.ondevice.litert_file import PRECISIONS
from nlp_rnn.ondevice.litert_model import OnDeviceModel, Steps
from nlp_rnn.ondevice.ngram_model import FILE as NGRAMS_FILE
from nlp_rnn.special_ids import EOS_ID
from nlp_rnn.tokenization.tokenizer import Tokenizer

_NUM_CHECKED = 1000  # ids
_LIMITS = {"float": 1e-3, "int8": 1.0}  # largest differences of log-probabilities; larger ones mean a broken file
_MEAN_LIMITS = {"float": 1e-4, "int8": 0.05}  # of the mean log-probability of the texts' ids, in nats


def export_next_word(
    model: LanguageModel,
    tokenizer: Tokenizer,
    config: Config,
    metrics: dict[str, Any],
    texts: list[str],
    folder: Path,
    *,
    int8_only: bool = False,
    ngrams: tuple[bytes, float] | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Writes model_float.tflite, model_int8.tflite, vocabulary.json and README.md as the next version, atomically.

    Args:
      texts: on which the files are compared with the model, as one text.
      folder: the version becomes a subfolder of it.
      int8_only: whether only the int8 file is kept, after the check of both.
      ngrams: the content of ngrams.npz and the share of that model in the mixture; None: no such file.

    Returns:
      (the version's folder, the checked facts: sizes in bytes, largest differences of log-probabilities, and
      differences of the texts' mean log-probability in nats).

    Raises:
      ConfigError: if the words cannot be split without TensorFlow, or a file fails its check.
    """
    splitting = litert.word_settings(tokenizer)
    vocabulary = Vocabulary(tokenizer)
    cache = CacheSettings(**metrics["cache"]) if "cache" in metrics else CacheSettings(share=0.15, theta=0.3)
    settings = splitting | {
        "answers": "words", "words": vocabulary.words,
        "proposable": np.flatnonzero(vocabulary.is_suggestible).tolist(),
        "profane": np.flatnonzero(vocabulary.is_profane).tolist(),
        "cache": {"share": cache.share, "theta": cache.theta},
    }  # fmt: skip

    def write(temporary: Path) -> dict[str, Any]:
        _write_files(temporary, model)
        litert.write_settings(temporary, settings, config, "litert_next_word.md")
        facts = check(temporary, model, tokenizer, texts, OnDeviceModel)
        if ngrams:  # afterwards, since the check compares the neural model
            content, share = ngrams
            (temporary / NGRAMS_FILE).write_bytes(content)
            litert.write_settings(temporary, settings | {"ngrams": {"share": share}}, config, "litert_next_word.md")
            facts["bytes"]["ngrams"] = len(content)
            mixture = OnDeviceModel(temporary)
            mixture.step(EOS_ID, mixture.zero_states())  # whether it answers
        return facts

    return litert.write_version(folder, write, int8_only=int8_only)


def export_characters(
    model: LanguageModel,
    tokenizer: Tokenizer,
    config: Config,
    texts: list[str],
    folder: Path,
    *,
    int8_only: bool = False,
) -> tuple[Path, dict[str, Any]]:
    """Writes the files of a character model; see `export_next_word`.

    Raises:
      ConfigError: if the characters cannot be split without TensorFlow, or a file fails its check.
    """
    if tokenizer.level != "char" or tokenizer.nfkc or tokenizer.reserved:
        raise ConfigError(
            "--format is litert, which splits characters without TensorFlow: it needs tokenizer.level=char, without "
            "nfkc and reserved; use --format savedmodel"
        )
    settings = {
        "answers": "characters", "characters": tokenizer.texts(), "lowercase": tokenizer.case == "lower",
        "max_length": config.data.max_length,
    }  # fmt: skip

    def write(temporary: Path) -> dict[str, Any]:
        _write_files(temporary, model)
        litert.write_settings(temporary, settings, config, "litert_characters.md")
        return check(temporary, model, tokenizer, texts, OnDeviceGenerator)

    return litert.write_version(folder, write, int8_only=int8_only)


def check(
    folder: Path, model: LanguageModel, tokenizer: Tokenizer, texts: list[str], kind: Callable[..., Any]
) -> dict[str, Any]:
    """Compares both files with the model on the beginning of the texts, read as one text, and their sizes.

    Args:
      kind: OnDeviceModel or OnDeviceGenerator.

    Raises:
      ConfigError: if the results differ, or int8 is larger than a third of the float file.
    """
    rows = tokenizer.tokenize(tf.constant(texts)).to_list()
    ids = np.array([token for row in rows for token in (EOS_ID, *row)][:_NUM_CHECKED], np.int32)
    hidden, _ = model.run(ids[None], model.zero_states(1))
    expected = np.array(model.head(hidden))[0]
    largest, means = {}, {}
    for precision in PRECISIONS:
        device = kind(folder, precision=precision)
        if precision == PRECISIONS[0]:
            litert.check_tokens(texts, [device.ids(device.split(text)) for text in texts], rows)
        actual, at_once = _log_probabilities(device, ids)
        likely = expected > np.log(1e-4)  # the ids that are suggested; int8 differs more for unlikely ones
        largest[precision] = max(
            float(np.abs(actual - expected)[likely].max()), float(np.abs(at_once - expected[-1])[likely[-1]].max())
        )
        places = np.arange(len(ids) - 1), ids[1:]
        means[precision] = float(abs(np.mean(actual[places] - expected[places])))
        litert.check_difference(precision, "log-probabilities", largest[precision], _LIMITS[precision])
        litert.check_difference(precision, "mean log-probabilities", means[precision], _MEAN_LIMITS[precision])
    sizes = litert.check_sizes(folder)
    return {"bytes": sizes, "largest_difference": largest, "mean_difference": means, "tokens": len(ids)}


def _log_probabilities(device: Steps, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """After each id by steps, float32 [time, vocabulary], and after the last id by `prefill`, float32 [vocabulary]."""
    states, rows = device.zero_states(), []
    for token in ids:
        step = device.step(int(token), states)
        states = step.states
        rows.append(step.log_probabilities)
    return np.stack(rows), device.prefill(ids, device.zero_states()).log_probabilities


def _write_files(folder: Path, model: LanguageModel) -> None:
    litert.write_files(folder, lambda is_int8: _Steps(model, is_int8=is_int8), ("prefill", "step"))


class _Steps(tf.Module):
    """Single steps for one text, in the form that LiteRT needs."""

    def __init__(self, model: LanguageModel, *, is_int8: bool) -> None:
        super().__init__()
        self._model = model
        self._weights = litert.ConstantWeights(model, model.embedding.embeddings, is_int8=is_int8)
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
        with self._weights.scope():
            hidden, states = self._advance(token_ids, states)
            return {"log_probabilities": self._model.head(hidden), "hidden": hidden, "states": states}

    def _prefill(self, token_ids: tf.Tensor, states: tf.Tensor) -> dict[str, tf.Tensor]:
        def body(time: tf.Tensor, states: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            hidden, states = self._advance(token_ids[:, time], states)
            return time + 1, states, hidden

        start = (0, states, tf.zeros([1, self._model.features]))
        with self._weights.scope():
            _, states, hidden = tf.while_loop(lambda time, *_: time < tf.shape(token_ids)[1], body, start)
            return {"log_probabilities": self._model.head(hidden), "hidden": hidden, "states": states}

    def _advance(self, token_ids: tf.Tensor, states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes one step with the cells alone, without a loop over time."""
        vectors = self._weights.embed(self._model.embedding, token_ids)
        hidden, after = self._model.advance_vectors(vectors, self._model.unpack_states(states))
        return hidden, self._model.pack_states(after)
