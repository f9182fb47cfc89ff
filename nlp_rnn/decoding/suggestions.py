"""Suggests next words and completions in the graph, for models over words or subwords."""

from typing import NamedTuple

import numpy as np
import regex
import tensorflow as tf

from nlp_rnn.decoding.suggestible_words import PROFANE_WORDS, Vocabulary
from nlp_rnn.layers.masking import IMPOSSIBLE
from nlp_rnn.models.language_ensemble import LanguageEnsemble
from nlp_rnn.models.language_model import LanguageModel
from nlp_rnn.special_ids import EOS_ID, WORD_START
from nlp_rnn.tokenization.graph_tokenizer import GraphTokenizer
from nlp_rnn.tokenization.tokenizer import Tokenizer
from nlp_rnn.word_kinds import EMOJI

MAX_WORDS = 100  # the largest number of suggestions

_BEAM = 12  # word beginnings kept
_MAX_PIECES = 6  # per word
_WORD_LIKE = regex.compile(r"(?V1)[[\p{L}\p{M}\p{N}]--[\ufe00-\ufe0f]]")  # marks belong to words of Indic scripts
_WORD_END = r"[\pL\pN_][\pM\x{200c}\x{200d}]*"


class RankedWords(NamedTuple):
    """Suggested words, the most likely first.

    Attributes:
      words: string [batch, count].
      scores: float32 [batch, count], log-probabilities; IMPOSSIBLE where there is no word.
    """

    words: tf.Tensor
    scores: tf.Tensor


