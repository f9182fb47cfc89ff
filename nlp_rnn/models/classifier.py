"""The text classifier: embedding, recurrent layers, pooling, and optionally a linear part over n-grams."""

import re
from typing import Any

import keras

from nlp_rnn.config.settings import ModelConfig
from nlp_rnn.config.types import Outputs
from nlp_rnn.distribution import replicas
from nlp_rnn.layers import r_drop
from nlp_rnn.layers.chunks import ReadInChunks, build_chunked_stack
from nlp_rnn.layers.cumulative_link import CumulativeLink
from nlp_rnn.layers.ngrams import NgramLinear, Stack
from nlp_rnn.layers.pooling import MaskedPooling
from nlp_rnn.layers.recurrent import ReverseTexts, build_recurrent_stack
from nlp_rnn.layers.standardize import Standardize
from nlp_rnn.models.objective import Objective
from nlp_rnn.special_ids import PAD_ID


@keras.saving.register_keras_serializable("nlp_rnn")
class Classifier(keras.Model):
    """A functional model with its loss and metrics: int32 ids [batch, time] -> float32 logits [batch, num_classes].

    Targets are int32 [batch], of label sets 0 and 1 [batch, labels], or probabilities float32 [batch, labels]. Sample
    weights are float [batch]; rows that only fill up a batch have weight 0.

    Attributes:
      objective: the loss; by default that of classes of equal weight.
    """

    # The arguments of Keras's functional models, by which `load_model` recognises them.
    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(inputs, outputs, name=name, **kwargs)
        self.objective = Objective()
        self.accuracy = keras.metrics.Mean(name="accuracy")
        self.cross_entropy = keras.metrics.Mean(name="cross_entropy")  # nats per example

    def call(self, token_ids: Any, training: bool | None = None, mask: Any = None, **kwargs: Any) -> Any:
        """int32 ids [batch, time] -> logits [batch, classes]; in training with R-Drop [2 * batch, classes]."""
        return super().call(self._passes(token_ids, training), training=training, mask=mask, **kwargs)

    def embed(self, token_ids: Any, *, training: bool) -> tuple[Any, Any]:
        """The first part of `call`: int32 ids [batch, time] -> the ids and their vectors, for `classify`.

        Returns:
          int32 [batch, time] and float [batch, time, embedding_dim]; in training with R-Drop of 2 * batch rows.
        """
        token_ids = self._passes(token_ids, training)
        return token_ids, self.get_layer("embedding")(token_ids)

    def classify(self, token_ids: Any, vectors: Any, *, training: bool) -> Any:
        """The second part of `call`: what `embed` returns -> float32 logits [rows, classes]."""
        mask = self.get_layer("mask")(token_ids)
        logits = self.get_layer("encoder")([vectors, mask], training=training)
        if any(layer.name == "stack" for layer in self.layers):
            logits = self.get_layer("stack")(logits, self.get_layer("ngrams")(token_ids), mask)
        return logits

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Mean loss in nats over the examples with weight > 0. Each replica returns its share of it.

        Args:
          y: int32 [batch], the classes, -1 of texts without a label; of label sets 0 and 1 [batch, labels]; or
            probabilities [batch, labels].
          y_pred: float32 [batch, num_classes], logits, as from `call`.
          sample_weight: float [batch]; None means 1.
        """
        loss, facts = self.loss_of(y, y_pred, sample_weight, training=training)
        self.accuracy.update_state(facts["are_right"], sample_weight=facts["weights"])
        self.cross_entropy.update_state(facts["cross_entropies"], sample_weight=facts["weights"])
        return loss

    def loss_of(self, y: Any, logits: Any, sample_weight: Any, *, training: bool) -> tuple[Any, dict[str, Any]]:
        """What `compute_loss` returns, and what its metrics need, each float or bool [rows]; updates no metric."""
        ops = keras.ops
        rows = ops.ones(ops.shape(y)[:1]) if sample_weight is None else sample_weight
        num_rows = replicas.batch_weight(replicas.rows_of(rows))
        alpha, share = (self.objective.r_drop, self.objective.labelled_share) if training else (0.0, 0.0)
        if alpha:
            y, rows = r_drop.twice(y), r_drop.twice(rows) / 2
        all_rows = rows
        if share:
            rows, y = rows * ops.cast(y >= 0, rows.dtype) / share, ops.maximum(y, 0)
        cross_entropies = self.objective.cross_entropies(y, logits)
        losses, weights = self.objective.weigh(y, self.objective.focused(cross_entropies), rows)
        cross_entropies, _ = self.objective.weigh(y, cross_entropies, rows)
        total = ops.sum(losses * weights)
        if alpha:  # of all texts, since it reads no labels
            total += alpha * ops.sum(self.objective.divergences(logits) * (all_rows if share else weights))
        are_right = self.objective.are_right(y, logits)
        facts = {"are_right": are_right, "cross_entropies": cross_entropies, "weights": weights}
        return total / ops.maximum(num_rows, 1.0), facts

    def divergence_of(self, reference: Any, logits: Any, sample_weight: Any) -> Any:
        """Mean divergence of predictions from reference predictions over the examples with weight > 0, in nats.

        Each replica returns its share of it.

        Args:
          reference, logits: float32 [batch, classes or labels]; in training with R-Drop [2 * batch, ...].
          sample_weight: float [batch].
        """
        ops = keras.ops
        num_rows = replicas.batch_weight(replicas.rows_of(sample_weight))
        rows = r_drop.twice(sample_weight) / 2 if self.objective.r_drop else sample_weight
        return ops.sum(self.objective.divergences_from(reference, logits) * rows) / ops.maximum(num_rows, 1.0)

    def _passes(self, token_ids: Any, training: bool | None) -> Any:
        """The ids, or with R-Drop in training each row twice."""
        return r_drop.twice(token_ids) if training and self.objective.r_drop else token_ids


def build_classifier(
    config: ModelConfig, *, vocab_size: int, num_classes: int, outputs: Outputs = "classes"
) -> Classifier:
    """Builds a classifier of embedding, recurrent stack, pooling and linear output.

    Args:
      vocab_size: number of ids, including the special ones.
      num_classes: two or more; of a scale three or more, of label sets one or more.
      outputs: what the logits are; see `Objective`.

    Returns:
      a model from int32 ids [batch, time], right-padded with PAD_ID, to float32 logits [batch, num_classes].
      Explanations call its layers one by one: `embedding` (ids -> vectors), `encoder` ([vectors, mask] -> logits) and,
      with config.ngrams, `stack`, which adds the logits of `ngrams` (ids -> logits).
    """
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    mask = NotPadding(name="mask")(token_ids)
    embedding = keras.layers.Embedding(
        vocab_size, config.embedding_dim, trainable=config.vectors_trainable, name="embedding"
    )
    vectors = embedding(token_ids)
    logits = build_classifier_encoder(config, num_classes=num_classes, outputs=outputs)([vectors, mask])
    if config.ngrams:
        is_paired = num_classes == 2 and outputs == "classes"
        wide = NgramLinear(config.ngrams, num_classes, is_paired=is_paired, dtype="float32", name="ngrams")(token_ids)
        logits = Stack(dtype="float32", name="stack")(logits, wide, mask)
    model = Classifier(token_ids, logits, name="classifier")
    model.objective = Objective(outputs)
    return model


def build_classifier_encoder(config: ModelConfig, *, num_classes: int, outputs: Outputs = "classes") -> keras.Model:
    """Builds the part after the embedding.

    Returns:
      a model from [vectors float [batch, time, embedding_dim], mask bool [batch, time]] to float32 logits
      [batch, num_classes].
    """
    vectors = keras.Input((None, config.embedding_dim), name="vectors")
    mask = keras.Input((None,), dtype="bool", name="mask")
    sequences: Any = vectors
    if config.is_reversed:
        sequences = ReverseTexts(name="reverse")(sequences, mask)
    if config.word_dropout:
        # The embedding dimensions of a word share the noise, so whole words are dropped.
        sequences = keras.layers.Dropout(config.word_dropout, noise_shape=(None, None, 1), name="word_dropout")(
            sequences
        )
    if config.embedding_dropout:
        sequences = keras.layers.SpatialDropout1D(config.embedding_dropout, name="embedding_dropout")(sequences)
    pooling = MaskedPooling(config.pooling, is_bidirectional=config.is_bidirectional, name="pooling")
    if config.chunk_length:
        pooled = build_chunked_stack(config, pooling)(sequences, mask)
    else:
        pooled = pooling(build_recurrent_stack(config, sequences, mask), mask)
    if config.standardize:
        pooled = Standardize(name="standardize")(pooled)
    if config.final_dropout:
        pooled = keras.layers.Dropout(config.final_dropout, name="dropout")(pooled)
    # From zeros, since the sum of many standardised features with random weights would begin far from the truth.
    start = "zeros" if config.standardize else "glorot_uniform"
    if outputs == "ordinal":
        number = keras.layers.Dense(1, use_bias=False, dtype="float32", kernel_initializer=start, name="number")(pooled)
        logits = CumulativeLink(num_classes, dtype="float32", name="scale")(number)
        return keras.Model([vectors, mask], logits, name="encoder")
    # Logits in float32, since a softmax in half precision loses the last digits of the probabilities.
    logits = keras.layers.Dense(num_classes, dtype="float32", kernel_initializer=start, name="logits")(pooled)
    return keras.Model([vectors, mask], logits, name="encoder")


def encoder_layers(model: keras.Model) -> list[Any]:
    """The layers of a classifier's encoder, those that read in chunks among them."""
    layers: list[Any] = []
    for layer in model.get_layer("encoder").layers:
        layers += layer.parts if isinstance(layer, ReadInChunks) else [layer]
    return layers


def layer_groups(model: keras.Model, config: ModelConfig) -> list[list[keras.Variable]]:
    """The trained weights from the output down: output and pooling, recurrent layers with norms, embedding."""
    places: dict[int, list[keras.Variable]] = {number: [] for number in range(config.num_layers + 2)}
    for layer in encoder_layers(model):
        number = re.match(rf"(?:{config.cell}|layer_norm)_(\d+)", layer.name)
        places[config.num_layers - int(number[1]) if number else 0] += layer.trainable_weights
    places[config.num_layers + 1] = model.get_layer("embedding").trainable_weights
    return list(places.values())


@keras.saving.register_keras_serializable("nlp_rnn")
class NotPadding(keras.layers.Layer):
    """int32 ids [batch, time] -> bool mask [batch, time], False where the id is PAD_ID."""

    def call(self, token_ids: Any) -> Any:
        return keras.ops.not_equal(token_ids, PAD_ID)

    def compute_output_spec(self, token_ids: Any) -> keras.KerasTensor:
        return keras.KerasTensor(token_ids.shape, dtype="bool")
