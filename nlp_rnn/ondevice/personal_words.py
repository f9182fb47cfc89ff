"""Words that the user types and the model does not know, with probabilities of their own.

A word is suggested after its second use. Its probability given the word before is that of a bigram model smoothed by
the word's own frequency: (c(before, word) + k * p(word)) / (c(before) + k). Source: MacKay & Peto 1995, "A hierarchical
Dirichlet language model", for known k. NumPy only, for the console.
"""

import bisect
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import regex

from nlp_rnn.errors import ConfigError

MAX_WORDS = 20_000  # the word that was used longest ago is forgotten first
_USES = 2  # before a word is suggested
_SMOOTHING = 1.0  # k
_LONGEST = 40  # characters
_MAX_FOLLOWERS = 50  # words kept after one word
_SECRET = regex.compile(r"@|\d|(?i:\b(?:https?://|www\.))")
_CONTRACTION = regex.compile(r"(?i)(?<=\p{L})(?:n['’]t|['’](?:s|re|ve|ll|d|m|t))\b")  # its end, as the splitter cuts it
_WORD = regex.compile(r"\p{L}[\p{L}\p{M}\u200c\u200d]*")

_NOTHING: Mapping[str, float] = {}


def is_secret(part: str) -> bool:
    """Whether a part of a line, between spaces, is never learnt.

    Such are addresses, and what holds digits, such as numbers of cards, codes and passwords.
    """
    return _SECRET.search(part) is not None


class PersonalWord(NamedTuple):
    """A word of the user.

    Attributes:
      spelling: as typed.
      probability: 0-1.
      is_completion: whether it begins as typed; otherwise with another beginning that may be meant.
    """

    spelling: str
    probability: float
    is_completion: bool


