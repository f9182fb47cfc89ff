"""The value of a next-word model to someone who types: recall, reciprocal rank, and saved keystrokes."""

import bisect
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from nlp_rnn.evaluation.metrics import check_numbers
from nlp_rnn.evaluation.typed_forms import typed_forms

NUM_SUGGESTIONS = 3  # shown at a time, as on a phone's keyboard


class PerplexityMeter:
    """Accumulates the cost of every token."""

    def __init__(self) -> None:
        self.num_tokens, self.nats = 0, 0.0

    def update(self, log_probabilities: np.ndarray, targets: np.ndarray) -> None:
        """Adds log-probabilities, float [tokens, vocabulary], and targets, int [tokens].

        Raises:
          ConfigError: if the model answered NaN.
        """
        check_numbers(log_probabilities)
        self.num_tokens += len(targets)
        self.nats -= float(log_probabilities[np.arange(len(targets)), targets].sum(dtype=np.float64))

    def result(self) -> dict[str, Any]:
        """The scores so far: num_tokens, cross_entropy (nats per token), perplexity."""
        cross_entropy = self.nats / max(self.num_tokens, 1)
        return {
            "num_tokens": self.num_tokens,
            "cross_entropy": cross_entropy,
            "perplexity": float(np.exp(cross_entropy)),
        }


class KeyboardMeter(PerplexityMeter):
    """Scores predictions over a vocabulary of words.

    Every token counts for the perplexity. Recall and rank are over words only, not over punctuation and symbols such as
    the end of a text; a word that is unknown counts as a miss. Keystrokes: at each word the user sees the three most
    likely words that begin with the typed characters, selects the right one with one key as soon as it is shown, and
    otherwise types on. A selected word brings the space behind it, which punctuation replaces. Punctuation and spaces
    are typed as people write them (`typed_forms`). An unknown word is typed completely, with the mean length of the
    others.

    Args:
      words: the text of each id.
      is_suggestible: bool [vocabulary]; False for symbols, punctuation and words that must not be suggested.
      is_symbol: bool [vocabulary]; True for what nobody types, such as the end of a text.
      splitter: the tokenizer's.
    """

    def __init__(
        self, words: Sequence[str], is_suggestible: np.ndarray, is_symbol: np.ndarray, *, splitter: str
    ) -> None:
        super().__init__()
        self._words, self._is_suggestible, self._is_symbol = words, is_suggestible, is_symbol
        self._forms = typed_forms(words, splitter)
        self._sorted = np.array(sorted(np.flatnonzero(is_suggestible).tolist(), key=words.__getitem__), np.int64)
        self._sorted_words = [words[number] for number in self._sorted]
        self._num_words = self._num_unknown = 0
        self._reciprocal = 0.0
        self._hits = {1: 0, 3: 0, 5: 0}
        self._keys = self._characters = self._word_characters = 0
        # Not on the methods, where a cache would keep the meter for ever.
        self._place, self._ranges = functools.cache(self._find_place), functools.cache(self._find_ranges)
        self._begin_text()

    def update(self, log_probabilities: np.ndarray, targets: np.ndarray) -> None:
        """Adds log-probabilities, float [tokens, vocabulary], and targets, int [tokens], the text's next tokens."""
        super().update(log_probabilities, targets)
        for row, token in zip(log_probabilities, targets.tolist(), strict=True):
            if self._is_symbol[token]:
                self._begin_text()
                continue
            self._type_space(token)
            if self._forms.is_sign[token]:
                self._type(int(self._forms.lengths[token]))
                continue
            self._num_words += 1
            if not self._is_suggestible[token]:
                self._num_unknown += 1
                continue
            scores = row[self._sorted]  # in alphabetical order, so that words with one beginning stand together
            rank = _rank(scores, self._place(token))
            self._type_word(token, scores, rank)
            self._reciprocal += 1 / rank
            for count in self._hits:
                self._hits[count] += rank <= count

    def result(self) -> dict[str, Any]:
        """The scores so far; fractions are 0-1.

        Returns:
          those of `PerplexityMeter.result`, num_words, recall_at_1, recall_at_3, recall_at_5, mean_reciprocal_rank,
          keystroke_savings.
        """
        count, known = max(self._num_words, 1), max(self._num_words - self._num_unknown, 1)
        unknown = self._num_unknown * self._word_characters / known
        return {
            **super().result(),
            "num_words": self._num_words,
            **{f"recall_at_{number}": hits / count for number, hits in self._hits.items()},
            "mean_reciprocal_rank": self._reciprocal / count,
            "keystroke_savings": 1 - (self._keys + unknown) / max(self._characters + unknown, 1),
        }

    def _begin_text(self) -> None:
        self._is_joined = True  # nothing is between this place and the next token
        self._has_space = False  # a selected word brought it
        self._is_quoted = False

    def _type(self, characters: int) -> None:
        self._characters += characters
        self._keys += characters

    def _type_space(self, token: int) -> None:
        """Types the space before a token, if the text has one there."""
        forms, is_quote = self._forms, bool(self._forms.is_quote[token])
        if not (self._is_joined or forms.joins_left[token] or (is_quote and self._is_quoted)):
            self._characters += 1
            self._keys += not self._has_space
        self._has_space = False
        if is_quote:
            self._is_quoted = not self._is_quoted
        self._is_joined = bool(forms.joins_right[token]) or (is_quote and self._is_quoted)

    def _type_word(self, token: int, scores: np.ndarray, rank: int) -> None:
        """`rank` is the rank among all words, with nothing typed."""
        length = len(self._words[token])
        self._characters += length
        self._word_characters += length
        typed = self._letters_before_shown(token, scores, rank)
        self._has_space = typed < length
        self._keys += min(typed + 1, length)

    def _letters_before_shown(self, token: int, scores: np.ndarray, rank: int) -> int:
        """The number of letters that are typed before a word is shown; its length if it never is."""
        if rank <= NUM_SUGGESTIONS:
            return 0
        place = self._place(token)
        for typed, (start, end) in enumerate(self._ranges(token), start=1):
            if _rank(scores[start:end], place - start) <= NUM_SUGGESTIONS:
                return typed
        return len(self._words[token])

    def _find_place(self, target: int) -> int:
        return bisect.bisect_left(self._sorted_words, self._words[target])

    def _find_ranges(self, target: int) -> list[tuple[int, int]]:
        """The ranges of words that begin like the target, with 1, 2, ... of its characters typed, but not the last."""
        word, ranges = self._words[target], []
        for typed in range(1, len(word)):
            start = bisect.bisect_left(self._sorted_words, word[:typed])
            ranges.append((start, bisect.bisect_left(self._sorted_words, word[:typed] + "\U0010ffff")))
        return ranges


def _rank(scores: np.ndarray, place: int) -> int:
    """The rank of each score, 1 for the highest. Of equal scores, the first comes first."""
    score = scores[place]
    return 1 + int(np.count_nonzero(scores > score)) + int(np.count_nonzero(scores[:place] == score))
