"""Recurrent layers and stacks: plain Keras, on any of its backends. Masks are passed explicitly to every layer."""

import operator
from collections.abc import Callable
from typing import Any

import keras

from nlp_rnn.config.settings import ModelConfig
from nlp_rnn.config.tables import CELLS, resolve


def build_recurrent_stack(config: ModelConfig, sequences: Any, mask: Any) -> Any:
    """Applies `num_layers` recurrent layers: dropout, recurrence, residual sum, layer norm.

    Args:
      config: cell, units, num_layers, is_bidirectional, is_residual, layer_norm and the dropout rates are read.
      sequences: float [batch, time, features].
      mask: bool [batch, time], False on padding. Padded steps leave the state unchanged, in both directions.

    Returns:
      float [batch, time, units], with twice the units if bidirectional.
    """
    for number in range(config.num_layers):
        inputs, (dropout, norm) = sequences, build_dropout_and_norm(config, number)
        if dropout is not None:
            sequences = dropout(sequences)
        sequences = _run_directions(config, sequences, mask, number)
        add = keras.layers.Add(name=f"residual_{number}")  # casts both to the layer's dtype
        sequences = add_and_norm(
            inputs, sequences, is_residual=config.is_residual, norm=norm, add=lambda *both, add=add: add(both)
        )
    return sequences


def build_dropout_and_norm(config: ModelConfig, number: int) -> tuple[Any, Any]:
    """Builds what stands around recurrent layer `number`, from 0.

    Returns:
      (the dropout before it, the layer norm after it); None where the config has none.
    """
    has_dropout = config.dropout and number
    dropout = keras.layers.SpatialDropout1D(config.dropout, name=f"dropout_{number}") if has_dropout else None
    return dropout, keras.layers.LayerNormalization(name=f"layer_norm_{number}") if config.layer_norm else None


def add_and_norm(
    inputs: Any,
    outputs: Any,
    *,
    is_residual: bool,
    norm: Callable[[Any], Any] | None,
    add: Callable[[Any, Any], Any] = operator.add,
) -> Any:
    """Adds a layer's inputs to its outputs if `is_residual` and both are equally wide, then normalises.

    Args:
      inputs, outputs: float [..., features]; the numbers of features may differ.
      norm: the layer norm; None for none.
      add: adds two tensors.
    """
    if is_residual and inputs.shape[-1] == outputs.shape[-1]:
        outputs = add(inputs, outputs)
    return outputs if norm is None else norm(outputs)


def _run_directions(config: ModelConfig, sequences: Any, mask: Any, number: int) -> Any:
    name, units = f"{config.cell}_{number}", config.units_of(number)
    if not config.is_bidirectional:
        return build_recurrent_layer(config, name=name, units=units)(sequences, mask=mask)
    forward = build_recurrent_layer(config, name=f"{name}_forward", units=units)(sequences, mask=mask)
    backward = build_recurrent_layer(config, name=f"{name}_backward", units=units, go_backwards=True)(
        sequences, mask=mask
    )
    backward = Flip(name=f"{name}_flip")(backward)
    return keras.layers.Concatenate(name=f"{name}_both")([forward, backward])


def build_recurrent_layer(
    config: ModelConfig, *, name: str, units: int = 0, go_backwards: bool = False, return_state: bool = False
) -> keras.layers.Layer:
    """Builds one recurrent layer of the config. It returns sequences, and also its states if `return_state`.

    Args:
      units: size of the state; 0 means config.units.
      go_backwards: whether the layer reads from the end; its sequences are then in reversed time.
    """
    options: dict[str, Any] = {"recurrent_dropout": config.recurrent_dropout} if config.recurrent_dropout else {}
    options |= {"return_sequences": True, "return_state": return_state, "go_backwards": go_backwards}
    layer = _layer_class(config)(units or config.units, name=name, **options)
    if keras.backend.backend() == "jax" and hasattr(layer, "use_cudnn"):
        from nlp_rnn.layers.fast.jax_recurrent import computes_on_gpu

        if not computes_on_gpu():  # Keras asks whether there is a GPU, not whether it is used
            layer.use_cudnn = False
    layer.has_twin = config.is_bidirectional  # the fast layers then leave one core to the other direction
    return WeightDrop(layer, config.weight_dropout, name=f"{name}_weight_drop") if config.weight_dropout else layer


def _layer_class(config: ModelConfig) -> type[keras.layers.Layer]:
    """This package's layer for the backend if it has one, the config allows it and it is faster; else the plain one."""
    cell = CELLS[config.cell]
    is_faster = config.fast == "on" or config.units >= cell.fast_from_units[config.is_bidirectional]
    fast = {"tensorflow": is_faster and cell.fast_layer, "jax": cell.jax_layer}.get(keras.backend.backend())
    return resolve(fast if fast and config.fast != "off" else cell.layer)


