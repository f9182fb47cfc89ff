"""LSTM and GRU for Keras's backend JAX, with the weights, masks and results of Keras's layers, but less work per step.

Keras's loop over masked inputs multiplies the inputs and sums the gradients of all weights in each step. Here a step
only computes `h @ U` and the gates: the products with the inputs come before the loop, and the gradients of the weights
after it, each as one product over all steps. The gradient is written by hand, as in `lstm_gru`. All sequences of the
functions are time-major: [time, batch, features].
"""

import functools
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import keras
from jax import lax
from jax import numpy as jnp

logger = logging.getLogger(__name__)

Arrays = tuple[Any, ...]


class Recurrence(NamedTuple):
    """A recurrence with K gates.

    Attributes:
      step: (zx [B, K * H], states, recurrent kernel, recurrent bias) -> (states after, what step_back needs).
      step_back: (what step kept, states before, states after, gradients of the states after, recurrent kernel) ->
        (gradients of zx, of `h @ U + bias`, and of the states before).
    """

    step: Callable[..., Any]
    step_back: Callable[..., Any]


# --- LSTM: gates i, f, g, o -------------------------------------------------------------------------------------------


def _lstm_step(zx: Any, states: Arrays, kernel: Any, bias: Any) -> tuple[Arrays, Arrays]:
    h, c = states
    i, f, g, o = jnp.split(zx + h @ kernel + bias, 4, axis=1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    c = f * c + i * g
    return (o * jnp.tanh(c), c), (i, f, g, o)


def _lstm_step_back(
    gates: Arrays, before: Arrays, after: Arrays, dstates: Arrays, kernel: Any
) -> tuple[Any, Any, Arrays]:
    (dh, dc), (i, f, g, o), tanh_c = dstates, gates, jnp.tanh(after[1])
    dc = dc + dh * o * (1 - tanh_c**2)
    dz = jnp.concatenate(
        [dc * g * i * (1 - i), dc * before[1] * f * (1 - f), dc * i * (1 - g * g), dh * tanh_c * o * (1 - o)], axis=1
    )
    return dz, dz, (dz @ kernel.T, dc * f)


# --- GRU with reset_after: gates z, r, n and the part that r multiplies -----------------------------------------------


def _gru_step(zx: Any, states: Arrays, kernel: Any, bias: Any) -> tuple[Arrays, Arrays]:
    (h,) = states
    (xz, xr, xn), (hz, hr, hn) = jnp.split(zx, 3, axis=1), jnp.split(h @ kernel + bias, 3, axis=1)
    z, r = jax.nn.sigmoid(xz + hz), jax.nn.sigmoid(xr + hr)
    n = jnp.tanh(xn + r * hn)
    return (z * h + (1 - z) * n,), (z, r, n, hn)


def _gru_step_back(
    gates: Arrays, before: Arrays, after: Arrays, dstates: Arrays, kernel: Any
) -> tuple[Any, Any, Arrays]:
    del after
    (dh,), (z, r, n, hn) = dstates, gates
    dz = dh * (before[0] - n) * z * (1 - z)
    dn = dh * (1 - z) * (1 - n * n)
    dr = dn * hn * r * (1 - r)
    dzh = jnp.concatenate([dz, dr, dn * r], axis=1)
    return jnp.concatenate([dz, dr, dn], axis=1), dzh, (dh * z + dzh @ kernel.T,)


RECURRENCES = {"lstm": Recurrence(_lstm_step, _lstm_step_back), "gru": Recurrence(_gru_step, _gru_step_back)}


# --- over time --------------------------------------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def run_recurrence(name: str, zx: Any, mask: Any, states: Arrays, kernel: Any, bias: Any) -> tuple[Any, Arrays]:
    """Runs an LSTM or GRU over time, with gradient.

    Args:
      name: "lstm" or "gru" (with reset_after).
      zx: the inputs times the kernel, with its bias: float [time, batch, K * units].
      mask: bool [time, batch]; where False, states and output stay unchanged.
      states: (h, c) or (h,), each float [batch, units].
      kernel: the recurrent kernel, float [units, K * units].
      bias: the recurrent bias, float [K * units].

    Returns:
      (outputs float [time, batch, units], states after the last step).
    """
    return _forward(name, zx, mask, states, kernel, bias)[0]


def _forward(name: str, zx: Any, mask: Any, states: Arrays, kernel: Any, bias: Any) -> tuple[Any, Any]:
    def step(states: Arrays, here: Any) -> Any:
        z, is_on = here
        new, gates = RECURRENCES[name].step(z, states, kernel, bias)
        new = _where(is_on, new, states)
        return new, (new, gates)

    last, (after, gates) = lax.scan(step, states, (zx, mask))
    return (after[0], last), (mask, states, kernel, after, gates)


def _backward(name: str, kept: Any, gradients: Any) -> Arrays:
    mask, first, kernel, after, gates = kept
    doutputs, dlast = gradients
    before = tuple(jnp.concatenate([one[None], each[:-1]]) for one, each in zip(first, after, strict=True))

    def step(dstates: Arrays, here: Any) -> Any:
        gates, before, after, is_on, doutput = here
        dstates = (dstates[0] + doutput, *dstates[1:])
        dzx, dzh, new = RECURRENCES[name].step_back(gates, before, after, dstates, kernel)
        zeros = (jnp.zeros_like(dzx), jnp.zeros_like(dzh))
        return _where(is_on, new, dstates), _where(is_on, (dzx, dzh), zeros)

    dfirst, (dzx, dzh) = lax.scan(step, tuple(dlast), (gates, before, after, mask, doutputs), reverse=True)
    dkernel = jnp.einsum("tbh,tbk->hk", before[0], dzh)
    return dzx, None, dfirst, dkernel, jnp.sum(dzh, axis=(0, 1))


run_recurrence.defvjp(_forward, _backward)


def _where(is_on: Any, new: Arrays, old: Arrays) -> Arrays:
    return tuple(jnp.where(is_on[:, None], one, other) for one, other in zip(new, old, strict=True))


# --- layers -----------------------------------------------------------------------------------------------------------


class _OnJax:
    """Replaces Keras's loop over time where possible. Everything else is the stock layer's."""

    recurrence: str

    def inner_loop(self, sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        layer: Any = self
        mask = mask[0] if isinstance(mask, list | tuple) else mask
        reason = self._why_not(has_mask=mask is not None)
        if reason:
            _log_once(f"{layer.name}: Keras's own loop runs, since {reason}")
            return super().inner_loop(sequences, initial_state, mask, training)  # type: ignore[misc]
        sequences = jnp.swapaxes(sequences, 0, 1)
        mask = jnp.ones(sequences.shape[:2], bool) if mask is None else jnp.swapaxes(mask, 0, 1)
        if layer.go_backwards:
            sequences, mask = jnp.flip(sequences, 0), jnp.flip(mask, 0)
        # Keras reads the variables, so that weight drop can replace their values.
        kernel, recurrent, bias = (
            keras.ops.convert_to_tensor(each)
            for each in (layer.cell.kernel, layer.cell.recurrent_kernel, layer.cell.bias)
        )
        bias, recurrent_bias = bias if bias.ndim == 2 else (bias, jnp.zeros_like(bias))
        states = tuple(initial_state) if isinstance(initial_state, list | tuple) else (initial_state,)
        outputs, states = run_recurrence(
            self.recurrence, sequences @ kernel + bias, mask, states, recurrent, recurrent_bias
        )
        last = outputs[-1]
        return last, jnp.swapaxes(outputs, 0, 1) if layer.return_sequences else last[:, None], list(states)

    def _why_not(self, *, has_mask: bool) -> str:
        """The reason why Keras's loop has to run; empty if there is none."""
        layer: Any = self
        activations = layer.cell.activation, layer.cell.recurrent_activation
        has_cudnn = self.recurrence == "lstm" and not (has_mask or layer.go_backwards)
        reasons = {
            "cuDNN computes it": has_cudnn and computes_on_gpu(),
            f"it computes in {layer.compute_dtype}": layer.compute_dtype != "float32",
            "its activations are not tanh and sigmoid": activations
            != (keras.activations.tanh, keras.activations.sigmoid),
            "it has dropout of its own": bool(layer.dropout or layer.recurrent_dropout),
            "it has no bias": not layer.use_bias,
            "reset_after is off": not getattr(layer.cell, "reset_after", True),
            "it is unrolled": layer.unroll,
            "zero_output_for_mask is on": layer.zero_output_for_mask,
        }
        return next((reason for reason, holds in reasons.items() if holds), "")


def computes_on_gpu() -> bool:
    """Whether JAX's default device is a GPU: the one that was chosen, or else the one that JAX prefers."""
    chosen: Any = jax.config.jax_default_device  # type: ignore[attr-defined]  # a device, the name of a kind, or None
    return (getattr(chosen, "platform", chosen) or jax.default_backend()) in ("gpu", "cuda", "rocm")


@functools.cache
def _log_once(message: str) -> None:
    logger.info(message)


@keras.saving.register_keras_serializable("nlp_rnn")
class JaxLSTM(_OnJax, keras.layers.LSTM):
    """keras.layers.LSTM on JAX, with the same arguments, weights, masks and results.

    On a GPU, cuDNN computes it where it has no mask and reads forwards, as in Keras.
    """

    recurrence = "lstm"


@keras.saving.register_keras_serializable("nlp_rnn")
class JaxGRU(_OnJax, keras.layers.GRU):
    """keras.layers.GRU on JAX, with the same arguments, weights, masks and results."""

    recurrence = "gru"
