"""The models that training.teacher names, from which the trained model learns: knowledge distillation.

`classifier_teacher`, `language_teacher` and `translation_teacher` compute what they answer to the training data.
"""

import hashlib
import logging
from pathlib import Path

from nlp_rnn import manifest
from nlp_rnn.config.settings import Config
from nlp_rnn.data.corpus import Corpus
from nlp_rnn.errors import ConfigError
from nlp_rnn.tokenization.tokenizer import Tokenizer
from nlp_rnn.training.run_directory import Run, load_run
from nlp_rnn.training.trained_models import load_tokenizer

logger = logging.getLogger(__name__)


def load_teachers(config: Config) -> list[Run]:
    """Loads the run directories that training.teacher names."""
    return [load_run(Path(each), config.task) for each in config.training.teacher]


def load_with_vocabulary(config: Config, tokenizer: Tokenizer) -> list[Run]:
    """Loads the teachers, and checks that they have the vocabulary of the trained model.

    Raises:
      ConfigError: if one has another.
    """
    runs = load_teachers(config)
    for run in runs:
        check_vocabulary(run, config, tokenizer)
    return runs


def digests(config: Config) -> list[str]:
    """Of each teacher, the result of `digest_of`."""
    return list(map(digest_of, load_teachers(config)))


def digest_of(run: Run) -> str:
    """A digest of the weights and the calibration, which determine what a teacher answers."""
    calibration = hashlib.blake2b(run.calibration.to_json().encode(), digest_size=8).hexdigest()
    return f"{manifest.digest_of(run.best_checkpoint)}-{calibration}"


def warn_of_seeds(config: Config, corpus: Corpus) -> None:
    """Logs which teachers may have been trained on texts of the validation split, since another seed drew theirs."""
    if config.data.split == "contiguous" or not corpus.is_drawn("validation"):
        return
    for run in load_teachers(config):
        if run.config.seed != config.seed:
            logger.warning(
                "training.teacher %s was trained with seed=%d, so it may have learnt from this validation split; "
                "use seed=%d for all, or give data.validation",
                run.path, run.config.seed, config.seed,
            )  # fmt: skip


def check_vocabulary(run: Run, config: Config, tokenizer: Tokenizer) -> None:
    """Checks that a teacher has the vocabulary of the trained model.

    Raises:
      ConfigError: if it has another.
    """
    other = load_tokenizer(run)
    if other.vocabulary_text() != tokenizer.vocabulary_text() or other.settings() != tokenizer.settings():
        raise ConfigError(
            f"training.teacher is {run.path}, which has another vocabulary than {config.vocabulary_from}; name "
            "teachers with the same vocabulary, such as those that were trained on the same texts"
        )
