"""Attention of a decoder over a source sentence: plain Keras, on any of its backends."""

from typing import Any

import keras

from nlp_rnn.config.types import AttentionName
from nlp_rnn.layers.masking import IMPOSSIBLE


@keras.saving.register_keras_serializable("nlp_rnn")
class Attention(keras.layers.Layer):
    """Computes a weighted mean of the memory vectors for each query.

    With several heads, the features of queries, keys and memory are split evenly, and each head has its own weights.

    Args:
      kind: how a query q is compared with a memory vector m.
        - "dot": score = q . m / sqrt(d); q and m have the same number of features.
        - "general": score = q . W m / sqrt(d).
        - "additive": score = v . tanh(U q + W m).
        Sources: Luong et al. 2015, section 3.1 (dot, general); Vaswani et al. 2017, section 3.2.1 (the divisor, where d
        is the number of multiplied features; without it, translators took twice as long to learn where to attend);
        Bahdanau et al. 2015, appendix A.1.2 (additive).
      num_heads: divides the number of features of queries and memory.

    Raises:
      ValueError: when built with a query or memory width that does not fit `kind` and `num_heads`.
    """

    def __init__(self, kind: AttentionName, num_heads: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind, self.num_heads = kind, num_heads

    def build(self, query_shape: Any, memory_shape: Any) -> None:
        size, width = query_shape[-1], memory_shape[-1]
        if size % self.num_heads or width % self.num_heads or (self.kind == "dot" and size != width):
            raise ValueError(
                f"queries have {size} features and the memory {width}, "
                f"which does not fit {self.kind}, {self.num_heads} heads"
            )
        if self.kind != "dot":
            self.memory_kernel = self.add_weight(name="memory_kernel", shape=(width, size))
        if self.kind == "additive":
            self.query_kernel = self.add_weight(name="query_kernel", shape=(size, size))
            self.vector = self.add_weight(name="vector", shape=(self.num_heads, size // self.num_heads))

    def keys(self, memory: Any) -> Any:
        """Computes the keys that queries are compared with, once per sentence.

        Args:
          memory: float [batch, source, width].

        Returns:
          float [batch, source, size], where size is the number of query features.
        """
        keys = memory if self.kind == "dot" else memory @ keras.ops.cast(self.memory_kernel, memory.dtype)
        return keys if self.kind == "additive" else keys * (keys.shape[-1] / self.num_heads) ** -0.5

    def call(self, queries: Any, keys: Any, memory: Any, mask: Any) -> tuple[Any, Any]:
        """Compares all queries with all keys.

        Args:
          queries: float [batch, target, size].
          keys: float [batch, source, size], the result of `keys`.
          memory: float [batch, source, width].
          mask: bool [batch, source], False on padding, which gets no weight. Each row has at least one True.

        Returns:
          (contexts float [batch, target, width], weights float32 [batch, target, source], averaged over the heads).
        """
        ops = keras.ops
        scores = self._scores(queries, keys)  # [batch, heads, target, source]
        weights = ops.softmax(ops.where(mask[:, None, None, :], ops.cast(scores, "float32"), IMPOSSIBLE), axis=-1)
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
