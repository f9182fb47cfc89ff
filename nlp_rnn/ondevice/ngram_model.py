"""An n-gram model with interpolated smoothing, in memory and rounded in a file. NumPy only, for the console.

The probability of a word after a context is that of the n-gram, plus the context's back-off weight times the
probability after the context that is one word shorter. `evaluation.kneser_ney` computes both from a text.
"""

import io
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np

from nlp_rnn.errors import ConfigError

FILE = "ngrams.npz"  # of a LiteRT export
_LEVELS_PER_NAT = 16  # in files, probabilities are rounded to e^(-level / 16), level 0-255
_PARTS = ("words", "probabilities", "followers", "backoffs")  # of n-grams in a file
_MAX_EXPANSION, _FREE_BYTES = 100, 2**24  # bytes of arrays for each of a file, where 3 are usual; and in any case


@dataclass(frozen=True)
class NGrams:
    """The n-grams of one length, sorted by (context, last word).

    A context is the number of an n-gram that is one word shorter; that of pairs is the id of their first word.

    Attributes:
      words: int [n-grams], the last word of each n-gram.
      probabilities: float32 [n-grams], without what the shorter context adds.
      starts: int64 [contexts + 1]; the n-grams of context c are starts[c]:starts[c + 1].
      backoffs: float32 [contexts], the weight of the shorter context, 0-1.
    """

    words: np.ndarray
    probabilities: np.ndarray
    starts: np.ndarray
    backoffs: np.ndarray

    def find(self, context: int, word: int) -> int:
        """The number of an n-gram; -1 if there is none."""
        start, end = int(self.starts[context]), int(self.starts[context + 1])
        number = start + int(np.searchsorted(self.words[start:end], word))
        return number if number < end and self.words[number] == word else -1


