"""Scores a text with a language model, token by token, with carried states."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from nlp_rnn.data.bptt import TokenStream
from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.models.language_ensemble import LanguageEnsemble
from nlp_rnn.models.language_model import LanguageModel
from nlp_rnn.progress import track

_WINDOW = 200  # tokens per call


class Scored(NamedTuple):
    """A scored window of a text.

    Attributes:
      targets: int [time].
      log_probabilities: float32 [time, vocabulary].
      hidden: float32 [time, features].
    """

    targets: np.ndarray
    log_probabilities: np.ndarray
    hidden: np.ndarray


def score_text(
    model: LanguageModel | LanguageEnsemble, cache: TokenCache, *, title: str, num_tokens: int = 0
) -> Iterator[Scored]:
    """Yields scores for every token of a split, window by window. The split is read as one text with carried states.

    Args:
      num_tokens: stops after so many tokens; 0: reads all.
    """

    @tf.function(
        input_signature=[tf.TensorSpec([1, None], tf.int32), tf.TensorSpec([1, sum(model.state_sizes)])],
        autograph=False,
    )
    def run(token_ids: tf.Tensor, states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        hidden, after = model.run(token_ids, model.unpack_states(states))
        return model.head(hidden)[0], hidden[0], model.pack_states(after)

    text = TokenStream(cache, 1, drop_remainder=False)
    states = model.pack_states(model.zero_states(1))
    windows = text.windows(_WINDOW)[: -(-num_tokens // _WINDOW) or None]
    for place in track(windows, title, len(windows)):
        token_ids, targets, _ = text.read(*place)
        log_probabilities, hidden, states = run(token_ids, states)
        yield Scored(targets[0], log_probabilities.numpy(), hidden.numpy())
