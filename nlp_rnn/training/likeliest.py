"""The likeliest tokens in each place of a text, as teachers predict them from what stands before; kept on disk.

Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2; only the likeliest, as in Tan et
al. 2019, "Multilingual Neural Machine Translation with Knowledge Distillation", section 3.3.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from nlp_rnn.config.settings import Config
from nlp_rnn.data import datasets
from nlp_rnn.data.token_cache import TokenCache, load_array
from nlp_rnn.manifest import DamagedFileError
from nlp_rnn.training.teacher import digests

MAX_PROBABILITIES = 2**26  # 256 MB, of all teachers, that are computed at once
_NUM_LIKELIEST = 16  # tokens per place; of a word model, they have about two thirds of the probability


def with_likeliest(
    text: TokenCache, config: Config, *, digest: str, vocab_size: int, write: Callable[[np.ndarray], None]
) -> TokenCache:
    """Adds the likeliest tokens to a text. They are computed once, then found in the cache.

    Args:
      text: the text, or the targets of pairs.
      config: of the model that is trained; its training.teacher predicts.
      digest: of the text's ids, and of the sources'.
      vocab_size: number of ids.
      write: fills float32 [tokens, 2 * k], zeros at first, with what `pack` returns for each token.

    Returns:
      the same text with `targets`, which are read from disk where they are used.

    Raises:
      ConfigError: if the cache's disk is full.
    """

    def make(temporary: Path) -> None:
        shape, path = (text.num_tokens, 2 * min(_NUM_LIKELIEST, vocab_size)), temporary / "answers.npy"
        answers = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        if hasattr(os, "posix_fallocate"):  # so that a full disk is an error now, and does not end the process later
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        write(answers)
        answers.flush()

    def load(folder: Path) -> np.ndarray:
        answers = load_array(folder / "answers.npy", is_mapped=True)
        if len(answers) != text.num_tokens:
            raise DamagedFileError(f"{folder}: answers.npy is of another text; remove the folder")
        return answers

    share = config.training.teacher_share
    key = datasets.cache_key(ids=digest, share=share, teachers=digests(config), likeliest=_NUM_LIKELIEST)
    folder = datasets.cache_folder(config.data) / f"answers-{key}"
    return dataclasses.replace(text, targets=datasets.cached(folder, make, load))


def pack(log_probabilities: tf.Tensor, share: float) -> tf.Tensor:
    """Finds the k likeliest tokens: float [..., vocabulary] -> float32 [..., 2 * k].

    The ids come first, exact in float32 since they are below 2^24; then `share` of their probabilities.
    """
    scores, ids = tf.math.top_k(log_probabilities, min(_NUM_LIKELIEST, log_probabilities.shape[-1]))
    return tf.concat([tf.cast(ids, tf.float32), share * tf.exp(scores)], axis=-1)
