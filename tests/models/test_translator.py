import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.config.loading import load_config
from nlp_rnn.models.build import build_translator

SETTINGS = ["model.units=8", "model.embedding_dim=6", "model.dropout=0"]
VARIANTS = [
    ["model.cell=lstm", "model.num_layers=2", "model.weight_dropout=0.2"],
    ["model.cell=gru", "model.attention=additive", "model.num_heads=2"],
    ["model.cell=gru", "model.num_layers=3", "model.is_residual=true", "model.layer_norm=true", "model.attention=dot"],
    ["model.cell=min_gru", "model.num_layers=2", "model.tie_embeddings=false"],
    ["model.cell=lstm", "model.num_layers=2", "model.input_feeding=true"],
    ["model.cell=lstm", "model.input_feeding=true", "model.attention=dot"],
    ["model.cell=gru", "model.input_feeding=true"],
    ["model.cell=gru", "model.input_feeding=true", "model.is_bidirectional=false", "model.layer_norm=true"],
]
VOCAB_SIZE = 11


def first(count):
    """The first variants now, the others by `make further`."""
    others = [pytest.param(each, marks=pytest.mark.further) for each in VARIANTS[count:]]
    return pytest.mark.parametrize("settings", [*VARIANTS[:count], *others], ids=" ".join)


def make_model(settings=(), **options):
    keras.utils.set_random_seed(1)
    config = load_config(None, [*SETTINGS, *settings], task="translation").model
    training = load_config(
        None, [f"training.{name}={value}" for name, value in options.items()], task="translation"
    ).training
    return build_translator(config, vocab_size=VOCAB_SIZE, training=training)


def make_pairs(rows=3, source=5, target=4, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(4, VOCAB_SIZE, (rows, source)).astype(np.int32), generator.integers(
        4, VOCAB_SIZE, (rows, target)
    ).astype(np.int32)


@first(5)
def test_steps_give_what_all_at_once_gives(settings):
    model = make_model(settings)
    source, target = make_pairs()
    encoded = model.encode(source)
    hidden, weights = model.decode(target, encoded)
    states = encoded.states
    for time in range(target.shape[1]):
        found, states, attention = model.advance(target[:, time], states, encoded)
        np.testing.assert_allclose(found, hidden[:, time], atol=2e-6)
        np.testing.assert_allclose(attention, weights[:, time], atol=2e-6)
    np.testing.assert_allclose(np.sum(weights, axis=2), 1, atol=1e-5)


@first(5)
def test_padding_does_not_change_a_sentence(settings):
    model = make_model(settings)
    source, target = make_pairs(rows=2)
    source[1, 3:] = 0
    hidden, _ = model.decode(target, model.encode(source))
    alone, weights = model.decode(target[1:], model.encode(source[1:, :3]))
    np.testing.assert_allclose(hidden[1:], alone, atol=2e-6)
    longer, more = model.decode(target[1:], model.encode(np.pad(source[1:, :3], [[0, 0], [0, 4]])))
    np.testing.assert_allclose(longer, alone, atol=2e-6)
    np.testing.assert_allclose(more[:, :, :3], weights, atol=2e-6)
    assert np.abs(more[:, :, 3:]).max() == 0


@pytest.mark.further
@pytest.mark.parametrize(
    "settings",
    [["model.cell=lstm", "model.attention=dot"], pytest.param(["model.cell=gru"], marks=pytest.mark.further)],
    ids=" ".join,
)
@pytest.mark.parametrize("target_length", [5, *(pytest.param(each, marks=pytest.mark.further) for each in (1, 7))])
def test_the_fast_decoder_is_keras_loop(settings, target_length):
    slow, fast = (make_model([*settings, "model.input_feeding=true", f"model.fast={fast}"]) for fast in ("off", "on"))
    assert (slow._has_fast_decoder(), fast._has_fast_decoder()) == (False, True)
    fast.set_weights(slow.get_weights())
    source, target = make_pairs(source=9, target=target_length)
    source[1, 3:] = 0

    @tf.function(autograph=False)
    def found(model):
        with tf.GradientTape() as tape:
            hidden, weights = model.decode(target, model.encode(source))
            loss = tf.reduce_sum(tf.sin(3 * hidden))
        used = [each for each in model.trainable_variables if "softmax" not in each.path]
        return hidden, weights, [tf.convert_to_tensor(each) for each in tape.gradient(loss, used)]

    expected, actual = (tf.nest.flatten(found(model)) for model in (slow, fast))
    for one, other in zip(expected, actual, strict=True):
        np.testing.assert_allclose(other, one, atol=2e-6, rtol=1e-5)
    with tf.GradientTape() as tape:  # eagerly too
        loss = tf.reduce_sum(fast.decode(target, fast.encode(source))[0])
    assert tape.gradient(loss, fast.readout.kernel) is not None


@pytest.mark.further
@first(1)
def test_a_training_step_changes_every_weight(settings):
    regularized = ["model.word_dropout=0.1", "model.embedding_dropout=0.1", "model.dropout=0.1"]
    model = make_model([*settings, *regularized, "model.fast=off"], label_smoothing=0.1, scheduled_sampling=0.3)
    source, target = make_pairs(rows=64)
    model.compile("adam", jit_compile=False)
    assert sum("bridge" in weight.path for weight in model.trainable_weights) == 2 * len(model.bridges)
    before = [np.array(weight) for weight in model.trainable_weights]
    outputs = np.pad(target[:, 1:], [[0, 0], [0, 1]], constant_values=3)
    found = model.train_on_batch((source, target), outputs, np.ones(outputs.shape, np.float32), return_dict=True)
    assert np.isfinite(found["loss"])
    unchanged = [
        weight.path for weight, old in zip(model.trainable_weights, before, strict=True) if np.array_equal(weight, old)
    ]
    assert not unchanged


def test_the_loss_is_the_mean_of_smoothed_cross_entropies():
    model = make_model(label_smoothing=0.2)
    source, target = make_pairs()
    outputs, weights = np.roll(target, -1, axis=1), np.ones(target.shape, np.float32)
    weights[0, 2:] = 0
    hidden = model((source, target))
    scores = np.array(model.head(hidden))
    exact = -np.take_along_axis(scores, outputs[:, :, None], axis=2)[:, :, 0]
    smoothed = 0.8 * exact - 0.2 * scores.mean(axis=2)
    count = weights.sum()
    for training, expected in ((False, exact), (True, smoothed)):
        found = model.compute_loss(None, outputs, hidden, weights, training=training)
        assert float(found) == pytest.approx(float((expected * weights).sum() / count), rel=1e-5)


def test_the_gradient_of_a_smoothed_loss_is_right():
    model = make_model(label_smoothing=0.2)
    hidden = tf.constant(np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32))
    targets, weights = tf.constant([4, 5, 6, 7, 8, 9, 10]), tf.constant([1.0, 1, 1, 0, 1, 1, 1])
    with tf.GradientTape() as tape:
        tape.watch(hidden)
        loss = model.head.loss(hidden, targets, weights, training=True, label_smoothing=0.2)
    found = tape.gradient(loss, hidden)
    with tf.GradientTape() as tape:
        tape.watch(hidden)
        scores = tf.nn.log_softmax(
            hidden @ tf.transpose(tf.convert_to_tensor(model.head.kernel)) + tf.convert_to_tensor(model.head.bias)
        )
        wanted = 0.8 * tf.one_hot(targets, VOCAB_SIZE) + 0.2 / VOCAB_SIZE
        expected = -tf.reduce_sum(weights[:, None] * wanted * scores)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(found, tape.gradient(expected, hidden), atol=1e-5)


