"""The language model: token ids to hidden vectors to log-probabilities of the next id, with carried states."""

from typing import Any

import keras

from nlp_rnn.config.settings import ModelConfig
from nlp_rnn.distribution import replicas
from nlp_rnn.layers import r_drop as passes
from nlp_rnn.layers.recurrent import WordDropout, add_and_norm, build_recurrent_layer, run_cell, state_sizes
from nlp_rnn.layers.softmax_head import SoftmaxHead
from nlp_rnn.models.token_loss import token_loss

States = list[list[Any]]


class LanguageModel(keras.Model):
    """Embedding, recurrent layers and a softmax over the vocabulary: AWD-LSTM, with each part as a setting.

    Source: Merity et al. 2018, "Regularizing and Optimizing LSTM Language Models": dropout of whole words, of embedding
    dimensions, between layers and before the output, with one mask for all time steps; weight drop on the recurrent
    matrices; tied weights; the last layer as wide as the embedding; activation regularisation.

    In `fit` and `evaluate`, row b of a batch continues row b of the previous batch: each phase carries its states in
    its own variables, and `reset_states` sets them to zero. `run` takes and returns states instead.

    Args:
      vocab_size: number of ids.
      activation_regularization: weight of the mean square of the last layer's outputs, after dropout.
      temporal_regularization: weight of the mean square of their change from step to step, before dropout.
      state_reset: the share of rows whose states are set to zero before each batch of `fit`, drawn anew, 0-1.
      r_drop: weight of the divergence between two passes with different dropout in `fit`; 0: one pass. Both passes
        begin with the same states; those of the first are carried on.
      batch_size: number of rows in `fit` and `evaluate`; 0 builds a model that can only `run`.
      window: the usual number of time steps. A shorter batch weighs proportionally less in training. 0: all weigh the
        same.
    """

    def __init__(
        self, config: ModelConfig, *, vocab_size: int, batch_size: int = 0, window: int = 0,
        activation_regularization: float = 0.0,
        temporal_regularization: float = 0.0, state_reset: float = 0.0, r_drop: float = 0.0, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self.config, self.vocab_size, self.window, self.state_reset = config, vocab_size, window, state_reset
        self.r_drop = r_drop
        self.reset_seeds = keras.random.SeedGenerator() if state_reset else None
        self.activation_regularization, self.temporal_regularization = (
            activation_regularization,
            temporal_regularization,
        )
        self.embedding = keras.layers.Embedding(
            vocab_size, config.embedding_dim, embeddings_initializer=_uniform(0.1), trainable=config.vectors_trainable,
            name="embedding",
        )  # fmt: skip
        self.embedding.build()
        self.word_dropout = WordDropout(vocab_size, config.word_dropout, name="word_dropout")
        self.dropouts = [keras.layers.SpatialDropout1D(config.embedding_dropout, name="embedding_dropout")]
        self.recurrent: list[keras.layers.Layer] = []
        self.norms: list[keras.layers.Layer | None] = []
        for number in range(config.num_layers):
            is_last = number == config.num_layers - 1
            units = config.units_of(number, default=config.embedding_dim if config.tie_embeddings else config.units)
            self.recurrent.append(
                build_recurrent_layer(config, name=f"{config.cell}_{number}", units=units, return_state=True)
            )
            self.norms.append(
                keras.layers.LayerNormalization(name=f"layer_norm_{number}") if config.layer_norm else None
            )
            rate, name = (config.final_dropout, "dropout") if is_last else (config.dropout, f"dropout_{number + 1}")
            self.dropouts.append(keras.layers.SpatialDropout1D(rate, name=name))
        self.head = SoftmaxHead(
            vocab_size, softmax=config.softmax, num_sampled=min(config.num_sampled, vocab_size),
            cutoffs=config.cutoffs,
            embedding=self.embedding if config.tie_embeddings else None, dtype="float32", name="softmax",
        )  # fmt: skip
        self.cross_entropy = keras.metrics.Mean(name="cross_entropy")  # nats per token
        phases = ("training", "evaluation") if batch_size else ()
        self._carried = {
            phase: [[_state(phase, batch_size, size) for size in sizes] for sizes in self._sizes()] for phase in phases
        }
        self.run(keras.ops.zeros((1, 1), "int32"), self.zero_states(1))  # builds the layers
        self.head.build((None, self._sizes()[-1][0]))
        self.built = True

    def run(self, token_ids: Any, states: States, training: bool = False, mask: Any = None) -> tuple[Any, States]:
        """Runs the model over ids, from given states.

        Args:
          token_ids: int32 [batch, time]. Padding at the end of a row does not change the hidden vectors before it.
          states: the initial states, as in `zero_states`.
          mask: bool [batch, time], False on padding, which leaves the states as they are. None: nothing is padding.

        Returns:
          (hidden float [batch, time, features], final states).
        """
        hidden, _, final = self._run(token_ids, states, training, mask)
        return hidden, final

    def _run(self, token_ids: Any, states: States, training: bool, mask: Any = None) -> tuple[Any, Any, States]:
        """Like `run`, but the second result is the hidden vectors before the last dropout."""
        sequences = self.word_dropout(token_ids, self.embedding(token_ids), training=training)
        final = []
        for number, layer in enumerate(self.recurrent):
            inputs = self.dropouts[number](sequences, training=training)
            sequences, *after = layer(inputs, initial_state=states[number], mask=mask, training=training)
            final.append(after)
            sequences = self._add_and_norm(number, inputs, sequences)
        return self.dropouts[-1](sequences, training=training), sequences, final

    def _add_and_norm(self, number: int, inputs: Any, outputs: Any) -> Any:
        return add_and_norm(inputs, outputs, is_residual=self.config.is_residual, norm=self.norms[number])

    def advance(self, token_ids: Any, states: States) -> tuple[Any, States]:
        """Computes one step of `run` with the cells: int32 [batch] -> (hidden float [batch, features], new states)."""
        return self.advance_vectors(self.embedding(token_ids), states)

    def advance_vectors(self, vectors: Any, states: States) -> tuple[Any, States]:
        """Like `advance`, but takes vectors instead of ids: float [batch, embedding_dim]."""
        new = []
        for number, layer in enumerate(self.recurrent):
            outputs, after = run_cell(layer, vectors, states[number])
            new.append(after)
            vectors = self._add_and_norm(number, vectors, outputs)
        return vectors, new

    def zero_states(self, batch_size: Any) -> States:
        """The initial states of a text: per layer, float [batch, units] once or (LSTM: h and c) twice."""
        return [[keras.ops.zeros((batch_size, size), self.compute_dtype) for size in sizes] for sizes in self._sizes()]

    @property
    def features(self) -> int:
        """Size of the hidden vectors."""
        return self._sizes()[-1][0]

    @property
    def state_sizes(self) -> list[int]:
        """Sizes of all states, layer by layer."""
        return [size for sizes in self._sizes() for size in sizes]

    def pack_states(self, states: States) -> Any:
        """Concatenates states to one tensor, float [batch, sum(state_sizes)]."""
        return keras.ops.concatenate([state for layer in states for state in layer], axis=1)

    def unpack_states(self, packed: Any) -> States:
        """Splits what `pack_states` returned into states again."""
        states, start = [], 0
        for sizes in self._sizes():
            layer = []
            for size in sizes:
                layer.append(packed[:, start : start + size])
                start += size
            states.append(layer)
        return states

    def reset_states(self, phase: str) -> None:
        """Sets the carried states of "training" or "evaluation" to zero."""
        for variables in self._carried[phase]:
            for variable in variables:
                variable.assign(keras.ops.zeros(variable.shape))

    @property
    def kept_weights(self) -> list[keras.Variable]:
        """All weights except the carried states."""
        carried = {id(variable) for phase in self._carried.values() for variables in phase for variable in variables}
        return [weight for weight in self.weights if id(weight) not in carried]

    def call(self, token_ids: Any, training: bool = False) -> tuple[Any, Any]:
        """Runs on from the carried states.

        Args:
          token_ids: int32 [batch, time].

        Returns:
          (hidden after dropout, hidden before dropout), each float [batch, time, features]; in training with R-Drop
          [2 * batch, time, features].
        """
        carried = self._carried["training" if training else "evaluation"]
        states = [
            [keras.ops.cast(replicas.own_rows(variable), self.compute_dtype) for variable in variables]
            for variables in carried
        ]
        if training and self.reset_seeds:
            rows = keras.ops.shape(token_ids)[0]
            stays = keras.random.uniform((rows, 1), dtype="float32", seed=self.reset_seeds) >= self.state_reset
            states = [
                [keras.ops.where(stays, state, keras.ops.zeros_like(state)) for state in layer] for layer in states
            ]
        has_two_passes = training and self.r_drop
        if has_two_passes:
            token_ids, states = passes.twice(token_ids), [[passes.twice(state) for state in layer] for layer in states]
        hidden, sequences, final = self._run(token_ids, states, training)
        for variables, values in zip(carried, final, strict=True):
            for variable, value in zip(variables, values, strict=True):
                value = passes.first_pass(value) if has_two_passes else value
                value = keras.ops.cast(keras.ops.stop_gradient(value), "float32")
                variable.assign(replicas.with_own_rows(variable, value))
        return hidden, sequences

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Mean cross-entropy in nats over the tokens with weight > 0, plus the regularisers.

        Each replica returns its share of it.

        Args:
          y, sample_weight: see `token_loss`.
          y_pred: the two results of `call`.
        """
        ops = keras.ops
        hidden, sequences = y_pred
        total, cross_entropy = token_loss(
            self.head, hidden, y=y, weights=sample_weight, training=training, r_drop=self.r_drop
        )
        count = ops.sum(sample_weight)
        self.cross_entropy.update_state(cross_entropy / ops.maximum(count, 1.0), sample_weight=count)
        mean = total / ops.maximum(replicas.batch_weight(sample_weight), 1.0)
        if not training:
            return mean
        length = ops.cast(ops.shape(sample_weight)[1], "float32") / self.window if self.window else 1.0
        return mean * length + replicas.share() * self._regularizers(ops.cast(hidden, "float32"), sequences)

    def _regularizers(self, hidden: Any, sequences: Any) -> Any:
        ops, penalty = keras.ops, 0.0
        if self.activation_regularization:
            penalty += self.activation_regularization * ops.mean(ops.square(hidden))
        if self.temporal_regularization:
            change = ops.cast(sequences[:, 1:] - sequences[:, :-1], "float32")
            penalty += (
                self.temporal_regularization
                * ops.sum(ops.square(change))
                / ops.cast(ops.maximum(ops.size(change), 1), "float32")
            )
        return penalty

    def _sizes(self) -> list[list[int]]:
        """Sizes of each layer's states."""
        return [state_sizes(layer) for layer in self.recurrent]


def _state(phase: str, batch_size: int, size: int) -> keras.Variable:
    return keras.Variable(keras.ops.zeros((batch_size, size)), trainable=False, name=f"{phase}_state")


def _uniform(limit: float) -> keras.initializers.Initializer:
    return keras.initializers.RandomUniform(-limit, limit)
