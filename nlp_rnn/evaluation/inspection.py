"""What goes on inside a recurrent model: how far back gradients reach, and what single units respond to."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from nlp_rnn.config.settings import ModelConfig
from nlp_rnn.models.build import build_language_model
from nlp_rnn.models.language_model import LanguageModel

_DISTANCE = 100  # time steps
_ROWS = 16  # windows that are averaged
_CELLS = ("simple_rnn", "gru", "lstm")


def gradient_norms(model: LanguageModel, config: ModelConfig, ids: np.ndarray, *, seed: int) -> dict[str, np.ndarray]:
    """How strongly the loss at one time step depends on the inputs before it: the vanishing gradient (Hochreiter 1991).

    Args:
      model: trained.
      config: its config, of which untrained models with other cells are made beside it.
      ids: int32 [time], a text to measure on.

    Returns:
      name -> float [distance + 1]: the norm of the gradient of the loss at step t for the input vector at step t - distance,
      averaged over windows of the text, relative to that at distance 0; shorter if the text is.
    """
    steps = min(_DISTANCE + 1, len(ids) - 1)
    starts = np.linspace(0, len(ids) - steps - 1, _ROWS).astype(int)
    windows = np.stack([ids[start : start + steps + 1] for start in starts])
    found = {f"{config.cell}, trained": _norms(model, windows)}
    for cell in _CELLS:
        keras.utils.set_random_seed(seed)
        other = dataclasses.replace(config, cell=cell, weight_dropout=0.0, recurrent_dropout=0.0)
        found[f"{cell}, untrained"] = _norms(build_language_model(other, vocab_size=model.vocab_size), windows)
    return found


def _norms(model: LanguageModel, windows: np.ndarray) -> np.ndarray:
    """int32 [rows, time + 1] -> float [time], the nearest input first."""

    vectors = tf.convert_to_tensor(model.embedding(windows[:, :-1]))
    with tf.GradientTape() as tape:
        tape.watch(vectors)
        states = model.zero_states(len(windows))
        for vector in tf.unstack(vectors, axis=1):
            hidden, states = model.advance_vectors(vector, states)
        loss = -tf.gather(model.head(hidden), windows[:, -1], batch_dims=1)
    norms = np.linalg.norm(tape.gradient(loss, vectors).numpy(), axis=2).mean(axis=0)[::-1]
    return norms / max(norms[0], np.finfo(np.float32).tiny)


def most_informative_unit(activations: np.ndarray) -> int:
    """Of float [time, units], the unit that tells most over longer stretches: whose mean over ten steps varies most."""
    width = min(10, len(activations))
    sums = np.cumsum(np.concatenate([np.zeros((1, activations.shape[1])), activations]), axis=0)
    return int(((sums[width:] - sums[:-width]) / width).var(axis=0).argmax())
