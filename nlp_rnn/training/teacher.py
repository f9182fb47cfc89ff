"""Knowledge distillation: a classifier learns the probabilities that other classifiers give its texts.

The probabilities are computed once, before training, and kept in the cache with the token ids. So a step costs no more
than without a teacher. Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2.
"""

import hashlib
import logging
import shutil
from pathlib import Path

import keras
import numpy as np

from nlp_rnn.config.settings import Config
from nlp_rnn.data import datasets
from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.errors import ConfigError
from nlp_rnn.models.calibration import probabilities_of
from nlp_rnn.models.classifier import build_classifier
from nlp_rnn.tokenization.tokenizer import Tokenizer
from nlp_rnn.training import fit
from nlp_rnn.training.checkpoints import load_checkpoint
from nlp_rnn.training.run_directory import Run, load_run

logger = logging.getLogger(__name__)


def teach(train: TokenCache, config: Config, labels: list[str], tokenizer: Tokenizer) -> TokenCache:
    """Adds what training.teacher answers to a classifier's training texts.

    Args:
      train: the texts; a label of -1 is none.
      config: of the model that is trained.
      labels: its labels.
      tokenizer: its tokenizer.

    Returns:
      the same texts with `targets`: training.teacher_share of the teachers' mean probabilities, which are calibrated,
      and the rest of the text's own label. A text without a label gets their probabilities, and the likeliest label.

    Raises:
      ConfigError: if a teacher has other labels or another vocabulary.
    """
    runs = [load_run(Path(each), config.task) for each in config.training.teacher]
    for run in runs:
        _check(run, labels, tokenizer)
    key = datasets.cache_key(
        ids=train.path.name, count=len(train), share=config.training.teacher_share, teachers=list(map(_digest, runs))
    )

    def make(temporary: Path) -> None:
        probabilities = np.mean([_answers(run, train, tokenizer) for run in runs], axis=0)
        for path in train.path.iterdir():
            if path.suffix in (".bin", ".npy"):
                shutil.copyfile(path, temporary / path.name)
        found, targets = _mixed(train.labels, probabilities, config.training.teacher_share)
        np.save(temporary / "labels.npy", found)
        np.save(temporary / "targets.npy", targets)

    return datasets.cached(datasets.cache_folder(config.data) / f"taught-{key}", make, TokenCache.load)


def _check(run: Run, labels: list[str], tokenizer: Tokenizer) -> None:
    if run.labels != labels:
        raise ConfigError(
            f"training.teacher is {run.path}, whose labels are {', '.join(map(repr, run.labels[:10]))}, but those of "
            f"data.train are {', '.join(map(repr, labels[:10]))}; name a classifier that was trained on the same labels"
        )
    other = Tokenizer.load(run.path / "tokenizer")
    if other.vocabulary_text() != tokenizer.vocabulary_text() or other.settings() != tokenizer.settings():
        raise ConfigError(
            f"training.teacher is {run.path}, which has another vocabulary than the model; begin with a model of the "
            f"same vocabulary, such as training.start_from={run.path}"
        )


def _digest(run: Run) -> str:
    """A digest of the weights and the calibration, which determine the answers."""
    digest = hashlib.blake2b(run.best_checkpoint.read_bytes(), digest_size=16)
    digest.update(run.calibration.to_json().encode())
    return digest.hexdigest()


def _answers(run: Run, texts: TokenCache, tokenizer: Tokenizer) -> np.ndarray:
    """The calibrated probabilities of all texts, float [texts, labels]."""
    logger.info("teacher %s: labelling %s texts", run.path, f"{len(texts):,}")
    config, policy = run.config, keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        model = build_classifier(
            config.model, vocab_size=tokenizer.vocab_size, num_classes=len(run.labels), outputs=config.data.outputs
        )
    finally:
        keras.config.set_dtype_policy(policy)
    load_checkpoint(run.best_checkpoint, model.weights)
    logits = fit.predict_logits(model, texts, config.training)
    return probabilities_of(logits, config.data.outputs, run.calibration.temperature)


def _mixed(labels: np.ndarray, probabilities: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """The labels, with the likeliest in place of -1, and the targets, float32 [texts, labels]."""
    if labels.ndim == 2:
        return labels, ((1 - share) * labels + share * probabilities).astype(np.float32)
    is_labelled = labels >= 0
    found = np.where(is_labelled, labels, probabilities.argmax(axis=1)).astype(labels.dtype)
    shares = np.where(is_labelled, share, 1.0)[:, None]
    own = np.eye(probabilities.shape[1])[found]
    return found, ((1 - shares) * own + shares * probabilities).astype(np.float32)
