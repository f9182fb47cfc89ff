"""Claim: a training step of a word language model takes less time than with Keras's layers, loss and optimizer.

Embedding and two LSTM(512) with tied weights, 64 texts of 35 words; forward, backward and Adam. Rivals: Keras's own
parts; ours with the exact softmax (same function, same loss); ours with the sampled softmax and lazy Adam (both also
with hardware.matmul_precision=bfloat16); ours with the adaptive softmax (another training loss, exact evaluation); and
PyTorch's if it is installed.

    python -m benchmarks.lm_step [--rounds 5] [--plot FILE]
"""

import importlib.util
import statistics
import sys
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from benchmarks import timing
from nlp_rnn.layers.fast.fused_adam import FusedAdam, LazyAdam
from nlp_rnn.layers.fast.precision import matmul_precision
from nlp_rnn.layers.fast.recurrent import FastLSTM
from nlp_rnn.layers.softmax_head import SoftmaxHead

BATCH, TIME, UNITS, LAYERS = 64, 35, 512, 2


def main() -> None:
    """Measures two sizes of vocabulary and prints a line for each."""
    options = timing.parser(__doc__, rounds=5).parse_args()
    timing.wait_until_quiet(options.wait)
    ratios = {}
    for vocab_size in (10_000, 30_000):
        rivals = {
            "keras": keras_step(vocab_size),
            "ours, exact": our_step(vocab_size, FusedAdam, softmax="full"),
            "ours, sampled": our_step(vocab_size, LazyAdam, softmax="sampled"),
            "ours, adaptive": our_step(
                vocab_size, LazyAdam, softmax="adaptive", cutoffs=(2000, 10_000)[: 1 + (vocab_size > 10_000)]
            ),
        }
        for kind in ("exact", "sampled"):
            softmax, optimizer = ("full", FusedAdam) if kind == "exact" else ("sampled", LazyAdam)
            with matmul_precision("bfloat16"):
                rivals[f"ours, {kind}, bfloat16"] = step = our_step(vocab_size, optimizer, softmax=softmax)
                step()  # traces it
        if importlib.util.find_spec("torch"):
            rivals["torch"] = torch_step(vocab_size)
        seconds = timing.interleave(rivals, options.rounds)
        words = f"{vocab_size} words"
        ratios[words] = {name: timing.ratio(seconds, "keras", name) for name in rivals if name != "keras"}
        line = "".join(
            f"  {name} {1000 * statistics.median(seconds[name]):.0f} ms (ratio {each:.2f})"
            for name, each in ratios[words].items()
        )
        print(f"{words}:  keras {1000 * statistics.median(seconds['keras']):.0f} ms{line}", flush=True)
    if options.plot:
        timing.plot_ratios(options.plot, "A step of a word language model, beside Keras's", ratios)


def batch(vocab_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Words by Zipf's law, as ids in the order of falling frequency."""
    draws = tf.random.stateless_uniform([BATCH, TIME + 1], [1, 2])
    ids = tf.cast(tf.exp(draws * tf.math.log(float(vocab_size))), tf.int32)
    ids = tf.clip_by_value(ids, 0, vocab_size - 1)
    return ids[:, :-1], ids[:, 1:]


def keras_step(vocab_size: int) -> Callable[[], Any]:
    """Keras's layers, its cross-entropy and its Adam."""
    embedding = keras.layers.Embedding(vocab_size, UNITS)
    layers = [keras.layers.LSTM(UNITS, return_sequences=True) for _ in range(LAYERS)]
    bias = keras.Variable(tf.zeros([vocab_size]))

    def loss(inputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        hidden = embedding(inputs)
        for layer in layers:
            hidden = layer(hidden, training=True)
        logits = keras.ops.matmul(hidden, keras.ops.transpose(embedding.embeddings)) + bias
        return keras.ops.mean(keras.losses.sparse_categorical_crossentropy(targets, logits, from_logits=True))

    return _step(vocab_size, [embedding, *layers], [bias], loss, keras.optimizers.Adam())


def our_step(vocab_size: int, optimizer: type[keras.optimizers.Optimizer], **head_options: Any) -> Callable[[], Any]:
    """The fast layers, the output layer and the optimizers of this package."""
    embedding = keras.layers.Embedding(vocab_size, UNITS)
    embedding.build(None)
    layers = [FastLSTM(UNITS, return_sequences=True) for _ in range(LAYERS)]
    tied = {} if head_options["softmax"] == "adaptive" else {"embedding": embedding}
    head = SoftmaxHead(vocab_size, **tied, **head_options)
    head.build((None, UNITS))

    def loss(inputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        hidden = embedding(inputs)
        for layer in layers:
            hidden = layer(hidden, training=True)
        rows = tf.reshape(hidden, [BATCH * TIME, UNITS])
        return head.loss(rows, tf.reshape(targets, [-1]), tf.ones([BATCH * TIME]), training=True) / (BATCH * TIME)

    return _step(vocab_size, [embedding, *layers, head], [], loss, optimizer())


def _step(
    vocab_size: int,
    layers: list[keras.layers.Layer],
    weights: list[keras.Variable],
    loss: Callable[..., tf.Tensor],
    optimizer: Any,
) -> Callable[[], Any]:
    inputs, targets = batch(vocab_size)
    loss(inputs, targets)
    weights = [*weights, *(weight for layer in layers for weight in layer.trainable_weights)]
    optimizer.build(weights)

    @tf.function(autograph=False)
    def run() -> tf.Tensor:
        with tf.GradientTape() as tape:
            value = loss(inputs, targets)
        optimizer.apply(tape.gradient(value, [weight.value for weight in weights]), weights)
        return value

    return lambda: run().numpy()


def torch_step(vocab_size: int) -> Callable[[], Any]:
    """The same model in PyTorch."""
    sys.modules["triton"] = None  # type: ignore[assignment]  # its LLVM and XLA's cannot be in one process
    import torch

    embedding, lstm = torch.nn.Embedding(vocab_size, UNITS), torch.nn.LSTM(UNITS, UNITS, LAYERS, batch_first=True)
    bias = torch.nn.Parameter(torch.zeros(vocab_size))
    optimizer = torch.optim.Adam([*embedding.parameters(), *lstm.parameters(), bias])
    inputs, targets = (torch.from_numpy(each.numpy()).long() for each in batch(vocab_size))

    def run() -> None:
        optimizer.zero_grad()
        logits = lstm(embedding(inputs))[0] @ embedding.weight.T + bias
        torch.nn.functional.cross_entropy(logits.reshape(-1, vocab_size), targets.reshape(-1)).backward()
        optimizer.step()

    return run


if __name__ == "__main__":
    main()
