"""A language model learns the probabilities that other language models give the next token.

The likeliest tokens are predicted once for the training text, before training; see `likeliest`.
"""

import logging

import numpy as np
import tensorflow as tf

from nlp_rnn.config.settings import Config
from nlp_rnn.data.bptt import TokenStream
from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.models.language_ensemble import LanguageEnsemble
from nlp_rnn.progress import track
from nlp_rnn.tokenization.tokenizer import Tokenizer
from nlp_rnn.training import likeliest
from nlp_rnn.training.teacher import load_with_vocabulary
from nlp_rnn.training.trained_models import load_language_model

logger = logging.getLogger(__name__)

_ROWS = 16  # the text is read in so many parts side by side


def teach(train: TokenCache, config: Config, tokenizer: Tokenizer) -> TokenCache:
    """Adds the teachers' predictions of each token of a language model's training text.

    Args:
      train: the text.
      config: of the model that is trained.
      tokenizer: its tokenizer.

    Returns:
      the same text with `targets`, float32 [tokens, 2 * k]: the ids of the k likeliest tokens, then
      training.teacher_share of their probabilities, the mean of all teachers'.

    Raises:
      ConfigError: if a teacher has another vocabulary.
    """
    runs = load_with_vocabulary(config, tokenizer)

    def write(answers: np.ndarray) -> None:
        logger.info("training.teacher: reading %s tokens with %d models", f"{train.num_tokens:,}", len(runs))
        model = LanguageEnsemble([load_language_model(run)[0] for run in runs])
        _write_likeliest(model, train, config.training.teacher_share, answers)

    return likeliest.with_likeliest(train, config, digest=train.path.name, vocab_size=tokenizer.vocab_size, write=write)


def _write_likeliest(model: LanguageEnsemble, text: TokenCache, share: float, answers: np.ndarray) -> None:
    """Fills `answers`, see `teach`. Each row of the batch is read from the zero state on."""

    @tf.function(
        input_signature=[tf.TensorSpec([_ROWS, None], tf.int32), tf.TensorSpec([_ROWS, sum(model.state_sizes)])],
        autograph=False,
    )
    def run(token_ids: tf.Tensor, states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        hidden, after = model.run(token_ids, model.unpack_states(states))
        return likeliest.pack(model.head(hidden), share), model.pack_states(after)

    stream = TokenStream(text, _ROWS, drop_remainder=False)
    states = model.pack_states(model.zero_states(_ROWS))
    num_predictions = _ROWS * model.vocab_size * len(model.members)  # of one time step
    windows = stream.windows(max(1, likeliest.MAX_PROBABILITIES // num_predictions))
    for start, length in track(windows, "predicting", len(windows)):
        token_ids, _, weights = stream.read(start, length)
        predicted, states = run(token_ids, states)
        found = predicted.numpy()
        for row, is_own in enumerate(weights > 0):
            first, count = row * stream.row_length + start, int(is_own.sum())
            answers[first : first + count] = found[row, :count]