class NGramModel:
    """An n-gram model.

    Args:
      unigrams: float32 [vocabulary], the probabilities of words without a context.
      higher_orders: the n-grams of two words, of three, and so on.
    """

    def __init__(self, unigrams: np.ndarray, higher_orders: list[NGrams]) -> None:
        self.unigrams, self.higher_orders = unigrams, higher_orders

    @property
    def order(self) -> int:
        """The length of the longest n-grams, in words."""
        return len(self.higher_orders) + 1

    @property
    def vocab_size(self) -> int:
        """The number of ids."""
        return len(self.unigrams)

    def probabilities(self, history: np.ndarray) -> np.ndarray:
        """Probabilities float32 [vocabulary] of the next word after a history, int [words].

        Uses its last order - 1 words. Those of a file add up to 1 only nearly.
        """
        spans, weights = [], []
        for length, ngrams in enumerate(self.higher_orders[: len(history)], start=1):
            context = self._context(history[len(history) - length :])
            if context < 0:
                break
            start, end = int(ngrams.starts[context]), int(ngrams.starts[context + 1])
            if start == end:
                break
            spans.append((start, end))
            weights.append(float(ngrams.backoffs[context]))
        scale = float(np.prod(weights)) if weights else 1.0
        probabilities: np.ndarray = self.unigrams * np.float32(scale)
        for number, (start, end) in enumerate(spans):
            ngrams, factor = self.higher_orders[number], np.float32(np.prod(weights[number + 1 :]))
            probabilities[ngrams.words[start:end]] += ngrams.probabilities[start:end] * factor
        return probabilities

    def _context(self, words: np.ndarray) -> int:
        """The number of an n-gram; -1 if there is none."""
        number = int(words[0])
        for ngrams, word in zip(self.higher_orders, words[1:], strict=False):
            number = ngrams.find(number, int(word))
            if number < 0:
                break
        return number

    # --- files ---

    def to_bytes(self) -> bytes:
        """The content of a file, with rounded probabilities: a zip file of NumPy arrays, which `from_bytes` reads."""
        arrays = {"unigrams": self.unigrams}
        for length, ngrams in enumerate(self.higher_orders, start=2):
            followers = np.diff(ngrams.starts)
            parts = (
                ngrams.words.astype(_smallest(self.vocab_size - 1)),
                _levels(ngrams.probabilities),
                followers.astype(_smallest(int(followers.max(initial=0)))),
                np.where(followers, _levels(ngrams.backoffs), 0).astype(np.uint8),
            )
            arrays |= {f"{name}_{length}": part for name, part in zip(_PARTS, parts, strict=True)}
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        return content.getvalue()

    @staticmethod
    def from_bytes(content: bytes) -> "NGramModel":
        """The model in a file.

        Raises:
          ConfigError: if the content is not of that form.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as parts:
                if sum(part.file_size for part in parts.infolist()) > _MAX_EXPANSION * len(content) + _FREE_BYTES:
                    raise ValueError("its arrays are far larger than the file")
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return _checked({name: arrays[name] for name in arrays.files})
        except (
            OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, MemoryError, OverflowError,
            zipfile.BadZipFile, zlib.error,
        ) as error:  # fmt: skip
            raise ConfigError(f"is not readable as an n-gram model ({error})") from None


def mix(log_probabilities: np.ndarray, ngram: np.ndarray, share: float) -> np.ndarray:
    """Mixes a model's log-probabilities, float32 [vocabulary], with an n-gram model's probabilities.

    Args:
      ngram: float32 [vocabulary]; they need not add up to 1, as those of files do not exactly.
      share: of the n-gram model, 0-1.
    """
    mixed = np.exp(log_probabilities) * np.float32(1 - share)
    mixed += ngram * np.float32(share / max(float(ngram.sum()), 1e-9))
    return np.asarray(np.log(np.maximum(mixed, np.float32(1e-30))))


def _checked(arrays: dict[str, np.ndarray]) -> NGramModel:
    """The model of a file's arrays.

    Raises:
      KeyError or ValueError: if an array is missing, or they do not fit together.
    """
    unigrams = arrays.pop("unigrams")
    order = len(arrays) // len(_PARTS) + 1
    if order < 2:
        raise ValueError("it has no n-grams")
    if unigrams.dtype != np.float32 or unigrams.ndim != 1 or not ((unigrams >= 0) & (unigrams <= 1)).all():
        raise ValueError("its unigrams are no probabilities")
    num_contexts, higher_orders = len(unigrams), []
    for length in range(2, order + 1):
        words, probabilities, followers, backoffs = (arrays.pop(f"{name}_{length}") for name in _PARTS)
        for name, part in zip(_PARTS, (words, probabilities, followers, backoffs), strict=True):
            is_level = name in ("probabilities", "backoffs")
            if part.ndim != 1 or part.dtype.kind != "u" or (is_level and part.dtype != np.uint8):
                raise ValueError(f"{name} of its {length}-grams are of another type")
        starts = np.concatenate([[0], np.cumsum(followers, dtype=np.int64)])
        if not (len(followers) == len(backoffs) == num_contexts and len(words) == len(probabilities) == starts[-1]):
            raise ValueError(f"its {length}-grams do not fit together")
        rises = np.diff(words.astype(np.int64)) > 0
        inner = starts[(starts > 0) & (starts < len(words))]  # where a context begins, the ids need not rise
        rises[inner - 1] = True
        if words.max(initial=0) >= len(unigrams) or not rises.all():
            raise ValueError(f"its {length}-grams hold wrong ids")
        higher_orders.append(NGrams(words, _of_levels(probabilities), starts, _of_levels(backoffs)))
        num_contexts = len(words)
    if arrays:
        raise ValueError(f"it holds {min(arrays)} too")
    return NGramModel(unigrams, higher_orders)


def _smallest(largest: int) -> type[np.unsignedinteger]:
    """The smallest type for whole numbers up to `largest`."""
    return np.uint8 if largest < 2**8 else np.uint16 if largest < 2**16 else np.uint32


def _levels(probabilities: np.ndarray) -> np.ndarray:
    logs = np.log(np.maximum(probabilities, np.float32(1e-30)))
    return np.clip(np.rint(-_LEVELS_PER_NAT * logs), 0, 255).astype(np.uint8)


def _of_levels(levels: np.ndarray) -> np.ndarray:
    return np.exp(levels.astype(np.float32) / -_LEVELS_PER_NAT)
