"""A language model learns the probabilities that other language models give the next token.

The likeliest tokens and their probabilities are computed once for the training text, before training, and kept in the
cache. Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2; only the likeliest, as in
Tan et al. 2019, "Multilingual Neural Machine Translation with Knowledge Distillation", section 3.3.
"""

import dataclasses
import logging
import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from nlp_rnn.config.settings import Config
from nlp_rnn.data import datasets
from nlp_rnn.data.bptt import TokenStream
from nlp_rnn.data.token_cache import TokenCache, load_array
from nlp_rnn.models.language_ensemble import LanguageEnsemble
from nlp_rnn.progress import track
from nlp_rnn.tokenization.tokenizer import Tokenizer
from nlp_rnn.training.teacher import digests, load_with_vocabulary
from nlp_rnn.training.trained_models import load_language_model

logger = logging.getLogger(__name__)

_NUM_LIKELIEST = 16  # tokens whose probabilities are kept; of a word model, they have about two thirds of the whole
_ROWS = 16  # the text is read in so many parts side by side
_MAX_PROBABILITIES = 2**26  # that are computed at once, of all teachers


def teach(train: TokenCache, config: Config, tokenizer: Tokenizer) -> TokenCache:
    """Adds the teachers' predictions of each token of a language model's training text.

    Args:
      train: the text.
      config: of the model that is trained.
      tokenizer: its tokenizer.

    Returns:
      the same text with `targets`, float32 [tokens, 2 * k]: the ids of the k likeliest tokens, then
      training.teacher_share of their probabilities, the mean of all teachers'. Ids below 2^24 are exact in float32.

    Raises:
      ConfigError: if a teacher has another vocabulary.
    """
    runs = load_with_vocabulary(config, tokenizer)

    def make(temporary: Path) -> None:
        logger.info("training.teacher: reading %s tokens with %d models", f"{train.num_tokens:,}", len(runs))
        model = LanguageEnsemble([load_language_model(run)[0] for run in runs])
        shape, path = (train.num_tokens, 2 * min(_NUM_LIKELIEST, tokenizer.vocab_size)), temporary / "answers.npy"
        answers = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        if hasattr(os, "posix_fallocate"):  # so that a full disk is an error now, and does not end the process later
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        _write_likeliest(model, train, config.training.teacher_share, answers)
        answers.flush()

    key = datasets.cache_key(
        ids=train.path.name, share=config.training.teacher_share, teachers=digests(config), likeliest=_NUM_LIKELIEST
    )
    folder = datasets.cache_folder(config.data) / f"answers-{key}"
    answers = datasets.cached(folder, make, lambda path: load_array(path / "answers.npy", is_mapped=True))
    return dataclasses.replace(train, targets=answers)


def _write_likeliest(model: LanguageEnsemble, text: TokenCache, share: float, answers: np.ndarray) -> None:
    """Fills `answers`, see `teach`. Each row of the batch is read from the zero state on."""
    num_likeliest = answers.shape[1] // 2

    @tf.function(
        input_signature=[tf.TensorSpec([_ROWS, None], tf.int32), tf.TensorSpec([_ROWS, sum(model.state_sizes)])],
        autograph=False,
    )
    def run(token_ids: tf.Tensor, states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        hidden, after = model.run(token_ids, model.unpack_states(states))
        scores, ids = tf.math.top_k(model.head(hidden), num_likeliest)
        return tf.concat([tf.cast(ids, tf.float32), share * tf.exp(scores)], axis=-1), model.pack_states(after)

    stream = TokenStream(text, _ROWS, drop_remainder=False)
    states = model.pack_states(model.zero_states(_ROWS))
    windows = stream.windows(max(1, _MAX_PROBABILITIES // (_ROWS * model.vocab_size * len(model.members))))
    for start, length in track(windows, "predicting", len(windows)):
        token_ids, _, weights = stream.read(start, length)
        likeliest, states = run(token_ids, states)
        found = likeliest.numpy()
        for row, is_own in enumerate(weights > 0):
            first, count = row * stream.row_length + start, int(is_own.sum())
            answers[first : first + count] = found[row, :count]
