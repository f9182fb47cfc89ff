"""One time step of a language model for generation: the result of `LanguageModel.advance` in less time.

The first layer's product with the embedding is a table that is looked up by id. Products are computed gate by gate, so
that TensorFlow uses both cores even for one text (figures: docs/results.md). Plain TensorFlow: exported models need no
XLA.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nlp_rnn.config.tables import CELLS, resolve
from nlp_rnn.layers.cells import MinGRUCell, MinLSTMCell
from nlp_rnn.layers.masking import IMPOSSIBLE
from nlp_rnn.layers.recurrent import add_and_norm, unwrapped
from nlp_rnn.models.language_ensemble import LanguageEnsemble, log_of_mean
from nlp_rnn.models.language_model import LanguageModel

States = list[list[tf.Tensor]]


class Stepper(tf.Module):
    """Copies of a language model's weights, arranged for single steps.

    Args:
      model: with its weights, in float32; its softmax is full or sampled.
      never: ids that get the probability 0.
    """

    def __init__(self, model: LanguageModel, *, never: Sequence[int] = ()) -> None:
        super().__init__()
        config = model.config
        step = CELLS[config.cell].step
        self._advance: Any = resolve(step) if step else None
        self._is_residual = config.is_residual
        self._model = None if step else model  # its cells compute the steps that this class has no function for
        self.vocab_size, self.sizes = (
            model.vocab_size,
            [[tensor.shape[1] for tensor in layer] for layer in model.zero_states(1)],
        )
        self.features = model.features
        self._norms = model.norms
        self._embedding = _variable(model.embedding.embeddings) if config.is_residual else None
        self._layers = []
        for number, layer in enumerate(model.recurrent if step else []):
            cell = unwrapped(layer).cell
            kernel, (bias, recurrent_bias) = tf.convert_to_tensor(cell.kernel), _biases(cell)
            # The first layer's contribution of each id.
            kernel, bias = (
                (tf.convert_to_tensor(model.embedding.embeddings) @ kernel + bias, None)
                if not number
                else (kernel, bias)
            )
            num_gates = cell.kernel.shape[1] // self.sizes[number][0]
            weights = (kernel, bias, getattr(cell, "recurrent_kernel", None), recurrent_bias)
            self._layers.append([_by_gate(weight, num_gates) for weight in weights])
        temperature = model.head.temperature
        self._head = _variable(tf.transpose(model.head.kernel) / temperature)
        bias = model.head.bias.numpy() / np.float32(temperature)
        self._all_bias = _variable(bias)
        bias[list(never)] = IMPOSSIBLE
        self._head_bias = _variable(bias)

    @property
    def weights(self) -> list[keras.Variable]:
        """All variables that the functions of this class read."""
        arranged = [variable for layer in self._layers for gates in layer for variable in gates]
        own = [self._embedding, self._head, self._all_bias, self._head_bias]
        norms = [weight for norm in self._norms if norm is not None for weight in norm.weights]
        of_model = self._model.weights if self._model is not None else []
        return [*arranged, *(variable for variable in own if variable is not None), *norms, *of_model]

    def zero_states(self, batch_size: tf.Tensor) -> States:
        """The initial states of a text."""
        return [[tf.zeros([batch_size, size]) for size in sizes] for sizes in self.sizes]

    def step(self, token_ids: tf.Tensor, states: States) -> tuple[tf.Tensor, States]:
        """Computes one step: int32 [batch], states -> (hidden float32 [batch, features], new states)."""
        if self._model is not None:
            return self._model.advance(token_ids, states)
        vectors, new = None, []
        for number, (kernel, bias, recurrent_kernel, recurrent_bias) in enumerate(self._layers):
            inputs = vectors
            recurrent = _products(states[number][0], recurrent_kernel, recurrent_bias)
            projected = (
                [tf.gather(table, token_ids) for table in kernel] if inputs is None else _products(inputs, kernel, bias)
            )
            after = self._advance(projected, recurrent, states[number])
            new.append(after)
            if self._is_residual and inputs is None:
                inputs = tf.gather(self._embedding, token_ids)
            vectors = add_and_norm(inputs, after[0], is_residual=self._is_residual, norm=self._norms[number])
        return vectors, new

    def predict(self, hidden: tf.Tensor, *, with_all: bool = False) -> tf.Tensor:
        """Computes the log-probabilities of the next id.

        Args:
          hidden: float32 [batch, features].
          with_all: whether the ids of `never` have the model's probability too.

        Returns:
          float32 [batch, vocabulary].
        """
        bias = self._all_bias if with_all else self._head_bias
        return tf.nn.log_softmax(tf.nn.bias_add(hidden @ self._head, bias))


class EnsembleStepper(tf.Module):
    """The steppers of several models over one vocabulary, with the mean of their probabilities.

    Hidden vectors and states are those of all members side by side, as in `LanguageEnsemble`.
    """

    def __init__(self, members: Sequence[Stepper]) -> None:
        super().__init__()
        self._members, self.vocab_size = list(members), members[0].vocab_size
        self.weights = [weight for member in members for weight in member.weights]
        self.sizes = [sizes for member in members for sizes in member.sizes]
        self.features = sum(member.features for member in members)

    def zero_states(self, batch_size: tf.Tensor) -> States:
        """See `Stepper.zero_states`."""
        return [layer for member in self._members for layer in member.zero_states(batch_size)]

    def step(self, token_ids: tf.Tensor, states: States) -> tuple[tf.Tensor, States]:
        """See `Stepper.step`."""
        layers, hidden, new = iter(states), [], []
        for member in self._members:
            vectors, after = member.step(token_ids, [next(layers) for _ in member.sizes])
            hidden.append(vectors)
            new += after
        return tf.concat(hidden, axis=1), new

    def predict(self, hidden: tf.Tensor, *, with_all: bool = False) -> tf.Tensor:
        """See `Stepper.predict`."""
        parts = tf.split(hidden, [member.features for member in self._members], axis=1)
        pairs = zip(self._members, parts, strict=True)
        return log_of_mean([member.predict(part, with_all=with_all) for member, part in pairs])


def make_stepper(model: LanguageModel | LanguageEnsemble, *, never: Sequence[int] = ()) -> Stepper | EnsembleStepper:
    """The stepper of a model or of an ensemble; see `Stepper`."""
    if isinstance(model, LanguageEnsemble):
        return EnsembleStepper([Stepper(member, never=never) for member in model.members])
    return Stepper(model, never=never)


def _variable(value: Any) -> keras.Variable:
    """A variable of Keras, so that `export.compact_weights` can replace its value."""
    return keras.Variable(value, trainable=False)


def _by_gate(weight: tf.Tensor | None, num_gates: int) -> list[keras.Variable]:
    return [] if weight is None else [_variable(part) for part in tf.split(weight, num_gates, axis=-1)]


def _products(inputs: tf.Tensor, kernels: list[keras.Variable], biases: list[keras.Variable]) -> list[tf.Tensor]:
    """Products float [batch, units] of each gate, from inputs float [batch, features]."""
    products = [inputs @ kernel for kernel in kernels]
    return (
        [tf.nn.bias_add(product, bias) for product, bias in zip(products, biases, strict=True)] if biases else products
    )


def _biases(cell: keras.layers.Layer) -> tuple[tf.Tensor, tf.Tensor | None]:
    """The biases of the inputs' and of the state's projection."""
    bias = tf.convert_to_tensor(cell.bias)
    return (bias[0], bias[1]) if isinstance(cell, keras.layers.GRUCell) else (bias, None)


Gates = list[tf.Tensor]


def lstm_step(projected: Gates, recurrent: Gates, states: list[tf.Tensor]) -> list[tf.Tensor]:
    """Computes the new states of one step.

    Args:
      projected: per gate, the projected inputs float32 [batch, units].
      recurrent: per gate, the projected state float32 [batch, units]; empty if the cell has no recurrent kernel.
      states: before the step, each float32 [batch, units].
    """
    i, f, g, o = (one + other for one, other in zip(projected, recurrent, strict=True))
    c = tf.sigmoid(f) * states[1] + tf.sigmoid(i) * tf.tanh(g)
    return [tf.sigmoid(o) * tf.tanh(c), c]


def gru_step(projected: Gates, recurrent: Gates, states: list[tf.Tensor]) -> list[tf.Tensor]:
    """See `lstm_step`."""
    z, r = (tf.sigmoid(one + other) for one, other in zip(projected[:2], recurrent[:2], strict=True))
    n = tf.tanh(projected[2] + r * recurrent[2])
    return [z * states[0] + (1 - z) * n]


def simple_rnn_step(projected: Gates, recurrent: Gates, states: list[tf.Tensor]) -> list[tf.Tensor]:
    """See `lstm_step`."""
    return [tf.tanh(projected[0] + recurrent[0])]


def min_gru_step(projected: Gates, recurrent: Gates, states: list[tf.Tensor]) -> list[tf.Tensor]:
    """See `lstm_step`."""
    keep, new = MinGRUCell.gates(tf.concat(projected, axis=1))
    return [keep * states[0] + new]


def min_lstm_step(projected: Gates, recurrent: Gates, states: list[tf.Tensor]) -> list[tf.Tensor]:
    """See `lstm_step`."""
    keep, new = MinLSTMCell.gates(tf.concat(projected, axis=1))
    return [keep * states[0] + new]
