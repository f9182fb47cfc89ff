"""Loads the models of runs, with their best weights. They compute in float32, whatever they were trained in.

All raise ConfigError if the run has no best weights yet, or a file is damaged.
"""

import keras

from nlp_rnn.models.build import build_language_model, build_translator, in_float32
from nlp_rnn.models.classifier import build_classifier
from nlp_rnn.models.language_model import LanguageModel
from nlp_rnn.models.translator import Translator
from nlp_rnn.tokenization.tokenizer import Tokenizer
from nlp_rnn.training.checkpoints import load_checkpoint
from nlp_rnn.training.run_directory import Run


def load_tokenizer(run: Run) -> Tokenizer:
    """Loads the tokenizer that the run was trained with."""
    return Tokenizer.load(run.path / "tokenizer")


def load_classifier(run: Run) -> tuple[keras.Model, Tokenizer]:
    """Loads a run's classifier and its tokenizer. Its logits are not divided by the run's temperature."""
    tokenizer = load_tokenizer(run)
    with in_float32():
        model = build_classifier(
            run.config.model,
            vocab_size=tokenizer.vocab_size,
            num_classes=len(run.labels),
            outputs=run.config.data.outputs,
        )
    load_checkpoint(run.best_checkpoint, model.weights)
    return model, tokenizer


def load_language_model(run: Run) -> tuple[LanguageModel, Tokenizer]:
    """Loads a run's language model and its tokenizer. Its logits are divided by the run's temperature."""
    tokenizer = load_tokenizer(run)
    with in_float32():
        model = build_language_model(run.config.model, vocab_size=tokenizer.vocab_size)
    load_checkpoint(run.best_checkpoint, model.kept_weights)
    model.head.temperature = run.calibration.temperature
    return model, tokenizer


def load_translator(run: Run) -> tuple[Translator, Tokenizer]:
    """Loads a run's translator and its tokenizer."""
    tokenizer = load_tokenizer(run)
    with in_float32():
        model = build_translator(run.config.model, vocab_size=tokenizer.vocab_size)
    load_checkpoint(run.best_checkpoint, model.weights)
    return model, tokenizer
