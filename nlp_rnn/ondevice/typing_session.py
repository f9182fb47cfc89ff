"""A typing session with word suggestions on the device: the console without its user interface."""

import bisect
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from nlp_rnn.ondevice.continuous_cache import CacheSettings, ContinuousCache
from nlp_rnn.ondevice.litert_model import OnDeviceModel, StepOutput
from nlp_rnn.ondevice.personal_words import PersonalWords, is_secret
from nlp_rnn.ondevice.typos import TypoModel
from nlp_rnn.special_ids import EOS_ID, UNK_ID

_NUM_CHECKPOINTS = 64  # positions of the line whose state is kept, so that a correction need not read the whole line
_MAX_TOKENS = 512  # of a pasted text, only the last ones are read
_BEFORE = 200  # characters in which the word before is looked for
_MAX_PHRASE = 4  # words
_LIKELY = 0.5  # probability from which on a further word is shown
_LEAST_LOG = -600.0  # below -745, exp gives 0 in float64
PERSONAL_SHARE = 0.02  # probability that the next word is one that the user has taught


class Suggestion(NamedTuple):
    """A suggested word.

    Attributes:
      word: with the letter case of what is typed, if it corrects that.
      probability: 0-1.
      rest: the text to insert.
      replaced: number of typed characters that the rest replaces; 0 unless it corrects a mistake.
    """

    word: str
    probability: float
    rest: str
    replaced: int = 0


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


