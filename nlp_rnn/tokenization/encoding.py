"""Encodes texts as models read them: token ids of limited length, at least one per row. Core operations."""

from typing import Any

import tensorflow as tf

from nlp_rnn.special_ids import UNK_ID
from nlp_rnn.tokenization.graph_tokenizer import GraphTokenizer
from nlp_rnn.tokenization.tokenizer import Tokenizer


def encode(tokenizer: Tokenizer | GraphTokenizer, texts: Any, max_length: int, keep: str) -> tf.RaggedTensor:
    """Encodes texts, in training and in exported graphs alike.

    Args:
      texts: string [batch].
      max_length: the largest number of ids per row; see `truncate`. A text without tokens becomes UNK_ID.

    Returns:
      ragged int32 [batch, (time)].
    """
    return never_empty(truncate(tokenizer.tokenize(texts), max_length, keep))


def never_empty(token_ids: tf.RaggedTensor) -> tf.RaggedTensor:
    """Replaces empty rows of ragged int32 [batch, (time)] by one UNK_ID, since recurrent layers need a step."""
    return tf.concat([token_ids, ids_where(token_ids.row_lengths() == 0, UNK_ID)], axis=1)


def ids_where(is_there: tf.Tensor, token_id: int) -> tf.RaggedTensor:
    """The id in each row where `is_there`, bool [batch], is true: ragged int32 [batch, (0 or 1)]."""
    return tf.RaggedTensor.from_row_lengths(
        tf.fill([tf.math.count_nonzero(is_there)], token_id), tf.cast(is_there, tf.int64)
    )


def truncate(token_ids: tf.RaggedTensor, max_length: int, keep: str) -> tf.RaggedTensor:
    """Cuts ragged int32 [batch, (time)] to at most `max_length` ids per row.

    Args:
      token_ids: without padding.
      max_length: in ids.
      keep: "start", "end", or "both": the first and the last half.
    """
    if keep == "start" or max_length <= 0:
        return token_ids[:, : max(max_length, 0)]
    if keep == "end":
        return token_ids[:, -max_length:]
    head = (max_length + 1) // 2
    positions = tf.ragged.range(token_ids.row_lengths())
    lengths = tf.gather(token_ids.row_lengths(), token_ids.value_rowids())
    flat = positions.flat_values
    is_kept = (flat < head) | (flat >= lengths - (max_length - head))
    return tf.ragged.boolean_mask(token_ids, token_ids.with_flat_values(is_kept))
