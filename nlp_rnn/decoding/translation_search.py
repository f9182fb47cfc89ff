"""The beam search of translators: of one model, or of an ensemble."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from nlp_rnn.decoding.beam_search import Hypotheses, Search, beam_search
from nlp_rnn.models.language_ensemble import log_of_mean
from nlp_rnn.models.translator import Translator

_LENGTH = (2, 10)  # the longest translation by default: twice the source's pieces, plus ten


def usual_length(num_pieces: tf.Tensor) -> tf.Tensor:
    """The longest translation by default of sources with so many pieces, int32 of any shape, without EOS_ID."""
    return _LENGTH[0] * num_pieces + _LENGTH[1]


def search_translations(models: Sequence[Translator], source_ids: tf.Tensor, search: Search) -> Hypotheses:
    """Searches the most likely translations.

    Args:
      models: they share a vocabulary. The probabilities of several are averaged at each step. Source: Sutskever et al.
        2014.
      source_ids: int32 [batch, source], right-padded with PAD_ID; each row ends with EOS_ID.
    """
    encoded = [model.encode(source_ids) for model in models]
    states = [each.states for each in encoded]
    size = tf.maximum(tf.reduce_max(search.beam_size), 1)
    repeated = [
        each._replace(**{name: tf.repeat(getattr(each, name), size, axis=0) for name in ("memory", "keys", "mask")})
        for each in encoded
    ]

    def step(ids: tf.Tensor, states: list[Any]) -> tuple[tf.Tensor, list[Any], tf.Tensor]:
        scores, after, weights = [], [], []
        for model, state, source in zip(models, states, repeated, strict=True):
            hidden, new, attention = model.advance(ids, state, source)
            scores.append(model.head(hidden))
            after.append(new)
            weights.append(attention)
        return log_of_mean(scores), after, tf.add_n(weights) / len(weights)

    return beam_search(step, states, encoded[0].mask, search)
