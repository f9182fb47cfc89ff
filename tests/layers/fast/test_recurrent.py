import dataclasses
import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.config.loading import load_config
from nlp_rnn.layers.cells import MinGRU, MinLSTM
from nlp_rnn.layers.fast import lstm_gru
from nlp_rnn.layers.fast import recurrent as fast_recurrent
from nlp_rnn.layers.fast.recurrent import FastGRU, FastLSTM, FastMinGRU, FastMinLSTM
from nlp_rnn.layers.recurrent import WeightDrop, build_recurrent_layer
from nlp_rnn.models.classifier import build_classifier

PAIRS = {
    "lstm": (keras.layers.LSTM, FastLSTM),
    "gru": (keras.layers.GRU, FastGRU),
    "min_gru": (MinGRU, FastMinGRU),
    "min_lstm": (MinLSTM, FastMinLSTM),
}
CELLS = pytest.mark.parametrize("cell", list(PAIRS))
# GRU runs in LSTM's chunks, minLSTM in minGRU's scan: one of each is enough for what does not depend on the gates.
ONE_OF_EACH_KIND = pytest.mark.parametrize(
    "cell", ["lstm", "min_gru", *(pytest.param(cell, marks=pytest.mark.slow) for cell in ("gru", "min_lstm"))]
)
GATED_CELLS = pytest.mark.parametrize("cell", ["lstm", "gru"])


def make_pair(cell, features, units, **options):
    """The stock layer and ours, with the same weights, biases not zero."""
    stock, ours = (layer(units, return_sequences=True, return_state=True, **options) for layer in PAIRS[cell])
    generator = np.random.default_rng(1)
    for layer in (stock, ours):
        layer.build((None, None, features))
    weights = [
        generator.normal(size=weight.shape, scale=0.8 / units**0.5).astype(np.float32) for weight in stock.get_weights()
    ]
    stock.set_weights(weights)
    ours.set_weights(weights)
    return stock, ours


def make_mask(kind, batch, time):
    generator = np.random.default_rng(2)
    lengths = generator.integers(1, time + 1, batch)
    positions = np.arange(time)[None]
    masks = {
        "none": None,
        "right": positions < lengths[:, None],
        "left": positions >= time - lengths[:, None],
        "holes": generator.random((batch, time)) < 0.6,
        "all-masked rows": (positions < lengths[:, None]) & (np.arange(batch) % 2 == 0)[:, None],
    }
    return masks[kind]


def make_run(layer):
    """A function of inputs, mask, initial states and the gradient of all outputs, traced once for all masks."""

    @tf.function
    def run(inputs, mask, states, upstream):
        """Outputs and final states, and the gradients of inputs, initial states and weights, through all of them."""
        variables = [weight.value for weight in layer.trainable_weights]
        with tf.GradientTape() as tape:
            tape.watch([inputs, states])
            found = layer(inputs, initial_state=list(states), mask=mask, training=True)
            loss = tf.add_n([tf.reduce_sum(each * weight) for each, weight in zip(found, upstream, strict=True)])
        return [*found, *tape.gradient(loss, [inputs, *states, *variables])]

    return run


def compare(cell, *, masks=("none",), batch=4, time=7, features=5, units=6, **options):
    runs = [make_run(layer) for layer in make_pair(cell, features, units, **options)]
    generator = np.random.default_rng(3)
    normal = lambda *shape: tf.constant(generator.normal(size=shape), tf.float32)  # noqa: E731
    states = tuple(normal(batch, units) for _ in range(2 if cell == "lstm" else 1))
    upstream = [normal(batch, time, units), *(normal(batch, units) for _ in states)]
    inputs = normal(batch, time, features)
    for kind in masks:
        mask = make_mask(kind, batch, time)
        mask = None if mask is None else tf.constant(mask)
        expected, found = ([each.numpy() for each in run(inputs, mask, states, upstream)] for run in runs)
        for one, other in zip(expected, found, strict=True):
            assert one.shape == other.shape
            error = np.linalg.norm(one - other) / np.linalg.norm(one)
            assert error <= 2e-6, kind


@pytest.mark.parametrize(
    ("cell", "go_backwards"),
    [
        *((cell, False) for cell in PAIRS),
        ("lstm", True),
        *(pytest.param(cell, True, marks=pytest.mark.further) for cell in PAIRS if cell != "lstm"),
    ],
)
def test_outputs_states_and_gradients_equal_kerass_under_every_mask(cell, go_backwards):
    compare(cell, masks=("none", "right", "left", "holes", "all-masked rows"), go_backwards=go_backwards)


SIZES = [("lstm", 1, 1), ("lstm", 2, 51), ("lstm", 128, 12), ("min_gru", 2, 51)]
FURTHER_SIZES = [
    ("gru", 2, 51),
    ("min_lstm", 2, 51),
    *(("lstm", *size) for size in [(3, 50), (5, 300)]),
    *(("min_gru", *size) for size in [(1, 1), (3, 50), (128, 12), (5, 300)]),
]
MORE_SIZES = [(cell, *size) for cell in ("gru", "min_lstm") for size in [(1, 1), (3, 50), (128, 12), (5, 300)]]


