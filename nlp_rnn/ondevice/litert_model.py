"""A next-word model from its LiteRT file, without TensorFlow. The cost of a suggestion does not grow with the text."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import regex

from nlp_rnn import files, manifest
from nlp_rnn.errors import ConfigError
from nlp_rnn.special_ids import EOS_ID, UNK_ID
from nlp_rnn.word_kinds import EMOJI, is_emoji, is_word

_EXPORT_AGAIN = "export it again"
SETTINGS_FILE = "vocabulary.json"
PRECISIONS = ("float", "int8")

# The expressions of `word_splitters` and `normalization` for Python's regex. A test compares their results.
_CONTRACTION = regex.compile(r"(?i)(\p{L})(n['’]t|['’](?:s|re|ve|ll|d|m))(?![A-Za-z0-9_])")
_WORD = regex.compile(
    r"(?i:n['’]t(?![A-Za-z0-9_])|['’](?:s|re|ve|ll|d|m)(?![A-Za-z0-9_]))|[0-9]+(?:[.,:/][0-9]+)+"
    r"|[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*|[\p{L}\p{M}\p{N}_\u200c\u200d]+|\S"
)
_WORD_OR_EMOJI = regex.compile(f"{EMOJI}|{_WORD.pattern}")
_INVISIBLE = regex.compile(r"[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]+")
_SPACE = regex.compile(r"[\s\p{Z}\p{Cc}]+")
_HTML_BREAK = regex.compile(r"(?i)<br\s*/?>")
# Capitals of Unicode 14 and later, which Python lowers, but TensorFlow 2.21 does not.
_NEW_CAPITALS = regex.compile(
    r"([\u1c89\u2c2f\ua7c0\ua7cb\ua7cc\ua7d0\ua7d6\ua7d8\ua7da\ua7dc\U00010570-\U00010595\U00010d50-\U00010d65])"
)


def split_whitespace(text: str) -> list[str]:
    """Splits like `word_splitters.SPLITTERS["whitespace"]`."""
    return text.split()


def split_unicode(text: str, *, whole_emoji: bool = False) -> list[str]:
    """Splits like `word_splitters.split_unicode`."""
    return (_WORD_OR_EMOJI if whole_emoji else _WORD).findall(_CONTRACTION.sub(r"\1 \2", text))


SPLITTERS = {"unicode": split_unicode, "whitespace": split_whitespace}
# A word goes on behind a joiner of Persian or Indic script.
_WORD_ENDS = {
    "unicode": regex.compile(r"[\p{L}\p{N}_][\p{M}\u200c\u200d]*$"),
    "whitespace": regex.compile(r"\S$"),
}


def split_text(text: str, *, splitter: str, lowercase: bool, html_breaks: bool, whole_emoji: bool = False) -> list[str]:
    """Splits a text into the words of `Tokenizer.pieces`."""
    text = _INVISIBLE.sub("", text)
    if html_breaks:
        text = _HTML_BREAK.sub(" ", text)
    text = _SPACE.sub(" ", text).strip(" ")
    text = _to_lower(text) if lowercase else text
    return split_unicode(text, whole_emoji=True) if whole_emoji else SPLITTERS[splitter](text)


def _to_lower(text: str) -> str:
    return "".join(part if number % 2 else part.lower() for number, part in enumerate(_NEW_CAPITALS.split(text)))


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


class OnDeviceModel:
    """A next-word model in a folder that `export.litert` wrote.

    Attributes:
      path: the folder of the version.
      precision: of PRECISIONS.
      words: the text of each id.
      suggestible, decent: bool [vocabulary], the words to suggest with and without profanity.
      cache: settings of the continuous cache.
      splitter: how texts are split into words.

    Raises:
      ConfigError: if the folder holds no such model, or the package ai-edge-litert is missing.
    """

    def __init__(self, folder: str | os.PathLike[str], *, precision: str = "int8") -> None:
        self.path, self.precision = _find(Path(folder)), precision
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise ConfigError(
                f"--model is {folder}, a LiteRT model, which needs the package ai-edge-litert: "
                "pip install 'nlp-rnn[console]'"
            ) from None
        manifest.check(self.path, _EXPORT_AGAIN, names=(SETTINGS_FILE, f"model_{precision}.tflite"))
        settings = files.read_json(self.path / SETTINGS_FILE, dict, _EXPORT_AGAIN)
        try:
            self._take(settings)
        except (KeyError, TypeError, IndexError) as error:
            raise ConfigError(f"{self.path / SETTINGS_FILE}: is damaged ({error!r}); {_EXPORT_AGAIN}") from None
        path = self.path / f"model_{precision}.tflite"
        try:
            with _quiet():
                self._interpreter = Interpreter(str(path), num_threads=1)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            told = next(iter(str(error).splitlines()), "")
            raise ConfigError(f"{path}: is missing or damaged ({told[:100]}); {_EXPORT_AGAIN}") from None
        self._step, self._prefill = (self._interpreter.get_signature_runner(name) for name in ("step", "prefill"))
        self._size = int(self._step.get_input_details()["states"]["shape"][1])
        self.features = int(self._step.get_output_details()["hidden"]["shape"][1])

    def _take(self, settings: dict[str, Any]) -> None:
        self.words: list[str] = settings["words"]
        self.suggestible = np.zeros(len(self.words), bool)
        self.suggestible[settings["proposable"]] = True
        self.suggestible &= np.array([is_word(word) for word in self.words])  # earlier exports suggest punctuation
        self.decent = self.suggestible.copy()
        self.decent[settings["profane"]] = False
        self.cache: dict[str, float] = settings["cache"]
        self.name: str = settings["name"]
        self.splitter: str = settings["splitter"]
        self._ids = {word: number for number, word in enumerate(self.words) if number > EOS_ID}
        self._settings = settings

    def zero_states(self) -> np.ndarray:
        """The initial states of a text: float32 [1, size]."""
        return np.zeros((1, self._size), np.float32)

    def step(self, token_id: int, states: np.ndarray) -> StepOutput:
        """Reads one id, given states float32 [1, size]."""
        return _unpack(self._step(token_ids=np.array([token_id], np.int32), states=states))

    def prefill(self, token_ids: Any, states: np.ndarray) -> StepOutput:
        """Reads one or more ids, int [time], at once."""
        return _unpack(self._prefill(token_ids=np.asarray(token_ids, np.int32)[None], states=states))

    def split(self, text: str) -> list[str]:
        """Splits a text into words, normalised as in training."""
        names = ("splitter", "lowercase", "html_breaks")
        whole_emoji = self._settings.get("whole_emoji", False)  # earlier exports do not have it
        return split_text(text, **{name: self._settings[name] for name in names}, whole_emoji=whole_emoji)

    def is_begun(self, word: str) -> bool:
        """Whether the last word of a text may go on."""
        return bool(_WORD_ENDS[self.splitter].search(word)) and not is_emoji(word)

    def ids(self, words: list[str]) -> list[int]:
        """The ids of words that `split` returned."""
        return [self._ids.get(word, UNK_ID) for word in words]


def is_ondevice(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a LiteRT model, or versions of one."""
    try:
        _find(Path(path))
    except ConfigError:
        return False
    return True


def _find(folder: Path) -> Path:
    versions = [
        int(entry.name) for entry in folder.glob("*") if entry.name.isdecimal() and (entry / SETTINGS_FILE).is_file()
    ]
    version = folder / str(max(versions)) if versions else folder
    if not (version / SETTINGS_FILE).is_file():
        raise ConfigError(
            f"--model is {folder}, but holds no LiteRT model; give a folder that export --format litert wrote, such as "
            "saved_models/next_word_litert"
        )
    return version


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses LiteRT's message about its delegate, which C++ prints to standard error. Errors are still raised."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _unpack(answer: dict[str, np.ndarray]) -> StepOutput:
    return StepOutput(answer["log_probabilities"][0], answer["hidden"][0], answer["states"])
