"""Subword regularisation without TensorFlow, for trainings on JAX; on TensorFlow it is in `datasets.Resampling`.

A word's segmentations and their probabilities are computed when it is first met; those of the words met last are kept.
Source: Kudo 2018, section 3.2, which draws from as many of the likeliest.
"""

import functools
import heapq
import itertools
import re
from pathlib import Path

import numpy as np

from nlp_rnn import files
from nlp_rnn.special_ids import EOS_ID, PAD_ID, SPECIAL_PIECES, WORD_START
from nlp_rnn.tokenization.vocabulary_file import read_scored_pieces

_NUM_LIKELIEST = 64  # segmentations per word
_LEAST_SHARE = 1e-4  # of the likeliest segmentation's probability; what is less likely is never drawn
_NUM_KEPT = 2**15  # words
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")

Pieces = tuple[int, ...]


class Segmentations:
    """Draws other segmentations of texts from their ids, each in proportion to exp(score / temperature).

    Words with bytes, reserved symbols or unknown pieces stay as they are.

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
        self._scores = {text: (number, scored[number][1]) for number, text in enumerate(self._texts) if text}
        self._longest = max(map(len, self._scores), default=1)
        self._temperature, self._seed = temperature, seed
        self.of_word = functools.lru_cache(_NUM_KEPT)(self._of_word)

    def __call__(self, token_ids: np.ndarray, epoch: int, step: int) -> np.ndarray:
        """int32 [batch, time] -> int32 [batch, any], both right-padded with PAD_ID; rows keep their EOS_ID."""
        generator = np.random.default_rng([self._seed, epoch, step])
        rows = [self._redraw(row[row != PAD_ID].tolist(), generator) for row in token_ids]
        drawn = np.full((len(rows), max(map(len, rows), default=0)), PAD_ID, np.int32)
        for row, ids in zip(drawn, rows, strict=True):
            row[: len(ids)] = ids
        return drawn

    def _redraw(self, ids: list[int], generator: np.random.Generator) -> list[int]:
        ends = [len(ids) - 1 if ids and ids[-1] == EOS_ID else len(ids)]
        starts = [place for place in range(ends[0]) if self._texts[ids[place]].startswith(WORD_START)]
        draws = generator.random(len(starts))
        drawn = ids[: starts[0]] if starts else ids[: ends[0]]
        for (start, end), draw in zip(itertools.pairwise(starts + ends), draws, strict=True):
            segmentations, cumulative = self.of_word(tuple(ids[start:end]))
            drawn.extend(segmentations[int(np.searchsorted(cumulative, draw, side="right"))])
        return drawn + ids[ends[0] :]

    def _of_word(self, pieces: Pieces) -> tuple[list[Pieces], np.ndarray]:
        """The likeliest segmentations of a word, given as one of them, with their cumulative probabilities."""
        texts = [self._texts[piece] for piece in pieces]
        found = self._likeliest("".join(texts)) if all(texts) else [(0.0, pieces)]
        weights = np.exp((np.array([score for score, _ in found]) - found[0][0]) / self._temperature)
        cumulative = np.cumsum(weights / weights.sum())
        cumulative[-1] = 1.0
        return [each for _, each in found], cumulative

    def _likeliest(self, word: str) -> list[tuple[float, Pieces]]:
        """(score in nats, segmentation) of a word that is text, from the likeliest on."""
        # What is too unlikely at the end of a prefix is too unlikely for the whole word, which has the same rest.
        margin = self._temperature * np.log(_LEAST_SHARE)
        best: list[list[tuple[float, Pieces]]] = [[(0.0, ())]]
        for end in range(1, len(word) + 1):
            found = []
            for start in range(max(0, end - self._longest), end):
                if known := self._scores.get(word[start:end]):
                    piece, score = known
                    found += [(before + score, (*pieces, piece)) for before, pieces in best[start]]
            least = max(found)[0] + margin if found else 0.0
            best.append(heapq.nlargest(_NUM_LIKELIEST, (each for each in found if each[0] >= least)))
        return best[-1]
