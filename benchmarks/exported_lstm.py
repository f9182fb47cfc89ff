"""Claim: in exports, one operation runs an LSTM over a small batch faster than Keras's loop, with equal results.

It prints milliseconds and the ratio for batches of 1 to 64 texts; `block_lstm.MAX_ROWS` is chosen by it.

    python -m benchmarks.exported_lstm [--rounds 15] [--plot FILE]
"""

import statistics
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks import timing
from nlp_rnn.layers.fast.block_lstm import run_block_lstm

SIZES = [(units, steps) for units in (64, 128, 256, 512) for steps in (40, 250)]
ROWS = (1, 2, 4, 8, 16, 64)


def main() -> None:
    """Measures all sizes and prints a line for each."""
    options = timing.parser(__doc__, rounds=15).parse_args()
    timing.wait_until_quiet(options.wait)
    ratios = {}
    for units, steps in SIZES:
        for rows in ROWS:
            rivals = _rivals(units, rows, steps)
            found, expected = (run() for run in (rivals["one operation"], rivals["loop"]))
            np.testing.assert_allclose(found, expected, atol=2e-6)
            seconds = timing.interleave(rivals, options.rounds, lead_in=True)
            loop, one = (1000 * statistics.median(seconds[name]) for name in ("loop", "one operation"))
            name = f"{units} units, {rows} x {steps} words"
            ratios[name] = {"one operation": timing.ratio(seconds, "loop", "one operation")}
            print(f"{name:28} loop {loop:8.2f} ms, one operation {one:8.2f} ms, {ratios[name]['one operation']:.2f}x")
    if options.plot:
        timing.plot_ratios(options.plot, "An exported LSTM as one operation, beside Keras's loop", ratios)


def _rivals(units: int, rows: int, steps: int) -> dict[str, Callable[[], Any]]:
    layer = keras.layers.LSTM(units, return_sequences=True, use_cudnn=False)
    layer.build((None, None, units))
    sequences = tf.random.stateless_normal([rows, steps, units], [1, 2])
    mask = tf.ones([rows, steps], tf.bool)

    @tf.function(autograph=False)
    def loop() -> Any:
        return layer(sequences, mask=mask)

    @tf.function(autograph=False)
    def one_operation() -> Any:
        cell = layer.cell
        weights = [tf.convert_to_tensor(each) for each in (cell.kernel, cell.recurrent_kernel, cell.bias)]
        return run_block_lstm(sequences, mask, [tf.zeros([rows, units])] * 2, weights)[0]

    return {"loop": lambda: loop().numpy(), "one operation": lambda: one_operation().numpy()}


if __name__ == "__main__":
    main()
