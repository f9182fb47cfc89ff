"""The likeliest tokens that teachers predict for each place of a text, with their probabilities; kept on disk.

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
from nlp_rnn.training.teacher import digests

MAX_PROBABILITIES = 2**26  # that are computed at once, of all teachers
_COUNT = 16  # tokens per place; of a word model, they have about two thirds of the probability


def with_likeliest(
    text: TokenCache, name: str, config: Config, vocab_size: int, write: Callable[[np.ndarray], None]
) -> TokenCache:
    """Adds the likeliest tokens to a text. They are computed once, then found in the cache.

    Args:
      text: the text, or the targets of pairs.
      name: tells the text from others in the cache.
      config: of the model that is trained; its training.teacher predicts.
      write: fills float32 [tokens, 2 * k], zeros at first, with what `pack` returns for each token.

    Returns:
      the same text with `targets`, which are read from disk where they are used.
    """

    def make(temporary: Path) -> None:
        shape, path = (text.num_tokens, 2 * min(_COUNT, vocab_size)), temporary / "answers.npy"
        answers = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        if hasattr(os, "posix_fallocate"):  # so that a full disk is an error now, and does not end the process later
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        write(answers)
        answers.flush()

    key = datasets.cache_key(ids=name, share=config.training.teacher_share, teachers=digests(config), likeliest=_COUNT)
    folder = datasets.cache_folder(config.data) / f"answers-{key}"
    answers = datasets.cached(folder, make, lambda path: load_array(path / "answers.npy", is_mapped=True))
    return dataclasses.replace(text, targets=answers)


def pack(log_probabilities: tf.Tensor, share: float) -> tf.Tensor:
    """Finds the k likeliest tokens: float [..., vocabulary] -> float32 [..., 2 * k].

    The ids come first, exact in float32 since they are below 2^24; then `share` of their probabilities.
    """
    scores, ids = tf.math.top_k(log_probabilities, min(_COUNT, log_probabilities.shape[-1]))
    return tf.concat([tf.cast(ids, tf.float32), share * tf.exp(scores)], axis=-1)