@keras.saving.register_keras_serializable("nlp_rnn")
class Flip(keras.layers.Layer):
    """Reverses time: float [batch, time, features] -> the same shape.

    The mask stays as it is, since recurrent layers do not reverse theirs.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, sequences: Any) -> Any:
        return keras.ops.flip(sequences, axis=1)


@keras.saving.register_keras_serializable("nlp_rnn")
class ReverseTexts(keras.layers.Layer):
    """Reverses each text and leaves its padding in place.

    Call: float [batch, time, features] and bool mask [batch, time] -> float [batch, time, features].
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, sequences: Any, mask: Any) -> Any:
        ops = keras.ops
        steps = ops.arange(ops.shape(mask)[1])[None]
        lengths = ops.sum(ops.cast(mask, "int32"), axis=1, keepdims=True)  # [batch, 1]
        places = ops.where(steps < lengths, lengths - 1 - steps, steps)
        return ops.take_along_axis(sequences, places[:, :, None], axis=1)

    def compute_output_shape(self, sequences_shape: Any, mask_shape: Any = None) -> Any:
        return sequences_shape


@keras.saving.register_keras_serializable("nlp_rnn")
class WeightDrop(keras.layers.Wrapper):
    """DropConnect on the recurrent matrix: in training, one mask per batch, shared by all time steps.

    Outputs and mask are those of the wrapped layer. Source: Merity et al. 2018, section 2.

    Args:
      layer: a Keras recurrent layer whose cell has a `recurrent_kernel`.
      rate: the share of dropped weights, 0-1.

    Raises:
      ValueError: if the layer is stateful.
    """

    def __init__(self, layer: keras.layers.Layer, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        if layer.stateful:
            raise ValueError("the layer is stateful, but WeightDrop does not keep states; give them to each call")
        self.rate, self.seed = rate, seed
        self.supports_masking = True
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, sequences: Any, mask: Any = None, training: bool = False, initial_state: Any = None) -> Any:
        options = {"mask": mask, "training": training, "initial_state": initial_state}
        if not training or not self.rate:
            return self.layer(sequences, **options)
        kernel = self.layer.cell.recurrent_kernel
        dropped = keras.random.dropout(keras.ops.convert_to_tensor(kernel), self.rate, seed=self.seed_generator)
        # Within the scope the layer reads `dropped` instead of its kernel, on every backend. JAX keeps its variables in
        # such a scope too: it needs the values of the other variables, and afterwards the values that were set (dropout
        # seeds).
        values = [
            (each, dropped if each is kernel else keras.ops.convert_to_tensor(each)) for each in self.layer.variables
        ]
        with keras.StatelessScope(state_mapping=values) as scope:
            outputs = self.layer(sequences, **options)
        weights = {id(each) for each in self.layer.weights}  # stay as they are, also if they are frozen
        for variable in self.layer.variables:
            if id(variable) not in weights:
                variable.assign(scope.get_current_value(variable))
        return outputs

    def compute_output_shape(self, sequences_shape: Any, initial_state_shape: Any = None) -> Any:
        return self.layer.compute_output_shape(sequences_shape)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"rate": self.rate, "seed": self.seed}


def unwrapped(layer: keras.layers.Layer) -> Any:
    """The recurrent layer itself, without WeightDrop around it."""
    return layer.layer if isinstance(layer, WeightDrop) else layer


def state_sizes(layer: keras.layers.Layer) -> list[int]:
    """The sizes of a recurrent layer's states (LSTM: h and c)."""
    return _as_list(unwrapped(layer).cell.state_size)


def run_cell(layer: keras.layers.Layer, inputs: Any, states: list[Any]) -> tuple[Any, list[Any]]:
    """Computes one step of a recurrent layer with its cell.

    Args:
      layer: a recurrent layer, or WeightDrop around one; no weights are dropped.
      inputs: float [batch, features].
      states: each float [batch, units].

    Returns:
      (outputs float [batch, units], new states).
    """
    outputs, after = unwrapped(layer).cell(inputs, states)
    return outputs, _as_list(after)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


@keras.saving.register_keras_serializable("nlp_rnn")
class WordDropout(keras.layers.Layer):
    """In training, drops some words of the vocabulary from a batch, with all their occurrences.

    Source: Gal & Ghahramani 2016, section 4.2. AWD-LSTM calls it embedding dropout.

    Args:
      vocab_size: number of ids.
      rate: the share of dropped words, 0-1.
    """

    def __init__(self, vocab_size: int, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.vocab_size, self.rate, self.seed = vocab_size, rate, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, token_ids: Any, vectors: Any, training: bool = False) -> Any:
        """int32 ids [batch, time] and their vectors float [batch, time, features] -> float [batch, time, features]."""
        if not training or not self.rate:
            return vectors
        kept = keras.random.dropout(
            keras.ops.ones((self.vocab_size, 1), vectors.dtype), self.rate, seed=self.seed_generator
        )
        return vectors * keras.ops.take(kept, token_ids, axis=0)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"vocab_size": self.vocab_size, "rate": self.rate, "seed": self.seed}
