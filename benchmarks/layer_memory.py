"""Claim: a training step of our layers needs at most 1.3 times the memory of Keras's.

Each layer runs in its own process. A batch of two chunks compiles everything first. The script prints how far the peak
resident memory of five forward and backward passes over long sequences exceeds the memory after that.

    python -m benchmarks.layer_memory
"""

import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from benchmarks import layers

SHAPES = [
    layers.Shape("lstm", 64, 2000, 128, 128),
    layers.Shape("lstm", 64, 2000, 128, 64, is_masked=True),
    layers.Shape("lstm", 128, 500, 256, 512),
    layers.Shape("gru", 128, 500, 256, 512),
    layers.Shape("min_gru", 128, 500, 256, 512),
]


def main() -> None:
    """Prints a line a shape; with a number and a name, the megabytes of one layer."""
    if len(sys.argv) == 3:
        shape, classes = SHAPES[int(sys.argv[1])], {"keras": layers.STOCK, "ours": layers.FAST}[sys.argv[2]]
        run = training_step(shape, classes[shape.cell])
        run(100)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(5):
            run(shape.time)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
        return
    for number, shape in enumerate(SHAPES):
        found = []
        for name in ("keras", "ours"):
            command = [sys.executable, "-m", "benchmarks.layer_memory", str(number), name]
            output = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            ).stdout
            found.append(float(output.split()[-1]))
        print(
            f"{shape}:  keras {found[0]:.0f} MB  ours {found[1]:.0f} MB (ratio {found[1] / found[0]:.2f})", flush=True
        )


def training_step(shape: layers.Shape, layer_class: type[keras.layers.Layer]) -> Callable[[int], Any]:
    """A forward and backward pass over so many time steps."""
    layer = layer_class(shape.units, return_sequences=True)

    @tf.function(input_signature=[tf.TensorSpec([shape.batch, None, shape.features])], autograph=False)
    def step(inputs: tf.Tensor) -> list[tf.Tensor]:
        mask = tf.ones(tf.shape(inputs)[:2], tf.bool)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_mean(layer(inputs, mask=mask if shape.is_masked else None, training=True) ** 2)
        return tape.gradient(loss, [inputs, *(weight.value for weight in layer.trainable_weights)])

    return lambda time: step(tf.zeros([shape.batch, time, shape.features]))[0].numpy()


if __name__ == "__main__":
    main()
