"""Looks inside a recurrent model: how far back gradients reach, and what single units respond to."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from nlp_rnn.config.settings import ModelConfig
from nlp_rnn.models.build import build_language_model
from nlp_rnn.models.language_model import LanguageModel

_DISTANCE = 100  # time steps
_ROWS = 16  # number of windows to average over
_CELLS = ("simple_rnn", "gru", "lstm")


def gradient_norms(model: LanguageModel, config: ModelConfig, ids: np.ndarray, *, seed: int) -> dict[str, np.ndarray]:
    """Measures how strongly the loss at one time step depends on earlier inputs.

    The dependence falls with the distance: the vanishing gradient. Source: Hochreiter 1991.

    Args:
      model: trained.
      config: its config; untrained models with other cells are built from it for comparison.
      ids: int32 [time], the text to measure on.

    Returns:
      name -> float [distance + 1], shorter if the text is: the gradient norm of the loss at step t with respect to the
      input vector at step t - distance, averaged over windows of the text and relative to distance 0.
    """
    steps = min(_DISTANCE + 1, len(ids) - 1)
    starts = np.linspace(0, len(ids) - steps - 1, _ROWS).astype(int)
    windows = np.stack([ids[start : start + steps + 1] for start in starts])
    norms = {f"{config.cell}, trained": _norms(model, windows)}
    for cell in _CELLS:
        keras.utils.set_random_seed(seed)
        other = dataclasses.replace(config, cell=cell, weight_dropout=0.0, recurrent_dropout=0.0)
        norms[f"{cell}, untrained"] = _norms(build_language_model(other, vocab_size=model.vocab_size), windows)
    return norms


def _norms(model: LanguageModel, windows: np.ndarray) -> np.ndarray:
    """Gradient norms float [time], the nearest input first, from windows int32 [rows, time + 1]."""

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
    """The most informative unit of float [time, units] over longer stretches: its mean over ten steps varies most."""
    width = min(10, len(activations))
    sums = np.cumsum(np.concatenate([np.zeros((1, activations.shape[1])), activations]), axis=0)
    return int(((sums[width:] - sums[:-width]) / width).var(axis=0).argmax())
