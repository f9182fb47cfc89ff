"""Builds language models and translators from a config."""

import contextlib
from collections.abc import Iterator

import keras

from nlp_rnn.config.settings import ModelConfig, TrainingConfig
from nlp_rnn.models.language_model import LanguageModel
from nlp_rnn.models.translator import Translator


def build_language_model(
    config: ModelConfig, *, vocab_size: int, training: TrainingConfig | None = None
) -> LanguageModel:
    """Builds a `LanguageModel`: for training if `training` is given, else only to `run`."""
    if training is None:
        return LanguageModel(config, vocab_size=vocab_size)
    return LanguageModel(
        config, vocab_size=vocab_size, batch_size=training.batch_size, window=training.window,
        activation_regularization=training.activation_regularization,
        temporal_regularization=training.temporal_regularization,
        state_reset=training.state_reset, r_drop=training.r_drop,
    )  # fmt: skip


def build_translator(config: ModelConfig, *, vocab_size: int, training: TrainingConfig | None = None) -> Translator:
    """Builds a `Translator`; `training` adds label smoothing, scheduled sampling and R-Drop."""
    if training is None:
        return Translator(config, vocab_size=vocab_size)
    return Translator(
        config, vocab_size=vocab_size, label_smoothing=training.label_smoothing,
        scheduled_sampling=training.scheduled_sampling, r_drop=training.r_drop,
    )  # fmt: skip


@contextlib.contextmanager
def in_float32() -> Iterator[None]:
    """Models that are built in the context compute in float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