class _Candidate(NamedTuple):
    word: str
    probability: float
    is_completion: bool


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
      corrects: whether words are suggested too that differ by one mistake from what is typed.
      layout: of the keyboard, one of `typos.LAYOUTS`.
    """

    model: OnDeviceModel
    count: int = 5
    temperature: float = 1.0
    adapts: bool = False
    allows_profanity: bool = False
    is_private: bool = False
    corrects: bool = True
    layout: str = "qwerty"
    statistics: Statistics = field(default_factory=Statistics)

    def __post_init__(self) -> None:
        self._learnt: dict[str, tuple[ContinuousCache, PersonalWords]] = {}
        self.use(self.model)

    def use(self, model: OnDeviceModel) -> None:
        """Goes on with another model, such as one of another language. What was learnt with each is kept apart."""
        self.model = model
        if str(model.path) not in self._learnt:
            cache = ContinuousCache(
                CacheSettings(**model.cache), vocab_size=len(model.words), features=model.features
            )  # fmt: skip
            self._learnt[str(model.path)] = cache, PersonalWords(self._knows, self._normalize)
        self.memory, self.words = self._learnt[str(model.path)]
        order = sorted(np.flatnonzero(model.suggestible).tolist(), key=model.words.__getitem__)
        self._sorted = np.array(order, np.int64)
        self._sorted_words = [model.words[number] for number in order]
        self.set_layout(self.layout)
        self.reset()

    def set_layout(self, layout: str) -> None:
        """Sets the keyboard's layout, one of `typos.LAYOUTS`."""
        self.layout, self._typos = layout, TypoModel(self._sorted_words, layout)

    def reset(self) -> None:
        """Begins a new text; keeps what was learnt."""
        self._begin_line(self.model.step(EOS_ID, self.model.zero_states()))

    def suggest(self, text: str) -> list[Suggestion]:
        """Suggests next words after white space or a symbol, else completions of the last word of the line."""
        step, begun = self._read(text)
        raw = text[len(text) - len(begun) :]
        meant = self._typos.meant(begun) if self.corrects and begun in (raw, raw.lower()) else {}
        candidates = self._candidates(self._scores(step), begun, meant)
        if self.adapts and len(self.words):
            candidates = self._with_personal_words(candidates, begun, meant, text, step)
        total = sum(each.probability for each in candidates) if begun else 1.0
        best = sorted(candidates, key=lambda each: -each.probability)
        return [_suggestion(each, begun, raw, total) for each in best if each.word][: self.count]

    def phrase(self, text: str, first: Suggestion) -> list[Suggestion]:
        """The suggestion and the words that are likely to follow it."""
        words, text = [first], text[: len(text) - first.replaced] + first.rest + " "
        while len(words) < _MAX_PHRASE:
            following = self.suggest(text)
            if not following or following[0].probability < _LIKELY:
                break
            words.append(following[0])
            text += following[0].rest + " "
        return words

    def accept(self, suggestion: Suggestion, keys: int = 1) -> str:
        """Counts an accepted suggestion. Returns the text to insert: the rest of the word, and a space.

        Args:
          keys: pressed for it; 0 for the further words of a phrase.
        """
        self._count(suggestion, keys, 1)
        return suggestion.rest + " "

    def undo(self, suggestion: Suggestion, place: int, keys: int = 1) -> None:
        """Takes an accepted suggestion back. The word typed there instead is learnt at its first use.

        Args:
          place: where the word begins in the line, in characters.
          keys: as it was accepted.
        """
        self._count(suggestion, keys, -1)
        self._undone.add(place)

    def _count(self, suggestion: Suggestion, keys: int, sign: int) -> None:
        self.statistics.accepted += sign
        self.statistics.saved += sign * (len(suggestion.rest) + 1 - suggestion.replaced - keys)  # 1: the space

    def finish_line(self, text: str) -> None:
        """Ends the line: it becomes part of the text, and the cache learns it."""
        self.statistics.characters += len(text)
        tokens = [
            (token, not is_secret(part)) for part in text.split() for token in self.model.ids(self.model.split(part))
        ]
        step, tokens = self._start, [*tokens[-_MAX_TOKENS:], (EOS_ID, True)]
        if self.adapts and not self.is_private:
            for token, is_learnt in tokens:
                if is_learnt:
                    self.memory.add(step.hidden, token)
                step = self.model.step(token, step.states)
            self.words.learn(text, [text[place:] for place in self._undone])
        else:
            step = self.model.prefill([token for token, _ in tokens], step.states)
        self._begin_line(step)

    def forget(self) -> None:
        """Forgets what was learnt, with all models."""
        for memory, words in self._learnt.values():
            memory.clear()
            words.clear()

    @property
    def _start(self) -> StepOutput:
        """The model's state before the line."""
        return self._checkpoints[0].step

    def _begin_line(self, step: StepOutput) -> None:
        self._checkpoints, self._line, self._undone = [_Checkpoint(0, step)], "", set[int]()

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

    def _candidates(self, scores: np.ndarray, begun: str, meant: dict[str, float]) -> list[_Candidate]:
        """The model's likeliest words, and one without a word for all others that begin like these.

        Args:
          scores: log-probabilities, float32 [vocabulary].
        """
        places, costs = self._places(begun, meant)
        ids = self._sorted[places]
        scores = scores[ids] + costs if self.temperature == 1 else self._heated(scores[ids], costs, bool(begun))
        total = float(np.exp(scores).sum()) if begun else 1.0
        if not self.allows_profanity:
            scores = np.where(self.model.decent[ids], scores, -np.inf)
        candidates = [
            _Candidate(word, float(np.exp(scores[place])), word.startswith(begun))
            for place in _largest(scores, self.count)
            if np.isfinite(scores[place])
            for word in (self.model.words[ids[place]],)
        ]
        return [*candidates, _Candidate("", max(total - sum(each.probability for each in candidates), 0.0), False)]

    def _heated(self, scores: np.ndarray, costs: np.ndarray, is_begun: bool) -> np.ndarray:
        """Log-probabilities at the temperature, float64; of completions, which are relative, not all are that small."""
        heated = scores.astype(np.float64) / self.temperature + costs
        if not len(heated):
            return heated
        largest = heated.max()
        if is_begun:
            return heated + max(_LEAST_LOG - largest, 0.0)
        return heated - largest - np.log(np.exp(heated - largest).sum())

    def _places(self, begun: str, meant: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """The places in `_sorted` of words that begin as typed or meant, and the log-probabilities of the mistakes."""
        if not begun:
            return np.arange(len(self._sorted)), np.zeros(len(self._sorted), np.float32)
        start, end = self._range(begun)
        if not meant:
            return np.arange(start, end), np.zeros(end - start, np.float32)
        costs = np.full(len(self._sorted), -np.inf, np.float32)
        for beginning, cost in meant.items():
            first, last = self._range(beginning)
            if first < last:
                np.maximum(costs[first:last], cost, out=costs[first:last])
        costs[start:end] = 0
        places = np.flatnonzero(np.isfinite(costs))
        return places, costs[places]

    def _range(self, beginning: str) -> tuple[int, int]:
        start = bisect.bisect_left(self._sorted_words, beginning)
        if start == len(self._sorted_words) or not self._sorted_words[start].startswith(beginning):
            return start, start
        return start, bisect.bisect_left(self._sorted_words, beginning + "\U0010ffff", start)

    def _with_personal_words(
        self, candidates: list[_Candidate], begun: str, meant: dict[str, float], text: str, step: StepOutput
    ) -> list[_Candidate]:
        """Adds the user's words to the model's, which give up a share of their probability."""
        head = text[: len(text) - len(begun)][-_BEFORE:]
        before = next(iter(self.model.split(head)[-1:]), "")
        # The model's own probability of unknown words is theirs too.
        mass = PERSONAL_SHARE + float(np.exp(step.log_probabilities[UNK_ID]))
        own = self.words.find(begun, before, self.count, meant)
        known = [each._replace(probability=each.probability * (1 - PERSONAL_SHARE)) for each in candidates]
        return [*known, *(_Candidate(word, mass * share, is_completion) for word, share, is_completion in own)]

    def _knows(self, word: str) -> bool:
        return self.model.ids([word]) != [UNK_ID]

    def _normalize(self, word: str) -> str:
        parts = self.model.split(word)
        return parts[0] if len(parts) == 1 else ""

    def _scores(self, step: StepOutput) -> np.ndarray:
        return self.memory.mix(step.log_probabilities, step.hidden) if self.adapts else step.log_probabilities


def _suggestion(candidate: _Candidate, begun: str, raw: str, total: float) -> Suggestion:
    """A candidate as suggestion; `raw` is the begun word as typed."""
    word, probability = candidate.word, candidate.probability / total
    if candidate.is_completion:
        return Suggestion(word, probability, word[len(begun) :])
    if raw.isupper() and len(raw) > 1:
        word = word.upper()
    elif raw[:1].isupper():
        word = word[:1].upper() + word[1:]
    return Suggestion(word, probability, word, len(raw))


def _largest(scores: np.ndarray, count: int) -> np.ndarray:
    """The positions of the largest scores, the largest first."""
    count = min(count, len(scores))
    if not count:
        return np.zeros(0, np.int64)
    places = np.argpartition(-scores, count - 1)[:count]
    return places[np.argsort(-scores[places], kind="stable")]
