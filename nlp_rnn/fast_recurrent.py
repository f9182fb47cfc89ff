"""LSTM and GRU layers that are faster than Keras's on CPUs, with the same weights, names and results.

What makes them fast: the recurrence alone, `h @ U` and the gates, is an XLA loop over a chunk of time steps, while
the products that do not depend on it (`x @ W` before, the weights' gradients after) are whole-chunk GEMMs of TensorFlow
that run beside it. Chunks have one length whatever the length of the texts, so that XLA compiles once a batch size.
Small layers run as two halves of the batch, each on a core. The gradient is written out. All sequences in here are
time-major: [time, batch, features].
"""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

logger = logging.getLogger(__name__)

Tensors = Sequence[tf.Tensor]


class _Cell(NamedTuple):
    """A recurrence of K gates, over one chunk.

    forward: (zx [k, B, K * H], mask bool [k, B], states, recurrent kernel, recurrent bias) -> (the states after each step,
    each [k, B, H], gates [k, B, 4 * H], the states after the chunk).
    backward: (gates, the states before and after each step, mask, gradients of the outputs [k, B, H], gradients of the
    states, transposed recurrent kernel) -> (gradients of zx and, where they differ, of `h @ U`; gradients of the states
    before the chunk).
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    half_gates: tuple[float, ...]  # a sigmoid is computed as a tanh of half its input: this scales the kernels' columns


# --- LSTM: gates i, f, g, o ---------------------------------------------------------------------------------------------


def _lstm_forward(zx: tf.Tensor, mask: tf.Tensor, states: Tensors, kernel: tf.Tensor, _bias: tf.Tensor) -> Any:
    units = kernel.shape[0]
    # One tanh over all gates: sigmoid(x) = (tanh(x / 2) + 1) / 2, and the kernels' columns are halved already.
    is_sigmoid = tf.concat([tf.ones([2 * units]), tf.zeros([units]), tf.ones([units])], axis=0)
    scale, shift = 1 - is_sigmoid / 2, is_sigmoid / 2

    def step(time: tf.Tensor, states: Tensors) -> tuple[Tensors, tf.Tensor]:
        h, c = states
        gates = tf.tanh(zx[time] + h @ kernel) * scale + shift
        i, f, g, o = tf.split(gates, 4, axis=1)
        c = f * c + i * g
        return (o * tf.tanh(c), c), gates

    return _scan(step, zx, mask, states, num_gates=4)


def _lstm_backward(
    gates: tf.Tensor, before: Tensors, after: Tensors, mask: tf.Tensor, doutputs: tf.Tensor, dstates: Tensors, transposed: tf.Tensor
) -> Any:
    tanh_c = tf.tanh(after[1])

    def step(time: tf.Tensor, dh: tf.Tensor, dc: tf.Tensor) -> tuple[Tensors, Tensors]:
        i, f, g, o = tf.split(gates[time], 4, axis=1)
        dc = dc + dh * o * (1 - tanh_c[time] ** 2)
        do = dh * tanh_c[time]
        di, df, dg = dc * g, dc * before[1][time], dc * i
        dz = tf.concat([di * i * (1 - i), df * f * (1 - f), dg * (1 - g * g), do * o * (1 - o)], axis=1)
        return (dz,), (dz @ transposed, dc * f)

    return _scan_back(step, mask, doutputs, dstates, widths=(4,))


# --- GRU with reset_after: gates z, r, n and what r multiplies ----------------------------------------------------------


def _gru_forward(zx: tf.Tensor, mask: tf.Tensor, states: Tensors, kernel: tf.Tensor, bias: tf.Tensor) -> Any:
    units = kernel.shape[0]

    def step(time: tf.Tensor, states: Tensors) -> tuple[Tensors, tf.Tensor]:
        (h,) = states
        recurrent, inputs = h @ kernel + bias, zx[time]
        z, r = tf.split(tf.tanh(inputs[:, : 2 * units] + recurrent[:, : 2 * units]) * 0.5 + 0.5, 2, axis=1)
        n = tf.tanh(inputs[:, 2 * units :] + r * recurrent[:, 2 * units :])
        return (z * h + (1 - z) * n,), tf.concat([z, r, n, recurrent[:, 2 * units :]], axis=1)

    return _scan(step, zx, mask, states, num_gates=4)


def _gru_backward(
    gates: tf.Tensor, before: Tensors, _after: Tensors, mask: tf.Tensor, doutputs: tf.Tensor, dstates: Tensors, transposed: tf.Tensor
) -> Any:
    def step(time: tf.Tensor, dh: tf.Tensor) -> tuple[Tensors, Tensors]:
        z, r, n, recurrent = tf.split(gates[time], 4, axis=1)
        dz = dh * (before[0][time] - n) * z * (1 - z)
        dn = dh * (1 - z) * (1 - n * n)
        dr = dn * recurrent * r * (1 - r)
        dzh = tf.concat([dz, dr, dn * r], axis=1)
        return (tf.concat([dz, dr, dn], axis=1), dzh), (dh * z + dzh @ transposed,)

    return _scan_back(step, mask, doutputs, dstates, widths=(3, 3))


_LSTM = _Cell(_lstm_forward, _lstm_backward, half_gates=(0.5, 0.5, 1.0, 0.5))
_GRU = _Cell(_gru_forward, _gru_backward, half_gates=(0.5, 0.5, 1.0))


# --- one chunk ----------------------------------------------------------------------------------------------------------


def _scan(step: Callable[..., Any], zx: tf.Tensor, mask: tf.Tensor | None, states: Tensors, *, num_gates: int) -> Any:
    """Runs `step` over a chunk; masked steps leave the states alone."""
    num_steps, shape = tf.shape(zx)[0], states[0].shape
    arrays = [tf.TensorArray(tf.float32, num_steps, element_shape=shape) for _ in states]
    gates = tf.TensorArray(tf.float32, num_steps, element_shape=[shape[0], num_gates * shape[1]])

    def body(time: tf.Tensor, states: Tensors, arrays: list[tf.TensorArray], gates: tf.TensorArray) -> tuple[Any, ...]:
        new, found = step(time, states)
        if mask is not None:
            new = [tf.where(mask[time][:, None], one, other) for one, other in zip(new, states, strict=True)]
        return time + 1, list(new), [array.write(time, one) for array, one in zip(arrays, new, strict=True)], gates.write(time, found)

    _, states, arrays, gates = tf.while_loop(lambda time, *_: time < num_steps, body, (0, list(states), arrays, gates))
    return [array.stack() for array in arrays], gates.stack(), states


def _scan_back(step: Callable[..., Any], mask: tf.Tensor | None, doutputs: tf.Tensor, dstates: Tensors, *, widths: tuple[int, ...]) -> Any:
    """Runs `step` from the end of a chunk; masked steps pass the states' gradients on."""
    num_steps, shape = tf.shape(doutputs)[0], doutputs.shape
    arrays = [tf.TensorArray(tf.float32, num_steps, element_shape=[shape[1], width * shape[2]]) for width in widths]

    def body(time: tf.Tensor, dstates: Tensors, arrays: list[tf.TensorArray]) -> tuple[Any, ...]:
        dstates = [dstates[0] + doutputs[time], *dstates[1:]]
        dgates, new = step(time, *dstates)
        if mask is not None:
            is_on = mask[time][:, None]
            new = [tf.where(is_on, one, other) for one, other in zip(new, dstates, strict=True)]
            dgates = [tf.where(is_on, each, 0.0) for each in dgates]
        return time - 1, list(new), [array.write(time, each) for array, each in zip(arrays, dgates, strict=True)]

    _, dstates, arrays = tf.while_loop(lambda time, *_: time >= 0, body, (num_steps - 1, list(dstates), arrays))
    return [array.stack() for array in arrays], dstates


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return tf.function(function, jit_compile=True, autograph=False)


