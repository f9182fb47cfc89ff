import logging
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.config.settings import ModelConfig, TrainingConfig
from nlp_rnn.layers.fast import precision
from nlp_rnn.layers.fast.precision import matmul_dtype, matmul_precision
from nlp_rnn.models.build import build_language_model
from nlp_rnn.training.optimizers import build_optimizer
from tests.conftest import make_lines

VOCAB, BATCH, WINDOW, STEPS = 40, 8, 15, 200


def ids_of_lines():
    letters = {letter: number + 1 for number, letter in enumerate(sorted(set("".join(make_lines(700, 1)))))}
    ids = np.array([letters[letter] for line in make_lines(700, 1) for letter in line], np.int32)
    return ids[: len(ids) // BATCH * BATCH].reshape(BATCH, -1)


def losses(cell, softmax, kind):
    """Of each of 200 training steps."""
    tf.keras.utils.set_random_seed(1)
    config = ModelConfig(
        cell=cell, embedding_dim=48, units=48, num_layers=1, is_bidirectional=False, softmax=softmax, num_sampled=20,
        cutoffs=(10, 20) if softmax == "adaptive" else (), tie_embeddings=softmax != "adaptive", fast="on", dropout=0.0,
    )  # fmt: skip
    training = TrainingConfig(batch_size=BATCH, window=WINDOW, learning_rate=2e-2, schedule="constant")
    model = build_language_model(config, vocab_size=VOCAB, training=training)
    optimizer, ids = build_optimizer(training, STEPS), ids_of_lines()
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(inputs, targets):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(None, targets, model(inputs, training=True), tf.ones([BATCH, WINDOW]))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    found = []
    with matmul_precision(kind):
        for number in range(STEPS):
            start = number * WINDOW % (ids.shape[1] - WINDOW)
            found.append(
                float(
                    step(
                        tf.constant(ids[:, start : start + WINDOW]), tf.constant(ids[:, start + 1 : start + WINDOW + 1])
                    )
                )
            )
    return np.array(found)


@pytest.mark.parametrize(
    ("cell", "softmax"),
    [
        ("lstm", "full"),
        *(pytest.param(*each, marks=pytest.mark.further) for each in (("gru", "sampled"), ("min_gru", "adaptive"))),
    ],
)
def test_a_training_in_bfloat16_follows_one_in_float32(cell, softmax):
    single, half = losses(cell, softmax, "float32"), losses(cell, softmax, "bfloat16")
    assert single[-20:].mean() < 0.1 * single[:20].mean()  # it learns
    assert np.abs(single - half).max() > 0  # the products are others
    assert np.abs(single - half).max() < 0.2  # seen: 0.02, 0.05, 0.10, of losses of 3.7 to 0.1
    assert abs(single[-20:].mean() - half[-20:].mean()) < 0.03  # seen: 0.005, 0.012, 0.001


def test_inference_multiplies_in_float32():
    with matmul_precision("bfloat16"):
        assert (matmul_dtype(), matmul_dtype(is_training=False)) == (tf.bfloat16, tf.float32)
    assert matmul_dtype() == tf.float32


def test_a_processor_without_bfloat16_works_and_is_told_to_be_slow(monkeypatch, caplog):
    monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr(Path, "read_text", lambda path, **_: "flags : fpu avx2 avx512f")
    assert precision.has_bfloat16() is False
    logging.getLogger("nlp_rnn").propagate = True
    with caplog.at_level(logging.WARNING), matmul_precision("bfloat16"):
        assert matmul_dtype() == tf.bfloat16
    assert "only emulates: training will be slow; use float32" in caplog.text
