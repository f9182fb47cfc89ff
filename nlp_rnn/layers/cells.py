"""The linear recurrent layers minGRU and minLSTM, step by step: plain Keras, on any of its backends."""

from typing import Any

import keras


class _LinearCell(keras.layers.Layer):
    """One step of a recurrence that is linear in its state: h = a * h + b.

    a and b depend only on the input, so they can be computed for all steps at once.

    Args:
      units: size of the state.
    """

    num_gates: int

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, inputs_shape: Any) -> None:
        shape = (inputs_shape[-1], self.num_gates * self.units)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer="glorot_uniform")
        self.bias = self.add_weight(name="bias", shape=shape[1:], initializer="zeros")

    @staticmethod
    def gates(projected: Any) -> tuple[Any, Any]:
        """Splits the projected inputs float [..., num_gates * units] into a and b, each float [..., units]."""
        raise NotImplementedError

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        """Computes one step.

        Args:
          inputs: float [batch, features].
          states: one tensor float [batch, units], alone or in a list.

        Returns:
          (new state float [batch, units], [new state]).
        """
        keep, new = self.gates(inputs @ self.kernel + self.bias)
        state = keep * (states[0] if isinstance(states, list | tuple) else states) + new
        return state, [state]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"units": self.units}


def _positive(candidate: Any) -> Any:
    """n + 0.5 where n >= 0, and sigmoid(n) elsewhere."""
    return keras.ops.where(candidate >= 0, candidate + 0.5, keras.ops.sigmoid(candidate))


@keras.saving.register_keras_serializable("nlp_rnn")
class MinGRUCell(_LinearCell):
    """One step of a minGRU: h = (1 - z) * h + z * g(n), with z = sigmoid(x W_z + b_z), n = x W_n + b_n.

    g(n) is n + 0.5 where n >= 0 and sigmoid(n) elsewhere. Source: Feng et al. 2024, "Were RNNs All We Needed?",
    section 3.1 and appendix B.
    """

    num_gates = 2

    @staticmethod
    def gates(projected: Any) -> tuple[Any, Any]:
        update, candidate = keras.ops.split(projected, 2, axis=-1)
        update = keras.ops.sigmoid(update)
        return 1 - update, update * _positive(candidate)


@keras.saving.register_keras_serializable("nlp_rnn")
class MinLSTMCell(_LinearCell):
    """One step of a minLSTM: h = f' * h + i' * g(n), with f' = f / (f + i) and i' = i / (f + i).

    f = sigmoid(x W_f + b_f), i = sigmoid(x W_i + b_i), n = x W_n + b_n; g as in `MinGRUCell`.
    Source: Feng et al. 2024, section 3.2.
    """

    num_gates = 3

    @staticmethod
    def gates(projected: Any) -> tuple[Any, Any]:
        ops = keras.ops
        forget, update, candidate = ops.split(projected, 3, axis=-1)
        keep = ops.sigmoid(ops.log_sigmoid(forget) - ops.log_sigmoid(update))
        return keep, (1 - keep) * _positive(candidate)


class _LinearLayer(keras.layers.RNN):
    """Runs a linear cell over time, step by step. The arguments are those of keras.layers.RNN, with units for the cell.

    Masked steps leave the state unchanged.
    """

    cell_class: type[_LinearCell]

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(self.cell_class(units, name="cell", dtype=kwargs.get("dtype")), **kwargs)
        self.units = units

    def get_config(self) -> dict[str, Any]:
        return {key: value for key, value in super().get_config().items() if key != "cell"} | {"units": self.units}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "_LinearLayer":
        return cls(**config)


@keras.saving.register_keras_serializable("nlp_rnn")
class MinGRU(_LinearLayer):
    """A minGRU over time (see `MinGRUCell`)."""

    cell_class = MinGRUCell


@keras.saving.register_keras_serializable("nlp_rnn")
class MinLSTM(_LinearLayer):
    """A minLSTM over time (see `MinLSTMCell`)."""

    cell_class = MinLSTMCell
