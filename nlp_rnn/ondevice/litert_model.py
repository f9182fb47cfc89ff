"""A language model from its LiteRT file, without TensorFlow. The cost of a suggestion does not grow with the text."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nlp_rnn import manifest
from nlp_rnn.errors import ConfigError
from nlp_rnn.ondevice import litert_file, ngram_model, words
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

    If the folder holds an n-gram model too, the log-probabilities are those of the mixture of both, and the states also
    hold the last ids.

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
        self._ngram_share = self._ngram_share_of(settings)
        self._ngrams = self._read_ngrams() if self._ngram_share else None
        self._ids = {word: number for number, word in enumerate(self.words) if number > EOS_ID}
        self.splitter: str = settings["splitter"]
        self._splitting = words.splitting_of(settings)

    def _ngram_share_of(self, settings: dict[str, Any]) -> float:
        """The share of the n-gram model in the mixture; 0: the folder has none."""
        share = settings["ngrams"]["share"] if "ngrams" in settings else 0.0
        if "ngrams" in settings and (not isinstance(share, float) or not 0 < share < 1):
            raise ConfigError(
                f"{self.path / litert_file.SETTINGS_FILE}: ngrams.share is {share!r}, but must be a number between 0 "
                f"and 1; {litert_file.EXPORT_AGAIN}"
            )
        return share

    def _read_ngrams(self) -> ngram_model.NGramModel:
        path, mend = self.path / ngram_model.FILE, litert_file.EXPORT_AGAIN
        manifest.check(self.path, mend, names=(ngram_model.FILE,))
        try:
            model = ngram_model.NGramModel.from_bytes(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror}); {mend}") from None
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}; {mend}") from None
        if model.vocab_size != len(self.words):
            raise ConfigError(
                f"{path}: has {model.vocab_size:,} words, but {litert_file.SETTINGS_FILE} {len(self.words):,}, so it "
                f"belongs to another model; {mend}"
            )
        return model

    def zero_states(self) -> np.ndarray:
        """The initial states of a text: float32 [1, size]."""
        before = np.full((1, self._ngrams.order - 1 if self._ngrams else 0), -1, np.float32)
        return np.concatenate([super().zero_states(), before], axis=1)

    def step(self, token_id: int, states: np.ndarray) -> StepOutput:
        """Reads one id, given states float32 [1, size]."""
        return self._mixed(super().step(token_id, states[:, : self._size]), [token_id], states)

    def prefill(self, token_ids: Any, states: np.ndarray) -> StepOutput:
        """Reads one or more ids, int [time], at once."""
        return self._mixed(super().prefill(token_ids, states[:, : self._size]), token_ids, states)

    def _mixed(self, output: StepOutput, token_ids: Any, states: np.ndarray) -> StepOutput:
        if self._ngrams is None:
            return output
        before = np.concatenate([states[0, self._size :], np.asarray(token_ids, np.float32)])[1 - self._ngrams.order :]
        ngram = self._ngrams.probabilities(before[before >= 0].astype(np.int64))
        mixed = ngram_model.mix(output.log_probabilities, ngram, self._ngram_share)
        return StepOutput(mixed, output.hidden, np.concatenate([output.states, before[None]], axis=1))

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
