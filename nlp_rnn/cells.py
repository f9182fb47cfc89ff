"""The recurrent layers that a config can name: plain Keras, step by step, on any of its backends."""

from typing import Any

import keras


@keras.saving.register_keras_serializable("nlp_rnn")
class MinGRUCell(keras.layers.Layer):
    """One step of a minGRU: h = (1 - z) * h + z * g(n), z = sigmoid(x W_z + b_z), n = x W_n + b_n.

    g(n) is n + 0.5 where n >= 0 and sigmoid(n) elsewhere. The gate does not look at the state, so that all steps can be
    computed at once. Source: Feng et al. 2024, "Were RNNs All We Needed?", section 3.1 and appendix B.

    Args:
      units: size of the state.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, inputs_shape: Any) -> None:
        self.kernel = self.add_weight(name="kernel", shape=(inputs_shape[-1], 2 * self.units), initializer="glorot_uniform")
        self.bias = self.add_weight(name="bias", shape=(2 * self.units,), initializer="zeros")

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        """float [batch, features], (float [batch, units],) -> (the new state, [the new state])."""
        ops, state = keras.ops, states[0] if isinstance(states, list | tuple) else states
        update, candidate = ops.split(inputs @ self.kernel + self.bias, 2, axis=-1)
        update = ops.sigmoid(update)
        new = (1 - update) * state + update * ops.where(candidate >= 0, candidate + 0.5, ops.sigmoid(candidate))
        return new, [new]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"units": self.units}


@keras.saving.register_keras_serializable("nlp_rnn")
class MinGRU(keras.layers.RNN):
    """A minGRU over time (see `MinGRUCell`), step by step. The arguments are those of keras.layers.RNN, without its cell."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(MinGRUCell(units, name="cell", dtype=kwargs.get("dtype")), **kwargs)
        self.units = units

    def get_config(self) -> dict[str, Any]:
        return {key: value for key, value in super().get_config().items() if key != "cell"} | {"units": self.units}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "MinGRU":
        return cls(**config)


CELLS: dict[str, type[keras.layers.Layer]] = {
    "simple_rnn": keras.layers.SimpleRNN,
    "lstm": keras.layers.LSTM,
    "gru": keras.layers.GRU,
    "min_gru": MinGRU,
}
