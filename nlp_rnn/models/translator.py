"""The translator: a recurrent encoder, and a recurrent decoder that attends to the source."""

import dataclasses
from typing import Any, NamedTuple

import keras

from nlp_rnn.config.settings import ModelConfig
from nlp_rnn.distribution import replicas
from nlp_rnn.layers import r_drop as passes
from nlp_rnn.layers.attention import Attention
from nlp_rnn.layers.recurrent import (
    WordDropout,
    add_and_norm,
    build_recurrent_layer,
    run_cell,
    state_sizes,
    unwrapped,
)
from nlp_rnn.layers.softmax_head import SoftmaxHead
from nlp_rnn.models.token_loss import token_loss
from nlp_rnn.special_ids import PAD_ID

States = list[list[Any]]


class Encoded(NamedTuple):
    """Encoded source sentences.

    Attributes:
      memory, keys: float [batch, source, units]; see `Attention`.
      mask: bool [batch, source], False on padding.
      states: initial states of the decoder's layers, each float [batch, units] once or (LSTM: h and c) twice; with
        input feeding, followed by the first fed vector, float [batch, embedding_dim].
    """

    memory: Any
    keys: Any
    mask: Any
    states: States


class Translator(keras.Model):
    """Sequence to sequence with attention.

    The encoder reads in both directions, with half of the units each, if model.is_bidirectional. A bridge maps its
    final states to the decoder's initial states. The first layer of the decoder computes the attention; the other
    layers and the output use the result. So a layer computes all time steps at once, unless the result is fed back to
    the first layer (input feeding). Sources: Bahdanau et al. 2015; Luong et al. 2015, sections 3.1 and 3.3; Wu et al.
    2016, section 3 (the place of the attention).

    `fit` takes the batches of `bucketing.pair_batch`.

    Args:
      vocab_size: number of ids, shared by both languages.
      label_smoothing: the share of each target that training spreads over all ids, 0-1. Source: Szegedy et al. 2016,
        section 7.
      scheduled_sampling: the share of the decoder's inputs that training replaces by its own predictions, 0-1. Source:
        Mihaylova & Martins 2019, section 3.
      r_drop: weight of the divergence between two passes with different dropout in `fit`; 0: one pass.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        vocab_size: int,
        label_smoothing: float = 0.0,
        scheduled_sampling: float = 0.0,
        r_drop: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.config, self.vocab_size = config, vocab_size
        self.label_smoothing, self.scheduled_sampling, self.r_drop = label_smoothing, scheduled_sampling, r_drop
        self.embedding = _embedding(vocab_size, config, "embedding")
        self.target_embedding = (
            self.embedding if config.tie_embeddings else _embedding(vocab_size, config, "target_embedding")
        )
        self.word_dropout = WordDropout(vocab_size, config.word_dropout, name="word_dropout")
        self.embedding_dropout = keras.layers.SpatialDropout1D(config.embedding_dropout, name="embedding_dropout")
        self.dropout = self.output_dropout = keras.layers.SpatialDropout1D(config.dropout, name="dropout")
        if config.output_dropout is not None:
            self.output_dropout = keras.layers.SpatialDropout1D(config.output_dropout, name="output_dropout")
        layers = range(config.num_layers)
        self.forward_layers = [
            self._encoder_layer(f"encoder_{number}_forward", go_backwards=False) for number in layers
        ]
        self.backward_layers = [
            self._encoder_layer(f"encoder_{number}_backward", go_backwards=True)
            for number in layers
            if config.is_bidirectional
        ]
        one_way = dataclasses.replace(config, is_bidirectional=False)
        self.decoder_layers = [
            build_recurrent_layer(one_way, name=f"decoder_{number}", return_state=True) for number in layers
        ]
        # One flat list for all layers and states: Keras does not find the weights of nested lists.
        self.bridges = [
            keras.layers.Dense(size, activation="tanh", name=f"bridge_{number}_{place}")
            for number, layer in enumerate(self.decoder_layers)
            for place, size in enumerate(state_sizes(layer))
        ]
        self.encoder_norms, self.decoder_norms = (
            [keras.layers.LayerNormalization(name=f"{side}_norm_{number}") for number in layers if config.layer_norm]
            for side in ("encoder", "decoder")
        )
        self.attention = Attention(config.attention, config.num_heads, name="attention")
        self.readout = keras.layers.Dense(config.embedding_dim, activation="tanh", name="readout")
        self.head = SoftmaxHead(
            vocab_size, softmax=config.softmax, num_sampled=min(config.num_sampled, vocab_size),
            embedding=self.target_embedding if config.tie_embeddings else None, dtype="float32", name="softmax",
        )  # fmt: skip
        self.seed_generator = keras.random.SeedGenerator()
        self.cross_entropy = keras.metrics.Mean(name="cross_entropy")  # nats per token; in training with the smoothing
        ids = keras.ops.ones((1, 2), "int32")
        self.decode(ids, self.encode(ids))  # builds the layers
        self.head.build((None, config.embedding_dim))
        self.built = True

    def encode(self, source_ids: Any, training: bool = False) -> Encoded:
        """Encodes source sentences: int32 [batch, source], right-padded with PAD_ID, with at least one id per row."""
        ops = keras.ops
        mask = source_ids != PAD_ID
        sequences = self._embed(self.embedding, source_ids, training)
        states = []
        for number, forward in enumerate(self.forward_layers):
            inputs = self.dropout(sequences, training=training) if number else sequences
            outputs, *last = forward(inputs, mask=mask, training=training)
            if self.backward_layers:
                reversed_outputs, *reversed_last = self.backward_layers[number](inputs, mask=mask, training=training)
                outputs = ops.concatenate([outputs, ops.flip(reversed_outputs, axis=1)], axis=-1)
                last = [ops.concatenate(pair, axis=-1) for pair in zip(last, reversed_last, strict=True)]
            sequences = self._add_and_norm(self.encoder_norms, number, sequences, outputs)
            bridges = self.bridges[number * len(last) : (number + 1) * len(last)]
            states.append([bridge(state) for bridge, state in zip(bridges, last, strict=True)])
        if self.config.input_feeding:
            states.append([ops.zeros((ops.shape(source_ids)[0], self.config.embedding_dim), sequences.dtype)])
        if not self.attention.built:
            self.attention.build((None, None, self.config.units), sequences.shape)
        memory = self.dropout(sequences, training=training)
        return Encoded(memory, self.attention.keys(memory), mask, states)

    def decode(self, target_ids: Any, encoded: Encoded, training: bool = False) -> tuple[Any, Any]:
        """Reads given targets, all time steps at once.

        Args:
          target_ids: int32 [batch, target]; each row begins with BOS_ID.

        Returns:
          (hidden float [batch, target, embedding_dim] for `head`, attention weights float32 [batch, target, source]).
        """
        vectors = self._embed(self.target_embedding, target_ids, training)
        if self.config.input_feeding:
            return self._decode_stepwise(vectors, encoded, training)
        sequences, contexts, weights = vectors, None, None
        for number, layer in enumerate(self.decoder_layers):
            inputs = self.dropout(sequences, training=training) if number else sequences
            if contexts is not None:
                inputs = keras.ops.concatenate([inputs, contexts], axis=-1)
            outputs, *_ = layer(inputs, initial_state=encoded.states[number], training=training)
            sequences = self._add_and_norm(self.decoder_norms, number, sequences, outputs)
            if number == 0:
                contexts, weights = self.attention(sequences, encoded.keys, encoded.memory, encoded.mask)
        hidden = self.readout(keras.ops.concatenate([sequences, contexts], axis=-1))
        return self.output_dropout(hidden, training=training), weights

    def advance(self, token_ids: Any, states: States, encoded: Encoded) -> tuple[Any, States, Any]:
        """Computes one step of `decode` with the cells alone.

        Args:
          token_ids: int32 [batch].
          states: as in `Encoded`.

        Returns:
          (hidden float [batch, embedding_dim], new states, attention weights float32 [batch, source]).
        """
        return self._advance(self.target_embedding(token_ids), states, encoded, None)

    def call(self, inputs: tuple[Any, Any], training: bool = False) -> Any:
        """Encodes the source and decodes the target.

        Args:
          inputs: (source int32 [batch, source], target inputs int32 [batch, target]), right-padded with PAD_ID.

        Returns:
          hidden float [batch, target, embedding_dim]; in training with R-Drop [2 * batch, target, embedding_dim].
        """
        source_ids, target_ids = inputs
        has_two_passes = training and self.r_drop
        if has_two_passes:
            source_ids, target_ids = passes.twice(source_ids), passes.twice(target_ids)
        encoded = self.encode(source_ids, training=training)
        if training and self.scheduled_sampling:
            target_ids = self._with_predictions(target_ids, encoded)
            if has_two_passes:  # both read the same inputs
                target_ids = passes.twice(passes.first_pass(target_ids))
        return self.decode(target_ids, encoded, training=training)[0]

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Mean cross-entropy in nats over the tokens with weight > 0. Each replica returns its share of it.

        Args:
          y, sample_weight: see `token_loss`.
          y_pred: hidden vectors, as from `call`.
        """
        ops = keras.ops
        total, cross_entropy = token_loss(
            self.head, y_pred, y=y, weights=sample_weight, training=training, r_drop=self.r_drop,
            label_smoothing=self.label_smoothing,
        )  # fmt: skip
        count = ops.sum(sample_weight)
        self.cross_entropy.update_state(cross_entropy / ops.maximum(count, 1.0), sample_weight=count)
        return total / ops.maximum(replicas.batch_weight(sample_weight), 1.0)

    def _encoder_layer(self, name: str, *, go_backwards: bool) -> keras.layers.Layer:
        units = self.config.units // 2 if self.config.is_bidirectional else self.config.units
        return build_recurrent_layer(self.config, name=name, units=units, go_backwards=go_backwards, return_state=True)

    def _embed(self, embedding: keras.layers.Embedding, token_ids: Any, training: bool) -> Any:
        vectors = self.word_dropout(token_ids, embedding(token_ids), training=training)
        return self.embedding_dropout(vectors, training=training)

    def _add_and_norm(self, norms: list[keras.layers.Layer], number: int, inputs: Any, outputs: Any) -> Any:
        norm = norms[number] if norms else None
        return add_and_norm(inputs, outputs, is_residual=self.config.is_residual, norm=norm)

    def _advance(self, vectors: Any, states: States, encoded: Encoded, masks: Any) -> tuple[Any, States, Any]:
        """Computes one step from vectors.

        Args:
          vectors: float [batch, embedding_dim].
          masks: float [layers, batch, units], the dropout between layers; None for none.
        """
        ops = keras.ops
        sequences, context, weights = vectors, None, None
        if self.config.input_feeding:
            vectors = ops.concatenate([vectors, states[-1][0]], axis=-1)
        new: States = []
        for number, layer in enumerate(self.decoder_layers):
            inputs = vectors if number == 0 else sequences if masks is None else sequences * masks[number - 1]
            if context is not None:
                inputs = ops.concatenate([inputs, context], axis=-1)
            outputs, after = run_cell(layer, inputs, states[number])
            new.append(after)
            sequences = self._add_and_norm(self.decoder_norms, number, sequences, outputs)
            if number == 0:
                contexts, all_weights = self.attention(sequences[:, None], encoded.keys, encoded.memory, encoded.mask)
                context, weights = contexts[:, 0], all_weights[:, 0]
        hidden = self.readout(ops.concatenate([sequences, context], axis=-1))
        if self.config.input_feeding:
            new.append([hidden])
        return hidden, new, weights

    def _decode_stepwise(self, vectors: Any, encoded: Encoded, training: bool) -> tuple[Any, Any]:
        ops = keras.ops
        cell = unwrapped(self.decoder_layers[0]).cell
        if not cell.built:
            for layer, size in zip(self.decoder_layers, self._input_sizes(), strict=True):
                layer.build((None, None, size))
            self.readout.build((None, self.config.units + encoded.memory.shape[-1]))
        inputs = ops.transpose(vectors, (1, 0, 2))
        if self._has_fast_decoder():
            from nlp_rnn.layers.fast.input_feeding import Weights, run_decoder

            own = (cell.kernel, cell.recurrent_kernel, cell.bias, self.readout.kernel, self.readout.bias)
            (states, (fed,)), (_, keys, mask, _) = encoded.states, encoded
            hidden, weights = run_decoder(
                self.config.cell,
                inputs,
                fed,
                states,
                keys,
                encoded.memory,
                mask,
                Weights(*map(ops.convert_to_tensor, own)),
            )
        else:
            hidden, weights = self._scan_steps(inputs, encoded, training)
        return self.output_dropout(ops.transpose(hidden, (1, 0, 2)), training=training), ops.transpose(
            weights, (1, 0, 2)
        )

    def _has_fast_decoder(self) -> bool:
        """Whether the fast loop gives the same result: on a CPU, for one layer and attention by dot products."""
        config, layer = self.config, self.decoder_layers[0]
        is_simple = config.num_layers == 1 and config.num_heads == 1 and config.attention != "additive"
        is_changed = config.layer_norm or (config.is_residual and config.units == config.embedding_dim)
        is_ours = not getattr(layer, "is_portable", True)  # Keras's layers have no such attribute
        return is_simple and not is_changed and is_ours and not layer.why_not_at_all()

    def _scan_steps(self, inputs: Any, encoded: Encoded, training: bool) -> tuple[Any, Any]:
        """Runs time-major inputs float [target, batch, embedding_dim] step by step.

        Returns (hidden, attention weights).
        """
        ops = keras.ops
        rate, masks = self.config.dropout, None
        if training and rate:
            shape = (self.config.num_layers, ops.shape(inputs)[1], self.config.units)
            masks = keras.random.dropout(ops.ones(shape, inputs.dtype), rate, seed=self.seed_generator)

        def step(carried: tuple[States, Any], inputs: Any) -> tuple[tuple[States, Any], tuple[States, Any]]:
            _, after, weights = self._advance(inputs, carried[0], encoded, masks)
            return (after, weights), (after, weights)  # Keras requires the same structure for both

        start = (encoded.states, ops.zeros_like(encoded.memory[:, :, 0], dtype="float32"))
        _, (states, weights) = ops.scan(step, start, inputs)
        return states[-1][0], weights

    def _input_sizes(self) -> list[int]:
        config = self.config
        return [2 * config.embedding_dim] + [2 * config.units] * (config.num_layers - 1)

    def _with_predictions(self, target_ids: Any, encoded: Encoded) -> Any:
        """Replaces some ids, but never the first of a row, by the model's prediction from the true ids before them."""
        ops = keras.ops
        hidden, _ = self.decode(target_ids, encoded)
        predicted = ops.cast(ops.argmax(self.head(ops.cast(hidden, "float32")), axis=-1), "int32")
        shifted = ops.concatenate([target_ids[:, :1], predicted[:, :-1]], axis=1)
        draws = keras.random.uniform(ops.shape(target_ids), seed=self.seed_generator)
        is_drawn = (draws < self.scheduled_sampling) & (target_ids != PAD_ID)
        return ops.stop_gradient(ops.where(is_drawn, shifted, target_ids))


def _embedding(vocab_size: int, config: ModelConfig, name: str) -> keras.layers.Embedding:
    return keras.layers.Embedding(
        vocab_size, config.embedding_dim, embeddings_initializer=keras.initializers.RandomUniform(-0.1, 0.1),
        trainable=config.vectors_trainable, name=name,
    )  # fmt: skip
