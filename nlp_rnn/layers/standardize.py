"""Standardises features by means and spreads that were fitted once. Plain Keras, on any backend."""

from typing import Any

import keras
import numpy as np

_SMALLEST_SPREAD = 1e-3  # a feature that never changes must not become large


@keras.saving.register_keras_serializable("nlp_rnn")
class Standardize(keras.layers.Layer):
    """float [batch, features] -> (features - mean) / spread. `fit` does not train the two weights; `assign` sets them.

    Unlike batch normalisation, an example's output does not depend on the others of its batch.
    """

    def build(self, features_shape: Any) -> None:
        options: dict[str, Any] = {"shape": features_shape[-1:], "trainable": False, "autocast": False}
        self.mean = self.add_weight(name="mean", initializer="zeros", dtype="float32", **options)
        self.factor = self.add_weight(name="factor", initializer="ones", dtype="float32", **options)

    def call(self, features: Any) -> Any:
        features = keras.ops.cast(features, "float32")  # rounded, a mean would be off by many small spreads
        return keras.ops.cast((features - self.mean) * self.factor, self.compute_dtype)

    def assign(self, features: np.ndarray) -> None:
        """Fits mean and spread to float [examples, features]."""
        self.mean.assign(features.mean(axis=0, dtype=np.float64).astype(np.float32))
        spread = features.std(axis=0, dtype=np.float64)
        self.factor.assign((1 / np.maximum(spread, _SMALLEST_SPREAD)).astype(np.float32))

    def compute_output_shape(self, features_shape: Any) -> Any:
        return features_shape
