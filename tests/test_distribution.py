"""What must already hold under tf.distribute: the fast parts give the same weights on two devices as on one."""

import json
import subprocess
import sys

import numpy as np
import pytest

# A process of its own: logical devices are set once, before TensorFlow starts.
SCRIPT = """
import json
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras

from nlp_rnn.fast_recurrent import FAST_CELLS
from nlp_rnn.fused_adam import FusedAdam


def train(cell, strategy):
    keras.utils.set_random_seed(1)
    with strategy.scope():
        inputs = keras.Input((None,), batch_size=8 // strategy.num_replicas_in_sync, dtype="int32")
        vectors = keras.layers.Embedding(20, 6, mask_zero=True)(inputs)
        hidden = FAST_CELLS[cell](5)(vectors)
        model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
        model.compile(FusedAdam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    generator = np.random.default_rng(1)
    ids = np.where(np.arange(9) < generator.integers(1, 10, 32)[:, None], generator.integers(1, 20, (32, 9)), 0).astype(np.int32)
    dataset = tf.data.Dataset.from_tensor_slices((ids, (ids[:, 0] % 2).astype(np.int32))).batch(8, drop_remainder=True)
    history = model.fit(dataset, epochs=3, shuffle=False, verbose=0)
    return history.history["loss"], [weight.numpy().tolist() for weight in model.trainable_variables]


strategies = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
print(json.dumps({cell: [train(cell, strategy) for strategy in strategies] for cell in FAST_CELLS}))
"""


@pytest.fixture(scope="module")
def trained():
    process = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.parametrize("cell", ["lstm", "gru", "min_lstm"])
def test_fast_layers_and_fused_adam_train_alike_on_two_devices(cell, trained):
    (losses, weights), (mirrored_losses, mirrored_weights) = trained[cell]
    np.testing.assert_allclose(mirrored_losses, losses, rtol=1e-5)
    for one, other in zip(weights, mirrored_weights, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)
