"""The recurrent layers for Keras's backend JAX: results, states and gradients are those of Keras's layers."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, pipeline_environment

pytest.importorskip("jax", reason="needs the extra `jax`")

# Each program runs in a process of its own, since a process has one backend.
COMPARED = """
import itertools
import jax, keras, numpy as np
from jax import numpy as jnp
from nlp_rnn.layers.fast import jax_recurrent
from nlp_rnn.layers.fast.jax_recurrent import JaxGRU, JaxLSTM

random, times, run = np.random.default_rng(1), [], jax_recurrent.run_recurrence
jax_recurrent.run_recurrence = lambda *arguments: times.append(1) or run(*arguments)

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
    stock = stock(4, return_sequences=returns_sequences, return_state=True, go_backwards=go_backwards)
    fast = fast.from_config(stock.get_config())
    inputs, mask = draw(3, 7, 5), jnp.asarray(random.random((3, 7)) > 0.3) if is_masked else None
    states = [draw(3, 4) for _ in range(2 if isinstance(fast, JaxLSTM) else 1)]
    for layer in (fast, stock):
        layer.build(inputs.shape)
    values = [random.normal(size=each.shape) for each in fast.get_weights()]
    for layer in (fast, stock):
        layer.set_weights(values)
    ours, keras_s = (jax.tree.leaves(results(layer, inputs, mask, states)) for layer in (fast, stock))
    difference = max(float(jnp.abs(one - other).max()) for one, other in zip(ours, keras_s, strict=True))
    assert len(ours) > 6 and any(float(jnp.abs(each).max()) > 0.1 for each in ours)
    assert difference < 2e-5, (type(fast).__name__, options, difference)
    assert times == [1], (type(fast).__name__, options)
    times.clear()
"""

CHOSEN = """
import jax, keras
from nlp_rnn.config.settings import ModelConfig
from nlp_rnn.layers.fast import jax_recurrent
from nlp_rnn.layers.recurrent import build_recurrent_layer, unwrapped

for cell, fast, stock in (("lstm", "JaxLSTM", "LSTM"), ("gru", "JaxGRU", "GRU"), ("min_gru", "MinGRU", "MinGRU")):
    for setting, name in (("auto", fast), ("on", fast), ("off", stock)):
        layer = build_recurrent_layer(ModelConfig(cell=cell, fast=setting), name="a", units=4)
        assert type(layer).__name__ == name, (cell, setting, type(layer))

dropped = build_recurrent_layer(ModelConfig(cell="lstm", weight_dropout=0.5), name="b", units=4)
inputs = keras.random.normal((2, 3, 5), seed=1)
plain, again, trained = dropped(inputs), dropped(inputs), dropped(inputs, training=True)
assert type(unwrapped(dropped)).__name__ == "JaxLSTM"
assert float(abs(plain - again).max()) == 0 and float(abs(plain - trained).max()) > 1e-3

def fails(*arguments):
    raise AssertionError("runs where Keras's own loop has to run")

jax_recurrent.run_recurrence = fails
unusual = [{"activation": "relu"}, {"recurrent_dropout": 0.5}, {"dropout": 0.5}, {"use_bias": False}, {"unroll": True},
           {"zero_output_for_mask": True}, {"dtype": "mixed_bfloat16"}]
for options in unusual:
    for layer in (jax_recurrent.JaxLSTM, jax_recurrent.JaxGRU):
        assert layer(4, **options)(inputs, training=True).shape == (2, 4)
assert jax_recurrent.JaxGRU(4, reset_after=False)(inputs).shape == (2, 4)

jax.default_backend = lambda: "gpu"  # only here: Keras asks it too
reasons = [
    jax_recurrent.JaxLSTM(4, go_backwards=go_backwards)._why_not(has_mask=has_mask)
    for go_backwards in (False, True) for has_mask in (False, True)
]
assert reasons == ["cuDNN computes it", "", "", ""], reasons
assert jax_recurrent.JaxGRU(4)._why_not(has_mask=False) == ""
"""


@pytest.mark.parametrize("program", [COMPARED, CHOSEN], ids=["the results are Keras's", "where they run"])
def test_layers_on_jax(program: str, tmp_path: Path) -> None:
    environment = pipeline_environment(tmp_path) | {"KERAS_BACKEND": "jax"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
