"""The output of a classifier of scores, such as one to five stars. Plain Keras, on any backend."""

from typing import Any

import keras
import numpy as np

_SMALLEST_GAP = 1e-3


@keras.saving.register_keras_serializable("nlp_rnn")
class CumulativeLink(keras.layers.Layer):
    """float [batch, 1] -> float32 [batch, classes]: the logarithms of the probabilities of a scale's steps.

    One number for each text, and rising cutpoints that all texts share: P(class <= k) = sigmoid(cutpoint k - number).
    Source: McCullagh 1980, section 2 ("proportional odds"); CORAL (Cao et al. 2020) has the same output, trained as one
    binary task per cutpoint instead of by the likelihood. Here cutpoints rise by construction.

    Args:
      num_classes: three or more.
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        if num_classes < 3:
            raise ValueError(f"num_classes is {num_classes}, but a scale has three or more")
        self.num_classes = num_classes

    def build(self, input_shape: Any) -> None:
        self.first = self.add_weight(name="first", shape=(1,), initializer="zeros")
        self.gaps = self.add_weight(name="gaps", shape=(self.num_classes - 2,), initializer="zeros")
        self.assign_counts(np.ones(self.num_classes))

    def call(self, number: Any) -> Any:
        ops = keras.ops
        gaps = ops.softplus(self.gaps) + _SMALLEST_GAP
        cutpoints = self.first + ops.concatenate([ops.zeros((1,)), ops.cumsum(gaps)])
        distances = cutpoints - ops.cast(number, "float32")  # [batch, classes - 1]
        below, above = -ops.softplus(-distances), -ops.softplus(distances)  # log P(class <= k), log P(class > k)
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), which does not cancel.
        between = below[:, 1:] + above[:, :-1] + ops.log(-ops.expm1(-gaps))
        return ops.concatenate([below[:, :1], between, above[:, -1:]], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.num_classes)

    def assign_counts(self, counts: np.ndarray) -> None:
        """Sets the cutpoints so that a text with the number 0 has the class shares of `counts` [classes]."""
        shares = (np.cumsum(counts)[:-1] + 0.5) / (np.sum(counts) + 1)
        cutpoints = np.log(shares / (1 - shares))
        gaps = np.maximum(np.diff(cutpoints) - _SMALLEST_GAP, 1e-3)
        self.first.assign(cutpoints[:1].astype(np.float32))
        self.gaps.assign(np.log(np.expm1(gaps)).astype(np.float32))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_classes": self.num_classes}
