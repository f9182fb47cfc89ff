"""Subword regularisation without TensorFlow, for trainings on JAX; on TensorFlow it is in `datasets.Resampling`.

Both draw each segmentation of a word in proportion to exp(score / temperature). Here the ways to end each prefix of a
word are computed when the word is first met; those of the words met last are kept. Source: Kudo 2018, section 3.
"""

import functools
import itertools
import math
import re
from bisect import bisect
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nlp_rnn import files
from nlp_rnn.special_ids import EOS_ID, PAD_ID, SPECIAL_PIECES, WORD_START
from nlp_rnn.tokenization.vocabulary_file import read_scored_pieces

_NUM_KEPT = 2**16  # words
_STREAM = 1  # tells these random numbers from those that shuffle the examples
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")


class Ends(NamedTuple):
    """The pieces that may end a prefix of a word, over all its segmentations.

    Attributes:
      pieces: their ids.
      starts: where each of them starts, in characters.
      cumulative: their cumulative probabilities.
    """

    pieces: list[int]
    starts: list[int]
    cumulative: list[float]


class Segmentations:
    """Draws other segmentations of texts from their ids.

    Words with bytes, reserved symbols or unknown pieces stay as they are, and so does the rest of a word with which a
    cut text begins.

    Args:
      folder: of a subword tokenizer; see `Tokenizer.save`.
      temperature: near 0, the best segmentation is almost certain; 1 / temperature is the alpha of sentencepiece.
      seed: a draw depends on it, the epoch and the step only.
    """

    def __init__(self, folder: Path, temperature: float, seed: int) -> None:
        scored = read_scored_pieces(folder)
        symbols = {*SPECIAL_PIECES, *files.read_json(folder / "tokenizer.json", dict, files.RESTORE_RUN)["reserved"]}
        # By id; "" of what is not text.
        self._texts = ["" if piece in symbols or _BYTE_PIECE.fullmatch(piece) else piece for piece, _ in scored]
        self._begins_word = [text.startswith(WORD_START) for text in self._texts]
        self._scores = {text: (number, scored[number][1]) for number, text in enumerate(self._texts) if text}
        self._longest = max(map(len, self._scores), default=1)
        self._temperature, self._seed = temperature, seed
        self._ends_of = functools.lru_cache(_NUM_KEPT)(self._find_ends)

    def __call__(self, token_ids: np.ndarray, epoch: int, step: int) -> np.ndarray:
        """int32 [batch, time] -> int32 [batch, any], both right-padded with PAD_ID; rows keep their EOS_ID."""
        generator = np.random.default_rng([self._seed, epoch, step, _STREAM])
        rows = [self._redraw(row[row != PAD_ID].tolist(), generator) for row in token_ids]
        drawn = np.full((len(rows), max(map(len, rows), default=0)), PAD_ID, np.int32)
        for row, ids in zip(drawn, rows, strict=True):
            row[: len(ids)] = ids
        return drawn

    def _redraw(self, ids: list[int], generator: np.random.Generator) -> list[int]:
        end = len(ids) - (bool(ids) and ids[-1] == EOS_ID)
        starts = [place for place in range(end) if self._begins_word[ids[place]]]
        draws = iter(generator.random(sum(len(self._texts[piece]) for piece in ids[:end])).tolist())
        drawn = ids[: starts[0]] if starts else ids[:end]
        for first, last in itertools.pairwise([*starts, end]):
            word = ids[first:last]
            ends = self._ends_of(tuple(word))
            drawn += _draw(ends, draws) if ends else word
        return drawn + ids[end:]

    def _find_ends(self, pieces: tuple[int, ...]) -> list[Ends]:
        """Of each prefix of a word, by its length from 1; empty for a word that is not all text.

        Args:
          pieces: one of the word's segmentations.
        """
        texts = [self._texts[piece] for piece in pieces]
        if not all(texts):
            return []
        word, sums, found = "".join(texts), [0.0], []
        for end in range(1, len(word) + 1):
            ends, weights = Ends([], [], []), []
            for start in range(max(0, end - self._longest), end):
                if sums[start] > -math.inf and (known := self._scores.get(word[start:end])):
                    ends.pieces.append(known[0])
                    ends.starts.append(start)
                    weights.append(sums[start] + known[1] / self._temperature)
            largest = max(weights, default=-math.inf)  # of no piece: no segmentation of the prefix
            sums.append(largest + math.log(sum(math.exp(weight - largest) for weight in weights) or 1.0))
            ends.cumulative.extend(itertools.accumulate(math.exp(weight - sums[end]) for weight in weights))
            found.append(ends)
        return found


def _draw(ends: list[Ends], draws: Iterator[float]) -> list[int]:
    """Draws the pieces of a word from its end to its beginning.

    Args:
      ends: as `Segmentations._find_ends` returns them.
      draws: numbers in [0, 1), one for each piece.
    """
    place, drawn = len(ends), []
    while place:
        here = ends[place - 1]
        number = min(bisect(here.cumulative, next(draws)), len(here.pieces) - 1)  # sums may round to less than 1
        drawn.append(here.pieces[number])
        place = here.starts[number]
    return drawn[::-1]
