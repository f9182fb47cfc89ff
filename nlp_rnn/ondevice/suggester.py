"""The word suggestions of a next-word model's LiteRT file for whole texts, without TensorFlow."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from nlp_rnn.errors import ConfigError
from nlp_rnn.ondevice.litert_model import OnDeviceModel
from nlp_rnn.ondevice.typing_session import TypingSession
from nlp_rnn.special_ids import EOS_ID, SPECIAL_PIECES

_MOST_WORDS = 100  # suggestions for a text


class OnDeviceSuggester:
    """Suggests and scores as the SavedModel of a next-word model does; see `export.next_word`.

    Of a long text, the last 512 words are read, whatever data.max_length was. No mistakes are corrected.

    Args:
      folder: of a LiteRT export, or of its versions.
      precision: "int8" or "float".

    Raises:
      ConfigError: see `OnDeviceModel`.
    """

    def __init__(self, folder: str | os.PathLike[str], *, precision: str = "int8") -> None:
        self._model = OnDeviceModel(Path(folder), precision=precision)
        self._session = TypingSession(self._model, corrects=False)

    def answer(
        self, function: str, texts: list[bytes], *, count: int = 5, allow_profanity: bool = False
    ) -> dict[str, Any]:
        """The outputs of the SavedModel's `suggest` or `score`.

        Args:
          function: "suggest" or "score".
          texts: UTF-8.
          count, allow_profanity: of `suggest`.

        Raises:
          ConfigError: if it is another function.
        """
        given = [text.decode("utf-8", "replace") for text in texts]
        if function == "suggest":
            return self._suggest(given, count, allow_profanity)
        if function == "score":
            return self._score(given)
        raise ConfigError(
            f"the model is {self._model.path}, a LiteRT export, which suggests and scores; {function} needs the "
            "SavedModel: export with --format savedmodel"
        )

    def _suggest(self, texts: list[str], count: int, allow_profanity: bool) -> dict[str, Any]:
        count = min(max(count, 0), _MOST_WORDS)
        self._session.count, self._session.allows_profanity = count, allow_profanity
        rows = []
        for text in texts:
            self._session.reset()
            rows.append(self._session.suggest(self._model.without_breaks(text)))
        words = [[each.word.encode() for each in row] + [b""] * (count - len(row)) for row in rows]
        probabilities = [[each.probability for each in row] + [0.0] * (count - len(row)) for row in rows]
        return {"words": words, "probabilities": np.array(probabilities, np.float32).reshape(len(texts), count)}

    def _score(self, texts: list[str]) -> dict[str, Any]:
        tokens, log_probabilities = [], []
        for text in texts:
            pieces, output = self._model.split(text), self._model.step(EOS_ID, self._model.zero_states())
            scores = []
            for token_id in [*self._model.ids(pieces), EOS_ID]:
                scores.append(output.log_probabilities[token_id])
                output = self._model.step(token_id, output.states)
            tokens.append([piece.encode() for piece in [*pieces, SPECIAL_PIECES[EOS_ID]]])
            log_probabilities.append(np.array(scores, np.float32))
        return {"tokens": tokens, "log_probabilities": log_probabilities}
