"""Calls an exported character model: for whole texts, or for text that is shown while it is generated."""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from nlp_rnn.special_ids import UNK_ID

logger = logging.getLogger(__name__)

_PIECE = 20  # characters per call
_SESSION = ("states", "log_probabilities", "last_seen", "recent", "length", "is_done")
_DTYPES = {
    "min_length": tf.int32, "max_length": tf.int32, "temperature": tf.float32, "top_k": tf.int32, "top_p": tf.float32,
    "repetition_penalty": tf.float32, "seed": tf.int32,
}  # fmt: skip


def write(loaded: Any, prompts: list[bytes], settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields prompt, text and log_probability of each prompt.

    Args:
      loaded: the result of tf.saved_model.load.
      settings: min_length, max_length, temperature, top_k, top_p, repetition_penalty, seed, and stop, a list.
    """
    answer = loaded.generate(prompt=tf.constant(prompts, tf.string), **_tensors(settings, len(prompts)))
    for prompt, text, score in zip(prompts, answer["text"].numpy(), answer["log_probability"].numpy(), strict=True):
        yield {
            "prompt": prompt.decode("utf-8", "replace"),
            "text": text.decode("utf-8"),
            "log_probability": float(score),
        }


def stream(loaded: Any, prompt: bytes, settings: dict[str, Any]) -> Iterator[str]:
    """Yields the text of `write` piece by piece, while it is generated."""
    tensors = _tensors(settings, 1)
    session = loaded.begin(tf.constant([prompt]))
    signature = getattr(loaded, "signatures", {}).get("extend")
    # Exports of earlier versions take one count for all rows.
    is_scalar = signature is not None and signature.structured_input_signature[1]["count"].shape.rank == 0
    count = tf.constant(_PIECE if is_scalar else [_PIECE])
    longest_stop = max((len(stop) for stop in settings["stop"]), default=1)
    held = ""  # may begin a stop string
    while not session["is_done"].numpy().all():
        answer = loaded.extend(**{name: session[name] for name in _SESSION}, count=count, **tensors)
        held += answer["text"].numpy()[0].decode("utf-8")
        session = answer
        if session["is_done"].numpy().all():
            stop = int(answer["stop_length"].numpy()[0])
            yield held[: len(held) - stop]
            return
        sure = max(len(held) - longest_stop + 1, 0)
        yield held[:sure]
        held = held[sure:]


def warn_of_unknown_characters(loaded: Any, prompts: list[bytes]) -> None:
    """Logs the characters of the prompts that the model does not know and skips."""
    tokens = {name: value.numpy() for name, value in loaded.tokenize(tf.constant(prompts, tf.string)).items()}
    unknown = np.unique(tokens["tokens"][tokens["token_ids"] == UNK_ID])
    if len(unknown):
        shown = " ".join(repr(character.decode("utf-8")) for character in unknown[:10])
        more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
        logger.warning(
            "the prompt contains characters that were not in the training text; they are skipped: %s%s", shown, more
        )


def _tensors(settings: dict[str, Any], rows: int) -> dict[str, tf.Tensor]:
    stops = [stop.encode("utf-8", "surrogateescape") for stop in settings["stop"]]
    tensors = {name: tf.fill([rows], tf.constant(settings[name], dtype)) for name, dtype in _DTYPES.items()}
    return tensors | {"stop": tf.constant([stops] * rows, tf.string, shape=[rows, len(stops)])}
