"""Attention of a decoder over a source sentence: plain Keras, on any of its backends."""

from typing import Any

import keras

from nlp_rnn.config.settings import AttentionName


@keras.saving.register_keras_serializable("nlp_rnn")
class Attention(keras.layers.Layer):
    """Weighted means of memory vectors, one a query.

    - dot: score = q . m / sqrt(d); query and memory are equally wide.
    - general: score = q . W m / sqrt(d). Source for both: Luong et al. 2015, section 3.1; for the divisor, d being the features
      that are multiplied: Vaswani et al. 2017, section 3.2.1. Without it, translators took twice as long to learn where to look.
    - additive: score = v . tanh(U q + W m). Source: Bahdanau et al. 2015, appendix A.1.2.
    With several heads, query, keys and memory are cut into as many parts, each with weights of its own.

    Args:
      kind: see above.
      num_heads: a divisor of the width of query and memory.
    """

    def __init__(self, kind: AttentionName, num_heads: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind, self.num_heads = kind, num_heads

    def build(self, query_shape: Any, memory_shape: Any) -> None:
        size, width = query_shape[-1], memory_shape[-1]
        if size % self.num_heads or width % self.num_heads or (self.kind == "dot" and size != width):
            raise ValueError(
                f"queries have {size} features and the memory {width}, which does not fit {self.kind}, {self.num_heads} heads"
            )
        if self.kind != "dot":
            self.memory_kernel = self.add_weight(name="memory_kernel", shape=(width, size))
        if self.kind == "additive":
            self.query_kernel = self.add_weight(name="query_kernel", shape=(size, size))
            self.vector = self.add_weight(name="vector", shape=(self.num_heads, size // self.num_heads))

    def keys(self, memory: Any) -> Any:
        """float [batch, source, width] -> what queries are compared with, float [batch, source, size]; once a sentence."""
        keys = memory if self.kind == "dot" else memory @ keras.ops.cast(self.memory_kernel, memory.dtype)
        return keys if self.kind == "additive" else keys * (keys.shape[-1] / self.num_heads) ** -0.5

    def call(self, queries: Any, keys: Any, memory: Any, mask: Any) -> tuple[Any, Any]:
        """Compares all queries with all keys.

        Args:
          queries: float [batch, target, size].
          keys: of `keys`.
          memory: float [batch, source, width].
          mask: bool [batch, source], False on padding, which gets no weight; one True a row or more.

        Returns:
          contexts float [batch, target, width], weights float32 [batch, target, source]: the mean of all heads.
        """
        ops = keras.ops
        scores = self._scores(queries, keys)  # [batch, heads, target, source]
        weights = ops.softmax(ops.where(mask[:, None, None, :], ops.cast(scores, "float32"), -1e9), axis=-1)
        contexts = ops.cast(weights, memory.dtype) @ self._heads(memory)  # [batch, heads, target, width / heads]
        contexts = ops.transpose(contexts, (0, 2, 1, 3))
        return ops.reshape(contexts, (*ops.shape(queries)[:2], memory.shape[-1])), ops.mean(weights, axis=1)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"kind": self.kind, "num_heads": self.num_heads}

    def _scores(self, queries: Any, keys: Any) -> Any:
        ops = keras.ops
        if self.kind != "additive":
            return self._heads(queries) @ ops.transpose(self._heads(keys), (0, 1, 3, 2))
        sums = self._heads(queries @ self.query_kernel)[:, :, :, None] + self._heads(keys)[:, :, None]
        return ops.sum(ops.tanh(sums) * self.vector[None, :, None, None], axis=-1)

    def _heads(self, vectors: Any) -> Any:
        """float [batch, time, size] -> [batch, heads, time, size / heads]"""
        ops = keras.ops
        batch, time = ops.shape(vectors)[:2]
        return ops.transpose(
            ops.reshape(vectors, (batch, time, self.num_heads, vectors.shape[-1] // self.num_heads)), (0, 2, 1, 3)
        )
