"""A fast one-layer decoder with attention and input feeding for CPUs, over all steps of given targets, with gradient.

As in `lstm_gru`, the part that depends on the previous step runs in XLA, one chunk of steps at a time. The rest (the
product of the inputs before the loop, the gradients of the weights after it) is computed by matrix products over all
steps. The gradient is written by hand. Sequences are time-major: [time, batch, features].
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from nlp_rnn.layers.fast.lstm_gru import RECURRENCES, Recurrence, Tensors, compiled, product, rows
from nlp_rnn.layers.masking import IMPOSSIBLE

_CHUNK = 5  # time steps
_SOURCE_MULTIPLE = 8  # sources are padded to multiples of it, so that few lengths are compiled


class Weights(NamedTuple):
    """The decoder's weights.

    Attributes:
      kernel: float32 [2 * features, K * units]; the first half is for the inputs, the second for the fed vectors.
      recurrent: float32 [units, K * units].
      bias: float32 [K * units] (lstm) or [2, K * units] (gru).
      readout: float32 [units + width, features].
      readout_bias: float32 [features].
    """

    kernel: tf.Tensor
    recurrent: tf.Tensor
    bias: tf.Tensor
    readout: tf.Tensor
    readout_bias: tf.Tensor


class _Steps(NamedTuple):
    """Of each step: final states, gates, attention weights and contexts, and the vector fed to the next step."""

    states: Tensors
    gates: tf.Tensor
    attention: tf.Tensor
    contexts: tf.Tensor
    fed: tf.Tensor


class _Gradients(NamedTuple):
    """Gradients of each step: of gates (see `lstm_gru.Recurrence`), readout before its tanh, contexts and scores."""

    gates: Tensors
    read: tf.Tensor
    contexts: tf.Tensor
    scores: tf.Tensor


def run_decoder(
    name: str,
    inputs: tf.Tensor,
    fed: tf.Tensor,
    states: Tensors,
    keys: tf.Tensor,
    memory: tf.Tensor,
    mask: tf.Tensor,
    weights: Weights,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Runs the decoder over all steps.

    At each step the cell reads an input and the fed vector, and its output attends to the keys by dot products. The
    step's result, tanh([output, context] @ readout + bias), is fed to the next step.

    Args:
      name: "lstm" or "gru" (with reset_after).
      inputs: float32 [time, batch, features].
      fed: float32 [batch, features], fed to the first step.
      states: (h, c) or (h,), each float32 [batch, units].
      keys: float32 [batch, source, units].
      memory: float32 [batch, source, width].
      mask: bool [batch, source], False on padding.

    Returns:
      (results float32 [time, batch, features], attention weights float32 [time, batch, source], without gradient).
    """
    if tf.executing_eagerly():  # an eager gradient tape would trace into the loops
        return _graph_of(name)(inputs, fed, tuple(states), keys, memory, mask, weights)
    num_steps, num_sources = tf.shape(inputs)[0], tf.shape(keys)[1]
    inputs = tf.pad(inputs, [[0, -num_steps % _CHUNK], [0, 0], [0, 0]])
    more = [[0, 0], [0, -num_sources % _SOURCE_MULTIPLE]]
    keys, memory, mask = tf.pad(keys, [*more, [0, 0]]), tf.pad(memory, [*more, [0, 0]]), tf.pad(mask, more)
    num_weights = len(weights)

    @tf.custom_gradient
    def run(inputs: tf.Tensor, fed: tf.Tensor, keys: tf.Tensor, memory: tf.Tensor, *rest: tf.Tensor) -> Any:
        loop = _Loop(
            RECURRENCES[name], inputs, fed, rest[num_weights:], keys, memory, mask, Weights(*rest[:num_weights])
        )
        return (loop.steps.fed, loop.steps.attention), lambda dresults, _: loop.gradients(dresults)

    results, attention = run(inputs, fed, keys, memory, *weights, *states)
    return results[:num_steps], attention[:num_steps, :, :num_sources]


@functools.cache
def _graph_of(name: str) -> Callable[..., Any]:
    return tf.function(functools.partial(run_decoder, name), autograph=False)


