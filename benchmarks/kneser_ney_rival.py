"""A keyboard that suggests by an n-gram model: interpolated modified Kneser-Ney, 5-grams, trained on texts."""

import sys
from collections import Counter
from collections.abc import Iterable

import numpy as np

from nlp_rnn.evaluation.kneser_ney import KneserNey
from nlp_rnn.ondevice.litert_model import OnDeviceModel
from nlp_rnn.special_ids import EOS_ID, SPECIAL_PIECES, UNK_ID
from nlp_rnn.word_kinds import is_word

_ORDER = 5


class NGramKeyboard:
    """Suggests the likeliest words, or completions of the word that was begun, as the console does.

    Args:
      model: splits texts into words, as it does for itself; its vocabulary is not used.
      texts: the training texts.
      vocab_size: number of the most frequent words that are suggested.
    """

    def __init__(self, model: OnDeviceModel, texts: Iterable[str], *, count: int, vocab_size: int = 25_000) -> None:
        self._model, self._count = model, count
        lists = [[sys.intern(word) for word in model.split(text)] for text in texts]
        frequent = Counter(word for words in lists for word in words).most_common(vocab_size - len(SPECIAL_PIECES))
        self._words = [*SPECIAL_PIECES, *(word for word, _ in frequent)]
        self._ids = {word: number for number, word in enumerate(self._words) if number > EOS_ID}
        self._is_word = np.array([number > EOS_ID and is_word(word) for number, word in enumerate(self._words)])
        ids = np.concatenate([np.array([*self._ids_of(words), EOS_ID], np.int32) for words in lists])
        self._ngrams = KneserNey(ids, vocab_size=len(self._words), order=_ORDER).model()
        self._context: list[int] = []
        self._order = np.zeros(0, np.int64)

    def suggest(self, text: str) -> list[str]:
        """The suggested words after what was typed of a line."""
        words = self._model.split(text)
        begun = words.pop() if words and not text[-1:].isspace() and self._model.is_begun(words[-1]) else ""
        context = [EOS_ID, *self._ids_of(words)][-_ORDER + 1 :]
        if context != self._context or not len(self._order):
            shares = np.where(self._is_word, self._ngrams.probabilities(np.array(context)), 0)
            self._context, self._order = context, np.argsort(-shares, kind="stable")
        found: list[str] = []
        for number in self._order:
            if self._words[number].startswith(begun) and self._is_word[number]:
                found.append(self._words[number])
                if len(found) == self._count:
                    break
        return found

    def finish_line(self, line: str) -> None:
        """It does not learn."""

    def _ids_of(self, words: list[str]) -> list[int]:
        return [self._ids.get(word, UNK_ID) for word in words]
