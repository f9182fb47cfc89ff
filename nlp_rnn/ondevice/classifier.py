"""A text classifier from its LiteRT file, without TensorFlow."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from nlp_rnn.errors import ConfigError
from nlp_rnn.ondevice import litert_file, words
from nlp_rnn.special_ids import EOS_ID, UNK_ID


class OnDeviceClassifier:
    """A classifier in a folder that `export.litert_classifier` wrote.

    Attributes:
      labels: the class names.
      outputs: "classes", "ordinal" or "label_sets".
      thresholds: of label sets, float32 [labels]: the probability from which on a text has each label; else empty.

    Raises:
      ConfigError: if the folder holds no such model, or the package ai-edge-litert is missing.
    """

    def __init__(self, folder: str | os.PathLike[str], *, precision: str = "int8") -> None:
        self.path = litert_file.find(Path(folder))
        settings = litert_file.read_settings(self.path)
        litert_file.check_kind(folder, settings, "labels")
        self._interpreter = litert_file.open_model(self.path, precision)
        self._classify = self._interpreter.get_signature_runner("classify")
        with litert_file.damage_reported(self.path):
            self._take(settings)

    def _take(self, settings: dict[str, Any]) -> None:
        self.labels: list[str] = settings["labels"]
        self.outputs: str = settings["outputs"]
        self.thresholds = np.array(settings["thresholds"], np.float32)
        self._max_length, self._keep = int(settings["max_length"]), settings["keep"]
        self._ids = {word: number for number, word in enumerate(settings["words"]) if number > EOS_ID}
        self._splitting = words.splitting_of(settings)

    def ids(self, text: str) -> list[int]:
        """The ids of a text's words, at most as many as in training; of a text without words the id of unknown ones."""
        ids = [self._ids.get(word, UNK_ID) for word in words.split_text(text, **self._splitting)]
        return shortened(ids, self._max_length, self._keep) or [UNK_ID]

    def probabilities(self, text: str) -> np.ndarray:
        """float32 [labels]: of each label; of label sets, each independently."""
        row: np.ndarray = self._classify(token_ids=np.array([self.ids(text)], np.int32))["probabilities"][0]
        return row

    def answer(self, function: str, texts: list[bytes], **_: Any) -> dict[str, Any]:
        """The outputs of the SavedModel's `classify`; see `export.classifier`.

        Args:
          function: "classify".
          texts: UTF-8.

        Raises:
          ConfigError: if it is another function.
        """
        if function != "classify":
            raise ConfigError(
                f"the model is {self.path}, a LiteRT export, which only classifies; {function} needs the SavedModel: "
                "export with --format savedmodel"
            )
        rows = [self.probabilities(text.decode("utf-8", "replace")) for text in texts]
        probabilities = np.array(rows, np.float32).reshape(len(texts), len(self.labels))
        if self.outputs == "label_sets":
            return {"probabilities": probabilities, "chosen": probabilities >= self.thresholds}
        answer: dict[str, Any] = {"probabilities": probabilities}
        if self.outputs == "ordinal":
            answer["score"] = probabilities @ np.array([float(label) for label in self.labels], np.float32)
            chosen = (np.cumsum(probabilities, axis=1) < 0.5).sum(axis=1)  # the median
        else:
            chosen = probabilities.argmax(axis=1)
        return answer | {"label": [self.labels[number].encode() for number in chosen]}


def shortened(ids: list[int], max_length: int, keep: str) -> list[int]:
    """Cuts ids as `tokenization.encoding.truncate` does: to the "start", the "end", or the halves of "both"."""
    if len(ids) <= max_length:
        return ids
    head = {"start": max_length, "end": 0, "both": (max_length + 1) // 2}[keep]
    return ids[:head] + ids[len(ids) - (max_length - head) :]
