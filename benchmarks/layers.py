"""Claim: our recurrent layers are faster than Keras's on a CPU, with equal results.

Each round times Keras's layer, ours and, if installed, PyTorch's, one after the other: a forward and backward pass, or
the forward pass alone (inference). The script prints medians, the median of the rounds' ratios to Keras, and ours as a
share of the machine's sgemm peak. minGRU is compared with Keras's LSTM, since Keras has no minGRU.

    python -m benchmarks.layers [--rounds 7] [--plot FILE]
"""

import importlib.util
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from benchmarks import timing
from nlp_rnn.config.tables import CELLS, resolve
from nlp_rnn.layers.fast.precision import matmul_precision


class Shape(NamedTuple):
    """What is measured; lengths of a masked batch are between 1 and `time`."""

    cell: str
    batch: int
    time: int
    features: int
    units: int
    is_masked: bool = False
    is_bidirectional: bool = False
    is_inference: bool = False

    def __str__(self) -> str:
        kinds = {"both directions of": self.is_bidirectional, "masked": self.is_masked}
        words = [
            *(kind for kind, holds in kinds.items() if holds),
            self.cell,
            f"{self.batch}, {self.time}, {self.features}, {self.units}",
        ]
        return " ".join(words) + (", inference" if self.is_inference else "")


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
    Shape("min_gru", 64, 200, 128, 128),
    Shape("min_gru", 128, 100, 256, 512),
    Shape("min_gru", 128, 30, 512, 512),
    Shape("lstm", 64, 200, 128, 128, is_inference=True),
    Shape("gru", 64, 200, 128, 128, is_inference=True),
]
FAST = {name: resolve(cell.fast_layer) for name, cell in CELLS.items() if cell.fast_layer}
STOCK = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "min_gru": keras.layers.LSTM}
NUM_GATES = {"lstm": 4, "gru": 3, "min_gru": 2}


def main() -> None:
    """Measures all shapes and prints a line for each."""
    options = timing.parser(__doc__, rounds=7).parse_args()
    timing.wait_until_quiet(options.wait)
    peak = timing.sgemm_peak()
    print(f"sgemm peak {peak / 1e9:.0f} GFLOP/s; batch, time, features, units; ratio > 1: faster than Keras's")
    ratios = {str(shape): measure(shape, options.rounds, peak) for shape in SHAPES}
    if options.plot:
        timing.plot_ratios(options.plot, "Recurrent layers (batch, time, features, units), beside Keras's", ratios)


def measure(shape: Shape, rounds: int, peak: float) -> dict[str, float]:
    """One line: medians in ms and ratios."""
    rivals = {"keras": keras_run(shape, STOCK[shape.cell]), "ours": keras_run(shape, FAST[shape.cell])}
    if not shape.is_inference:
        rivals["ours, bfloat16"] = in_bfloat16(keras_run(shape, FAST[shape.cell]))
    if importlib.util.find_spec("torch") and not shape.is_masked and shape.cell != "min_gru":
        rivals["torch"] = torch_run(shape)
    seconds = timing.interleave(rivals, rounds, lead_in=True)
    ours = statistics.median(seconds["ours"])
    speed = num_operations(shape) / ours
    ratios = {name: timing.ratio(seconds, "keras", name) for name in rivals if name != "keras"}
    line = f"{shape}:  keras {1000 * statistics.median(seconds['keras']):.1f} ms"
    for name, each in ratios.items():
        line += f"  {name} {1000 * statistics.median(seconds[name]):.1f} ms (ratio {each:.2f})"
    print(f"{line}  {speed / 1e9:.0f} GFLOP/s, {speed / peak:.0%} of the peak", flush=True)
    return ratios


def num_operations(shape: Shape) -> int:
    """Operations of the products: forward one with the inputs and one with the state, backward two of each."""
    products = shape.features + (0 if shape.cell == "min_gru" else shape.units)
    passes = 1 if shape.is_inference else 3
    return (
        2
        * passes
        * (1 + shape.is_bidirectional)
        * shape.batch
        * shape.time
        * NUM_GATES[shape.cell]
        * shape.units
        * products
    )


def keras_run(shape: Shape, layer_class: type[keras.layers.Layer]) -> Callable[[], Any]:
    """A pass as a compiled function."""
    layers = [
        layer_class(shape.units, go_backwards=back, return_sequences=True)
        for back in (False, True)[: 1 + shape.is_bidirectional]
    ]
    for layer in layers:
        layer.has_twin = shape.is_bidirectional
        layer.build((shape.batch, shape.time, shape.features))
    inputs = tf.random.stateless_normal([shape.batch, shape.time, shape.features], [1, 2])
    upstream = tf.random.stateless_normal([shape.batch, shape.time, shape.units], [1, 3])
    lengths = np.random.default_rng(1).integers(1, shape.time + 1, shape.batch)
    mask = tf.sequence_mask(lengths, shape.time) if shape.is_masked else None

    @tf.function(autograph=False)
    def run() -> list[tf.Tensor]:
        if shape.is_inference:
            return [layer(inputs, mask=mask, training=False) for layer in layers]
        variables = [weight.value for layer in layers for weight in layer.trainable_weights]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.add_n([tf.reduce_sum(layer(inputs, mask=mask, training=True) * upstream) for layer in layers])
        return tape.gradient(loss, [inputs, *variables])

    return lambda: run()[0].numpy()


def in_bfloat16(run: Callable[[], Any]) -> Callable[[], Any]:
    """The same, traced with hardware.matmul_precision=bfloat16."""
    with matmul_precision("bfloat16"):
        run()
    return run


def torch_run(shape: Shape) -> Callable[[], Any]:
    """The same pass in PyTorch."""
    import torch

    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[shape.cell]
    layer = kind(shape.features, shape.units, batch_first=True, bidirectional=shape.is_bidirectional)
    inputs = torch.randn(shape.batch, shape.time, shape.features, requires_grad=True)
    upstream = torch.randn(shape.batch, shape.time, shape.units * (1 + shape.is_bidirectional))

    def train() -> None:
        layer.zero_grad()
        inputs.grad = None
        (layer(inputs)[0] * upstream).sum().backward()

    def infer() -> None:
        with torch.inference_mode():
            layer(inputs)

    return infer if shape.is_inference else train


if __name__ == "__main__":
    main()
