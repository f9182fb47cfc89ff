"""The linear part of a wide and deep classifier: one weight per word n-gram. Plain Keras, on any backend.

Sources: Cheng et al. 2016 (wide and deep); Wang & Manning 2012 (n-grams with naive Bayes log-count ratios).
"""

from typing import Any

import keras
import numpy as np

from nlp_rnn.layers.rounding import to_int8
from nlp_rnn.special_ids import PAD_ID

MAX_TOKENS = 2**20  # a single token keeps its own id, which must be below


def num_buckets(longest: int) -> int:
    """The number of n-gram ids, for n-grams of up to `longest` tokens: of three and more there are more of them."""
    return 2**20 if longest <= 2 else 2**21


def ngram_ids(token_ids: Any, longest: int, ops: Any = keras.ops) -> Any:
    """Hashes the n-grams of each text to ids: first those of one token, then those of two, and so on.

    Args:
      token_ids: int32 [batch, time], right-padded with PAD_ID, below MAX_TOKENS.
      longest: number of tokens of the longest n-grams.
      ops: keras.ops or numpy.

    Returns:
      int32 [batch, longest * time]: position k * time + t holds the n-gram of k + 1 tokens that starts at t, or 0 if it
      would reach into the padding.
    """
    parts, ngram = [token_ids], token_ids
    time = token_ids.shape[1] if ops is np else ops.shape(token_ids)[1]
    padded, buckets = ops.pad(token_ids, [(0, 0), (0, longest)]), num_buckets(longest)
    factor = 1999 if buckets == 2**20 else 991  # less, so that products stay below 2^31
    for size in range(1, longest):
        following = padded[:, size : size + time]
        # The shift mixes high digits into low ones, so that neighbouring ids are spread.
        ngram = ops.mod(ngram * 1021, buckets)  # LiteRT has no "and" of bits
        ngram = ops.mod(ops.bitwise_xor(ngram, ops.right_shift(ngram, 7)) * factor + following, buckets)
        is_whole = following != PAD_ID
        parts.append(ops.where(is_whole, ops.maximum(ngram, 1), 0))
    return ops.concatenate(parts, axis=1)


def ngram_keys(token_ids: np.ndarray, longest: int) -> np.ndarray:
    """Tells n-grams apart that share an id: uint64 in the places of `ngram_ids`."""
    parts = [token_ids.astype(np.uint64)]
    padded = np.pad(parts[0], [(0, 0), (0, longest)])
    for size in range(1, longest):
        mixed = parts[-1] * np.uint64(0x9E3779B97F4A7C15)
        parts.append((mixed ^ (mixed >> np.uint64(29))) + padded[:, size : size + token_ids.shape[1]])
    return np.concatenate(parts, axis=1)


