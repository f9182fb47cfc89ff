"""A character model from its LiteRT file, without TensorFlow: continues prompts as the SavedModel does."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nlp_rnn.errors import ConfigError
from nlp_rnn.ondevice import litert_file, sampling, words
from nlp_rnn.ondevice.litert_model import Steps
from nlp_rnn.special_ids import BOS_ID, EOS_ID, PAD_ID, UNK_ID

logger = logging.getLogger(__name__)

_NEVER = [PAD_ID, UNK_ID, BOS_ID]
_NUM_SHOWN = 10  # characters in a warning


class OnDeviceGenerator(Steps):
    """A character model in a folder that `export.litert_language_model` wrote.

    The settings of its methods are the fields of `decoding.settings.GenerationSettings`. With the float file, the same
    prompt, settings and seed give the text of the SavedModel, unless two characters are equally likely up to rounding.

    Attributes:
      characters: the text of each id.

    Raises:
      ConfigError: if the folder holds no such model, or the package ai-edge-litert is missing.
    """

    def __init__(self, folder: str | os.PathLike[str], *, precision: str = "int8") -> None:
        self.path = litert_file.find(Path(folder))
        settings = litert_file.read_settings(self.path)
        litert_file.check_kind(folder, settings, "characters")
        super().__init__(self.path, precision)
        with litert_file.damage_reported(self.path):
            self.characters: list[str] = settings["characters"]
            self._lowercase, self._max_length = settings["lowercase"], int(settings["max_length"])
        self._ids = {text: number for number, text in enumerate(self.characters) if number > EOS_ID}

    def split(self, text: str) -> list[str]:
        """Splits a text into characters, normalised as in training."""
        return words.split_characters(text, lowercase=self._lowercase)

    def ids(self, pieces: list[str]) -> list[int]:
        """The ids of characters that `split` returned."""
        return [self._ids.get(character, UNK_ID) for character in pieces]

    def generate(self, prompts: list[bytes], settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yields prompt, text and log_probability (in nats) of each prompt, UTF-8."""
        for prompt in prompts:
            ids, total = [], 0.0
            for token, log_probability in self._write(prompt, settings):
                ids.append(token)
                total += log_probability
            text = self._text(ids, settings)
            yield {"prompt": prompt.decode("utf-8", "replace"), "text": text, "log_probability": total}

    def stream(self, prompt: bytes, settings: dict[str, Any]) -> Iterator[str]:
        """Yields the text of `generate` piece by piece, while it is generated."""
        held = max((len(stop) for stop in settings["stop"]), default=1) - 1  # characters that may begin a stop string
        ids: list[int] = []
        num_shown = 0
        for token, _ in self._write(prompt, settings):
            ids.append(token)
            sure = len(ids) - 1 - held
            if sure > num_shown:
                yield "".join(self.characters[each] for each in ids[num_shown:sure])
                num_shown = sure
        yield self._text(ids, settings)[num_shown:]

    def answer(self, function: str, texts: list[bytes], **_: Any) -> dict[str, Any]:
        """Raises ConfigError: a LiteRT model has no functions but generation."""
        raise ConfigError(
            f"the model is {self.path}, a LiteRT export, which only generates; {function} needs the SavedModel: export "
            "with --format savedmodel"
        )

    def _write(self, prompt: bytes, settings: dict[str, Any]) -> Iterator[tuple[int, float]]:
        """Yields the ids of a text and their log-probabilities: with the EOS_ID or the stop string that ends it."""
        draws = sampling.Sampling(
            *(settings[name] for name in ("temperature", "top_k", "top_p", "repetition_penalty", "seed"))
        )
        known = self._prompt_ids(prompt)
        written: list[int] = []
        step = self.prefill([EOS_ID, *known], self.zero_states())
        while len(written) < settings["max_length"]:
            scores = _allowed(step.log_probabilities)
            limited = scores.copy()
            if len(written) < settings["min_length"]:
                limited[EOS_ID] = -np.inf
            token = sampling.draw(limited, draws, len(written), (known + written)[-sampling.REPETITION_WINDOW :])
            yield token, float(scores[token])
            written.append(token)
            is_long = len(written) >= settings["min_length"]
            if token == EOS_ID or (is_long and self._stop_length(written, settings)):
                return
            step = self.step(token, step.states)

    def _prompt_ids(self, prompt: bytes) -> list[int]:
        """The last ids of a prompt, without unknown characters, which are logged."""
        pieces = self.split(prompt.decode("utf-8", "replace"))
        ids = self.ids(pieces)
        unknown = sorted({piece for piece, token in zip(pieces, ids, strict=True) if token == UNK_ID})
        if unknown:
            more = f" and {len(unknown) - _NUM_SHOWN} more" if len(unknown) > _NUM_SHOWN else ""
            logger.warning(
                "the prompt contains characters that were not in the training text; they are skipped: %s%s",
                " ".join(map(repr, unknown[:_NUM_SHOWN])),
                more,
            )
        return [token for token in ids if token != UNK_ID][-self._max_length :]

    def _text(self, ids: list[int], settings: dict[str, Any]) -> str:
        """The text of what `_write` yielded, without what ended it."""
        is_long = len(ids) >= settings["min_length"]
        end = len(ids) - (self._stop_length(ids, settings) if is_long else 0)
        return "".join(self.characters[token] for token in ids[:end] if token != EOS_ID)

    def _stop_length(self, ids: list[int], settings: dict[str, Any]) -> int:
        """The length of the longest stop string at the end, or 0."""
        stops = (self.ids(self.split(stop)) for stop in settings["stop"])
        return max((len(stop) for stop in stops if stop and ids[-len(stop) :] == stop), default=0)


def _allowed(log_probabilities: np.ndarray) -> np.ndarray:
    """Log-probabilities among the ids that texts consist of, float32 [vocabulary]; -inf for the others."""
    scores = log_probabilities.copy()
    scores[_NEVER] = -np.inf
    normalized: np.ndarray = scores - np.logaddexp.reduce(scores)
    return normalized
