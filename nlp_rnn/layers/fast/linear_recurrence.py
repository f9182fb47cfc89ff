"""Recurrences that are linear in their state, h[t] = a[t] * h[t - 1] + b[t], over all time steps at once.

The gates a and b depend only on the input, so all matrix products cover the whole sequence, and the rest is
elementwise. On few cores, a sequential XLA loop over chunks of time, with its gradient written by hand, is faster than
a parallel scan. All sequences in this module are time-major: [time, batch, features]. Source: Feng et al. 2024.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

Gates = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def _masked(gates: Gates, projected: tf.Tensor, mask: tf.Tensor | None, bias: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes a and b, each [..., H], from the projected inputs [..., K * H].

    Masked steps leave the state unchanged.
    """
    keep, new = gates(projected + bias)
    if mask is None:
        return keep, new
    return tf.where(mask[:, :, None], keep, 1.0), tf.where(mask[:, :, None], new, 0.0)


@tf.function(jit_compile=True, autograph=False)
def _forward(
    gates: Gates, projected: tf.Tensor, mask: tf.Tensor | None, bias: tf.Tensor, state: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Runs one chunk. Returns the states after each step [k, B, H], and the last state."""
    keep, new = _masked(gates, projected, mask, bias)
    num_steps = tf.shape(projected)[0]

    def body(time: tf.Tensor, state: tf.Tensor, states: tf.TensorArray) -> tuple[Any, ...]:
        state = keep[time] * state + new[time]
        return time + 1, state, states.write(time, state)

    states = tf.TensorArray(tf.float32, num_steps, element_shape=state.shape)
    _, state, states = tf.while_loop(lambda time, *_: time < num_steps, body, (0, state, states))
    return states.stack(), state


@tf.function(jit_compile=True, autograph=False)
def _backward(
    gates: Gates,
    projected: tf.Tensor,
    mask: tf.Tensor | None,
    bias: tf.Tensor,
    before: tf.Tensor,
    dstates: tf.Tensor,
    dstate: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gradients of one chunk's projected inputs [k, B, K * H] and of the state before it.

    `before`: the state before each step.
    """
    with tf.GradientTape() as tape:
        tape.watch(projected)
        keep, new = _masked(gates, projected, mask, bias)
    num_steps = tf.shape(projected)[0]

    def body(time: tf.Tensor, dstate: tf.Tensor, totals: tf.TensorArray) -> tuple[Any, ...]:
        dstate = dstate + dstates[time]
        return time - 1, dstate * keep[time], totals.write(time, dstate)

    totals = tf.TensorArray(tf.float32, num_steps, element_shape=dstate.shape)
    _, dstate, totals = tf.while_loop(lambda time, *_: time >= 0, body, (num_steps - 1, dstate, totals))
    total = totals.stack()
    return tape.gradient([keep, new], projected, output_gradients=[total * before, total]), dstate


def run_linear_recurrence(
    gates: Gates, inputs: tf.Tensor, mask: tf.Tensor | None, state: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor,
    *, dtype: tf.DType = tf.float32,
) -> tuple[tf.Tensor, tf.Tensor]:  # fmt: skip
    """Runs a minGRU or minLSTM over time, with gradient.

    Args:
      gates: the cell's function that turns projected inputs into a and b.
      inputs: float32 [time, batch, features].
      mask: bool [time, batch], or None; where False, the state stays unchanged.
      state: float32 [batch, units].
      kernel: float32 [features, K * units].
      bias: float32 [K * units].
      dtype: of the product of inputs and kernel, float32 or bfloat16.

    Returns:
      (states after each step float32 [time, batch, units], last state float32 [batch, units]).
    """
    if tf.executing_eagerly():  # an eager gradient tape would trace into the loops
        return _graph_in(dtype)(gates, inputs, mask, state, kernel, bias)
    num_steps, batch_size, units = tf.shape(inputs)[0], inputs.shape[1], state.shape[1]
    chunk = 50 if units <= 128 else 10
    if inputs.shape[0]:  # split a known length evenly
        chunk = math.ceil(inputs.shape[0] / math.ceil(inputs.shape[0] / chunk))
    if not inputs.shape[0] or inputs.shape[0] % chunk:  # mask the padded steps
        mask = tf.ones(tf.shape(inputs)[:2], tf.bool) if mask is None else mask
        padding = [[0, -num_steps % chunk], [0, 0]]
        inputs, mask = tf.pad(inputs, [*padding, [0, 0]]), tf.pad(mask, padding)
    num_parts = 2 if batch_size and batch_size % 2 == 0 else 1  # one core per part
    masks = [None] * num_parts if mask is None else tf.split(mask, num_parts, axis=1)
    parts = zip(tf.split(inputs, num_parts, axis=1), masks, tf.split(state, num_parts), strict=True)
    outputs, final = zip(*(_scan(gates, *part, kernel, bias, chunk=chunk, dtype=dtype) for part in parts), strict=True)
    return tf.concat(outputs, axis=1)[:num_steps], tf.concat(final, axis=0)


@functools.cache
def _graph_in(dtype: tf.DType) -> Callable[..., Any]:
    return tf.function(functools.partial(run_linear_recurrence, dtype=dtype), autograph=False)


def _scan(
    gates: Gates,
    inputs: tf.Tensor,
    mask: tf.Tensor | None,
    state: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    *,
    chunk: int,
    dtype: tf.DType,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Runs all chunks of one part of the batch."""
    num_chunks, shape, width = tf.shape(inputs)[0] // chunk, state.shape, kernel.shape[1]
    projected = tf.cast(tf.cast(tf.reshape(inputs, [-1, inputs.shape[2]]), dtype) @ tf.cast(kernel, dtype), tf.float32)
    projected = tf.reshape(projected, [tf.shape(inputs)[0], -1, width])
    projected = tf.ensure_shape(projected, [*inputs.shape[:2], width])

    def piece(sequences: tf.Tensor | None, number: tf.Tensor) -> tf.Tensor | None:
        if sequences is None:
            return None
        return tf.ensure_shape(sequences[number * chunk : (number + 1) * chunk], [chunk, *sequences.shape[1:]])

    def array() -> tf.TensorArray:
        return tf.TensorArray(tf.float32, num_chunks, infer_shape=False)

    @tf.custom_gradient
    def run(projected: tf.Tensor, bias: tf.Tensor, first: tf.Tensor) -> Any:
        def forward(number: tf.Tensor, state: tf.Tensor, states: tf.TensorArray) -> tuple[Any, ...]:
            outputs, state = _forward(gates, piece(projected, number), piece(mask, number), bias, state)
            return number + 1, tf.ensure_shape(state, shape), states.write(number, outputs)

        _, last, states = tf.while_loop(lambda number, *_: number < num_chunks, forward, (0, first, array()))
        outputs = tf.ensure_shape(states.concat(), [None, *shape])

        def gradient(doutputs: tf.Tensor, dlast: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            doutputs = tf.ensure_shape(doutputs, outputs.shape)
            before = tf.concat([first[None], outputs[:-1]], axis=0)

            def backward(number: tf.Tensor, dstate: tf.Tensor, dprojected: tf.TensorArray) -> tuple[Any, ...]:
                inputs = [piece(each, number) for each in (projected, mask)]
                dinputs, dstate = _backward(
                    gates, *inputs, bias, piece(before, number), piece(doutputs, number), dstate
                )
                return number - 1, tf.ensure_shape(dstate, shape), dprojected.write(number, dinputs)

            _, dfirst, dprojected = tf.while_loop(
                lambda number, *_: number >= 0, backward, (num_chunks - 1, dlast, array())
            )
            total = tf.ensure_shape(dprojected.concat(), projected.shape)
            rows = tf.reshape(total, [-1, bias.shape[0]])
            dbias = tf.ones([1, tf.shape(rows)[0]]) @ rows  # a product with ones is the fastest sum over rows
            return total, dbias[0], dfirst

        return (outputs, last), gradient

    return run(projected, bias, state)
