"""Adam in one pass over each weight, with TensorFlow's fused kernel; and SGD with the right norm of sparse gradients.

Keras's Adam makes many passes, which take a fifth of a language model's training step.
"""

from typing import Any

import keras
import tensorflow as tf


class _SummedRows:
    """Sums the rows of a sparse gradient that belong to one row of the weight, before the norm is computed."""

    is_lazy = False

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        return super()._clip_gradients([self._without_duplicates(each) for each in grads])  # type: ignore[misc]

    def _without_duplicates(self, gradient: Any) -> Any:
        if not isinstance(gradient, tf.IndexedSlices):
            return gradient
        if not self.is_lazy:
            return tf.convert_to_tensor(gradient)
        rows, places = tf.unique(gradient.indices)
        return tf.IndexedSlices(
            tf.math.unsorted_segment_sum(gradient.values, places, tf.size(rows)), rows, gradient.dense_shape
        )


class _Fused(_SummedRows):
    """Replaces the update of keras.optimizers.Adam. Weights, state, checkpoints and results equal Keras's."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        optimizer: Any = self
        if optimizer.amsgrad or variable.dtype != tf.float32:
            super().update_step(gradient, variable, learning_rate)  # type: ignore[misc]
            return
        index = optimizer._get_variable_index(variable)
        momentum, velocity = optimizer._momentums[index].value, optimizer._velocities[index].value
        rate, step = tf.cast(learning_rate, tf.float32), tf.cast(optimizer.iterations + 1, tf.float32)
        powers = optimizer.beta_1**step, optimizer.beta_2**step
        if isinstance(gradient, tf.IndexedSlices):
            self._update_rows(gradient, variable, momentum, velocity, rate * tf.sqrt(1 - powers[1]) / (1 - powers[0]))
            return
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle, m=momentum.handle, v=velocity.handle, beta1_power=powers[0], beta2_power=powers[1],
            lr=rate,
            beta1=optimizer.beta_1, beta2=optimizer.beta_2, epsilon=optimizer.epsilon, grad=gradient, use_locking=False,
        )  # fmt: skip

    def _update_rows(
        self, gradient: tf.IndexedSlices, variable: Any, momentum: Any, velocity: Any, rate: tf.Tensor
    ) -> None:
        optimizer: Any = self
        rows, values = gradient.indices, gradient.values
        old_m, old_v = tf.gather(momentum, rows), tf.gather(velocity, rows)
        new_m = old_m + (values - old_m) * (1 - optimizer.beta_1)
        new_v = old_v + (tf.square(values) - old_v) * (1 - optimizer.beta_2)
        momentum.scatter_update(tf.IndexedSlices(new_m, rows))
        velocity.scatter_update(tf.IndexedSlices(new_v, rows))
        variable.scatter_sub(tf.IndexedSlices(rate * new_m / (tf.sqrt(new_v) + optimizer.epsilon), rows))


@keras.saving.register_keras_serializable("nlp_rnn")
class SummedSGD(_SummedRows, keras.optimizers.SGD):
    """keras.optimizers.SGD, which would clip by a norm that is too small where a word occurs several times."""


@keras.saving.register_keras_serializable("nlp_rnn")
class FusedAdam(_Fused, keras.optimizers.Adam):
    """A faster keras.optimizers.Adam. The weights agree up to rounding."""


@keras.saving.register_keras_serializable("nlp_rnn")
class FusedAdamW(_Fused, keras.optimizers.AdamW):
    """A faster keras.optimizers.AdamW. The weights agree up to rounding."""


@keras.saving.register_keras_serializable("nlp_rnn")
class LazyAdam(_Fused, keras.optimizers.Adam):
    """Adam that updates only the rows of an embedding that the batch contains.

    Other rows and their state stay unchanged, whereas Adam keeps moving them by their momentum. The bias
    correction counts all batches, as in Adam. Dense gradients are treated as in Adam.
    """

    is_lazy = True
