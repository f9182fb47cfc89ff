"""Recurrent layers that are faster than Keras's on CPUs, with the same weights, names and results.

`lstm_gru` (LSTM, GRU) and `linear_recurrence` (minGRU, minLSTM) replace Keras's loop over time.
"""

import functools
import logging
from typing import Any

import keras
import tensorflow as tf

from nlp_rnn.layers.cells import MinGRU, MinLSTM
from nlp_rnn.layers.fast.block_lstm import MAX_ROWS, reverse_texts, run_block_lstm
from nlp_rnn.layers.fast.linear_recurrence import run_linear_recurrence
from nlp_rnn.layers.fast.lstm_gru import run_recurrence, why_not_compiled
from nlp_rnn.layers.fast.precision import matmul_dtype

logger = logging.getLogger(__name__)


class _Fast:
    """Replaces Keras's loop over time where possible. Everything else is the stock layer's.

    Attributes:
      is_portable: whether the stock loop of core operations runs instead, since an exported graph must not need XLA.
      has_twin: whether the layer of the other direction runs at the same time on the other core.
    """

    is_portable = False
    has_twin = False

    def inner_loop(self, sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        layer: Any = self
        mask = mask[0] if isinstance(mask, list | tuple) else mask
        mask = None if mask is None else tf.cast(mask, tf.bool)
        if self.is_portable:
            return self._portable_loop(sequences, initial_state, mask, training)
        if reason := self._why_not(sequences, mask):
            _log_once(f"{layer.name}: Keras's own loop runs, since {reason}")
            return super().inner_loop(sequences, initial_state, mask, training)  # type: ignore[misc]
        sequences = tf.transpose(sequences, [1, 0, 2])
        mask = None if mask is None else tf.transpose(mask)
        if layer.go_backwards:
            sequences = tf.reverse(sequences, [0])
            mask = None if mask is None else tf.reverse(mask, [0])
        states = list(initial_state) if isinstance(initial_state, list | tuple) else [initial_state]
        outputs, states = self._run(sequences, mask, states, bool(training))
        if mask is not None:  # Keras's output is zero before the first unmasked step, whatever the state
            has_begun = tf.cumsum(tf.cast(mask, tf.int32)) > 0
            outputs = tf.where(has_begun[:, :, None], outputs, 0.0)
        last = outputs[-1]
        return last, tf.transpose(outputs, [1, 0, 2]) if layer.return_sequences else last[:, None], states

    def _portable_loop(self, sequences: Any, initial_state: Any, mask: Any, training: bool) -> Any:
        """The loop of core operations, Keras's own."""
        return super().inner_loop(sequences, initial_state, mask, training)  # type: ignore[misc]

    def _why_not(self, sequences: tf.Tensor, mask: tf.Tensor | None) -> str:
        """The reason why Keras's loop has to run for these inputs; empty if the fast loop can run."""
        return self.why_not_at_all()

    def why_not_at_all(self) -> str:
        """The reason why Keras's loop has to run for any inputs; empty if there is none."""
        layer: Any = self
        reasons = {
            "there is a GPU": bool(tf.config.get_visible_devices("GPU")),
            "there is a TPU": bool(tf.config.list_logical_devices("TPU")),
            f"it computes in {layer.compute_dtype}": layer.compute_dtype != "float32",
            "it is unrolled": layer.unroll,
            "zero_output_for_mask is on": layer.zero_output_for_mask,
        }
        return next((reason for reason, holds in reasons.items() if holds), "")

    def _weights(self, *names: str) -> list[tf.Tensor]:
        """The cell's weights as tensors. Keras reads the variables, so that weight drop can replace their values."""
        cell = self.cell  # type: ignore[attr-defined]
        return [tf.convert_to_tensor(keras.ops.convert_to_tensor(getattr(cell, name))) for name in names]

    def _run(self, sequences: tf.Tensor, mask: tf.Tensor | None, states: list[tf.Tensor], is_training: bool) -> Any:
        """Returns the time-major outputs and the states after the last step."""
        raise NotImplementedError


class _FastGated(_Fast):
    """The fast loop of LSTM and GRU."""

    recurrence: str

    def why_not_at_all(self) -> str:
        layer: Any = self
        cell = layer.cell
        reasons = {
            "its activations are not tanh and sigmoid": not self._has_standard_activations(),
            "it has dropout of its own": bool(layer.dropout or layer.recurrent_dropout),
            "it has no bias": not layer.use_bias,
            "reset_after is off": self.recurrence == "gru" and not getattr(cell, "reset_after", True),
        }
        return super().why_not_at_all() or next((reason for reason, holds in reasons.items() if holds), "")

    def _has_standard_activations(self) -> bool:
        cell = self.cell  # type: ignore[attr-defined]
        return cell.activation is keras.activations.tanh and cell.recurrent_activation is keras.activations.sigmoid

    def _why_not(self, sequences: tf.Tensor, mask: tf.Tensor | None) -> str:
        layer: Any = self
        reason = self.why_not_at_all()
        batch_size, num_steps, _ = sequences.shape
        if not reason and batch_size:
            cause = why_not_compiled(
                self.recurrence, layer.units, batch_size, num_steps, is_masked=mask is not None, has_twin=self.has_twin
            )
            reason = cause and f"XLA cannot compile the fast loop for batches of {batch_size}: {cause}"
        return reason

    def _run(self, sequences: tf.Tensor, mask: tf.Tensor | None, states: list[tf.Tensor], is_training: bool) -> Any:
        weights = self._weights("kernel", "recurrent_kernel", "bias")
        options = {
            "is_training": is_training,
            "has_twin": self.has_twin,
            "dtype": matmul_dtype(is_training=is_training),
        }
        return run_recurrence(self.recurrence, sequences, mask, states, weights, **options)


@functools.cache
def _log_once(message: str) -> None:
    logger.info(message)


@keras.saving.register_keras_serializable("nlp_rnn")
class FastLSTM(_FastGated, keras.layers.LSTM):
    """keras.layers.LSTM, faster on CPUs, with the same arguments, weights, masks and results.

    Where it is portable, padding must be on the right.
    """

    recurrence = "lstm"

    def _portable_loop(self, sequences: Any, initial_state: Any, mask: Any, training: bool) -> Any:
        """One operation for the whole sequence where it is faster: for small batches."""
        is_possible = self._has_standard_activations() and self.use_bias and not self.zero_output_for_mask
        rows = sequences.shape[0]  # None where an export takes any number
        if training or not is_possible or self.compute_dtype != "float32" or (rows and rows > MAX_ROWS):
            return super()._portable_loop(sequences, initial_state, mask, training)
        stock_loop = super()._portable_loop

        def one_op() -> Any:
            inputs = reverse_texts(sequences, mask) if self.go_backwards else sequences
            weights = self._weights("kernel", "recurrent_kernel", "bias")
            outputs, states = run_block_lstm(inputs, mask, list(initial_state), weights)
            if self.go_backwards and mask is not None:  # the order of Keras: padding first
                outputs = tf.reverse(reverse_texts(outputs, mask), [1])
            return states[0], outputs if self.return_sequences else states[0][:, None], states

        def loop() -> Any:
            last, outputs, states = stock_loop(sequences, initial_state, mask, training)
            return last, outputs, list(states)

        return one_op() if rows else tf.cond(tf.shape(sequences)[0] <= MAX_ROWS, one_op, loop)


@keras.saving.register_keras_serializable("nlp_rnn")
class FastGRU(_FastGated, keras.layers.GRU):
    """keras.layers.GRU, faster on CPUs, with the same arguments, weights, masks and results."""

    recurrence = "gru"


class _FastLinear(_Fast):
    """The fast loop of minGRU and minLSTM."""

    def _run(self, sequences: tf.Tensor, mask: tf.Tensor | None, states: list[tf.Tensor], is_training: bool) -> Any:
        layer: Any = self
        weights, dtype = self._weights("kernel", "bias"), matmul_dtype(is_training=is_training)
        outputs, state = run_linear_recurrence(layer.cell_class.gates, sequences, mask, *states, *weights, dtype=dtype)
        return outputs, [state]


@keras.saving.register_keras_serializable("nlp_rnn")
class FastMinGRU(_FastLinear, MinGRU):
    """MinGRU over all time steps at once, with the same arguments, weights, masks and results."""


@keras.saving.register_keras_serializable("nlp_rnn")
class FastMinLSTM(_FastLinear, MinLSTM):
    """MinLSTM over all time steps at once, with the same arguments, weights, masks and results."""
