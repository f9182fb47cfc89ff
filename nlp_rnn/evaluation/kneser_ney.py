"""Interpolated modified Kneser-Ney: n-gram models as baseline of next-word models, and as their partner in exports.

Source: Chen & Goodman 1999, "An empirical study of smoothing techniques for language modeling", section 4.1.
"""

from typing import NamedTuple

import numpy as np

from nlp_rnn.ondevice.ngram_model import NGramModel, NGrams


class _Counted(NamedTuple):
    """The n-grams of one length, sorted.

    Attributes:
      keys: int64 [n-grams], context * vocabulary + last word. A context is the number of an n-gram that is one word
        shorter.
      numbers: int64 [positions], the n-gram at each position of the text.
      counts: int64 [n-grams].
    """

    keys: np.ndarray
    numbers: np.ndarray
    counts: np.ndarray


class KneserNey:
    """The n-grams of one long text, from which models are made.

    Args:
      ids: int [tokens].
      vocab_size: number of ids; unseen ids share the uniform end of the interpolation.
      order: the longest n-gram, in words.
    """

    def __init__(self, ids: np.ndarray, *, vocab_size: int, order: int = 5) -> None:
        self._vocab_size, self._counted = vocab_size, list[_Counted]()
        tokens = ids.astype(np.int64)
        contexts = np.zeros(len(tokens), np.int64)  # of the n-gram that ends at each position
        for length in range(1, order + 1):
            if length > 1:
                contexts = self._counted[-1].numbers[:-1]
            counted = np.unique(contexts * vocab_size + tokens[length - 1 :], return_inverse=True, return_counts=True)
            self._counted.append(_Counted(*counted))

    def model(
        self, *, discounts: tuple[float, float, float] | None = None, min_counts: tuple[int, ...] = ()
    ) -> NGramModel:
        """The n-gram model.

        Args:
          discounts: for counts of one, two, and three or more, for all lengths; None estimates them for each.
          min_counts: one for n-grams of two words, one for those of three, and so on, none less than the one before:
            those seen less often leave their probability to shorter ones; empty: all are kept.

        Raises:
          ValueError: if the least counts are too few or too many, or become less.
        """
        min_counts = min_counts or (1,) * (len(self._counted) - 1)
        if len(min_counts) != len(self._counted) - 1 or list(min_counts) != sorted(min_counts):
            raise ValueError(
                f"min_counts is {min_counts}, but must be {len(self._counted) - 1} numbers that do not become less"
            )
        lowest = self._smooth(0, 1, discounts)
        unigrams = np.full(self._vocab_size, lowest.backoffs[0] / self._vocab_size, np.float32)
        unigrams[lowest.words] += lowest.probabilities
        # The place of each context among those of the model, -1: none. Of single words it is their id.
        places, num_places, higher_orders = lowest.words, self._vocab_size, []
        for length, min_count in enumerate(min_counts, start=1):
            ngrams, is_kept = self._smooth(length, min_count, discounts), self._counted[length].counts >= min_count
            contexts = places[ngrams.contexts[is_kept]]
            backoffs = np.ones(num_places, np.float32)
            backoffs[places[places >= 0]] = ngrams.backoffs[places >= 0]
            starts = np.searchsorted(contexts, np.arange(num_places + 1))
            higher_orders.append(NGrams(ngrams.words[is_kept], ngrams.probabilities[is_kept], starts, backoffs))
            places, num_places = np.where(is_kept, np.cumsum(is_kept) - 1, -1), len(contexts)
        return NGramModel(unigrams, higher_orders)

    def _smooth(self, place: int, min_count: int, discounts: tuple[float, float, float] | None) -> "_Smoothed":
        """The n-grams at a place of `_counted`. Those seen less than `min_count` times leave theirs to shorter ones."""
        keys, numbers, seen = self._counted[place]
        counts = seen
        if place + 1 < len(self._counted):  # the number of different words before it, instead of its count
            longer = self._counted[place + 1]
            suffixes = np.zeros(len(longer.keys), np.int64)
            suffixes[longer.numbers] = numbers[1:]
            counts = np.bincount(suffixes, minlength=len(keys))
        num_contexts = len(self._counted[place - 1].keys) if place else 1
        contexts = keys // self._vocab_size
        taken = np.array([0.0, *(discounts or _estimate_discounts(counts))])[np.minimum(counts, 3)]
        totals = np.bincount(contexts, counts, num_contexts)
        left = np.bincount(contexts, np.where(seen >= min_count, taken, counts), num_contexts)
        totals_or_one = np.maximum(totals, 1)
        return _Smoothed(
            words=(keys % self._vocab_size).astype(np.int32),
            contexts=contexts,
            probabilities=((counts - taken) / totals_or_one[contexts]).astype(np.float32),
            backoffs=np.where(totals > 0, left / totals_or_one, 1.0).astype(np.float32),
        )


class _Smoothed(NamedTuple):
    """N-grams of one length with their probabilities.

    Attributes:
      words: int32 [n-grams], the last word of each.
      contexts: int64 [n-grams], the number of each one's context among all n-grams that are one word shorter.
      probabilities: float32 [n-grams], the discounted count divided by the context's total.
      backoffs: float32 [contexts], the probability left for shorter n-grams.
    """

    words: np.ndarray
    contexts: np.ndarray
    probabilities: np.ndarray
    backoffs: np.ndarray


def _estimate_discounts(counts: np.ndarray) -> tuple[float, float, float]:
    """Estimates discounts from the counts of n-grams seen one to four times.

    Returns:
      those of n-grams seen once, twice, and more often, above 0; 0.5, 1, 1.5 where not all estimates are, as in very
      small corpora. With a discount of 0 nothing would be left for unseen words.
    """
    ones, twos, threes, fours = (int((counts == count).sum()) for count in (1, 2, 3, 4))
    if not (ones and twos and threes and fours):
        return 0.5, 1.0, 1.5
    share = ones / (ones + 2 * twos)
    discounts = (1 - 2 * share * twos / ones, 2 - 3 * share * threes / twos, 3 - 4 * share * fours / threes)
    if min(discounts) <= 0:
        return 0.5, 1.0, 1.5
    one, two, three = (min(value, number) for number, value in enumerate(discounts, start=1))
    return one, two, three
