"""The output layer of language models: hidden vectors to word probabilities. Plain Keras, on any backend."""

import math
from collections.abc import Callable
from typing import Any

import keras

from nlp_rnn.config.types import SoftmaxName
from nlp_rnn.errors import ConfigError
from nlp_rnn.layers.masking import IMPOSSIBLE
from nlp_rnn.layers.r_drop import divergences, twice

_FEW_TOKENS = 1000  # of so many, all logits are computed faster than the vectors of a few per row are gathered


class SoftmaxHead(keras.layers.Layer):
    """A softmax over the vocabulary, with its training loss. Evaluation is exact for all three kinds.

    - full: training computes all words.
    - sampled: in training, the sum over the words other than the target is exact for the most frequent ones. For the
      others it is estimated, without bias, from log-uniform draws that the rows of a batch share. Sources: Bengio &
      Senécal 2008; Blanc & Rendle 2018, section 3.
    - adaptive: frequent words are computed directly, the others in clusters with fewer features, which are computed
      only where needed. Source: Grave et al. 2017.
    Sampled and adaptive need ids in the order of falling frequency, as `Tokenizer` assigns them.

    Args:
      vocab_size: number of ids.
      softmax: see above.
      num_sampled: of a sampled softmax; half are the most frequent words, half are drawn anew per batch, with
        replacement.
      cutoffs: rising ids below vocab_size where the clusters begin: [2000, 10000] makes three parts.
      embedding: a built Embedding layer whose table is the kernel (tied weights; not for adaptive). Source: Press &
        Wolf 2017.

    Attributes:
      temperature: by which `call` divides the logits. It is fitted after training, and `loss` leaves it out.

    Raises:
      ConfigError: if cutoffs do not rise, an adaptive softmax is tied, or the embedding's table does not fit.
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        softmax: SoftmaxName = "full",
        num_sampled: int = 1024,
        cutoffs: tuple[int, ...] = (),
        embedding: keras.layers.Embedding | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if softmax == "adaptive":
            if not cutoffs or sorted({0, *cutoffs, vocab_size}) != [0, *cutoffs, vocab_size]:
                raise ConfigError(
                    f"cutoffs are {list(cutoffs)}, but must rise, between 0 and the vocabulary's size of {vocab_size}"
                )
            if embedding is not None:
                raise ConfigError(
                    "softmax is adaptive, whose clusters have fewer features than the embedding; do not tie the weights"
                )
        self.vocab_size, self.softmax, self.num_sampled, self.cutoffs = vocab_size, softmax, num_sampled, tuple(cutoffs)
        self.temperature = 1.0
        self.seed_generator = keras.random.SeedGenerator(seed)
        # Not an attribute, so that the table stays a weight of the embedding and does not become one of this layer.
        self._table: Callable[[], Any] | None = embedding and (lambda: embedding.embeddings)

    def build(self, hidden_shape: Any) -> None:
        size = hidden_shape[-1]
        num_words = self.cutoffs[0] + len(self.cutoffs) if self.softmax == "adaptive" else self.vocab_size
        if self._table is None:
            self._kernel = self.add_weight(name="kernel", shape=(num_words, size), initializer="glorot_uniform")
        elif tuple(self.kernel.shape) != (num_words, size):
            expected = f"the output layer needs a table of {num_words} rows with {size} features"
            raise ConfigError(
                f"{expected}, but the embedding's has {tuple(self.kernel.shape)}; tied weights must agree"
            )
        self.bias = self.add_weight(name="bias", shape=(num_words,), initializer="zeros")
        self.tails = []
        ends = [*self.cutoffs[1:], self.vocab_size] if self.softmax == "adaptive" else []
        for number, (start, end) in enumerate(zip(self.cutoffs, ends, strict=False)):
            fewer = max(1, size // 4 ** (number + 1))
            shapes = {"projection": (size, fewer), "kernel": (end - start, fewer), "bias": (end - start,)}
            initializers = {"projection": "glorot_uniform", "kernel": "glorot_uniform", "bias": "zeros"}
            self.tails.append(
                [
                    self.add_weight(name=f"tail_{number}_{name}", shape=shapes[name], initializer=initializers[name])
                    for name in shapes
                ]
            )

    @property
    def kernel(self) -> Any:
        """float [vocabulary, features]; for an adaptive softmax [frequent words + clusters, features]."""
        return self._table() if self._table else self._kernel

    def call(self, hidden: Any) -> Any:
        """float [..., features] -> log-probabilities float [..., vocabulary]."""
        ops = keras.ops
        logits = hidden @ ops.transpose(self.kernel) + self.bias
        if self.softmax != "adaptive":
            return ops.log_softmax(self._cooled(logits), axis=-1)
        log_probabilities = ops.log_softmax(logits, axis=-1)
        parts = [log_probabilities[..., : self.cutoffs[0]]]
        for number, (projection, kernel, bias) in enumerate(self.tails):
            cluster = log_probabilities[..., self.cutoffs[0] + number, None]
            parts.append(cluster + ops.log_softmax(hidden @ projection @ ops.transpose(kernel) + bias, axis=-1))
        log_probabilities = ops.concatenate(parts, axis=-1)
        return log_probabilities if self.temperature == 1 else ops.log_softmax(self._cooled(log_probabilities), axis=-1)

    def _cooled(self, logits: Any) -> Any:
        return logits if self.temperature == 1 else logits / self.temperature

    def compute_output_shape(self, hidden_shape: Any) -> Any:
        return (*hidden_shape[:-1], self.vocab_size)

    def loss(
        self, hidden: Any, targets: Any, weights: Any, training: bool = False, label_smoothing: float = 0.0
    ) -> Any:
        """Computes the weighted sum of cross-entropies in nats: exact, except for a sampled softmax in training.

        Args:
          hidden: float32 [rows, features].
          targets: int32 [rows].
          weights: float32 [rows]; rows with weight 0 are left out.
          training: whether the loss is differentiated. On TensorFlow it otherwise has no gradients.
          label_smoothing: the share of each target that is spread over all words, 0-1; full softmax only.

        Raises:
          NotImplementedError: if an adaptive softmax is trained on another backend than TensorFlow.
        """
        return self._loss(hidden, targets, weights, training, label_smoothing, 0.0)[0]

    def r_drop_loss(
        self, hidden: Any, targets: Any, weights: Any, *, r_drop: float, label_smoothing: float = 0.0
    ) -> tuple[Any, Any]:
        """Computes `loss` of a training with two passes: their mean plus `r_drop` times their divergence.

        Args:
          hidden: float32 [2 * rows, features], in the order of `nlp_rnn.layers.r_drop.twice`.
          targets, weights, label_smoothing: see `loss`; one target and weight for both passes.

        Returns:
          (loss, weighted sum of the divergences in nats, without a gradient).

        Raises:
          ConfigError: if the softmax is adaptive.
        """
        if self.softmax == "adaptive":
            raise ConfigError(
                f"r_drop is {r_drop}, but an adaptive softmax computes a cluster only for its own targets; "
                "use softmax full or sampled"
            )
        return self._loss(hidden, twice(targets), twice(weights) / 2, True, label_smoothing, r_drop)

    def likely_loss(self, hidden: Any, targets: Any, likely: Any, weights: Any) -> Any:
        """Computes what a teacher's probabilities add to `loss`; not for an adaptive softmax.

        Together they are the cross-entropy to probabilities of which the given tokens have theirs and the target has
        the rest: the sum over tokens of p * (logit of the target - logit of the token) is the difference.

        Args:
          hidden: float32 [rows, features].
          targets: int32 [rows].
          likely: float32 [rows, 2 * k], ids of tokens, which may include the target, then their probabilities.
          weights: float32 [rows]; rows with weight 0 are left out.

        Returns:
          the weighted sum, in nats; below 0 where the target is the less likely one.
        """
        ops = keras.ops
        ids, probabilities = ops.split(likely, 2, axis=1)
        ids = ops.concatenate([targets[:, None], ops.cast(ids, "int32")], axis=1)
        if self.vocab_size <= _FEW_TOKENS:
            logits = ops.take_along_axis(hidden @ ops.transpose(self.kernel) + self.bias, ids, axis=1)
        else:
            rows, biases = ops.take(self.kernel, ids, axis=0), ops.take(self.bias, ids)
            logits = ops.einsum("rf,rkf->rk", hidden, rows) + biases
        return ops.sum(ops.sum(probabilities * (logits[:, :1] - logits[:, 1:]), axis=1) * weights)

    def _loss(
        self, hidden: Any, targets: Any, weights: Any, training: bool, label_smoothing: float, r_drop: float
    ) -> tuple[Any, Any]:
        """(loss, weighted sum of the divergences); with r_drop, rows are in the order of `twice`."""
        ops = keras.ops
        if self.softmax == "sampled" and training:
            return self._sampled_loss(hidden, targets, weights, r_drop)
        if keras.backend.backend() != "tensorflow":
            if self.softmax == "adaptive":
                raise NotImplementedError(
                    "an adaptive softmax is trained on Keras's backend tensorflow only; use full or sampled"
                )
            log_probabilities = self(hidden)
            likelihoods = (1 - label_smoothing) * ops.take_along_axis(log_probabilities, targets[:, None], axis=1)[:, 0]
            return _with_divergence(
                -likelihoods - label_smoothing * ops.mean(log_probabilities, axis=1), log_probabilities, weights, r_drop
            )
        from nlp_rnn.layers.fast import softmax as fast_softmax
        from nlp_rnn.layers.fast.precision import matmul_dtype

        tensors, dtype = ops.convert_to_tensor, matmul_dtype(is_training=training)
        head = (tensors(self.kernel), tensors(self.bias))
        if self.softmax == "adaptive":
            tails = [tuple(tensors(weight) for weight in tail) for tail in self.tails]
            total = fast_softmax.adaptive_cross_entropy(
                hidden, head, tails, targets, weights, is_training=training, dtype=dtype
            )
            return total, 0.0
        return fast_softmax.softmax_cross_entropy(
            hidden, *head, targets, weights, is_training=training, label_smoothing=label_smoothing, r_drop=r_drop,
            dtype=dtype,
        )  # fmt: skip

    def _sampled_loss(self, hidden: Any, targets: Any, weights: Any, r_drop: float) -> tuple[Any, Any]:
        """Computes the most frequent words exactly and estimates the sum over the others from as many draws."""
        ops = keras.ops
        num_exact = min(self.num_sampled // 2, self.vocab_size)
        others, log_counts = self._draw(num_exact)
        ids = ops.concatenate([ops.arange(num_exact, dtype="int32"), others])
        true_logits = ops.sum(hidden * ops.take(self.kernel, targets, axis=0), axis=1) + ops.take(self.bias, targets)
        rows = ops.take(self.kernel, ids, axis=0)
        biases = ops.take(self.bias, ids) - ops.concatenate([ops.zeros(num_exact), log_counts])
        if keras.backend.backend() == "tensorflow":
            from nlp_rnn.layers.fast import softmax as fast_softmax
            from nlp_rnn.layers.fast.precision import matmul_dtype

            return fast_softmax.sampled_cross_entropy(
                hidden, rows, biases, true_logits, ids, targets, weights, r_drop=r_drop, dtype=matmul_dtype()
            )
        logits = hidden @ ops.transpose(rows) + biases
        logits = ops.where(targets[:, None] == ids[None], IMPOSSIBLE, logits)
        logits = ops.concatenate([true_logits[:, None], logits], axis=1)
        log_probabilities = logits - ops.logsumexp(logits, axis=1, keepdims=True)
        return _with_divergence(-log_probabilities[:, 0], log_probabilities, weights, r_drop)

    def _draw(self, first: int) -> tuple[Any, Any]:
        """Draws ids >= `first`, log-uniform, with replacement. Returns also the logarithms of their expected counts."""
        ops = keras.ops
        num_draws = self.num_sampled - first if first < self.vocab_size else 0
        span = math.log((self.vocab_size + 1) / (first + 1))
        draws = keras.random.uniform((num_draws,), seed=self.seed_generator)
        ids = ops.cast(ops.exp(draws * span + math.log(first + 1)), "int32") - 1
        ids = ops.clip(ids, first, self.vocab_size - 1)
        ranks = ops.cast(ids, "float32") + 1
        return ids, ops.log(num_draws * ops.log((ranks + 1) / ranks) / span)


def _with_divergence(losses: Any, log_probabilities: Any, weights: Any, r_drop: float) -> tuple[Any, Any]:
    total = keras.ops.sum(losses * weights)
    if not r_drop:
        return total, 0.0
    divergence = keras.ops.sum(divergences(log_probabilities) * weights)
    return total + r_drop * divergence, divergence
