"""LSTM and GRU over time with gradient: the results of Keras's loop, but faster on CPUs.

Only the recurrence (`h @ U` and the gates) runs in an XLA loop, one chunk of time steps at a time. The products that do
not depend on it (`x @ W` before, the gradients of the weights after) are TensorFlow matrix products over whole chunks,
which run in parallel with the loop. All chunks have the same length, so XLA compiles once per batch size, not once per
text length, where lengths are unknown when the graph is built. Small layers split the batch into two halves, one per
core. The gradient is written by hand. All sequences in this module are time-major: [time, batch, features].
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

Tensors = Sequence[tf.Tensor]
Arrays = list[tf.TensorArray]


class Recurrence(NamedTuple):
    """A recurrence with K gates.

    Attributes:
      step: (zx [B, K * H], states, recurrent kernel, recurrent bias) -> (final states, gates [B, 4 * H]).
      step_back: (gates, states before, tanh of the states after, gradients of the states after, transposed recurrent
        kernel) -> (gradients of zx and, where they differ, of `h @ U`; gradients of the states before).
    """

    step: Callable[..., Any]
    step_back: Callable[..., Any]
    # Scales the kernels' columns: a sigmoid is computed as the tanh of half its input.
    half_gates: tuple[float, ...]
    widths: tuple[int, ...]  # of the first gradients that step_back returns, in units


# --- LSTM: gates i, f, g, o -------------------------------------------------------------------------------------------


def _lstm_step(zx: tf.Tensor, states: Tensors, kernel: tf.Tensor, bias: tf.Tensor) -> tuple[Tensors, tf.Tensor]:
    del bias  # included in zx
    units = kernel.shape[0]
    # One tanh for all gates: sigmoid(x) = (tanh(x / 2) + 1) / 2. The kernels' columns are halved in advance.
    is_sigmoid = tf.concat([tf.ones([2 * units]), tf.zeros([units]), tf.ones([units])], axis=0)
    h, c = states
    gates = tf.tanh(zx + h @ kernel) * (1 - is_sigmoid / 2) + is_sigmoid / 2
    i, f, g, o = tf.split(gates, 4, axis=1)
    c = f * c + i * g
    return (o * tf.tanh(c), c), gates


def _lstm_step_back(
    gates: tf.Tensor, before: Tensors, tanh_after: Tensors, dstates: Tensors, transposed: tf.Tensor
) -> tuple[Tensors, Tensors]:  # fmt: skip
    (dh, dc), (i, f, g, o), tanh_c = dstates, tf.split(gates, 4, axis=1), tanh_after[1]
    dc = dc + dh * o * (1 - tanh_c**2)
    do = dh * tanh_c
    di, df, dg = dc * g, dc * before[1], dc * i
    dz = tf.concat([di * i * (1 - i), df * f * (1 - f), dg * (1 - g * g), do * o * (1 - o)], axis=1)
    return (dz,), (dz @ transposed, dc * f)


# --- GRU with reset_after: gates z, r, n and the part that r multiplies -----------------------------------------------


def _gru_step(zx: tf.Tensor, states: Tensors, kernel: tf.Tensor, bias: tf.Tensor) -> tuple[Tensors, tf.Tensor]:
    (h,), units = states, kernel.shape[0]
    recurrent = h @ kernel + bias
    z, r = tf.split(tf.tanh(zx[:, : 2 * units] + recurrent[:, : 2 * units]) * 0.5 + 0.5, 2, axis=1)
    n = tf.tanh(zx[:, 2 * units :] + r * recurrent[:, 2 * units :])
    return (z * h + (1 - z) * n,), tf.concat([z, r, n, recurrent[:, 2 * units :]], axis=1)


def _gru_step_back(
    gates: tf.Tensor, before: Tensors, tanh_after: Tensors, dstates: Tensors, transposed: tf.Tensor
) -> tuple[Tensors, Tensors]:  # fmt: skip
    del tanh_after
    (dh,), (z, r, n, recurrent) = dstates, tf.split(gates, 4, axis=1)
    dz = dh * (before[0] - n) * z * (1 - z)
    dn = dh * (1 - z) * (1 - n * n)
    dr = dn * recurrent * r * (1 - r)
    dzh = tf.concat([dz, dr, dn * r], axis=1)
    return (tf.concat([dz, dr, dn], axis=1), dzh), (dh * z + dzh @ transposed,)


RECURRENCES = {
    "lstm": Recurrence(_lstm_step, _lstm_step_back, half_gates=(0.5, 0.5, 1.0, 0.5), widths=(4,)),
    "gru": Recurrence(_gru_step, _gru_step_back, half_gates=(0.5, 0.5, 1.0), widths=(3, 3)),
}


# --- one chunk --------------------------------------------------------------------------------------------------------


def _forward(
    zx: tf.Tensor, mask: tf.Tensor | None, states: Tensors, kernel: tf.Tensor, bias: tf.Tensor, *, cell: Recurrence,
    keeps_gates: bool,
) -> Any:  # fmt: skip
    """Runs one chunk. Masked steps leave the states unchanged.

    Args:
      zx: float32 [k, B, K * H].
      mask: bool [k, B], or None.
      states: each float32 [B, H].
      kernel: the recurrent kernel, float32 [H, K * H].
      bias: the recurrent bias, float32 [K * H].

    Returns:
      (states after each step, each [k, B, H]; gates [k, B, 4 * H]; states after the chunk). For inference, the first
      are only the outputs, and the gates are empty.
    """
    num_steps, (batch_size, units) = tf.shape(zx)[0], states[0].shape
    arrays = [
        tf.TensorArray(tf.float32, num_steps, element_shape=[batch_size, units])
        for _ in (states if keeps_gates else states[:1])
    ]
    # Always written, even if nobody reads them: XLA computes gates that are not stored twice, and without vectorizing.
    gates = tf.TensorArray(tf.float32, num_steps if keeps_gates else 1, element_shape=[batch_size, 4 * units])

    def body(time: tf.Tensor, states: Tensors, arrays: Arrays, gates: tf.TensorArray) -> tuple[Any, ...]:
        new, step_gates = cell.step(zx[time], states, kernel, bias)
        if mask is not None:
            new = [tf.where(mask[time][:, None], one, other) for one, other in zip(new, states, strict=True)]
        arrays = [array.write(time, one) for array, one in zip(arrays, new, strict=False)]
        return time + 1, list(new), arrays, gates.write(time if keeps_gates else 0, step_gates)

    _, states, arrays, gates = tf.while_loop(lambda time, *_: time < num_steps, body, (0, list(states), arrays, gates))
    return [array.stack() for array in arrays], gates.stack(), states


def _backward(
    gates: tf.Tensor, before: Tensors, after: Tensors, mask: tf.Tensor | None, doutputs: tf.Tensor, dstates: Tensors,
    transposed: tf.Tensor,
    *, cell: Recurrence,
) -> Any:  # fmt: skip
    """Runs back through one chunk. Masked steps pass the gradients of the states on.

    Args:
      gates: float32 [k, B, 4 * H].
      before, after: the states before and after each step, each float32 [k, B, H].
      mask: bool [k, B], or None.
      doutputs: gradients of the outputs, float32 [k, B, H].
      dstates: gradients of the states after the chunk, each float32 [B, H].
      transposed: the transposed recurrent kernel.

    Returns:
      (the gate gradients of `cell.step_back` for all steps; gradients of the states before the chunk).
    """
    num_steps, shape = tf.shape(doutputs)[0], doutputs.shape
    arrays = [
        tf.TensorArray(tf.float32, num_steps, element_shape=[shape[1], width * shape[2]]) for width in cell.widths
    ]
    tanh_after = [tf.tanh(each) for each in after]

    def body(time: tf.Tensor, dstates: Tensors, arrays: Arrays) -> tuple[Any, ...]:
        dstates = [dstates[0] + doutputs[time], *dstates[1:]]
        here = [each[time] for each in before], [each[time] for each in tanh_after]
        dgates, new = cell.step_back(gates[time], *here, dstates, transposed)
        if mask is not None:
            is_on = mask[time][:, None]
            new = [tf.where(is_on, one, other) for one, other in zip(new, dstates, strict=True)]
            dgates = [tf.where(is_on, each, 0.0) for each in dgates]
        return time - 1, list(new), [array.write(time, each) for array, each in zip(arrays, dgates, strict=True)]

    _, dstates, arrays = tf.while_loop(lambda time, *_: time >= 0, body, (num_steps - 1, list(dstates), arrays))
    return [array.stack() for array in arrays], dstates


@functools.cache
def compiled(function: Callable[..., Any], shape: tuple[int | None, ...], **options: Any) -> Callable[..., Any]:
    """Compiles one function per (chunk, batch, units): TensorFlow warns if one function is traced for many shapes."""
    return tf.function(functools.partial(function, **options), jit_compile=True, autograph=False)


# --- all chunks -------------------------------------------------------------------------------------------------------


def _plan(units: int, batch_size: int | None, num_steps: int | None, *, has_twin: bool) -> tuple[int, int]:
    """Returns the time steps per chunk and the number of parallel parts of the batch."""
    is_large = units > 128  # one step is long enough for a short chunk, and its product uses both cores
    chunk = 5 if is_large else 25
    if num_steps:  # split a known length evenly
        chunk = math.ceil(num_steps / math.ceil(num_steps / chunk))
    return chunk, 2 if not is_large and not has_twin and batch_size and batch_size % 2 == 0 else 1


@functools.cache
def why_not_compiled(
    name: str, units: int, batch_size: int, num_steps: int | None, *, is_masked: bool, has_twin: bool
) -> str:
    """Compiles and runs the loops for one shape, and keeps them for training.

    Returns:
      an empty string, or the first line of XLA's error message.
    """
    cell, (chunk, num_parts) = RECURRENCES[name], _plan(units, batch_size, num_steps, has_twin=has_twin)
    batch_size, is_masked = batch_size // num_parts, is_masked or not num_steps or num_steps % chunk > 0
    with tf.init_scope():
        states = [tf.zeros([batch_size, units])] * (2 if name == "lstm" else 1)
        shape, zx = (chunk, batch_size, units), tf.zeros([chunk, batch_size, len(cell.half_gates) * units])
        kernel, mask = tf.zeros([units, zx.shape[2]]), tf.ones([chunk, batch_size], tf.bool) if is_masked else None
        try:
            after, gates, _ = compiled(_forward, shape, cell=cell, keeps_gates=True)(
                zx, mask, states, kernel, kernel[0]
            )
            compiled(_backward, shape, cell=cell)(gates, after, after, mask, after[0], states, tf.transpose(kernel))
        except tf.errors.OpError as error:
            return str(error.message).strip().splitlines()[0][:200]
    return ""


def run_recurrence(
    name: str,
    inputs: tf.Tensor,
    mask: tf.Tensor | None,
    states: Tensors,
    weights: Tensors,
    *,
    is_training: bool = True,
    has_twin: bool = False,
    dtype: tf.DType = tf.float32,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Runs an LSTM or GRU over time, with the results of Keras's layers and with gradient.

    Args:
      name: "lstm" or "gru" (with reset_after).
      inputs: float32 [time, batch, features].
      mask: bool [time, batch], or None; where False, states and output stay unchanged.
      states: (h, c) or (h,), each float32 [batch, units].
      weights: kernel [features, K * units], recurrent kernel [units, K * units], bias [K * units] (lstm) or [2, K *
        units].
      is_training: whether the gates are stored for the gradient. Otherwise a gradient recomputes them.
      has_twin: whether the layer of the other direction runs at the same time. Then the batch is not halved.
      dtype: of the products outside the loop, float32 or bfloat16; `h @ U`, gates and sums are float32.

    Returns:
      (outputs float32 [time, batch, units], states after the last step).
    """
    if tf.executing_eagerly():  # an eager gradient tape would trace into the loops
        return _graph_of(name, is_training, has_twin, dtype)(inputs, mask, tuple(states), tuple(weights))
    cell, units = RECURRENCES[name], weights[1].shape[0]
    chunk, num_parts = _plan(units, inputs.shape[1], inputs.shape[0], has_twin=has_twin)
    num_steps = tf.shape(inputs)[0]
    if inputs.shape[0] is None or inputs.shape[0] % chunk:  # mask the padded steps
        mask = tf.ones(tf.shape(inputs)[:2], tf.bool) if mask is None else mask
        padding = [[0, -num_steps % chunk], [0, 0]]
        inputs, mask = tf.pad(inputs, [*padding, [0, 0]]), tf.pad(mask, padding)

    masks = [None] * num_parts if mask is None else tf.split(mask, num_parts, axis=1)

    @tf.custom_gradient
    def run(inputs: tf.Tensor, kernel: tf.Tensor, recurrent: tf.Tensor, bias: tf.Tensor, *states: tf.Tensor) -> Any:
        split = list(
            zip(tf.split(inputs, num_parts, axis=1), masks, *(tf.split(s, num_parts) for s in states), strict=True)
        )

        def run_parts(*, keeps_gates: bool) -> list[_Part]:
            weights = (kernel, recurrent, bias)
            return [
                _Part(cell, chunk, each, mask, states, weights, keeps_gates=keeps_gates, dtype=dtype)
                for each, mask, *states in split
            ]

        parts = run_parts(keeps_gates=is_training)

        def gradient(doutputs: tf.Tensor, *dstates: tf.Tensor) -> list[tf.Tensor]:
            upstream = zip(
                tf.split(doutputs, num_parts, axis=1), *(tf.split(s, num_parts) for s in dstates), strict=True
            )
            with_gates = parts if is_training else run_parts(keeps_gates=True)
            gradients = [part.gradients(one, each) for part, (one, *each) in zip(with_gates, upstream, strict=True)]
            dinputs, dkernel, drecurrent, dbias, dstates = zip(*gradients, strict=True)
            dweights = [tf.add_n(each) for each in (dkernel, drecurrent, dbias)]
            return [
                tf.concat(dinputs, axis=1),
                *dweights,
                *(tf.concat(each, axis=0) for each in zip(*dstates, strict=True)),
            ]

        outputs = tf.concat([part.outputs for part in parts], axis=1)
        return [
            outputs,
            *(tf.concat(each, axis=0) for each in zip(*(part.states for part in parts), strict=True)),
        ], gradient

    outputs, *final = run(inputs, *weights, *states)
    return outputs[:num_steps], final


