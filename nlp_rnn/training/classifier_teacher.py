"""A classifier learns the probabilities that other classifiers give its texts.

The probabilities are computed once, before training, and kept in the cache beside the token ids. So a step costs no
more than without a teacher. Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2.
"""

import dataclasses
import logging
from pathlib import Path

import numpy as np

from nlp_rnn.config.settings import Config
from nlp_rnn.data import datasets
from nlp_rnn.data.token_cache import TokenCache, load_array
from nlp_rnn.errors import ConfigError
from nlp_rnn.models.calibration import probabilities_of
from nlp_rnn.tokenization.tokenizer import Tokenizer
from nlp_rnn.training import fit
from nlp_rnn.training.run_directory import Run
from nlp_rnn.training.teacher import check_vocabulary, digest_of, load_teachers
from nlp_rnn.training.trained_models import load_classifier

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
      and the rest of the text's own label. A text without a label gets their probabilities. With data.multi_label every
      text has labels, possibly none of all.

    Raises:
      ConfigError: if a teacher has other labels or another vocabulary.
    """
    runs = load_teachers(config)
    for run in runs:
        _check(run, config, labels, tokenizer)
    probabilities = np.mean([_answers(run, train, config) for run in runs], axis=0)
    share, outputs = config.training.teacher_share, config.data.outputs
    own, shares = train.labels.astype(np.float32), np.full((len(train), 1), share, np.float32)
    if outputs != "label_sets":
        own = np.eye(len(labels), dtype=np.float32)[train.labels]  # any of them for a text without a label
        shares[train.labels < 0] = 1
    return dataclasses.replace(train, targets=own + shares * (probabilities - own))


def _check(run: Run, config: Config, labels: list[str], tokenizer: Tokenizer) -> None:
    if run.labels != labels:
        others = sorted(set(run.labels) ^ set(labels))[:10]
        raise ConfigError(
            f"training.teacher is {run.path}, whose labels are not those of data.train; they differ in "
            f"{', '.join(map(repr, others))}: name classifiers of the same labels, and give some texts of each label"
        )
    check_vocabulary(run, config, tokenizer)
    for key in ("max_length", "keep"):
        own, of_teacher = getattr(config.data, key), getattr(run.config.data, key)
        if own != of_teacher:
            logger.warning(
                "training.teacher %s was trained with data.%s=%s, but reads the texts of this training, with %s",
                run.path, key, of_teacher, own,
            )  # fmt: skip


def _answers(run: Run, texts: TokenCache, config: Config) -> np.ndarray:
    """The calibrated probabilities of all texts, float32 [texts, labels]; computed once, then found on disk."""

    def make(temporary: Path) -> None:
        logger.info("teacher %s: labelling %s texts", run.path, f"{len(texts):,}")
        model, _ = load_classifier(run)
        logits = fit.predict_logits(model, texts, run.config.training)
        probabilities = probabilities_of(logits, run.config.data.outputs, run.calibration.temperature)
        np.save(temporary / "answers.npy", probabilities.astype(np.float32))

    key = datasets.cache_key(ids=texts.path.name, teacher=digest_of(run))
    folder = datasets.cache_folder(config.data) / f"answers-{key}"
    return datasets.cached(folder, make, lambda path: load_array(path / "answers.npy"))
