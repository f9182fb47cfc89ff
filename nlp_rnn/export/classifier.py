"""SavedModels of classifiers: from a text to its label, and to the words that supported it."""

import functools
import json
import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nlp_rnn.config.settings import Config
from nlp_rnn.export import saved_model
from nlp_rnn.models.calibration import Calibration, calibration_of_ensemble, median_class
from nlp_rnn.special_ids import PAD_ID
from nlp_rnn.tokenization.encoding import encode, truncate
from nlp_rnn.tokenization.graph_tokenizer import GraphTokenizer
from nlp_rnn.tokenization.tokenizer import Tokenizer

_EXPLAIN_STEPS = 32
# Columns of the model card, and the metrics in them.
_ERRORS = {"cross-entropy": "cross_entropy", "calibration error": "expected_calibration_error"}
_CARD_COLUMNS = {
    "classes": {"accuracy": "accuracy", "F1": "f1", **_ERRORS},
    "ordinal": {"accuracy": "accuracy", "mean absolute error": "mean_absolute_error", **_ERRORS},
    "label_sets": {"micro F1": "micro_f1", "macro F1": "macro_f1", "mAP": "mean_average_precision", **_ERRORS},
}
_ON_LABELS = {"classes": "", "ordinal": ", a scale", "label_sets": ", any number per text"}


