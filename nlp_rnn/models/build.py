"""Language models and translators, as a config describes them."""

from nlp_rnn.config.settings import ModelConfig, TrainingConfig
from nlp_rnn.models.language_model import LanguageModel
from nlp_rnn.models.translator import Translator


def build_language_model(
    config: ModelConfig, *, vocab_size: int, training: TrainingConfig | None = None
) -> LanguageModel:
    """A `LanguageModel`: to be trained where `training` says how, else to `run` only."""
    if training is None:
        return LanguageModel(config, vocab_size=vocab_size)
    return LanguageModel(
        config, vocab_size=vocab_size, batch_size=training.batch_size, window=training.window,
        activation_regularization=training.activation_regularization, temporal_regularization=training.temporal_regularization,
        state_reset=training.state_reset,
    )  # fmt: skip


def build_translator(config: ModelConfig, *, vocab_size: int, training: TrainingConfig | None = None) -> Translator:
    """A `Translator`, to be trained as `training` says."""
    options = (
        {}
        if training is None
        else {"label_smoothing": training.label_smoothing, "scheduled_sampling": training.scheduled_sampling}
    )
    return Translator(config, vocab_size=vocab_size, **options)