def _forward(
    zx: tf.Tensor, states: Tensors, fed: tf.Tensor, keys: tf.Tensor, memory: tf.Tensor, penalties: tf.Tensor,
    feeding: tf.Tensor,
    recurrent: tf.Tensor, bias: tf.Tensor, readout: tf.Tensor, readout_bias: tf.Tensor, *, cell: Recurrence,
) -> _Steps:  # fmt: skip
    """Runs one chunk.

    zx: [k, B, K * H], the inputs' part of the gates; feeding: [F, K * H], the kernel of the fed vectors.
    """
    steps = []
    for time in range(_CHUNK):
        states, gates = cell.step(zx[time] + fed @ feeding, states, recurrent, bias)
        attention = tf.nn.softmax(tf.linalg.matvec(keys, states[0]) + penalties)
        context = tf.linalg.matvec(memory, attention, transpose_a=True)
        fed = tf.tanh(tf.concat([states[0], context], axis=1) @ readout + readout_bias)
        steps.append(_Steps(list(states), gates, attention, context, fed))
    return tf.nest.map_structure(lambda *each: tf.stack(each), *steps)


def _backward(
    steps: _Steps, before: Tensors, keys: tf.Tensor, memory: tf.Tensor, dresults: tf.Tensor, dstates: Tensors,
    dfed: tf.Tensor,
    feeding: tf.Tensor, recurrent: tf.Tensor, readout: tf.Tensor, *, cell: Recurrence,
) -> tuple[_Gradients, Tensors, tf.Tensor]:  # fmt: skip
    """Gradients of one chunk's steps, and of the states and the fed vector before it.

    The three matrices are transposed.
    """
    gradients = []
    for time in reversed(range(_CHUNK)):
        here = tf.nest.map_structure(lambda each, time=time: each[time], steps)
        dread = (dfed + dresults[time]) * (1 - here.fed**2)
        dh, dcontext = tf.split(dread @ readout, [recurrent.shape[1], -1], axis=1)
        dattention = tf.linalg.matvec(memory, dcontext)
        dscores = here.attention * (dattention - tf.reduce_sum(here.attention * dattention, axis=1, keepdims=True))
        dh += tf.linalg.matvec(keys, dscores, transpose_a=True)
        tanh_after = [tf.tanh(each) for each in here.states]
        dgates, dstates = cell.step_back(
            here.gates, [each[time] for each in before], tanh_after, [dstates[0] + dh, *dstates[1:]], recurrent
        )
        dfed = dgates[0] @ feeding
        gradients.append(_Gradients(list(dgates), dread, dcontext, dscores))
    return tf.nest.map_structure(lambda *each: tf.stack(each[::-1]), *gradients), list(dstates), dfed