def test_scheduled_sampling_feeds_predictions_of_the_step_before():
    model = make_model(scheduled_sampling=0.999999)
    source, target = make_pairs()
    target[1, 2:] = 0
    encoded = model.encode(source)
    predicted = np.argmax(model.head(model.decode(target, encoded)[0]), axis=2)
    found = np.array(model._with_predictions(target, encoded))
    np.testing.assert_array_equal(found[:, 0], predicted[:, 0] * 0 + target[:, 0])
    np.testing.assert_array_equal(found[0, 1:], predicted[0, :-1])
    np.testing.assert_array_equal(found[1, 2:], 0)


@pytest.mark.further
def test_it_learns_to_turn_a_sentence_round():
    model = make_model(["model.units=32", "model.embedding_dim=16", "model.cell=gru"])
    model.compile(keras.optimizers.Adam(0.01), jit_compile=False)
    source, _ = make_pairs(rows=256, source=5, seed=3)
    outputs = source[:, ::-1]
    inputs = np.concatenate([np.full((256, 1), 2), outputs[:, :-1]], axis=1).astype(np.int32)
    weights = np.ones(outputs.shape, np.float32)
    first = model.train_on_batch((source, inputs), outputs, weights, return_dict=True)["loss"]
    for _ in range(200):
        last = model.train_on_batch((source, inputs), outputs, weights, return_dict=True)["loss"]
    assert last < 0.3 * first


@pytest.mark.parametrize("attention", ["dot", "general", "additive"])
def test_half_precision(attention):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = make_model([f"model.attention={attention}", "model.num_layers=2"])
        source, target = make_pairs()
        hidden, weights = model.decode(target, model.encode(source))
    finally:
        keras.config.set_dtype_policy("float32")
    assert hidden.dtype == "bfloat16"
    np.testing.assert_allclose(np.sum(weights, axis=2), 1, atol=1e-2)


def test_settings_that_cannot_be_are_told():
    config = load_config(None, [*SETTINGS], task="translation").model
    with pytest.raises(ValueError, match="which does not fit general, 3 heads"):
        build_translator(dataclasses.replace(config, num_heads=3), vocab_size=VOCAB_SIZE)