@pytest.mark.parametrize(
    ("cell", "batch", "time"),
    [
        *SIZES,
        *(pytest.param(*each, marks=pytest.mark.further) for each in FURTHER_SIZES),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in MORE_SIZES),
    ],
)
def test_outputs_states_and_gradients_equal_kerass_at_every_size(cell, batch, time):
    compare(cell, masks=("right",), batch=batch, time=time)


@ONE_OF_EACH_KIND
def test_large_layers_equal_kerass(cell):
    compare(cell, batch=6, time=23, features=40, units=160)


@CELLS
def test_one_compiled_loop_serves_every_length(cell):
    _, layer = make_pair(cell, 3, 4)
    run = tf.function(lambda inputs: layer(inputs)[0], input_signature=[tf.TensorSpec([2, None, 3])])
    stock, _ = make_pair(cell, 3, 4)
    for time in (1, 49, 50, 51, 120):
        inputs = tf.random.stateless_normal([2, time, 3], [1, time])
        np.testing.assert_allclose(run(inputs), stock(inputs)[0], atol=1e-6)


@CELLS
def test_batches_of_unknown_size_are_taken(cell):
    stock, layer = make_pair(cell, 3, 4)
    run = tf.function(lambda inputs: layer(inputs)[0], input_signature=[tf.TensorSpec([None, None, 3])])
    for batch in (1, 5):
        inputs = tf.random.stateless_normal([batch, 6, 3], [1, batch])
        np.testing.assert_allclose(run(inputs), stock(inputs)[0], atol=1e-6)


@CELLS
def test_known_sizes_follow_unknown_ones(cell):
    """The loops traced for a batch of unknown size are found again for one of known size."""
    stock, layer = make_pair(cell, 2, 3)
    run = tf.function(lambda inputs: layer(inputs)[0], input_signature=[tf.TensorSpec([None, None, 2])])
    inputs = tf.random.stateless_normal([1, 6, 2], [1, 2])
    run(inputs)
    np.testing.assert_allclose(layer(inputs)[0], stock(inputs)[0], atol=1e-6)


@CELLS
def test_inference_keeps_no_gates_but_has_the_same_gradients(cell):
    """Explanations ask a model that is not in training for gradients."""
    stock, ours = make_pair(cell, 3, 4)
    inputs = tf.random.stateless_normal([2, 60, 3], [1, 2])
    found = []
    for layer, is_training in ((stock, False), (ours, False), (ours, True)):

        @tf.function
        def run(layer=layer, is_training=is_training):
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                outputs = layer(inputs, training=is_training)[0]
            return outputs, tape.gradient(outputs, inputs)

        found.append(run())
    for one, *others in zip(*found, strict=True):
        for other in others:
            np.testing.assert_allclose(other, one, atol=1e-6)


@CELLS
def test_nan_stays_nan(cell):
    _, layer = make_pair(cell, 3, 4)
    inputs = np.zeros([2, 5, 3], np.float32)
    inputs[0, 2] = np.nan
    outputs = layer(tf.constant(inputs))[0].numpy()
    assert np.isnan(outputs[0, 2:]).all()
    assert np.isfinite(outputs[0, :2]).all()
    assert np.isfinite(outputs[1]).all()


@pytest.mark.parametrize(
    ("cell", "options", "reason"),
    [
        ("lstm", {"activation": "relu"}, "its activations are not tanh and sigmoid"),
        ("lstm", {"recurrent_dropout": 0.5}, "it has dropout of its own"),
        ("gru", {"reset_after": False}, "reset_after is off"),
        ("gru", {"use_bias": False}, "it has no bias"),
        ("lstm", {"dtype": "float16"}, "it computes in float16"),
        ("gru", {"unroll": True}, "it is unrolled"),
    ],
)
def test_what_is_not_supported_runs_in_kerass_loop_and_says_so_once(cell, options, reason, caplog):
    fast_recurrent._log_once.cache_clear()
    stock, ours = make_pair(cell, 3, 4, **options)
    inputs = tf.random.stateless_normal([2, 5, 3], [1, 2])
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            found = ours(inputs)
    np.testing.assert_array_equal(found[0], stock(inputs)[0])
    assert [record.getMessage() for record in caplog.records] == [f"{ours.name}: Keras's own loop runs, since {reason}"]