@keras.saving.register_keras_serializable("nlp_rnn")
class NgramLinear(keras.layers.Layer):
    """Sums the weights of a text's distinct n-grams. Padding counts for nothing.

    `fit` does not train the weights; `stacking.fit_linear_part` fits them afterwards. They are int8, with one scale per
    column.

    Args:
      longest: number of tokens of the longest n-grams.
      num_classes: two or more, or of label sets one or more.
      is_paired: whether two classes share one column; None: where there are two classes.

    Call: int32 ids [batch, time], right-padded with PAD_ID -> float32 logits [batch, num_classes].
    """

    def __init__(self, longest: int, num_classes: int, *, is_paired: bool | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.longest, self.num_classes = longest, num_classes
        self.is_paired = num_classes == 2 if is_paired is None else is_paired

    def build(self, ids_shape: Any) -> None:
        columns = 1 if self.is_paired else self.num_classes
        options: dict[str, Any] = {"initializer": "zeros", "trainable": False}
        self.table = self.add_weight(
            name="table", shape=(num_buckets(self.longest), columns), dtype="int8", autocast=False, **options
        )
        self.scale = self.add_weight(name="scale", shape=(columns,), dtype="float32", autocast=False, **options)
        self.bias = self.add_weight(name="bias", shape=(columns,), dtype="float32", autocast=False, **options)

    def call(self, token_ids: Any) -> Any:
        ops = keras.ops
        ids = ops.sort(ngram_ids(token_ids, self.longest), axis=1)
        before = ops.pad(ids[:, :-1], [(0, 0), (1, 0)])
        is_first = ops.cast((ids != before) & (ids != PAD_ID), "float32")  # count each n-gram once, padding never
        return self._as_logits(ops.sum(self._weights(ids) * is_first[:, :, None], axis=1) + self.bias)

    def compute_output_shape(self, ids_shape: Any) -> Any:
        return (ids_shape[0], self.num_classes)

    def compute_output_spec(self, token_ids: Any) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(token_ids.shape), dtype="float32")

    def contributions(self, token_ids: Any) -> Any:
        """Computes how much each token adds to the logits: int32 [batch, time] -> float32 [batch, time, num_classes].

        The weight of an n-gram is divided evenly among its occurrences in the text, and then among their tokens.
        """
        ops = keras.ops
        ids, time = ngram_ids(token_ids, self.longest), ops.shape(token_ids)[1]
        counts = ops.sum(ops.cast(ids[:, :, None] == ids[:, None], "float32"), axis=2)
        shares = self._weights(ids) * ops.cast(ids != PAD_ID, "float32")[:, :, None] / counts[:, :, None]
        total = ops.zeros_like(shares[:, :time])
        for size in range(1, self.longest + 1):
            part = shares[:, (size - 1) * time : size * time] / size
            for place in range(size):
                total = total + ops.pad(part, [(0, 0), (place, 0), (0, 0)])[:, :time]
        return self._as_logits(total)

    def assign(self, weights: np.ndarray, bias: np.ndarray) -> None:
        """Sets the weights from float [num_buckets, columns], rounded to int8, and the biases from float [columns]."""
        table, scales = to_int8(weights, axis=0)
        self.table.assign(table)
        self.scale.assign(scales[0])
        self.bias.assign(bias.astype(np.float32))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "longest": self.longest,
            "num_classes": self.num_classes,
            "is_paired": self.is_paired,
        }

    def _weights(self, ids: Any) -> Any:
        return keras.ops.cast(keras.ops.take(self.table, ids, axis=0), "float32") * self.scale

    def _as_logits(self, scores: Any) -> Any:
        return scores if not self.is_paired else keras.ops.concatenate([-scores / 2, scores / 2], axis=-1)


@keras.saving.register_keras_serializable("nlp_rnn")
class Stack(keras.layers.Layer):
    """The weighted sum of two classifiers' logits. `fit` does not train the weights.

    The share of the first, recurrent part grows with the length n of the text, by n² / (n² + half_length²): from pooled
    features of a few words, which it seldom sees in training, it answers with too much confidence. `stacking.fit_stack`
    fits both shares and half_length afterwards on validation data. Source: Wolpert 1992.
    """

    def build(self, deep_shape: Any, wide_shape: Any = None, is_token_shape: Any = None) -> None:
        def add(name: str, shape: tuple[int, ...]) -> Any:
            return self.add_weight(
                name=name, shape=shape, dtype="float32", autocast=False, initializer="zeros", trainable=False
            )

        self.shares, self.half_length = add("shares", (2,)), add("half_length", ())
        self.assign([1.0, 0.0])

    def call(self, deep: Any, wide: Any, is_token: Any) -> Any:
        """Adds the weighted logits.

        Args:
          deep, wide: float32 [batch, classes].
          is_token: bool [batch, time], False where padding is; the same number of tokens counts for all rows if its
            batch is 1.

        Returns:
          float32 [batch, classes].
        """
        ops = keras.ops
        squares = ops.square(ops.sum(ops.cast(is_token, "float32"), axis=1, keepdims=True))
        reliability = squares / ops.maximum(squares + ops.square(self.half_length), 1.0)
        return deep * self.shares[0] * reliability + wide * self.shares[1]

    def assign(self, shares: Any, half_length: float = 0.0) -> None:
        """Sets the shares float [2] of the recurrent and the linear part, and the length, in tokens, that halves the
        first one; 0: it is the same for all lengths."""
        self.shares.assign(shares)
        self.half_length.assign(half_length)

    def compute_output_shape(self, deep_shape: Any, wide_shape: Any = None, is_token_shape: Any = None) -> Any:
        return deep_shape
