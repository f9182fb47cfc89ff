"""Reads long texts in chunks, so that memory does not grow with their length. Plain Keras, on any backend."""

from typing import Any

import keras

from nlp_rnn.config.settings import ModelConfig
from nlp_rnn.errors import ConfigError
from nlp_rnn.layers.pooling import MaskedPooling
from nlp_rnn.layers.recurrent import add_and_norm, build_dropout_and_norm, build_recurrent_layer, state_sizes

Pooled = dict[str, Any]


def build_chunked_stack(config: ModelConfig, pooling: MaskedPooling) -> "ReadInChunks":
    """Builds the recurrent layers and the pooling for texts that are read in chunks.

    Raises:
      ConfigError: if the layers are bidirectional.
    """
    if config.is_bidirectional:
        raise ConfigError(f"chunk_length is {config.chunk_length}, but is_bidirectional is true; use one of the two")
    steps = []
    for number in range(config.num_layers):
        dropout, norm = build_dropout_and_norm(config, number)
        name, units = f"{config.cell}_{number}", config.units_of(number)
        recurrent = build_recurrent_layer(config, name=name, units=units, return_state=True)
        steps.append((dropout, recurrent, norm))
    return ReadInChunks(
        steps, pooling, chunk_length=config.chunk_length, is_residual=config.is_residual, name="read_in_chunks"
    )


