"""A typing session with word suggestions on the device: the console without its user interface."""

import bisect
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from nlp_rnn.ondevice.continuous_cache import CacheSettings, ContinuousCache
from nlp_rnn.ondevice.litert_model import OnDeviceModel, StepOutput
from nlp_rnn.ondevice.personal_words import PersonalWords
from nlp_rnn.special_ids import EOS_ID, UNK_ID

_NUM_CHECKPOINTS = 64  # positions of the line whose state is kept, so that a correction need not read the whole line
_MAX_TOKENS = 512  # of a pasted text, only the last ones are read
_BEFORE = 200  # characters in which the word before is looked for
PERSONAL_SHARE = 0.02  # probability that the next word is one that the user has taught


class Suggestion(NamedTuple):
    """A word, its probability 0-1, and the part that is not typed yet."""

    word: str
    probability: float
    rest: str


@dataclass
class Statistics:
    """Counts of a session.

    Attributes:
      characters: of the text.
      saved: characters that were not typed, minus the keys that accepted suggestions.
      accepted: number of accepted words.
    """

    characters: int = 0
    accepted: int = 0
    saved: int = 0

    def __str__(self) -> str:
        share = 100 * self.saved / self.characters if self.characters else 0.0
        return f"{self.saved} of {self.characters} keystrokes saved ({share:.0f} %), {self.accepted} words accepted"


@dataclass(frozen=True)
class _Checkpoint:
    """The state after `length` characters of the line, which end in white space."""

    length: int
    step: StepOutput