@functools.cache
def _graph_of(name: str, is_training: bool, has_twin: bool, dtype: tf.DType) -> Callable[..., Any]:
    run = functools.partial(run_recurrence, name, is_training=is_training, has_twin=has_twin, dtype=dtype)
    return tf.function(run, autograph=False)


class _Part:
    """One part of the batch, through all chunks. Stores what the gradients need if `keeps_gates`."""

    def __init__(
        self, cell: Recurrence, chunk: int, inputs: tf.Tensor, mask: tf.Tensor | None, states: Tensors,
        weights: Tensors, *,
        keeps_gates: bool,
        dtype: tf.DType,
    ) -> None:  # fmt: skip
        inputs = tf.cast(inputs, dtype)
        self._cell, self._chunk, self._inputs, self._mask, self._weights, self._dtype = (
            cell,
            chunk,
            inputs,
            mask,
            weights,
            dtype,
        )
        kernel, recurrent, bias = weights
        self._num_chunks = tf.shape(inputs)[0] // chunk
        units = recurrent.shape[0]
        halves = tf.repeat(tf.constant(cell.half_gates), units)
        kernel, recurrent, bias = tf.cast(kernel * halves, dtype), recurrent * halves, bias * halves
        bias, recurrent_bias = tf.unstack(bias) if len(bias.shape) == 2 else (bias, tf.zeros_like(bias))
        self._shape = (chunk, inputs.shape[1], units)
        forward = compiled(_forward, self._shape, cell=cell, keeps_gates=keeps_gates)

        def body(
            number: tf.Tensor, states: Tensors, arrays: Arrays, starts: Arrays, gates: tf.TensorArray
        ) -> tuple[Any, ...]:
            zx = self._project(self._slice(inputs, number), kernel) + bias
            after, step_gates, new = forward(zx, self._slice(self._mask, number), states, recurrent, recurrent_bias)
            arrays = [array.write(number, each) for array, each in zip(arrays, after, strict=True)]
            if keeps_gates:
                starts = [array.write(number, each) for array, each in zip(starts, states, strict=True)]
                gates = gates.write(number, step_gates)
            return number + 1, _shaped_like(states, new), arrays, starts, gates

        arrays = [self._array() for _ in (states if keeps_gates else states[:1])]
        first = (0, list(states), arrays, [self._array() for _ in states], self._array())
        _, self.states, self._after, self._starts, self._gates = tf.while_loop(
            lambda number, *_: number < self._num_chunks, body, first, parallel_iterations=4
        )
        self.outputs = tf.ensure_shape(self._after[0].concat(), [None, inputs.shape[1], units])

    def gradients(
        self, doutputs: tf.Tensor, dstates: Tensors
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """Gradients of the inputs, the three weights and the initial states."""
        kernel, recurrent, bias = self._weights
        doutputs = tf.ensure_shape(doutputs, self.outputs.shape)
        backward = compiled(_backward, self._shape, cell=self._cell)
        transposed_kernel, transposed = tf.cast(tf.transpose(kernel), self._dtype), tf.transpose(recurrent)

        def body(
            number: tf.Tensor,
            dstates: Tensors,
            dinputs: tf.TensorArray,
            dkernel: tf.Tensor,
            drecurrent: tf.Tensor,
            dbias: tf.Tensor,
        ) -> tuple[Any, ...]:
            batch_size, units = dstates[0].shape
            gates = tf.ensure_shape(self._gates.read(number), [self._chunk, batch_size, 4 * units])
            after = [tf.ensure_shape(array.read(number), [self._chunk, batch_size, units]) for array in self._after]
            starts = [tf.ensure_shape(array.read(number), [batch_size, units]) for array in self._starts]
            before = [tf.concat([start[None], each[:-1]], axis=0) for start, each in zip(starts, after, strict=True)]
            dgates, new = backward(
                gates,
                before,
                after,
                self._slice(self._mask, number),
                self._slice(doutputs, number),
                dstates,
                transposed,
            )
            dstates = _shaped_like(dstates, new)
            ones = tf.ones([1, self._chunk * tf.shape(gates)[1]])  # multiplying by ones is the fastest sum over rows
            dbias += tf.reshape(tf.concat([ones @ rows(each) for each in dgates], axis=0), bias.shape)
            dgates = [tf.cast(each, self._dtype) for each in dgates]
            dkernel += product(self._slice(self._inputs, number), dgates[0])
            drecurrent += product(tf.cast(before[0], self._dtype), dgates[-1])
            dinputs = dinputs.write(number, self._project(dgates[0], transposed_kernel))
            return number - 1, dstates, dinputs, dkernel, drecurrent, dbias

        first = (self._num_chunks - 1, list(dstates), self._array(), *map(tf.zeros_like, self._weights))
        _, dstates, dinputs, *dweights = tf.while_loop(
            lambda number, *_: number >= 0, body, first, parallel_iterations=4
        )
        return tf.ensure_shape(dinputs.concat(), self._inputs.shape), *dweights, dstates

    def _slice(self, sequences: tf.Tensor | None, number: tf.Tensor) -> tf.Tensor | None:
        if sequences is None:
            return None
        here = sequences[number * self._chunk : (number + 1) * self._chunk]
        return tf.ensure_shape(here, [self._chunk, *sequences.shape[1:]])

    def _project(self, sequences: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        projected = tf.cast(rows(sequences) @ kernel, tf.float32)
        shape = tf.concat([tf.shape(sequences)[:2], [kernel.shape[1]]], axis=0)
        return tf.ensure_shape(tf.reshape(projected, shape), [*sequences.shape[:2], kernel.shape[1]])

    def _array(self) -> tf.TensorArray:
        return tf.TensorArray(tf.float32, self._num_chunks, infer_shape=False)


def rows(sequences: tf.Tensor) -> tf.Tensor:
    return tf.reshape(sequences, [-1, sequences.shape[-1]])


def _shaped_like(states: Tensors, new: Tensors) -> list[tf.Tensor]:
    """Restores the static shapes: the compiled loops may have been traced for batches of unknown size."""
    return [tf.ensure_shape(one, other.shape) for one, other in zip(new, states, strict=True)]


def product(inputs: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.matmul(rows(inputs), rows(gradients), transpose_a=True), tf.float32)
