"""One time step of a language model for generation: the same result as `LanguageModel.advance`, in fewer operations.

The first layer's product with the embedding is a table, looked up by id. Plain TensorFlow, so that exported models need no XLA;
on two cores it is faster than XLA's loop from a batch of two on (RESULTS.md).
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from nlp_rnn.cells import CELLS
from nlp_rnn.language_model import LanguageModel

States = list[list[tf.Tensor]]


class Stepper(tf.Module):
    """Copies of a language model's weights, arranged for single steps.

    Args:
      model: with its weights, in float32; its softmax is full or sampled.
    """

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        config = model.config
        self._advance, self._is_residual = _ADVANCE[config.cell], config.is_residual
        self.vocab_size, self.sizes = model.vocab_size, [[tensor.shape[1] for tensor in layer] for layer in model.zero_states(1)]
        self._norms = model.norms
        self._embedding = tf.Variable(model.embedding.embeddings, trainable=False) if config.is_residual else None
        self._layers = []
        for number, layer in enumerate(model.recurrent):
            cell = getattr(layer, "layer", layer).cell
            kernel, (bias, recurrent_bias) = tf.convert_to_tensor(cell.kernel), _biases(cell)
            # Of the first layer: what it adds for each id.
            kernel, bias = (tf.convert_to_tensor(model.embedding.embeddings) @ kernel + bias, None) if not number else (kernel, bias)
            weights = (kernel, bias, getattr(cell, "recurrent_kernel", None), recurrent_bias)
            self._layers.append([None if weight is None else tf.Variable(weight, trainable=False) for weight in weights])
        self._head = tf.Variable(tf.transpose(model.head.kernel), trainable=False)
        self._head_bias = tf.Variable(model.head.bias, trainable=False)

    def zero_states(self, batch_size: tf.Tensor) -> States:
        """The states before a text."""
        return [[tf.zeros([batch_size, size]) for size in sizes] for sizes in self.sizes]

    def step(self, token_ids: tf.Tensor, states: States) -> tuple[tf.Tensor, States]:
        """int32 [batch] and the states before it -> hidden float32 [batch, features] and the states behind it."""
        vectors, found = None, []
        for number, (kernel, bias, recurrent_kernel, recurrent_bias) in enumerate(self._layers):
            inputs = vectors
            projected = tf.gather(kernel, token_ids) if inputs is None else tf.nn.bias_add(inputs @ kernel, bias)
            recurrent = 0.0 if recurrent_kernel is None else states[number][0] @ recurrent_kernel
            recurrent = recurrent if recurrent_bias is None else tf.nn.bias_add(recurrent, recurrent_bias)
            after = self._advance(projected, recurrent, states[number])
            found.append(after)
            vectors = after[0]
            if self._is_residual:
                inputs = tf.gather(self._embedding, token_ids) if inputs is None else inputs
                vectors = vectors + inputs if inputs.shape[-1] == vectors.shape[-1] else vectors
            norm = self._norms[number]
            vectors = vectors if norm is None else norm(vectors)
        return vectors, found

    def predict(self, hidden: tf.Tensor) -> tf.Tensor:
        """float32 [batch, features] -> log-probabilities float32 [batch, vocabulary] of the next id."""
        return tf.nn.log_softmax(tf.nn.bias_add(hidden @ self._head, self._head_bias))


def _biases(cell: keras.layers.Layer) -> tuple[tf.Tensor, tf.Tensor | None]:
    """What is added to the inputs' projection and to the state's."""
    bias = tf.convert_to_tensor(cell.bias)
    return (bias[0], bias[1]) if isinstance(cell, keras.layers.GRUCell) else (bias, None)


def _lstm(projected: tf.Tensor, recurrent: tf.Tensor, states: list[tf.Tensor]) -> list[tf.Tensor]:
    i, f, g, o = tf.split(projected + recurrent, 4, axis=1)
    c = tf.sigmoid(f) * states[1] + tf.sigmoid(i) * tf.tanh(g)
    return [tf.sigmoid(o) * tf.tanh(c), c]


def _gru(projected: tf.Tensor, recurrent: tf.Tensor, states: list[tf.Tensor]) -> list[tf.Tensor]:
    units = states[0].shape[1]
    z, r = tf.split(tf.sigmoid(projected[:, : 2 * units] + recurrent[:, : 2 * units]), 2, axis=1)
    n = tf.tanh(projected[:, 2 * units :] + r * recurrent[:, 2 * units :])
    return [z * states[0] + (1 - z) * n]


def _simple_rnn(projected: tf.Tensor, recurrent: tf.Tensor, states: list[tf.Tensor]) -> list[tf.Tensor]:
    return [tf.tanh(projected + recurrent)]


def _linear(cell: str) -> Callable[[tf.Tensor, tf.Tensor, list[tf.Tensor]], list[tf.Tensor]]:
    def advance(projected: tf.Tensor, recurrent: tf.Tensor, states: list[tf.Tensor]) -> list[tf.Tensor]:
        keep, new = CELLS[cell].cell_class.gates(projected)
        return [keep * states[0] + new]

    return advance


_ADVANCE = {"simple_rnn": _simple_rnn, "lstm": _lstm, "gru": _gru, "min_gru": _linear("min_gru"), "min_lstm": _linear("min_lstm")}