@keras.saving.register_keras_serializable("nlp_rnn")
class ReadInChunks(keras.layers.Layer):
    """Recurrent layers and pooling over a text, one chunk of time steps after the other, with the states carried on.

    Outputs and gradients are those of the same layers over the whole text, and the gradient goes through all chunks.
    The forward pass keeps only the states and pooled values at the borders of chunks; the backward pass computes each
    chunk again. So a training step takes a little more time, and its memory, beyond the vectors of the words, that of
    one chunk. Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"; pooling over chunks: Howard &
    Ruder 2018, section 3.3.

    Args:
      steps: of each recurrent layer: a dropout before it or None; the layer, from `build_recurrent_layer` with
        `return_state`, which reads forwards; a layer norm after it or None.
      pooling: over the last layer's outputs; not bidirectional.
      chunk_length: time steps of a chunk at most.
      is_residual: see `add_and_norm`.

    Call: float [batch, time, features] and bool mask [batch, time], False on padding, which is on the right, with at
    least one True in each row -> float [batch, units * number of kinds of pooling].
    """

    def __init__(
        self, steps: list[tuple[Any, Any, Any]], pooling: MaskedPooling, *, chunk_length: int,
        is_residual: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        # The first attribute with layers, since Keras keeps weights in this order: that of a model without chunks.
        self.parts = [layer for step in steps for layer in step if layer is not None] + [pooling]
        self.dropouts, self.recurrent, self.norms = map(list, zip(*steps, strict=True))
        self.pooling, self.chunk_length, self.is_residual = pooling, chunk_length, is_residual
        self.supports_masking = True

    def build(self, vectors_shape: Any, mask_shape: Any = None) -> None:
        shape = (vectors_shape[0], None, vectors_shape[-1])
        for recurrent, norm in zip(self.recurrent, self.norms, strict=True):
            _build(recurrent, shape)
            shape = (*shape[:2], state_sizes(recurrent)[0])
            if norm is not None:
                _build(norm, shape)
        _build(self.pooling, shape)

    def call(self, vectors: Any, mask: Any, training: bool = False) -> Any:
        ops = keras.ops
        batch_size, num_steps = ops.shape(vectors)[:2]
        num_chunks = (num_steps + self.chunk_length - 1) // self.chunk_length
        length = (num_steps + num_chunks - 1) // num_chunks
        lengths = ops.sum(ops.cast(mask, "float32"), axis=1, keepdims=True)
        # One tensor, since Keras scans several only along a known number of chunks.
        values = ops.concatenate([vectors, ops.cast(mask, vectors.dtype)[:, :, None]], axis=-1)
        values = ops.pad(values, [(0, 0), (0, num_chunks * length - num_steps), (0, 0)])
        values = ops.reshape(values, (batch_size, num_chunks, length, values.shape[-1]))
        trained = self.trainable_variables
        others = [each for each in self.variables if not any(each is weight for weight in trained)]
        # Dropout seeds are among them. Every chunk begins with the same ones, so a text has one mask.
        constants = [(each, ops.copy(each)) for each in others]  # copies, since TensorFlow's variables are tensors
        weights, first = [ops.copy(each) for each in trained], self._first(batch_size)

        def read(carried: Any, chunk: Any) -> Any:
            vectors, mask = chunk[:, :, :-1], chunk[:, :, -1] > 0
            shares = ops.cast(mask, "float32") / lengths

            def run(vectors: Any, *flat: Any) -> Any:
                weights, carried = flat[: len(trained)], keras.tree.pack_sequence_as(first, flat[len(trained) :])
                with keras.StatelessScope(state_mapping=[*zip(trained, weights, strict=True), *constants]):
                    return tuple(keras.tree.flatten(self._read(carried, vectors, mask, shares, training)))

            flat = keras.remat(run)(vectors, *weights, *keras.tree.flatten(carried))
            return keras.tree.pack_sequence_as(first, flat), None

        (_, pooled), _ = ops.scan(read, first, ops.swapaxes(values, 0, 1))
        for layer in self._flatten_layers() if training else ():
            if generator := getattr(layer, "seed_generator", None):
                for _ in range(getattr(layer, "dropout_mask_count", 1)):  # LSTM and GRU cells draw a mask per gate
                    generator.next()
        return self.pooling.finish(pooled)

    def _first(self, batch_size: Any) -> tuple[list[list[Any]], Pooled]:
        """What the first chunk begins with: the states of all layers, and the pooled values."""
        sizes = [state_sizes(layer) for layer in self.recurrent]
        states = [[keras.ops.zeros((batch_size, size), self.compute_dtype) for size in layer] for layer in sizes]
        return states, self.pooling.begin(batch_size, sizes[-1][0], self.compute_dtype)

    def _read(self, carried: Any, vectors: Any, mask: Any, shares: Any, training: bool) -> Any:
        """Reads one chunk, float [batch, length, features]. Takes and returns what `_first` returns."""
        states, pooled = carried
        sequences, final = vectors, []
        for layer, dropout, norm, initial in zip(self.recurrent, self.dropouts, self.norms, states, strict=True):
            inputs = sequences
            if dropout is not None:
                sequences = dropout(sequences, training=training)
            # Without the mask, which only pooling needs: what follows a text's end changes nothing before it, and
            # cuDNN rejects rows that are all padding.
            sequences, *after = layer(sequences, initial_state=initial, training=training)
            final.append(after)
            sequences = add_and_norm(inputs, sequences, is_residual=self.is_residual, norm=norm)
        return final, self.pooling.add(pooled, sequences, mask, shares)

    def compute_output_shape(self, vectors_shape: Any, mask_shape: Any = None) -> Any:
        return (vectors_shape[0], state_sizes(self.recurrent[-1])[0] * len(self.pooling.kinds))

    def compute_output_spec(self, vectors: Any, mask: Any, training: bool = False) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(vectors.shape), dtype=self.compute_dtype)

    def compute_mask(self, vectors: Any, mask: Any = None) -> None:
        """Returns None: the output has no time axis."""

    def get_config(self) -> dict[str, Any]:
        steps = zip(self.dropouts, self.recurrent, self.norms, strict=True)
        layers = keras.saving.serialize_keras_object({"steps": [list(step) for step in steps], "pooling": self.pooling})
        return super().get_config() | layers | {"chunk_length": self.chunk_length, "is_residual": self.is_residual}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ReadInChunks":
        layers = keras.saving.deserialize_keras_object({name: config[name] for name in ("steps", "pooling")})
        return cls(**config | layers)


def _build(layer: keras.layers.Layer, shape: Any) -> None:
    if not layer.built:  # as it is where Keras loads a model
        layer.build(shape)