def test_a_shape_that_xla_cannot_compile_runs_in_kerass_loop(monkeypatch, caplog):
    fast_recurrent._log_once.cache_clear()

    def step(zx, states, kernel, bias):
        return states, tf.strings.to_number(tf.strings.as_string(zx))

    monkeypatch.setitem(lstm_gru.RECURRENCES, "lstm", lstm_gru.RECURRENCES["lstm"]._replace(step=step))
    stock, ours = make_pair("lstm", 3, 11)
    inputs = tf.random.stateless_normal([7, 5, 3], [1, 2])
    with caplog.at_level(logging.INFO):
        found = ours(inputs)
    np.testing.assert_array_equal(found[0], stock(inputs)[0])
    (record,) = caplog.records
    assert "since XLA cannot compile the fast loop for batches of 7: " in record.getMessage()


@CELLS
def test_weights_and_configs_are_the_stock_layers(cell):
    stock, ours = make_pair(cell, 3, 4)
    assert [weight.path.split("/")[-1] for weight in ours.weights] == [
        weight.path.split("/")[-1] for weight in stock.weights
    ]
    assert {**ours.get_config(), "name": ""} == {**stock.get_config(), "name": ""}
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, ours(inputs))
    copy = keras.models.clone_model(model)
    copy.set_weights(stock.get_weights())
    values = tf.random.stateless_normal([2, 5, 3], [1, 2])
    np.testing.assert_allclose(copy(values)[0], stock(values)[0], atol=1e-6)


@GATED_CELLS
def test_weight_drop_drops_the_fast_layers_weights(cell):
    _, layer = make_pair(cell, 3, 4)
    dropped = WeightDrop(layer, 0.5, seed=1)
    inputs = tf.random.stateless_normal([2, 5, 3], [1, 2])
    plain = layer(inputs)[0].numpy()
    np.testing.assert_array_equal(dropped(inputs, training=False)[0], plain)
    assert not np.allclose(dropped(inputs, training=True)[0], plain)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(dropped(inputs, training=True)[0])
    gradient = tape.gradient(loss, layer.cell.recurrent_kernel.value).numpy()
    assert 0.2 < (gradient == 0).mean() < 0.8


@pytest.mark.parametrize(
    ("cell", "units", "fast", "is_fast"),
    [
        ("lstm", 64, "auto", True),
        ("lstm", 32, "auto", False),
        ("gru", 64, "auto", True),
        ("lstm", 4, "on", True),
        ("gru", 512, "off", False),
        ("min_gru", 1, "auto", True),
    ],
)
def test_the_fast_layer_is_chosen_where_it_is_faster(cell, units, fast, is_fast):
    config = load_config(None, [f"model.cell={cell}", f"model.units={units}", f"model.fast={fast}"]).model
    assert isinstance(build_recurrent_layer(config, name="layer"), PAIRS[cell][1]) == is_fast
    assert not isinstance(
        build_recurrent_layer(dataclasses.replace(config, cell="simple_rnn"), name="layer"), PAIRS[cell][1]
    )


@pytest.mark.parametrize(
    "cell",
    [
        "lstm",
        pytest.param("min_gru", marks=pytest.mark.further),
        *(pytest.param(cell, marks=pytest.mark.slow) for cell in ("gru", "min_lstm")),
    ],
)
def test_training_is_the_same_with_and_without(cell):
    """The same losses over 50 steps; and in a single step a wrong gate would already show."""
    losses = []
    for fast in ("on", "off"):
        keras.utils.set_random_seed(1)
        config = load_config(
            None,
            [f"model.cell={cell}", f"model.fast={fast}", "model.units=8", "model.embedding_dim=6", "model.dropout=0.0"],
        )
        model = build_classifier(config.model, vocab_size=30, num_classes=2)
        kinds = {type(layer).__name__ for layer in model.get_layer("encoder").layers}
        assert (PAIRS[cell][1].__name__ in kinds) == (fast == "on")
        model.compile(keras.optimizers.Adam(0.01), jit_compile=False)
        generator = np.random.default_rng(1)
        found = []
        for _ in range(50):
            ids = np.where(np.arange(9) < generator.integers(1, 10, 8)[:, None], generator.integers(1, 30, (8, 9)), 0)
            batch = ids.astype(np.int32), (ids[:, 0] % 2).astype(np.int32)
            found.append(model.train_on_batch(*batch, return_dict=True)["loss"])
        losses.append(found)
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-4)
    assert losses[0][-1] < losses[0][0]


@CELLS
def test_masks_of_numbers_are_taken(cell):
    layer = make_pair(cell, 3, 4)[1]
    inputs, mask = np.ones((2, 5, 3), np.float32), make_mask("right", 2, 5)
    for one, other in zip(layer(inputs, mask=mask.astype(np.int32)), layer(inputs, mask=mask), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_gpu_that_the_training_does_not_use_changes_nothing(monkeypatch):
    layer = make_pair("lstm", 3, 4)[1]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a GPU"] if kind == "GPU" else [])
    assert layer.why_not_at_all() == ""
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: ["a GPU"] if kind == "GPU" else [])
    assert layer.why_not_at_all() == "there is a GPU"
