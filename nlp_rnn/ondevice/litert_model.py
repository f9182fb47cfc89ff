"""A language model from its LiteRT file, without TensorFlow. The cost of a suggestion does not grow with the text."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nlp_rnn.ondevice import litert_file, words
from nlp_rnn.special_ids import EOS_ID, UNK_ID
from nlp_rnn.word_kinds import is_word


class StepOutput(NamedTuple):
    """The model's output after some ids.

    Attributes:
      log_probabilities: float32 [vocabulary], of the next id.
      hidden: float32 [features].
      states: float32 [1, size].
    """

    log_probabilities: np.ndarray
    hidden: np.ndarray
    states: np.ndarray


class Steps:
    """The signatures `step` and `prefill` of a language model's file.

    Attributes:
      features: size of the hidden vectors.

    Raises:
      ConfigError: see `litert_file.open_model`.
    """

    def __init__(self, path: Path, precision: str) -> None:
        self._interpreter = litert_file.open_model(path, precision)
        self._step, self._prefill = (self._interpreter.get_signature_runner(name) for name in ("step", "prefill"))
        self._size = int(self._step.get_input_details()["states"]["shape"][1])
        self.features = int(self._step.get_output_details()["hidden"]["shape"][1])

    def zero_states(self) -> np.ndarray:
        """The initial states of a text: float32 [1, size]."""
        return np.zeros((1, self._size), np.float32)

    def step(self, token_id: int, states: np.ndarray) -> StepOutput:
        """Reads one id, given states float32 [1, size]."""
        return _unpack(self._step(token_ids=np.array([token_id], np.int32), states=states))

    def prefill(self, token_ids: Any, states: np.ndarray) -> StepOutput:
        """Reads one or more ids, int [time], at once."""
        return _unpack(self._prefill(token_ids=np.asarray(token_ids, np.int32)[None], states=states))


class OnDeviceModel(Steps):
    """A next-word model in a folder that `export.litert` wrote.

    Attributes:
      path: the folder of the version.
      precision: "float" or "int8".
      words: the text of each id.
      suggestible, decent: bool [vocabulary], the words to suggest with and without profanity.
      cache: settings of the continuous cache.
      splitter: how texts are split into words.

    Raises:
      ConfigError: if the folder holds no such model, or the package ai-edge-litert is missing.
    """

    def __init__(self, folder: str | os.PathLike[str], *, precision: str = "int8") -> None:
        self.path, self.precision = litert_file.find(Path(folder)), precision
        settings = litert_file.read_settings(self.path)
        litert_file.check_kind(folder, settings, "words")
        super().__init__(self.path, precision)
        with litert_file.damage_reported(self.path):
            self._take(settings)

    def _take(self, settings: dict[str, Any]) -> None:
        self.words: list[str] = settings["words"]
        self.suggestible = np.zeros(len(self.words), bool)
        self.suggestible[settings["proposable"]] = True
        self.suggestible &= np.array([is_word(word) for word in self.words])  # earlier exports suggest punctuation
        self.decent = self.suggestible.copy()
        self.decent[settings["profane"]] = False
        self.cache: dict[str, float] = settings["cache"]
        self.name: str = settings["name"]
        self._ids = {word: number for number, word in enumerate(self.words) if number > EOS_ID}
        self.splitter: str = settings["splitter"]
        self._splitting = words.splitting_of(settings)

    def split(self, text: str) -> list[str]:
        """Splits a text into words, normalised as in training."""
        return words.split_text(text, **self._splitting)

    def without_breaks(self, text: str) -> str:
        """The text with a space in place of each HTML break, if `split` takes them for spaces."""
        return words.HTML_BREAK.sub(" ", text) if self._splitting["html_breaks"] else text

    def is_begun(self, word: str) -> bool:
        """Whether the last word of a text may go on."""
        return words.may_go_on(word, self.splitter)

    def ids(self, pieces: list[str]) -> list[int]:
        """The ids of words that `split` returned."""
        return [self._ids.get(word, UNK_ID) for word in pieces]


def _unpack(answer: dict[str, np.ndarray]) -> StepOutput:
    return StepOutput(answer["log_probabilities"][0], answer["hidden"][0], answer["states"])
