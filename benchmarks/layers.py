"""Claim: our LSTM and GRU layers train faster than Keras's on a CPU, at equal results (`tests/test_fast_recurrent.py`).

Each round times one forward and backward pass of Keras's layer, of ours and, where it is installed, of PyTorch's, one
after the other; printed are medians, the median of the rounds' ratios, and the share of the machine's own sgemm peak.

    python benchmarks/layers.py [--rounds 9]
"""

import argparse
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from nlp_rnn.fast_recurrent import FastGRU, FastLSTM


class Shape(NamedTuple):
    """What is measured; lengths of a masked batch are between 1 and `time`."""

    cell: str
    batch: int
    time: int
    features: int
    units: int
    is_masked: bool = False
    is_bidirectional: bool = False


SHAPES = [
    Shape("lstm", 64, 200, 128, 128),
    Shape("lstm", 128, 100, 256, 512),
    Shape("lstm", 128, 30, 512, 512),
    Shape("lstm", 64, 200, 64, 64, is_masked=True),
    Shape("lstm", 64, 200, 128, 128, is_bidirectional=True),
    Shape("lstm", 64, 200, 128, 64, is_bidirectional=True),
    Shape("gru", 64, 200, 128, 128),
    Shape("gru", 64, 200, 128, 128, is_bidirectional=True),
    Shape("gru", 128, 30, 512, 512),
]
LAYERS = {"keras": {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}, "ours": {"lstm": FastLSTM, "gru": FastGRU}}


def main() -> None:
    """Measures all shapes and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    print(f"{os.getloadavg()[0]:.1f} processes were running before the start (quiet: less than 0.5)")
    peak = sgemm_peak()
    print(f"sgemm peak {peak / 1e9:.0f} GFLOP/s; ratio > 1: faster than Keras; share: of the peak, by ours")
    for shape in SHAPES:
        measure(shape, rounds, peak)


def measure(shape: Shape, rounds: int, peak: float) -> None:
    """One line: medians in ms and ratios."""
    runs = {name: keras_run(shape, LAYERS[name][shape.cell]) for name in LAYERS}
    if importlib.util.find_spec("torch") and not shape.is_masked:
        runs["torch"] = torch_run(shape)
    for run in runs.values():
        for _ in range(2):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    directions, gates = 1 + shape.is_bidirectional, {"lstm": 4, "gru": 3}[shape.cell]
    # Forward one product with inputs and one with states; backward two of each; two operations a multiplication.
    operations = 6 * directions * shape.batch * shape.time * gates * shape.units * (shape.features + shape.units)
    kinds = f"{'bidirectional ' if shape.is_bidirectional else ''}{'masked ' if shape.is_masked else ''}"
    line = f"{kinds}{shape.cell} batch {shape.batch}, time {shape.time}, features {shape.features}, units {shape.units}:"
    for name, each in seconds.items():
        ratio = statistics.median(stock / mine for stock, mine in zip(seconds["keras"], each, strict=True))
        line += f"  {name} {1000 * statistics.median(each):.1f} ms" + (f" (ratio {ratio:.2f})" if name != "keras" else "")
    print(f"{line}  share {operations / statistics.median(seconds['ours']) / peak:.0%}", flush=True)


def keras_run(shape: Shape, layer_class: type[keras.layers.Layer]) -> Callable[[], Any]:
    """A forward and backward pass as a compiled function."""
    options = {"return_sequences": True, "use_cudnn": False}
    layers = [layer_class(shape.units, go_backwards=back, **options) for back in (False, True)[: 1 + shape.is_bidirectional]]
    for layer in layers:
        layer.build((shape.batch, shape.time, shape.features))
    inputs = tf.random.stateless_normal([shape.batch, shape.time, shape.features], [1, 2])
    upstream = tf.random.stateless_normal([shape.batch, shape.time, shape.units], [1, 3])
    lengths = np.random.default_rng(1).integers(1, shape.time + 1, shape.batch)
    mask = tf.sequence_mask(lengths, shape.time) if shape.is_masked else None

    @tf.function(autograph=False)
    def run() -> list[tf.Tensor]:
        variables = [weight.value for layer in layers for weight in layer.trainable_weights]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.add_n([tf.reduce_sum(layer(inputs, mask=mask) * upstream) for layer in layers])
        return tape.gradient(loss, [inputs, *variables])

    return lambda: run()[0].numpy()


def torch_run(shape: Shape) -> Callable[[], Any]:
    """The same pass in PyTorch."""
    import torch

    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[shape.cell]
    layer = kind(shape.features, shape.units, batch_first=True, bidirectional=shape.is_bidirectional)
    inputs = torch.randn(shape.batch, shape.time, shape.features, requires_grad=True)
    upstream = torch.randn(shape.batch, shape.time, shape.units * (1 + shape.is_bidirectional))

    def run() -> None:
        layer.zero_grad()
        inputs.grad = None
        (layer(inputs)[0] * upstream).sum().backward()

    return run


def sgemm_peak(size: int = 2048, rounds: int = 5) -> float:
    """The best of some products of large float32 matrices, in operations a second."""
    matrix = tf.random.stateless_normal([size, size], [1, 2])
    product = tf.function(lambda: matrix @ matrix, autograph=False)
    product()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        product().numpy()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


if __name__ == "__main__":
    main()
