"""The losses of a classifier: cross-entropies, class-weighted and focal. Plain Keras, on any backend."""

from dataclasses import dataclass
from typing import Any

import keras

from nlp_rnn.config.types import Outputs
from nlp_rnn.layers import r_drop
from nlp_rnn.models.calibration import median_class


@dataclass(frozen=True)
class Objective:
    """The loss of a classifier.

    Attributes:
      outputs: what the logits are: of "classes" and "ordinal" [batch, classes], whose softmax is the probabilities; of
        "label_sets" [batch, labels], whose sigmoid is.
      class_weights: of each class, or of each label's texts that have it; empty: 1.
      negative_weights: of label sets: of each label's texts that have it not; empty: 1.
      focal_gamma: exponent of the focal loss; 0: the cross-entropy.
      r_drop: weight of the divergence between two passes with different dropout; 0: one pass.
      adversarial: how far adversarial training moves a text's vectors, in standard deviations of them; 0: not at all.
      virtual_adversarial: the same of virtual adversarial training.
      labelled_share: the weight of the training texts with a label, as a share of the number of all texts; 0: all have
        labels. Otherwise targets are classes, or -1; in training, the cross-entropies of texts with a label are divided
        by the share, so that over all batches their mean counts.
    """

    outputs: Outputs = "classes"
    class_weights: tuple[float, ...] = ()
    negative_weights: tuple[float, ...] = ()
    focal_gamma: float = 0.0
    r_drop: float = 0.0
    adversarial: float = 0.0
    virtual_adversarial: float = 0.0
    labelled_share: float = 0.0

    @property
    def moves_texts(self) -> bool:
        """Whether a training step also takes texts with moved vectors."""
        return bool(self.adversarial or self.virtual_adversarial)

    def cross_entropies(self, targets: Any, logits: Any) -> Any:
        """Cross-entropy in nats: of classes float [batch], of label sets float [batch, labels]; not weighted.

        Args:
          targets: int [batch], or 0 and 1 [batch, labels]; or probabilities, float [batch, classes or labels].
        """
        ops = keras.ops
        if self.outputs == "label_sets":
            return ops.softplus(logits) - ops.cast(targets, logits.dtype) * logits
        if len(targets.shape) == 2:
            return -ops.sum(ops.cast(targets, logits.dtype) * ops.log_softmax(logits, axis=-1), axis=-1)
        return ops.sparse_categorical_crossentropy(targets, logits, from_logits=True)

    def weigh(self, targets: Any, cross_entropies: Any, sample_weights: Any) -> tuple[Any, Any]:
        """Weighs by class and sums up label sets.

        Args:
          targets: as for `cross_entropies`; with class weights, no probabilities.

        Returns:
          the cross-entropies float [batch] (of label sets the weighted mean over labels), and the examples' weights
          float [batch].
        """
        ops = keras.ops
        if self.outputs == "label_sets":
            if self.class_weights:
                has = ops.cast(targets, cross_entropies.dtype)
                positive, negative = (
                    ops.convert_to_tensor(weights or [1.0] * len(self.class_weights), dtype=cross_entropies.dtype)
                    for weights in (self.class_weights, self.negative_weights)
                )
                cross_entropies = cross_entropies * (has * positive + (1 - has) * negative)
            return ops.mean(cross_entropies, axis=-1), sample_weights
        if self.class_weights:
            table = ops.convert_to_tensor(self.class_weights, dtype=sample_weights.dtype)
            sample_weights = sample_weights * ops.take(table, targets, axis=0)
        return cross_entropies, sample_weights

    def focused(self, cross_entropies: Any) -> Any:
        """(1 - p)^gamma times cross-entropy, p the probability of the truth. Source: Lin et al. 2017, equation 4."""
        if not self.focal_gamma:
            return cross_entropies
        ops = keras.ops
        wrong = ops.maximum(-ops.expm1(-cross_entropies), 1e-7)  # at 0 the power's gradient may be infinite
        return wrong**self.focal_gamma * cross_entropies

    def divergences(self, logits: Any) -> Any:
        """The divergences between two passes, in nats; of label sets the mean over labels, each a pair of outcomes.

        Args:
          logits: float [2 * batch, classes or labels], in the order of `nlp_rnn.layers.r_drop.twice`.

        Returns:
          float [2 * batch], the same for both rows of a pair.
        """
        ops = keras.ops
        if self.outputs == "label_sets":
            others = r_drop.other_pass(logits)
            return ops.mean((ops.sigmoid(logits) - ops.sigmoid(others)) * (logits - others), axis=-1) / 2
        return r_drop.divergences(ops.log_softmax(logits, axis=-1))

    def confidences(self, logits: Any) -> Any:
        """The log-probability of the model's own answer, float [batch]: the likeliest class, or all labels' outcomes.

        Args:
          logits: float [batch, classes or labels].
        """
        ops = keras.ops
        if self.outputs == "label_sets":
            return -ops.sum(ops.softplus(-ops.abs(logits)), axis=-1)
        return ops.max(ops.log_softmax(logits, axis=-1), axis=-1)

    def divergences_from(self, reference: Any, logits: Any) -> Any:
        """Kullback-Leibler divergences of predictions from reference predictions, in nats, float [batch].

        It is sum(p (log p - log q)), p of the reference; of label sets the mean over labels, each a pair of outcomes.

        Args:
          reference, logits: float [batch, classes or labels].
        """
        ops = keras.ops
        if self.outputs == "label_sets":
            outcomes = [(reference, logits), (-reference, -logits)]
            parts = [ops.sigmoid(p) * (ops.softplus(-q) - ops.softplus(-p)) for p, q in outcomes]
            return ops.mean(parts[0] + parts[1], axis=-1)
        log_p, log_q = (ops.log_softmax(each, axis=-1) for each in (reference, logits))
        return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)

    def are_right(self, targets: Any, logits: Any) -> Any:
        """bool [batch]: whether the prediction is right: the likeliest class, the median of a scale, or all labels.

        Of targets that are probabilities, the truth is what a model with these probabilities would answer.
        """
        ops = keras.ops
        if self.outputs == "label_sets":
            has = ops.cast(targets, logits.dtype) > 0.5
            return ops.all(ops.equal(logits > 0, has), axis=-1)  # tensors' own == may lose the rank
        if len(targets.shape) == 2:
            is_scale = self.outputs == "ordinal"
            targets = median_class(targets, ops) if is_scale else ops.argmax(targets, axis=-1)
        if self.outputs == "ordinal":
            return ops.cast(median_class(ops.exp(logits), ops), targets.dtype) == targets
        return ops.cast(ops.argmax(logits, axis=-1), targets.dtype) == targets
