"""From a sequence to one vector, at once or chunk by chunk. Plain Keras, on any backend."""

from typing import Any

import keras

from nlp_rnn.layers.masking import IMPOSSIBLE

_LOWEST = -6e4  # below any activation, and within float16's range


@keras.saving.register_keras_serializable("nlp_rnn")
class MaskedPooling(keras.layers.Layer):
    """Pools a sequence over its unpadded steps into one vector: the concatenation of the named kinds.

    - last: the last step. Of a bidirectional sequence, the last step of the first half of the features and the first
      step of the second half, since each has read the whole text.
    - max, mean: over time.
    - attention: a mean weighted by softmax(v . tanh(W h)). Source: Yang et al. 2016, section 2.2.

    Args:
      kinds: one or more of "last", "max", "mean", "attention".
      is_bidirectional: whether the second half of the features has read the text backwards.
    """

    def __init__(self, kinds: tuple[str, ...], *, is_bidirectional: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kinds, self.is_bidirectional = tuple(kinds), is_bidirectional
        self.supports_masking = True

    def compute_mask(self, sequences: Any, mask: Any = None) -> None:
        """Returns None: the output has no time axis."""

    def build(self, sequences_shape: Any, mask_shape: Any = None) -> None:
        if "attention" in self.kinds:
            size = sequences_shape[-1]
            self.attention_kernel = self.add_weight(name="attention_kernel", shape=(size, size))
            self.attention_vector = self.add_weight(name="attention_vector", shape=(size, 1))

    def call(self, sequences: Any, mask: Any) -> Any:
        """Pools the steps where the mask is True.

        Args:
          sequences: float [batch, time, features].
          mask: bool [batch, time], False on padding. Each row has at least one True.

        Returns:
          float [batch, features * number of kinds].
        """
        pools = {"last": self._last, "max": self._max, "mean": self._mean, "attention": self._attention}
        return keras.ops.concatenate([pools[kind](sequences, mask) for kind in self.kinds], axis=-1)

    def begin(self, batch_size: Any, features: int, dtype: str) -> dict[str, Any]:
        """What the first `add` of texts takes that are read in chunks, in one direction.

        Args:
          batch_size: number of texts.
          features: of the sequences.
          dtype: of the sequences. Sums over a text are float32.

        Returns:
          kind -> the pooled values so far, float [batch, features]; of attention the largest score, the sum of
          exponentials and the weighted sum of the steps.
        """
        ops, shape = keras.ops, (batch_size, features)
        sums = ops.zeros(shape, "float32")
        first = {
            "last": ops.zeros(shape, dtype), "max": ops.full(shape, _LOWEST, dtype), "mean": sums,
            "attention": [ops.full((batch_size, 1), IMPOSSIBLE, "float32"), sums[:, :1], sums],
        }  # fmt: skip
        return {kind: first[kind] for kind in self.kinds}

    def add(self, pooled: dict[str, Any], sequences: Any, mask: Any, shares: Any) -> dict[str, Any]:
        """Adds a chunk to what `begin` or `add` returned, and returns the same.

        Args:
          pooled: that.
          sequences: float [batch, time, features].
          mask: bool [batch, time], False on padding, which follows the text.
          shares: float32 [batch, time]: 1 / length of the text, and 0 on padding.
        """
        ops, pooled = keras.ops, dict(pooled)
        if "last" in pooled:
            has_steps = ops.any(mask, axis=1, keepdims=True)
            last = ops.maximum(ops.sum(ops.cast(mask, "int32"), axis=1, keepdims=True) - 1, 0)
            steps = ops.squeeze(ops.take_along_axis(sequences, last[:, :, None], axis=1), axis=1)
            pooled["last"] = ops.where(has_steps, steps, pooled["last"])
        if "max" in pooled:
            pooled["max"] = ops.maximum(pooled["max"], self._max(sequences, mask))
        if "mean" in pooled:
            pooled["mean"] = pooled["mean"] + ops.cast(self._weighted_sum(sequences, shares), "float32")
        if "attention" in pooled:
            largest, total, weighted = pooled["attention"]
            scores = self._scores(sequences, mask)
            new = ops.maximum(largest, ops.max(scores, axis=1, keepdims=True))
            exponentials = ops.where(mask, ops.exp(scores - new), 0.0)
            kept = ops.exp(largest - new)
            total = total * kept + ops.sum(exponentials, axis=1, keepdims=True)
            weighted = weighted * kept + ops.cast(self._weighted_sum(sequences, exponentials), "float32")
            pooled["attention"] = [new, total, weighted]
        return pooled

    def finish(self, pooled: dict[str, Any]) -> Any:
        """The result of `call` for all chunks that were added."""
        if "attention" in pooled:
            _, total, weighted = pooled["attention"]
            pooled = pooled | {"attention": weighted / total}
        values = [keras.ops.cast(pooled[kind], self.compute_dtype) for kind in self.kinds]
        return keras.ops.concatenate(values, axis=-1)

    def compute_output_shape(self, sequences_shape: Any, mask_shape: Any = None) -> Any:
        return (sequences_shape[0], sequences_shape[-1] * len(self.kinds))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"kinds": list(self.kinds), "is_bidirectional": self.is_bidirectional}

    def _last(self, sequences: Any, mask: Any) -> Any:
        ops = keras.ops
        last = ops.sum(ops.cast(mask, "int32"), axis=1, keepdims=True) - 1  # [batch, 1]
        steps = ops.squeeze(ops.take_along_axis(sequences, last[:, :, None], axis=1), axis=1)
        if not self.is_bidirectional:
            return steps
        half = sequences.shape[-1] // 2
        return ops.concatenate([steps[:, :half], sequences[:, 0, half:]], axis=-1)

    def _max(self, sequences: Any, mask: Any) -> Any:
        lowest = keras.ops.full_like(sequences, _LOWEST)
        return keras.ops.max(keras.ops.where(mask[:, :, None], sequences, lowest), axis=1)

    def _mean(self, sequences: Any, mask: Any) -> Any:
        weights = keras.ops.cast(mask, "float32")
        return self._weighted_sum(sequences, weights / keras.ops.sum(weights, axis=1, keepdims=True))

    def _attention(self, sequences: Any, mask: Any) -> Any:
        return self._weighted_sum(sequences, keras.ops.softmax(self._scores(sequences, mask), axis=1))

    def _scores(self, sequences: Any, mask: Any) -> Any:
        kernel, vector = (
            keras.ops.cast(each, sequences.dtype) for each in (self.attention_kernel, self.attention_vector)
        )
        scores = keras.ops.tanh(sequences @ kernel) @ vector  # [batch, time, 1]
        return keras.ops.where(mask, keras.ops.cast(scores[:, :, 0], "float32"), IMPOSSIBLE)

    def _weighted_sum(self, sequences: Any, weights: Any) -> Any:
        weights = keras.ops.cast(weights, sequences.dtype)
        return keras.ops.squeeze(weights[:, None, :] @ sequences, axis=1)