class PersonalWords:
    """The words of one user.

    Args:
      knows: whether the model knows a word, in the form that it reads.
      normalize: a word as typed to the form that the model reads, such as lower case; "" if it is several words there.
    """

    def __init__(self, knows: Callable[[str], bool], normalize: Callable[[str], str]) -> None:
        self._knows, self._normalize = knows, normalize
        self.clear()

    def clear(self) -> None:
        """Forgets all words."""
        # By normalised word; dictionaries are in the order of the last use.
        self._uses: dict[str, int] = {}
        self._spellings: dict[str, Counter[str]] = {}
        self._followers: dict[str, Counter[str]] = {}
        self._sorted: list[str] = []  # the words to suggest
        self._total = 0  # their uses
        self._counts: np.ndarray | None = None  # the uses of each of them, once they were asked for

    def __len__(self) -> int:
        """The number of words that are suggested."""
        return len(self._sorted)

    def words(self) -> list[tuple[str, int]]:
        """The suggested words as typed, and how often they were used, the most frequent first."""
        uses = [(self._spelled(word), self._uses[word]) for word in self._sorted]
        return sorted(uses, key=lambda each: (-each[1], each[0]))

    def learn(self, text: str, insisted: Collection[str] = ()) -> None:
        """Learns the unknown words of a finished line.

        Args:
          insisted: texts that begin with a word that the user typed in place of a suggestion; it counts as used before.
        """
        certain = {match.group() for each in insisted if (match := _WORD.match(each))}
        before, is_first, self._counts = "", True, None
        open_text = " ".join(part for part in text.split() if not is_secret(part))
        for spelling in _WORD.findall(_CONTRACTION.sub("", open_text)):
            word = self._normalize(spelling)
            if word and not self._knows(word) and len(word) <= _LONGEST:
                if spelling in certain and word not in self._uses:
                    self._use(word, spelling, is_first=False)
                self._use(word, spelling, is_first=is_first)
                if before:
                    self._follow(before, word)
            before, is_first = word, False

    def find(self, begun: str, before: str, count: int, meant: Mapping[str, float] = _NOTHING) -> list[PersonalWord]:
        """The most likely words, with their probabilities given that the next word is one of the user's.

        Args:
          begun: the beginning of the word, normalised; "" for any.
          before: the word before, normalised; "" at the beginning.
          count: of words, at most.
          meant: other beginnings that may be meant, with log-probabilities; those of the words are less by them.
        """
        if not self._total:
            return []
        scores, number = _SMOOTHING / self._total * self._uses_by_place(), _SMOOTHING
        for word, uses in self._followers.get(before, {}).items():
            if self._is_suggested(word):
                scores[bisect.bisect_left(self._sorted, word)] += uses
                number += uses
        if begun:
            factors = np.zeros_like(scores)
            for beginning, cost in ({begun: 0.0} | dict(meant)).items():
                part = factors[self._beginning_with(beginning)]
                np.maximum(part, math.exp(cost), out=part)
            scores *= factors
        places = np.flatnonzero(scores)  # in alphabetical order
        best = places[np.argsort(-scores[places], kind="stable")][:count]
        return [
            PersonalWord(self._spelled(word), float(scores[place]) / number, word.startswith(begun))
            for place in best
            for word in (self._sorted[place],)
        ]

    def _beginning_with(self, beginning: str) -> slice:
        """The places of the words in `_sorted`."""
        start = bisect.bisect_left(self._sorted, beginning)
        return slice(start, bisect.bisect_left(self._sorted, beginning + "\U0010ffff", start))

    def _uses_by_place(self) -> np.ndarray:
        """float [words to suggest], in the order of `_sorted`."""
        if self._counts is None:
            self._counts = np.array([self._uses[word] for word in self._sorted], float)
        return self._counts

    # --- files ---

    def to_json(self) -> list[dict[str, Any]]:
        """The words as JSON, the one that was used longest ago first."""
        return [
            {
                "word": self._spelled(word),
                "uses": uses,
                "after": {before: each[word] for before, each in self._followers.items() if word in each},
            }
            for word, uses in self._uses.items()
        ]

    def from_json(self, content: Any) -> None:
        """Replaces all words by those of `to_json`.

        Raises:
          ConfigError: if the content is not of that form.
        """
        self.clear()
        if not isinstance(content, list) or len(content) > MAX_WORDS:
            raise ConfigError(f"words must be a list of at most {MAX_WORDS:,} entries")
        for number, entry in enumerate(content, start=1):
            try:
                spelling, uses, after = entry["word"], entry["uses"], entry["after"]
                is_right = _WORD.fullmatch(spelling) and 0 < len(spelling) <= _LONGEST and _is_count(uses)
                is_right = is_right and all(isinstance(key, str) and _is_count(count) for key, count in after.items())
            except (KeyError, TypeError, AttributeError):
                is_right = False
            if not is_right:
                raise ConfigError(f"entry {number} of words is not a word with its uses")
            word = self._normalize(spelling)
            if not word or self._knows(word) or word in self._uses:
                continue  # this model knows it
            self._uses[word], self._spellings[word] = uses, Counter({spelling: uses})
            for before, count in after.items():
                self._followers.setdefault(before, Counter())[word] = count
        self._sorted = sorted(filter(self._is_suggested, self._uses))
        self._total = sum(self._uses[word] for word in self._sorted)

    # --- parts ---

    def _use(self, word: str, spelling: str, *, is_first: bool) -> None:
        uses = self._uses.pop(word, 0) + 1
        self._uses[word] = uses  # at the end
        spellings = self._spellings.setdefault(word, Counter())
        # The first word of a line has a capital letter whatever it is.
        if not is_first or not spellings or spelling in spellings or not spelling[:1].isupper():
            spellings[spelling] += 1
        if uses == _USES:
            bisect.insort(self._sorted, word)
        if uses >= _USES:
            self._total += uses if uses == _USES else 1
        if len(self._uses) > MAX_WORDS:
            self._forget(next(iter(self._uses)))

    def _forget(self, word: str) -> None:
        if self._is_suggested(word):
            self._total -= self._uses[word]
            del self._sorted[bisect.bisect_left(self._sorted, word)]
        del self._uses[word], self._spellings[word]
        for before in [before for before, each in self._followers.items() if word in each]:
            del self._followers[before][word]
            if not self._followers[before]:
                del self._followers[before]

    def _follow(self, before: str, word: str) -> None:
        followers = self._followers.setdefault(before, Counter())
        followers[word] += 1
        if len(followers) > _MAX_FOLLOWERS:
            del followers[min(followers, key=followers.__getitem__)]

    def _is_suggested(self, word: str) -> bool:
        return self._uses.get(word, 0) >= _USES

    def _spelled(self, word: str) -> str:
        spellings = self._spellings[word]
        return max(spellings, key=spellings.__getitem__)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**9