class _Loop:
    """Runs all chunks, forwards and backwards."""

    def __init__(
        self, cell: Recurrence, inputs: tf.Tensor, fed: tf.Tensor, states: Tensors, keys: tf.Tensor, memory: tf.Tensor,
        mask: tf.Tensor,
        weights: Weights,
    ) -> None:  # fmt: skip
        self._cell, self._inputs, self._keys, self._memory, self._weights = cell, inputs, keys, memory, weights
        self._num_chunks = tf.shape(inputs)[0] // _CHUNK
        self._shape = (inputs.shape[1], *weights.kernel.shape)
        halves = tf.repeat(tf.constant(cell.half_gates), weights.recurrent.shape[0])
        bias = weights.bias * halves
        bias, recurrent_bias = tf.unstack(bias) if len(bias.shape) == 2 else (bias, tf.zeros_like(bias))
        kernel, feeding = tf.split(weights.kernel * halves, 2)
        zx = tf.reshape(rows(inputs) @ kernel + bias, tf.concat([tf.shape(inputs)[:2], [kernel.shape[1]]], axis=0))
        given = (
            keys, memory, tf.where(mask, 0.0, IMPOSSIBLE), feeding, weights.recurrent * halves, recurrent_bias,
            weights.readout,
            weights.readout_bias,
        )  # fmt: skip
        forward = compiled(_forward, self._shape, cell=cell)

        def body(number: tf.Tensor, states: Tensors, fed: tf.Tensor, arrays: Any) -> tuple[Any, ...]:
            steps = forward(_chunk(zx, number), states, fed, *given)
            last = [tf.ensure_shape(each[-1], one.shape) for each, one in zip(steps.states, states, strict=True)]
            return number + 1, last, tf.ensure_shape(steps.fed[-1], fed.shape), _write(arrays, number, steps)

        units, features = weights.recurrent.shape[0], fed.shape[1]
        arrays = self._arrays(_Steps([units] * len(states), 4 * units, None, memory.shape[2], features))
        *_, arrays = tf.while_loop(
            lambda number, *_: number < self._num_chunks, body, (0, list(states), fed, arrays), parallel_iterations=1
        )
        self.steps: _Steps = tf.nest.map_structure(lambda array: array.concat(), arrays)
        self._before = [
            tf.concat([one[None], each[:-1]], axis=0) for one, each in zip(states, self.steps.states, strict=True)
        ]
        self._fed_before = tf.concat([fed[None], self.steps.fed[:-1]], axis=0)

    def gradients(self, dresults: tf.Tensor) -> list[tf.Tensor]:
        """Gradients of inputs, fed, keys, memory, the weights and the states."""
        weights, steps = self._weights, self.steps
        kernel, feeding = (tf.transpose(each) for each in tf.split(weights.kernel, 2))
        given = (feeding, tf.transpose(weights.recurrent), tf.transpose(weights.readout))
        backward = compiled(_backward, self._shape, cell=self._cell)

        def body(number: tf.Tensor, dstates: Tensors, dfed: tf.Tensor, arrays: Any) -> tuple[Any, ...]:
            here, before = (
                tf.nest.map_structure(lambda each: _chunk(each, number), every) for every in (steps, self._before)
            )
            part, before_states, before_fed = backward(
                here, before, self._keys, self._memory, _chunk(dresults, number), dstates, dfed, *given
            )
            new = [tf.ensure_shape(each, one.shape) for each, one in zip(before_states, dstates, strict=True)]
            return number - 1, new, tf.ensure_shape(before_fed, dfed.shape), _write(arrays, number, part)

        last, dfed = [tf.zeros_like(each[0]) for each in self._before], tf.zeros_like(self._fed_before[0])
        widths = [width * weights.recurrent.shape[0] for width in self._cell.widths]
        arrays = self._arrays(_Gradients(widths, dfed.shape[1], self._memory.shape[2], None))
        _, dstates, dfed, arrays = tf.while_loop(
            lambda number, *_: number >= 0, body, (self._num_chunks - 1, last, dfed, arrays), parallel_iterations=1
        )
        total: _Gradients = tf.nest.map_structure(lambda array: array.concat(), arrays)
        dzx, dzh = total.gates[0], total.gates[-1]
        dinputs = tf.reshape(rows(dzx) @ kernel, tf.shape(self._inputs))
        dkernel = tf.concat([product(self._inputs, dzx), product(self._fed_before, dzx)], axis=0)
        dbias = tf.reshape(tf.stack([tf.reduce_sum(each, axis=[0, 1]) for each in total.gates]), weights.bias.shape)
        dreadout = tf.concat([product(steps.states[0], total.read), product(steps.contexts, total.read)], axis=0)
        dkeys = tf.einsum("tbs,tbh->bsh", total.scores, steps.states[0])
        dmemory = tf.einsum("tbs,tbw->bsw", steps.attention, total.contexts)
        dweights = (dkernel, product(self._before[0], dzh), dbias, dreadout, tf.reduce_sum(total.read, axis=[0, 1]))
        return [dinputs, dfed, dkeys, dmemory, *dweights, *dstates]

    def _arrays(self, sizes: Any) -> Any:
        """TensorArrays of chunks, each [k, B, size], in the structure of `sizes`."""

        def array(size: int | None) -> tf.TensorArray:
            return tf.TensorArray(tf.float32, self._num_chunks, element_shape=[_CHUNK, self._inputs.shape[1], size])

        return tf.nest.map_structure(array, sizes)


def _chunk(sequences: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(sequences[number * _CHUNK : (number + 1) * _CHUNK], [_CHUNK, *sequences.shape[1:]])


def _write(arrays: Any, number: tf.Tensor, values: Any) -> Any:
    flat = [
        array.write(number, each) for array, each in zip(tf.nest.flatten(arrays), tf.nest.flatten(values), strict=True)
    ]
    return tf.nest.pack_sequence_as(arrays, flat)