class WordSuggestions:
    """Suggestions of a language model over words.

    Args:
      tokenizer: of level word.
    """

    def __init__(self, tokenizer: GraphTokenizer) -> None:
        self._tokenizer = tokenizer
        vocabulary = Vocabulary(tokenizer.layer)
        self._words = tf.constant(vocabulary.words)
        self._is_suggestible = tf.constant(vocabulary.is_suggestible)
        self._is_decent = tf.constant(vocabulary.is_suggestible & ~vocabulary.is_profane)

    def read(self, text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
        """Splits text, string [batch].

        Returns:
          (ids of the whole words, ragged int32 [batch, (time)]; the current word, string [batch], or "").
        """
        end = r"\S" if self._tokenizer.layer.splitter == "whitespace" else _WORD_END
        begun = _begun(text, self._tokenizer.pieces(text), end)
        return _but_last(self._tokenizer.tokenize(text), begun != ""), begun

    def find(
        self, log_probabilities: tf.Tensor, states: tf.Tensor, begun: tf.Tensor, allow_profanity: tf.Tensor
    ) -> RankedWords:
        """Finds the most likely words after a text.

        Args:
          log_probabilities: float32 [batch, vocabulary], of the next id.
          states: the model's states after the text.
          begun: string [batch], the beginning of the words; their probabilities are conditional on it.
          allow_profanity: bool [batch].
        """
        matches = self._begin_with(begun) & self._is_suggestible
        total = tf.reduce_logsumexp(tf.where(matches, log_probabilities, IMPOSSIBLE), axis=1, keepdims=True)
        log_probabilities -= tf.where(begun[:, None] == "", 0.0, total)
        allowed = matches & tf.where(allow_profanity[:, None], self._is_suggestible, self._is_decent)
        scores, ids = tf.math.top_k(tf.where(allowed, log_probabilities, IMPOSSIBLE), min(MAX_WORDS, len(self._words)))
        return RankedWords(tf.gather(self._words, ids), scores)

    def _begin_with(self, begun: tf.Tensor) -> tf.Tensor:
        """Whether each word begins with `begun`, string [batch]: bool [batch, vocabulary]."""
        words = tf.broadcast_to(self._words, tf.stack([tf.size(begun), tf.size(self._words)]))
        return _starts_with(words, begun[:, None])


class SubwordSuggestions:
    """Suggestions of a language model over subwords, by a beam search over the pieces of a word.

    A word stands between spaces, up to a symbol. Its first piece begins with U+2581; further pieces contain a letter or
    a digit. Its probability is that of its pieces and of the end of the word; if there are several segmentations, that
    of the most likely one. Words of more than six pieces, or of bytes, are not found.

    Args:
      tokenizer: of level subword.
    """

    def __init__(self, model: LanguageModel | LanguageEnsemble, tokenizer: Tokenizer) -> None:
        self._model, self._tokenizer = model, tokenizer
        names = tokenizer.texts()
        ids = np.arange(len(names))
        is_word_like = np.array([bool(_WORD_LIKE.search(name)) for name in names]) & (ids > EOS_ID)
        begins = np.array([name.startswith(WORD_START) for name in names])
        self._is_first = tf.constant(begins & (is_word_like | np.array([name == WORD_START for name in names])))
        self._is_inner = tf.constant(is_word_like & ~begins)
        self._ends = tf.constant(begins | (ids == EOS_ID) | (~is_word_like & (ids > EOS_ID)))
        self._texts = tf.constant([name.removeprefix(WORD_START) for name in names])

    def read(self, text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
        """Like `WordSuggestions.read`, with ids of pieces."""
        words = tf.strings.split(self._tokenizer.normalize(text))
        begun = _begun(text, words, _WORD_END)
        return self._tokenizer.tokenize(
            tf.strings.reduce_join(_but_last(words, begun != ""), axis=-1, separator=" ")
        ), begun

    def find(
        self, log_probabilities: tf.Tensor, states: tf.Tensor, begun: tf.Tensor, allow_profanity: tf.Tensor
    ) -> RankedWords:
        """Like `WordSuggestions.find`. A completion's probability is relative to the words that were found.

        Args:
          states: float32 [batch, size], packed.
        """
        words, scores = self._search(log_probabilities, states, begun)
        total = tf.reduce_logsumexp(scores, axis=1, keepdims=True)
        scores = tf.where((begun[:, None] == "") | (scores < IMPOSSIBLE / 2), scores, scores - total)
        is_profane = tf.reduce_any(
            tf.strings.lower(words, encoding="utf-8")[:, :, None] == tf.constant(PROFANE_WORDS), axis=2
        )
        scores, order = tf.math.top_k(
            tf.where(is_profane & ~allow_profanity[:, None], IMPOSSIBLE, scores), scores.shape[1]
        )
        return RankedWords(tf.gather(words, order, batch_dims=1), scores)

    def _search(self, log_probabilities: tf.Tensor, states: tf.Tensor, begun: tf.Tensor) -> RankedWords:
        batch, num_pieces = tf.shape(log_probabilities)[0], log_probabilities.shape[1]
        texts, scores = tf.fill([batch, 1], ""), tf.zeros([batch, 1])
        next_scores, states, width = log_probabilities[:, None], states[:, None], 1
        words, finished = [], []
        for number in range(_MAX_PIECES):
            allowed = self._fit(texts, begun) & (self._is_inner if number else self._is_first)
            candidates = tf.where(allowed, scores[:, :, None] + next_scores, IMPOSSIBLE)
            scores, places = tf.math.top_k(tf.reshape(candidates, [batch, width * num_pieces]), _BEAM)
            parents, pieces = places // num_pieces, places % num_pieces
            texts = tf.strings.join([tf.gather(texts, parents, batch_dims=1), tf.gather(self._texts, pieces)])
            states = tf.gather(states, parents, batch_dims=1)
            width = _BEAM
            hidden, after = self._model.advance(
                tf.reshape(pieces, [-1]), self._model.unpack_states(tf.reshape(states, [-1, states.shape[2]]))
            )
            next_scores = tf.reshape(self._model.head(hidden), [batch, width, num_pieces])
            states = tf.reshape(self._model.pack_states(after), [batch, width, states.shape[2]])
            end = tf.reduce_logsumexp(tf.where(self._ends, next_scores, IMPOSSIBLE), axis=2)
            is_whole = _starts_with(texts, begun[:, None]) & (scores > IMPOSSIBLE / 2) & (texts != "")
            words.append(texts)
            finished.append(tf.where(is_whole, scores + end, IMPOSSIBLE))
        return _distinct(tf.concat(words, axis=1), tf.concat(finished, axis=1))

    def _fit(self, texts: tf.Tensor, begun: tf.Tensor) -> tf.Tensor:
        """Whether `begun` and each text plus piece agree, up to the shorter of them: bool [batch, beam, pieces]."""
        lengths = tf.minimum(tf.strings.length(texts), tf.strings.length(begun)[:, None])
        rest = tf.strings.substr(
            tf.broadcast_to(begun[:, None], tf.shape(texts)), lengths, tf.fill(tf.shape(texts), 2**30)
        )
        shape = tf.concat([tf.shape(texts), tf.shape(self._texts)], axis=0)

        def compare() -> tf.Tensor:
            left, right = tf.broadcast_to(rest[:, :, None], shape), tf.broadcast_to(self._texts, shape)
            left, right = (tf.reshape(each, [-1]) for each in (left, right))
            return tf.reshape(_starts_with(left, right) | _starts_with(right, left), shape)

        return tf.cond(tf.reduce_all(rest == ""), lambda: tf.ones(shape, tf.bool), compare)


def _begun(text: tf.Tensor, words: tf.RaggedTensor, end: str) -> tf.Tensor:
    """The last word, string [batch], if both text and word match `end` at their end; else ""."""
    last = tf.concat([tf.fill([words.nrows(), 1], ""), words], axis=1)[:, -1:].to_tensor("")[:, 0]
    is_begun = tf.strings.regex_full_match(text, f"(?s).*{end}") & tf.strings.regex_full_match(last, f"(?s).*{end}")
    return tf.where(is_begun & ~tf.strings.regex_full_match(last, EMOJI), last, "")


def _but_last(rows: tf.RaggedTensor, is_cut: tf.Tensor) -> tf.RaggedTensor:
    """Removes the last element of the rows where `is_cut`, bool [batch]. rows: ragged [batch, (time)]."""
    lengths = rows.row_lengths() - tf.cast(is_cut, tf.int64)
    return tf.ragged.boolean_mask(rows, tf.ragged.range(rows.row_lengths()) < lengths[:, None])


def _starts_with(texts: tf.Tensor, beginnings: tf.Tensor) -> tf.Tensor:
    """Whether each text begins with its beginning: strings of the same or broadcastable shape -> bool."""
    beginnings = tf.broadcast_to(beginnings, tf.shape(texts))
    return (
        tf.strings.substr(texts, tf.zeros_like(tf.strings.length(texts)), tf.strings.length(beginnings)) == beginnings
    )


def _distinct(words: tf.Tensor, scores: tf.Tensor) -> RankedWords:
    """Sorts by score, and keeps each word once."""
    scores, order = tf.math.top_k(scores, scores.shape[1])
    words = tf.gather(words, order, batch_dims=1)
    count = words.shape[1]
    is_earlier = tf.constant(np.tril(np.ones((count, count), bool), -1))
    is_repeated = tf.reduce_any((words[:, :, None] == words[:, None]) & is_earlier, axis=2)
    scores, order = tf.math.top_k(tf.where(is_repeated, IMPOSSIBLE, scores), count)
    return RankedWords(tf.gather(words, order, batch_dims=1), scores)