# --- all chunks ---------------------------------------------------------------------------------------------------------


def run_recurrence(
    name: str, inputs: tf.Tensor, mask: tf.Tensor | None, states: Tensors, weights: Tensors
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """An LSTM or GRU over time, as Keras computes it, with a gradient.

    Args:
      name: "lstm" or "gru" (with reset_after).
      inputs: float32 [time, batch, features].
      mask: bool [time, batch], or None; where False, states and output stay.
      states: (h, c) or (h,), each float32 [batch, units].
      weights: kernel [features, K * units], recurrent kernel [units, K * units], bias [K * units] (lstm) or [2, K * units].

    Returns:
      (outputs float32 [time, batch, units], the states after the last step)
    """
    if tf.executing_eagerly():  # an eager tape would look into the loops
        return _graph_of(name)(inputs, mask, tuple(states), tuple(weights))
    cell = {"lstm": _LSTM, "gru": _GRU}[name]
    units, batch_size = weights[1].shape[0], inputs.shape[1]
    chunk = 50 if units <= 128 else 10  # the step of a large layer is long enough for a short chunk
    num_parts = 2 if units <= 128 and batch_size and batch_size % 2 == 0 else 1
    num_steps = tf.shape(inputs)[0]
    if inputs.shape[0] is None or inputs.shape[0] % chunk:  # padded steps are masked
        mask = tf.ones(tf.shape(inputs)[:2], tf.bool) if mask is None else mask
        padding = [[0, -num_steps % chunk], [0, 0]]
        inputs, mask = tf.pad(inputs, [*padding, [0, 0]]), tf.pad(mask, padding)

    masks = [None] * num_parts if mask is None else tf.split(mask, num_parts, axis=1)

    @tf.custom_gradient
    def run(inputs: tf.Tensor, kernel: tf.Tensor, recurrent: tf.Tensor, bias: tf.Tensor, *states: tf.Tensor) -> Any:
        parts = [
            _Part(cell, chunk, one_inputs, one_mask, one_states, (kernel, recurrent, bias))
            for one_inputs, one_mask, *one_states in zip(
                tf.split(inputs, num_parts, axis=1), masks, *(tf.split(s, num_parts) for s in states), strict=True
            )
        ]

        def gradient(doutputs: tf.Tensor, *dstates: tf.Tensor) -> list[tf.Tensor]:
            upstream = zip(tf.split(doutputs, num_parts, axis=1), *(tf.split(s, num_parts) for s in dstates), strict=True)
            found = [part.gradients(one, each) for part, (one, *each) in zip(parts, upstream, strict=True)]
            dinputs, dkernel, drecurrent, dbias, dstates = zip(*found, strict=True)
            dweights = [tf.add_n(each) for each in (dkernel, drecurrent, dbias)]
            return [tf.concat(dinputs, axis=1), *dweights, *(tf.concat(each, axis=0) for each in zip(*dstates, strict=True))]

        outputs = tf.concat([part.outputs for part in parts], axis=1)
        return [outputs, *(tf.concat(each, axis=0) for each in zip(*(part.states for part in parts), strict=True))], gradient

    outputs, *final = run(inputs, *weights, *states)
    return outputs[:num_steps], final


@functools.cache
def _graph_of(name: str) -> Callable[..., Any]:
    return tf.function(functools.partial(run_recurrence, name), autograph=False)


class _Part:
    """A part of the batch, through all chunks; keeps what its gradients need."""

    def __init__(self, cell: _Cell, chunk: int, inputs: tf.Tensor, mask: tf.Tensor | None, states: Tensors, weights: Tensors) -> None:
        self._cell, self._chunk, self._inputs, self._mask, self._weights = cell, chunk, inputs, mask, weights
        self._first_states = states
        kernel, recurrent, bias = weights
        self._num_chunks = tf.shape(inputs)[0] // chunk
        units = recurrent.shape[0]
        halves = tf.repeat(tf.constant(cell.half_gates), units)
        kernel, recurrent, bias = kernel * halves, recurrent * halves, bias * halves
        bias, recurrent_bias = tf.unstack(bias) if len(bias.shape) == 2 else (bias, tf.zeros_like(bias))
        forward = _compiled(cell.forward)

        def body(number: tf.Tensor, states: Tensors, arrays: list[tf.TensorArray], gates: tf.TensorArray) -> tuple[Any, ...]:
            zx = self._project(self._slice(inputs, number), kernel) + bias
            after, found, states = forward(zx, self._slice(self._mask, number), states, recurrent, recurrent_bias)
            arrays = [array.write(number, each) for array, each in zip(arrays, after, strict=True)]
            return number + 1, states, arrays, gates.write(number, found)

        arrays = [self._array() for _ in states]
        _, self.states, arrays, self._gates = tf.while_loop(
            lambda number, *_: number < self._num_chunks, body, (0, list(states), arrays, self._array()), parallel_iterations=4
        )
        shape = [None, inputs.shape[1], units]
        self._after = [tf.ensure_shape(array.concat(), shape) for array in arrays]
        self.outputs = self._after[0]

    def gradients(self, doutputs: tf.Tensor, dstates: Tensors) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """Gradients of the inputs, the three weights and the first states."""
        kernel, recurrent, bias = self._weights
        doutputs = tf.ensure_shape(doutputs, self.outputs.shape)
        before = [tf.concat([first[None], each[:-1]], axis=0) for first, each in zip(self._first_states, self._after, strict=True)]
        backward = _compiled(self._cell.backward)
        transposed_kernel, transposed = tf.transpose(kernel), tf.transpose(recurrent)

        def body(
            number: tf.Tensor, dstates: Tensors, dinputs: tf.TensorArray, dkernel: tf.Tensor, drecurrent: tf.Tensor, dbias: tf.Tensor
        ) -> tuple[Any, ...]:
            gates = tf.ensure_shape(self._gates.read(number), [self._chunk, self._inputs.shape[1], 4 * recurrent.shape[0]])
            here, after = ([self._slice(each, number) for each in states] for states in (before, self._after))
            dgates, dstates = backward(
                gates, here, after, self._slice(self._mask, number), self._slice(doutputs, number), dstates, transposed
            )
            dkernel += _product(self._slice(self._inputs, number), dgates[0])
            drecurrent += _product(here[0], dgates[-1])
            ones = tf.ones([1, self._chunk * tf.shape(gates)[1]])  # a product with ones is the fastest sum over rows
            dbias += tf.reshape(tf.concat([ones @ _rows(each) for each in dgates], axis=0), bias.shape)
            dinputs = dinputs.write(number, self._project(dgates[0], transposed_kernel))
            return number - 1, dstates, dinputs, dkernel, drecurrent, dbias

        first = (self._num_chunks - 1, list(dstates), self._array(), *map(tf.zeros_like, self._weights))
        _, dstates, dinputs, *dweights = tf.while_loop(lambda number, *_: number >= 0, body, first, parallel_iterations=4)
        return tf.ensure_shape(dinputs.concat(), self._inputs.shape), *dweights, dstates

    def _slice(self, sequences: tf.Tensor | None, number: tf.Tensor) -> tf.Tensor | None:
        if sequences is None:
            return None
        here = sequences[number * self._chunk : (number + 1) * self._chunk]
        return tf.ensure_shape(here, [self._chunk, *sequences.shape[1:]])

    def _project(self, sequences: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        projected = _rows(sequences) @ kernel
        shape = tf.concat([tf.shape(sequences)[:2], [kernel.shape[1]]], axis=0)
        return tf.ensure_shape(tf.reshape(projected, shape), [*sequences.shape[:2], kernel.shape[1]])

    def _array(self) -> tf.TensorArray:
        return tf.TensorArray(tf.float32, self._num_chunks, infer_shape=False)


def _rows(sequences: tf.Tensor) -> tf.Tensor:
    return tf.reshape(sequences, [-1, sequences.shape[-1]])


def _product(inputs: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    return tf.matmul(_rows(inputs), _rows(gradients), transpose_a=True)


# --- Keras layers -------------------------------------------------------------------------------------------------------


class _Fast:
    """Replaces Keras's loop over time where this module can; everything else is the stock layer's.

    Attributes:
      is_portable: whether the stock loop runs instead, of core operations: an exported graph must not need XLA.
    """

    recurrence: str
    is_portable = False

    def inner_loop(self, sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        reason = self._why_not()
        if reason:
            _log_once(f"{self.name}: Keras's own loop runs, since {reason}")  # type: ignore[attr-defined]
            return super().inner_loop(sequences, initial_state, mask, training)  # type: ignore[misc]
        cell: Any = self.cell  # type: ignore[attr-defined]
        # As tensors, of which the gradient is taken; Keras reads them, so that weight drop can put others in their place.
        weights = [tf.convert_to_tensor(keras.ops.convert_to_tensor(each)) for each in (cell.kernel, cell.recurrent_kernel, cell.bias)]
        sequences = tf.transpose(sequences, [1, 0, 2])
        mask = mask[0] if isinstance(mask, list | tuple) else mask
        mask = None if mask is None else tf.transpose(mask)
        if self.go_backwards:  # type: ignore[attr-defined]
            sequences = tf.reverse(sequences, [0])
            mask = None if mask is None else tf.reverse(mask, [0])
        states = list(initial_state) if isinstance(initial_state, list | tuple) else [initial_state]
        outputs, states = run_recurrence(self.recurrence, sequences, mask, states, weights)
        if mask is not None:  # before the first step that counts, Keras's output is zero, whatever the state
            has_begun = tf.cumsum(tf.cast(mask, tf.int32)) > 0
            outputs = tf.where(has_begun[:, :, None], outputs, 0.0)
        last = outputs[-1]
        return last, tf.transpose(outputs, [1, 0, 2]) if self.return_sequences else last[:, None], states  # type: ignore[attr-defined]

    def _why_not(self) -> str:
        """Why the stock layer has to run; empty where this module can."""
        layer: Any = self
        cell = layer.cell
        is_standard = cell.activation is keras.activations.tanh and cell.recurrent_activation is keras.activations.sigmoid
        reasons = {
            "it is exported": layer.is_portable,
            "there is a GPU": bool(tf.config.list_physical_devices("GPU")),
            f"it computes in {layer.compute_dtype}": layer.compute_dtype != "float32",
            "its activations are not tanh and sigmoid": not is_standard,
            "it has dropout of its own": bool(layer.dropout or layer.recurrent_dropout),
            "it has no bias": not layer.use_bias,
            "it is unrolled": layer.unroll,
            "zero_output_for_mask is on": layer.zero_output_for_mask,
            "reset_after is off": self.recurrence == "gru" and not getattr(cell, "reset_after", True),
        }
        return next((reason for reason, holds in reasons.items() if holds), "")


@functools.cache
def _log_once(message: str) -> None:
    logger.info(message)


@keras.saving.register_keras_serializable("nlp_rnn")
class FastLSTM(_Fast, keras.layers.LSTM):
    """keras.layers.LSTM, faster on CPUs. Arguments, weights, masks and results are the stock layer's."""

    recurrence = "lstm"


@keras.saving.register_keras_serializable("nlp_rnn")
class FastGRU(_Fast, keras.layers.GRU):
    """keras.layers.GRU, faster on CPUs. Arguments, weights, masks and results are the stock layer's."""

    recurrence = "gru"


FAST_CELLS: dict[str, type[keras.layers.Layer]] = {"lstm": FastLSTM, "gru": FastGRU}
