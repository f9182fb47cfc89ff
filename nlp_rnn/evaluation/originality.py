"""How much of a generated text is copied, invented or repeated, so that memorisation shows up."""

import functools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

N_GRAMS = (5, 10, 20, 40)  # characters

_LOOP = 20  # characters of a passage that counts as repeated
_CHUNK = 2**22  # ids of the training text in memory at a time
_FILTER_BITS = 22
_BASE = np.uint64(0x9E3779B97F4A7C15)
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


class TrainingText:
    """A training text on disk, as ids of characters, in which passages are searched. Memory stays constant.

    Args:
      path: ids.bin of a `token_cache.TokenCache`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def contains(self, ids: np.ndarray, length: int) -> np.ndarray:
        """Whether each passage of `length` ids, by its start in `ids` (int32 [time]), is in the training text: bool."""
        wanted, places = np.unique(_hashes(ids, length), return_inverse=True)
        is_seen = np.zeros(len(wanted), bool)
        if len(wanted):
            begins = np.zeros(2**_FILTER_BITS, bool)  # a filter that rejects most passages
            begins[wanted >> np.uint64(64 - _FILTER_BITS)] = True
            for chunk in self._chunks(length):
                seen = _hashes(chunk, length)
                seen = seen[begins[seen >> np.uint64(64 - _FILTER_BITS)]]
                slots = np.searchsorted(wanted, seen)
                slots[slots == len(wanted)] = 0
                is_seen[slots[wanted[slots] == seen]] = True
        return is_seen[places]

    def longest(self, ids: np.ndarray) -> tuple[int, int]:
        """(start, length) of the longest passage of `ids` that is in the training text."""
        low, high, start = 0, min(len(ids), 32), 0
        while high < len(ids) and self.contains(ids, high).any():
            high = min(2 * high, len(ids))
        while low < high:  # binary search, since every part of a copied passage is copied too
            middle = (low + high + 1) // 2
            starts = np.flatnonzero(self.contains(ids, middle))
            if len(starts):
                low, start = middle, int(starts[0])
            else:
                high = middle - 1
        return start, low

    def _chunks(self, length: int) -> Iterable[np.ndarray]:
        """Yields overlapping chunks of the text, so that every passage is contained in one."""
        start = 0
        with open(self._path, "rb") as file:
            while True:
                file.seek(4 * start)
                chunk = np.fromfile(file, np.int32, _CHUNK + length - 1)
                yield chunk
                if len(chunk) < _CHUNK + length - 1:
                    return
                start += _CHUNK


def _hashes(ids: np.ndarray, length: int) -> np.ndarray:
    """Hashes each passage of `length` ids to uint64, so that two passages practically never collide."""
    if len(ids) < length:
        return np.zeros(0, np.uint64)
    with np.errstate(over="ignore"):
        powers = _powers(int(_BASE), 2 * _CHUNK)[: len(ids)]
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_spread(ids) * powers, dtype=np.uint64)])
        # Modulo 2^64 the base, which is odd, has an inverse, so the hash of a passage does not depend on its position.
        inverse = _powers(pow(int(_BASE), -1, 2**64), 2 * _CHUNK)
        return (sums[length:] - sums[: len(ids) - length + 1]) * inverse[: len(ids) - length + 1]


@functools.cache
def _powers(base: int, count: int) -> np.ndarray:
    """Powers of the base modulo 2^64, from 0 on, uint64 [count]."""
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _spread(ids: np.ndarray) -> np.ndarray:
    """A number of 64 mixed bits for each id: with powers of a base alone, some small ids would cancel out."""
    with np.errstate(over="ignore"):
        value = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(0xD6E8FEB86659FD93)
        value ^= value >> np.uint64(32)
        return value * np.uint64(0xD6E8FEB86659FD93)


def report(
    texts: Sequence[str], ids: Sequence[np.ndarray], train: TrainingText, known_words: frozenset[str]
) -> dict[str, Any]:
    """Measures how much of some texts is copied, invented and repeated.

    Args:
      texts, ids: the same texts as characters and as ids, int32 [time].
      known_words: the words of the training text in lower case; see `words_of`.

    Returns:
      num_characters; longest_copy (characters) and copied_passage; seen_5, seen_10, ...: the share of passages of that
      many characters that are in the training text; invented_words: the share of words that are not; repeated: the
      share of passages of 20 characters that occur earlier in the same text. Shares are 0-1.
    """
    # Joined to one text by ids that occur nowhere else, so that the training text is read only a few times.
    joined = np.concatenate([part for number, row in enumerate(ids) for part in (row, [-number - 1])]).astype(np.int32)
    start, longest = train.longest(joined)
    row = int((joined[:start] < 0).sum())
    begin = start - sum(len(before) + 1 for before in ids[:row])
    hashes, is_whole = _hashes(joined, _LOOP), _is_whole(joined, _LOOP)
    rows = np.cumsum(joined < 0)[: len(hashes)]
    first = np.unique(np.stack([hashes, rows.astype(np.uint64)], axis=1), axis=0, return_index=True)[1]
    is_repeated = np.ones(len(hashes), bool)
    is_repeated[first] = False
    words = [word for text in texts for word in words_of(text)]
    return {
        "num_characters": sum(len(row) for row in ids), "longest_copy": longest,
        "copied_passage": texts[row][begin : begin + longest],
        **{f"seen_{size}": _mean(train.contains(joined, size)[_is_whole(joined, size)]) for size in N_GRAMS},
        "invented_words": _mean(np.array([word not in known_words for word in words])),
        "repeated": _mean(is_repeated[is_whole]),
    }  # fmt: skip


def words_of(text: str) -> list[str]:
    """Runs of letters, with inner apostrophes, in lower case."""
    return [word.lower() for word in _WORD.findall(text)]


def _is_whole(ids: np.ndarray, length: int) -> np.ndarray:
    """Whether each passage of `length` ids, by its start, lies within one text: bool."""
    signs = np.concatenate([[0], np.cumsum(ids < 0)])
    return signs[length:] == signs[: max(len(ids) - length + 1, 0)]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0