@dataclass
class TypingSession:
    """A text that is typed line by line, with word suggestions.

    The model's state is carried, so the cost of a key does not grow with the text.

    Attributes:
      count: number of suggestions.
      temperature: of the shown probabilities; 1 leaves them as they are.
      adapts: whether it learns: a continuous cache raises the probability of words typed before, and unknown words are
        suggested after their second use.
      is_private: whether lines are not learnt although it adapts.
    """

    model: OnDeviceModel
    count: int = 5
    temperature: float = 1.0
    adapts: bool = False
    allows_profanity: bool = False
    is_private: bool = False
    statistics: Statistics = field(default_factory=Statistics)

    def __post_init__(self) -> None:
        self.memory = ContinuousCache(
            CacheSettings(**self.model.cache), vocab_size=len(self.model.words), features=self.model.features
        )  # fmt: skip
        self.words = PersonalWords(self._knows, self._normalize)
        order = sorted(np.flatnonzero(self.model.suggestible).tolist(), key=self.model.words.__getitem__)
        self._sorted = np.array(order, np.int64)
        self._sorted_words = [self.model.words[number] for number in order]
        self.reset()

    def reset(self) -> None:
        """Begins a new text; keeps what was learnt."""
        self._begin_line(self.model.step(EOS_ID, self.model.zero_states()))

    def suggest(self, text: str) -> list[Suggestion]:
        """Suggests next words after white space or a symbol, else completions of the last word of the line."""
        step, begun = self._read(text)
        scores = self._scores(step)
        start, end = 0, len(self._sorted)
        if begun:
            start = bisect.bisect_left(self._sorted_words, begun)
            end = bisect.bisect_left(self._sorted_words, begun + "\U0010ffff")
        ids = self._sorted[start:end]
        scores = scores[ids] / self.temperature
        total = np.logaddexp.reduce(scores) if len(ids) and (begun or self.temperature != 1) else 0.0
        if not self.allows_profanity:
            scores = np.where(self.model.decent[ids], scores, -np.inf)
        best = _largest(scores, self.count)
        pairs = [
            (self.model.words[ids[place]], float(np.exp(scores[place] - total)))
            for place in best
            if np.isfinite(scores[place])
        ]
        share = float(np.exp(total)) if len(ids) else 0.0  # of the words that begin like this; all, if none is begun
        pairs = self._with_personal_words(pairs, begun, text, step, share)
        return [Suggestion(word, probability, word[len(begun) :]) for word, probability in pairs]

    def accept(self, suggestion: Suggestion) -> str:
        """Counts an accepted suggestion. Returns the text to insert: the rest of the word, and a space."""
        self.statistics.accepted += 1
        self.statistics.saved += len(suggestion.rest)  # the space makes up for the key that accepted it
        return suggestion.rest + " "

    def finish_line(self, text: str) -> None:
        """Ends the line: it becomes part of the text, and the cache learns it."""
        self.statistics.characters += len(text)
        step, ids = self._start, [*self.model.ids(self.model.split(text))[-_MAX_TOKENS:], EOS_ID]
        if self.adapts and not self.is_private:
            for token in ids:
                self.memory.add(step.hidden, token)
                step = self.model.step(token, step.states)
        else:
            step = self.model.prefill(ids, step.states)
        if self.adapts and not self.is_private:
            self.words.learn(text)
        self._begin_line(step)

    @property
    def _start(self) -> StepOutput:
        """The model's state before the line."""
        return self._checkpoints[0].step

    def _begin_line(self, step: StepOutput) -> None:
        self._checkpoints, self._line = [_Checkpoint(0, step)], ""

    def _read(self, text: str) -> tuple[StepOutput, str]:
        """The model's state after the whole words of the line, and the unfinished word at its end, or ""."""
        while len(self._checkpoints) > 1 and not text.startswith(self._line[: self._checkpoints[-1].length]):
            self._checkpoints.pop()  # the text there has changed
        base = self._checkpoints[-1]
        tail = text[base.length :]
        last = "" if not tail or tail[-1].isspace() else tail.split()[-1]
        head = tail[: len(tail) - len(last)]
        step = self._advance(base.step, self.model.split(head))
        if head:
            self._line = text
            self._checkpoints.append(_Checkpoint(base.length + len(head), step))
            if len(self._checkpoints) > _NUM_CHECKPOINTS:
                del self._checkpoints[1]
        words = self.model.split(last)
        begun = words.pop() if words and self.model.is_begun(words[-1]) else ""
        return self._advance(step, words), begun

    def _advance(self, step: StepOutput, words: list[str]) -> StepOutput:
        ids = self.model.ids(words)
        if len(ids) > _MAX_TOKENS:  # of a pasted book, only the end matters
            return self.model.prefill(ids[-_MAX_TOKENS:], self.model.zero_states())
        if len(ids) == 1:
            return self.model.step(ids[0], step.states)
        return self.model.prefill(ids, step.states) if ids else step

    def _with_personal_words(
        self, pairs: list[tuple[str, float]], begun: str, text: str, step: StepOutput, share: float
    ) -> list[tuple[str, float]]:
        """Adds the user's words to the model's, which give up a share of their probability.

        Args:
          pairs: the model's words with their probabilities, the most likely first.
          share: the probability of all words of the model that begin like `begun`.
        """
        if not (self.adapts and len(self.words)):
            return pairs
        head = text[: len(text) - len(begun)][-_BEFORE:]
        before = next(iter(self.model.split(head)[-1:]), "")
        found = self.words.find(begun, before, self.count)
        if not found:
            return pairs
        # The model's own probability of unknown words is theirs too.
        mass = PERSONAL_SHARE + float(np.exp(step.log_probabilities[UNK_ID]))
        shared = [(word, probability * mass) for word, probability in found]
        known = (1 - PERSONAL_SHARE) * (share if begun else 1.0)
        whole = known + sum(probability for _, probability in shared) if begun else 1.0
        merged = [(word, probability * known / whole) for word, probability in pairs]
        merged += [(word, probability / whole) for word, probability in shared]
        return sorted(merged, key=lambda each: -each[1])[: self.count]

    def _knows(self, word: str) -> bool:
        return self.model.ids([word]) != [UNK_ID]

    def _normalize(self, word: str) -> str:
        parts = self.model.split(word)
        return parts[0] if len(parts) == 1 else ""

    def _scores(self, step: StepOutput) -> np.ndarray:
        return self.memory.mix(step.log_probabilities, step.hidden) if self.adapts else step.log_probabilities


def _largest(scores: np.ndarray, count: int) -> np.ndarray:
    """The positions of the largest scores, the largest first."""
    count = min(count, len(scores))
    if not count:
        return np.zeros(0, np.int64)
    places = np.argpartition(-scores, count - 1)[:count]
    return places[np.argsort(-scores[places], kind="stable")]