class ClassifierModule(tf.Module):
    """The content of an exported classifier, from texts to labels.

    Args:
      models: from `build_classifier`, with their weights; the calibrated probabilities of several are averaged.
      tokenizer: of all models.
      labels: class names.
      calibrations: what the probabilities of each model are calibrated by.
    """

    def __init__(
        self,
        models: list[keras.Model],
        tokenizer: Tokenizer,
        config: Config,
        labels: list[str],
        calibrations: list[Calibration],
    ) -> None:
        super().__init__()
        self.holders_of_weights = models
        self._outputs, self._temperatures = config.data.outputs, [each.temperature for each in calibrations]
        self._calibration = calibration_of_ensemble(calibrations)
        self._models, self._tokenizer, self._data = models, tokenizer, config.data
        self._in_graphs = GraphTokenizer(tokenizer)
        self._labels = tf.constant(labels)
        self._values = tuple(map(float, labels)) if self._outputs == "ordinal" else ()
        self.portable_layers = [layer for model in models for layer in model.get_layer("encoder").layers]

    def signature_functions(self) -> dict[str, Any]:
        """The signatures of the export by name."""
        return {"serving_default": self.classify, "explain": self.explain, "tokenize": self.tokenize}

    @tf.function(input_signature=[saved_model.TEXT], autograph=False)
    def classify(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Classifies texts with calibrated probabilities.

        Args:
          text: string [batch].

        Returns:
          of classes: probability float32 [batch] (of two classes of the second, positive one; else of the label), label
          string [batch], probabilities float32 [batch, classes]. Of a scale also score float32 [batch], the expected
          value; the label is the median. Of label sets: labels string [batch, labels], the names of all labels,
          probabilities float32 [batch, labels], chosen bool [batch, labels], whether the label's threshold is reached.
        """
        return saved_model.without_added(self._classify(saved_model.at_least_one(text)), text)

    def _classify(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = self._logits(self._token_ids(text).to_tensor(PAD_ID))
        if self._outputs == "label_sets":
            probabilities = tf.sigmoid(logits)
            names = tf.repeat(self._labels[None], tf.shape(text)[0], axis=0)
            thresholds = tf.constant(self._calibration.thresholds, tf.float32)
            return {"labels": names, "probabilities": probabilities, "chosen": probabilities >= thresholds}
        probabilities = tf.nn.softmax(logits)
        if self._outputs == "ordinal":
            winner = median_class(probabilities, keras.ops)
            probability = tf.gather(probabilities, winner, batch_dims=1)
            score = tf.linalg.matvec(probabilities, tf.constant(self._values, tf.float32))
            label = tf.gather(self._labels, winner)
            return {"probability": probability, "label": label, "probabilities": probabilities, "score": score}
        winner = tf.argmax(probabilities, axis=1)
        probability = probabilities[:, 1] if len(self._labels) == 2 else tf.reduce_max(probabilities, axis=1)
        return {"probability": probability, "label": tf.gather(self._labels, winner), "probabilities": probabilities}

    @tf.function(input_signature=[saved_model.TEXT], autograph=False)
    def explain(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Computes the attribution of each word by integrated gradients.

        Of two classes, the log-odds of the positive one are explained, else those of the most likely class or label; of
        a scale, the log-odds that the score is above the lowest. The path is the straight line from zero embeddings and
        no n-grams. The attributions of a text sum to its log-odds minus those at the start of the path, up to the error
        of 32 midpoint steps. Source: Sundararajan et al. 2017, equation 3. Of several models, the attributions are
        averaged.

        Args:
          text: string [batch].

        Returns:
          tokens string [batch, time], padded with "", attributions float32 [batch, time].
        """
        return saved_model.without_added(self._explain(saved_model.at_least_one(text)), text)

    def _explain(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        ids = self._token_ids(text)
        token_ids = ids.to_tensor(PAD_ID)  # [batch, time]
        mask = token_ids != PAD_ID
        winner = tf.argmax(self._logits(token_ids), axis=1)
        if self._outputs == "ordinal":
            winner = tf.zeros_like(winner)
        target = tf.ones_like(winner) if len(self._labels) == 2 and self._outputs == "classes" else winner
        answer, members = tf.TensorSpec([None], tf.float32), []
        for number, model in enumerate(self._models):
            rows = (token_ids, model.get_layer("embedding")(token_ids), mask, target)
            attribute = functools.partial(self._attribute, number)
            # One path in memory at a time.
            members.append(tf.map_fn(attribute, rows, fn_output_signature=answer, parallel_iterations=1))
        return {
            "tokens": saved_model.tokenized(self._tokenizer, self._pieces(text), ids)["tokens"],
            "attributions": tf.add_n(members) / len(members) if len(members) > 1 else members[0],
        }

    @tf.function(input_signature=[saved_model.TEXT], autograph=False)
    def tokenize(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Tokenizes string [batch]; see `saved_model.tokenized`."""
        return saved_model.tokenized(self._tokenizer, self._pieces(text), self._token_ids(text))

    def _token_ids(self, text: tf.Tensor) -> tf.RaggedTensor:
        return encode(self._in_graphs, text, self._data.max_length, self._data.keep)

    def _pieces(self, text: tf.Tensor) -> tf.RaggedTensor:
        """The pieces as written in the text, including unknown ones."""
        return truncate(self._in_graphs.pieces(text), self._data.max_length, self._data.keep)

    def _attribute(self, number: int, row: tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Attributes one text to one of the models. All points of its path form one batch."""
        layers = {layer.name: layer for layer in self._models[number].layers}
        ngrams, stack = layers.get("ngrams"), layers.get("stack")
        token_ids, vectors, mask, target = row  # [time], [time, embedding_dim], [time], []
        shares = (tf.range(_EXPLAIN_STEPS, dtype=vectors.dtype) + 0.5) / _EXPLAIN_STEPS
        points = shares[:, None, None] * vectors  # [steps, time, embedding_dim]
        linear = (
            tf.zeros([tf.size(token_ids), len(self._labels)])
            if ngrams is None
            else ngrams.contributions(token_ids[None])[0]
        )
        linear_points = shares[:, None] * tf.reduce_sum(linear, axis=0)  # [steps, classes]
        with tf.GradientTape() as tape:
            tape.watch([points, linear_points])
            logits = layers["encoder"]([points, tf.repeat(mask[None], _EXPLAIN_STEPS, axis=0)], training=False)
            if stack is not None:
                logits = stack(logits, linear_points, mask[None])
            odds = self._log_odds(number, logits, tf.repeat(target, _EXPLAIN_STEPS))
        gradients = tape.gradient(odds, [points, linear_points], unconnected_gradients=tf.UnconnectedGradients.ZERO)
        by_vector, by_class = (tf.reduce_mean(each, axis=0) for each in gradients)
        return tf.reduce_sum(vectors * by_vector, axis=-1) + tf.linalg.matvec(linear, by_class)

    def _logits(self, token_ids: tf.Tensor) -> tf.Tensor:
        """Calibrated logits float [batch, classes]; of several models, those of the mean of their probabilities."""
        members = [
            self._calibrated(number, model(token_ids, training=False)) for number, model in enumerate(self._models)
        ]
        if len(members) == 1:
            return members[0]
        if self._outputs == "label_sets":
            yes, no = (tf.reduce_logsumexp(tf.math.log_sigmoid(tf.stack(members) * sign), axis=0) for sign in (1, -1))
            return yes - no
        return tf.reduce_logsumexp(tf.nn.log_softmax(tf.stack(members)), axis=0) - math.log(len(members))

    def _calibrated(self, number: int, logits: tf.Tensor) -> tf.Tensor:
        temperature = self._temperatures[number]
        return logits if temperature == 1 else logits / tf.constant(temperature, logits.dtype)

    def _log_odds(self, number: int, logits: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        """float [batch, classes], int64 [batch] -> float [batch]: what `explain` explains."""
        if (
            self._outputs == "ordinal"
        ):  # the class is the lowest; without the temperature, it is a number less a cutpoint
            return -log_odds(logits, classes)
        logits = self._calibrated(number, logits)
        return tf.gather(logits, classes, batch_dims=1) if self._outputs == "label_sets" else log_odds(logits, classes)


def log_odds(logits: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """The log-odds log p / (1 - p) of one class per row.

    Args:
      logits: float [batch, classes].
      classes: int64 [batch].

    Returns:
      float [batch].
    """
    chosen = tf.one_hot(classes, tf.shape(logits)[1], on_value=True, off_value=False)
    others = tf.where(chosen, tf.constant(-np.inf, logits.dtype), logits)
    return tf.gather(logits, classes, batch_dims=1) - tf.reduce_logsumexp(others, axis=1)


def classifier_extras(
    module: ClassifierModule, config: Config, labels: list[str], metrics: dict[str, Any]
) -> dict[str, str]:
    """The files of assets.extra/ by name."""
    direction = "bidirectional " if config.model.is_bidirectional else ""
    outputs = config.data.outputs
    columns = _CARD_COLUMNS[outputs]
    rows = [
        f"| {split} | {scores['num_examples']:,} | "
        + " | ".join(f"{scores[key]:.4f}" for key in columns.values())
        + " |"
        for split, scores in metrics.items()
        if split in ("validation", "test") and all(scores.get(key) is not None for key in columns.values())
    ]
    kept = {"start": "the start", "end": "the end", "both": "the first and the last half of that length"}[
        config.data.keep
    ]
    parameters = sum(model.count_params() for model in module.holders_of_weights)
    kind = saved_model.kind_of("text classifier", len(module.holders_of_weights))
    card = saved_model.card(
        config,
        f"{direction}{config.model.cell} {kind} of {parameters:,} parameters",
        [
            f"Labels{_ON_LABELS[outputs]}: {', '.join(labels)}",
            f"Temperature {', '.join(f'{each:.4f}' for each in module._temperatures)}, fitted on validation data; see "
            "`calibration.json`",
            f"Input: UTF-8 text; texts of more than {config.data.max_length} tokens are cut to {kept}",
            f"Tokenizer: {config.tokenizer.level} level; see `vocabulary`",
        ],
        [f"| split | examples | {' | '.join(columns)} |", *rows],
        "The figures hold for text like the training data. Measure again on other domains or languages.",
    )
    texts = {
        "labels.json": json.dumps(labels, ensure_ascii=False) + "\n",
        "calibration.json": module._calibration.to_json(),
    }
    return saved_model.extras(config, module._tokenizer, metrics, card) | texts
