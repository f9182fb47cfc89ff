"""The recurrent layers for Keras's backend JAX: results, states and gradients are those of Keras's layers."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, pipeline_environment

pytest.importorskip("jax", reason="needs the extra `jax`")

# In a process of its own, since a process has one backend. Prints the layers that differ.
COMPARED = """
import itertools
import jax, keras, numpy as np
from jax import numpy as jnp
from nlp_rnn.layers.fast.jax_recurrent import JaxGRU, JaxLSTM

random = np.random.default_rng(1)

def draw(*shape):
    return jnp.asarray(random.normal(size=shape), "float32")

def results(layer, inputs, mask, states):
    def loss(weights, inputs, states):
        others = [each.value for each in layer.non_trainable_variables]
        first = states if len(states) > 1 else states[0]
        outputs, _ = layer.stateless_call(weights, others, inputs, mask=mask, initial_state=first)
        return sum(jnp.sum(jnp.sin((number + 1) * each)) for number, each in enumerate(outputs)), outputs

    weights = [each.value for each in layer.trainable_variables]
    return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(weights, inputs, states)

for (fast, stock), *options in itertools.product(
    [(JaxLSTM, keras.layers.LSTM), (JaxGRU, keras.layers.GRU)], [False, True], [False, True], [False, True]
):
    is_masked, returns_sequences, go_backwards = options
    layers = [
        each(4, return_sequences=returns_sequences, return_state=True, go_backwards=go_backwards)
        for each in (fast, stock)
    ]
    inputs, mask = draw(3, 7, 5), jnp.asarray(random.random((3, 7)) > 0.3) if is_masked else None
    states = [draw(3, 4) for _ in range(2 if fast is JaxLSTM else 1)]
    for layer in layers:
        layer.build(inputs.shape)
    values = [random.normal(size=each.shape) for each in layers[0].get_weights()]
    for layer in layers:
        layer.set_weights(values)
    ours, keras_s = (jax.tree.leaves(results(layer, inputs, mask, states)) for layer in layers)
    difference = max(float(jnp.abs(one - other).max()) for one, other in zip(ours, keras_s, strict=True))
    assert len(ours) > 6 and any(float(jnp.abs(each).max()) > 0.1 for each in ours)
    if not difference < 2e-5:
        print(fast.__name__, options, difference)
print("compared")
"""

UNUSUAL = """
import keras
from nlp_rnn.layers.fast import jax_recurrent

def fails(*arguments):
    raise AssertionError("runs where Keras's own loop has to run")

jax_recurrent.run_recurrence = fails
for options in ({"activation": "relu"}, {"recurrent_dropout": 0.5}, {"use_bias": False}, {"dtype": "mixed_bfloat16"}):
    for layer in (jax_recurrent.JaxLSTM, jax_recurrent.JaxGRU):
        assert layer(4, **options)(keras.random.normal((2, 3, 5)), training=True).shape == (2, 4)
assert jax_recurrent.JaxGRU(4, reset_after=False)(keras.random.normal((2, 3, 5))).shape == (2, 4)
print("compared")
"""


@pytest.mark.parametrize("program", [COMPARED, UNUSUAL], ids=["results", "unusual layers"])
def test_layers_on_jax_are_kerass(program: str, tmp_path: Path) -> None:
    environment = pipeline_environment(tmp_path) | {"KERAS_BACKEND": "jax"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "compared\n"
