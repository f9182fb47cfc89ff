"""What a TPU needs of a training step, tested on a CPU: XLA compiles it whole, with fixed shapes and equal results."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.config.loading import load_config
from nlp_rnn.distribution.placement import ONE_DEVICE
from nlp_rnn.models.build import build_language_model, build_translator
from nlp_rnn.models.classifier import build_classifier
from nlp_rnn.training import fit

ROWS, STEPS, WORDS = 8, 12, 50
GENERATOR = np.random.default_rng(0)
IDS = GENERATOR.integers(4, WORDS, (ROWS, STEPS), np.int32)
IDS[0, 7:] = 0
WEIGHTS = (IDS != 0).astype(np.float32)
SETTINGS = {
    "sentiment": ["model.cell=gru", "model.pooling=[last,max,mean,attention]"],
    "next_word": ["training.activation_regularization=1", "training.temporal_regularization=1"],
    "char_generation": ["model.cell=min_gru", "model.num_layers=2", "model.layer_norm=true"],
    "translation": ["model.attention=additive", "model.num_layers=2"],
}
RANDOM = ["model.dropout=0.2", "model.word_dropout=0.1", "model.embedding_dropout=0.1"]
MORE_RANDOM = {"next_word": ["model.softmax=sampled", "model.num_sampled=20", "model.weight_dropout=0.1"]}
BATCHES = {
    "sentiment": (IDS, GENERATOR.integers(0, 2, ROWS, np.int32), np.ones(ROWS, np.float32)),
    "translation": ((IDS, IDS), IDS[:, ::-1].copy(), WEIGHTS),
}


def build(task: str, settings: list[str]) -> keras.Model:
    """A model that is ready to train, with the same weights and seeds each time."""
    keras.utils.set_random_seed(1)
    common = [
        "model.units=8",
        "model.embedding_dim=8",
        "model.fast=off",
        f"training.batch_size={ROWS}",
        "training.ema_momentum=0.5",
    ]
    config = load_config(None, [*common, *SETTINGS[task], *settings], task=task)
    if task == "sentiment":
        model = build_classifier(config.model, vocab_size=WORDS, num_classes=2)
    elif task == "translation":
        model = build_translator(config.model, vocab_size=WORDS, training=config.training)
    else:
        model = build_language_model(config.model, vocab_size=WORDS, training=config.training)
    fit.compile_model(model, config.training, 10, ONE_DEVICE)
    return model


def losses(task: str, settings: list[str], *, jit_compile: bool) -> list[float]:
    """The losses of three steps on one batch, each from the zero state."""
    model = build(task, settings)
    step = tf.function(model.train_step, jit_compile=jit_compile)
    data = tf.nest.map_structure(tf.constant, BATCHES.get(task, (IDS, np.roll(IDS, -1, axis=1), WEIGHTS)))
    results = []
    for _ in range(3):
        model.reset_metrics()
        if hasattr(model, "reset_states"):
            model.reset_states("training")
        results.append(float(step(data)["loss"]))
    return results


@pytest.mark.parametrize(
    "task", [task if task == "sentiment" else pytest.param(task, marks=pytest.mark.further) for task in SETTINGS]
)
def test_xla_compiles_the_whole_training_step(task: str) -> None:
    settings = ["model.dropout=0"]
    np.testing.assert_allclose(
        losses(task, settings, jit_compile=True), losses(task, settings, jit_compile=False), atol=1e-5
    )


# char_generation draws what next_word draws.
@pytest.mark.further
@pytest.mark.parametrize(
    "task",
    [
        "next_word",
        *(pytest.param(task, marks=pytest.mark.further) for task in ("sentiment", "translation")),
        pytest.param("char_generation", marks=pytest.mark.slow),
    ],
)
def test_xla_draws_other_random_numbers_in_each_step(task: str) -> None:
    still = "training.learning_rate=1e-9"  # so that only the random numbers change the loss
    plain = losses(task, ["model.dropout=0", still], jit_compile=True)
    np.testing.assert_allclose(plain, plain[0], rtol=1e-6)
    drawn = losses(task, [*RANDOM, *MORE_RANDOM.get(task, []), still], jit_compile=True)
    assert np.isfinite(drawn).all()
    assert len(set(drawn)) == len(drawn)
    assert np.ptp(drawn) > 1e-5
