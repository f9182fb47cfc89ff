"""An n-gram model with interpolated modified Kneser-Ney smoothing, the baseline of next-word models.

Source: Chen & Goodman 1999, "An empirical study of smoothing techniques for language modeling", section 4.1.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class _Order:
    """The n-grams of one length, sorted by (context, word).

    A context is the index of an n-gram that is one word shorter.

    Attributes:
      keys: int64 [n-grams], context * vocabulary + word.
      words: int32 [n-grams], the last word of each n-gram.
      shares: float32 [n-grams], the discounted count divided by the context's total.
      starts: int64 [contexts + 1]; the n-grams of context c are starts[c]:starts[c + 1].
      backoffs: float32 [contexts], the probability mass left for the lower order.
    """

    keys: np.ndarray
    words: np.ndarray
    shares: np.ndarray
    starts: np.ndarray
    backoffs: np.ndarray


class KneserNey:
    """Interpolated modified Kneser-Ney.

    Args:
      order: the longest n-gram, in words.
      vocab_size: number of ids; unseen ids share the uniform end of the interpolation.
      discounts: for counts of one, two, and three or more, for all orders; None estimates them per order.
      min_counts: for n-grams of one word, two, ...: those seen less often leave their probability to shorter ones;
        empty: all are kept.

    Attributes:
      sizes: for n-grams of one word, two, ...: (how many are kept, how many contexts they have). After `fit`.
    """

    def __init__(
        self, *, vocab_size: int, order: int = 5, discounts: tuple[float, float, float] | None = None,
        min_counts: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        self.order, self.vocab_size, self._discounts = order, vocab_size, discounts
        self._min_counts = min_counts or order * (1,)
        self._orders: list[_Order] = []
        self.sizes: list[tuple[int, int]] = []

    def fit(self, ids: np.ndarray) -> "KneserNey":
        """Counts the n-grams of one long text, int [tokens]."""
        tokens = ids.astype(np.int64)
        contexts = np.zeros(len(tokens), np.int64)  # of the n-gram that ends at each position
        numbers, counted = contexts, []
        for length in range(1, self.order + 1):
            if length > 1:
                contexts = numbers[:-1]
            keys, numbers, counts = np.unique(
                contexts * self.vocab_size + tokens[length - 1 :], return_inverse=True, return_counts=True
            )
            counted.append((keys, numbers, counts))
        for length in range(self.order):
            keys, numbers, counts = counted[length]
            is_kept = counts >= self._min_counts[length]
            if length + 1 < self.order:  # the number of different words before it, instead of its count
                longer_keys, longer_numbers, _ = counted[length + 1]
                suffixes = np.zeros(len(longer_keys), np.int64)
                suffixes[longer_numbers] = numbers[1:]
                counts = np.bincount(suffixes, minlength=len(keys))
            num_contexts = len(counted[length - 1][0]) if length else 1
            self._orders.append(self._smooth(keys, counts, num_contexts, is_kept))
        self._lowest = np.full(self.vocab_size, self._orders[0].backoffs[0] / self.vocab_size, np.float32)
        self._lowest[self._orders[0].words] += self._orders[0].shares
        return self

    def probabilities(self, history: np.ndarray) -> np.ndarray:
        """Probabilities float32 [vocabulary] of the next word after a history, int [words].

        Uses its last order - 1 words.
        """
        spans, weights, context = [], [], 0
        for length, word in enumerate(history[::-1][: self.order - 1], start=1):
            context = self._context(history[len(history) - length :]) if length > 1 else self._find(0, 0, int(word))
            if context < 0:
                break
            model = self._orders[length]
            start, end = int(model.starts[context]), int(model.starts[context + 1])
            if start == end:
                break
            spans.append((start, end))
            weights.append(float(model.backoffs[context]))
        scale = float(np.prod(weights)) if weights else 1.0
        probabilities = self._lowest * np.float32(scale)
        for number, (start, end) in enumerate(spans):
            model = self._orders[number + 1]
            factor = np.float32(np.prod(weights[number + 1 :]))
            probabilities[model.words[start:end]] += model.shares[start:end] * factor
        return probabilities

    def _context(self, words: np.ndarray) -> int:
        """The index of an n-gram; -1 if it was not seen."""
        number = 0
        for place, word in enumerate(words):
            number = self._find(place, number, int(word))
            if number < 0:
                return -1
        return number

    def _find(self, place: int, context: int, word: int) -> int:
        model, key = self._orders[place], context * self.vocab_size + word
        number = int(np.searchsorted(model.keys, key))
        return number if number < len(model.keys) and model.keys[number] == key else -1

    def _smooth(self, keys: np.ndarray, counts: np.ndarray, num_contexts: int, is_kept: np.ndarray) -> _Order:
        contexts = keys // self.vocab_size
        discounts = np.array([0.0, *(self._discounts or _estimate_discounts(counts))])[np.minimum(counts, 3)]
        totals = np.bincount(contexts, counts, num_contexts)
        left = np.bincount(contexts, np.where(is_kept, discounts, counts), num_contexts)
        self.sizes.append((int(is_kept.sum()), len(np.unique(contexts[is_kept]))))
        totals_or_one = np.maximum(totals, 1)
        return _Order(
            keys=keys,
            words=(keys % self.vocab_size).astype(np.int32),
            shares=(np.where(is_kept, counts - discounts, 0) / totals_or_one[contexts]).astype(np.float32),
            starts=np.searchsorted(contexts, np.arange(num_contexts + 1)),
            backoffs=np.where(totals > 0, left / totals_or_one, 1.0).astype(np.float32),
        )


def _estimate_discounts(counts: np.ndarray) -> tuple[float, float, float]:
    """Estimates discounts from the counts of n-grams seen one to four times; 0.5, 1, 1.5 for a very small corpus."""
    ones, twos, threes, fours = (int((counts == count).sum()) for count in (1, 2, 3, 4))
    if not (ones and twos and threes and fours):
        return 0.5, 1.0, 1.5
    share = ones / (ones + 2 * twos)
    discounts = (1 - 2 * share * twos / ones, 2 - 3 * share * threes / twos, 3 - 4 * share * fours / threes)
    one, two, three = (min(max(value, 0.0), number) for number, value in enumerate(discounts, start=1))
    return one, two, three
