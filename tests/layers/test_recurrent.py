import inspect
import itertools

import keras
import numpy as np
import pytest

from nlp_rnn.config.loading import load_config
from nlp_rnn.config.tables import CELLS, resolve
from nlp_rnn.layers.chunks import ReadInChunks
from nlp_rnn.layers.pooling import MaskedPooling
from nlp_rnn.layers.recurrent import Flip, WeightDrop
from nlp_rnn.models.classifier import build_classifier, build_classifier_encoder

RNG = np.random.default_rng(0)
IDS = np.array([[5, 6, 7, 8], [9, 10, 0, 0], [4, 0, 0, 0]], np.int32)


def model_config(*settings):
    return load_config(None, ["model.units=5", "model.embedding_dim=6", *settings]).model


def build(*settings, num_classes=3):
    keras.utils.set_random_seed(0)
    return build_classifier(model_config(*settings), vocab_size=12, num_classes=num_classes)


ALL_POOLINGS = "model.pooling=[last,max,mean,attention]"
# For every cell and direction; pooling, normalisation and residuals are the same code for all cells.
CELL_VARIANTS = [
    (f"model.cell={cell}", f"model.is_bidirectional={both}", ALL_POOLINGS, "model.num_layers=2", *extra)
    for cell, both in itertools.product(CELLS, ("true", "false"))
    for extra in [() if cell.startswith("min_") else ("model.weight_dropout=0.3",)]
]
OTHER_VARIANTS = [
    (f"model.cell={cell}", f"model.is_bidirectional={both}", f"model.pooling=[{pooling}]", *extra)
    for cell, both, (pooling, *extra) in itertools.product(
        CELLS,
        ("true", "false"),
        (
            ("last",),
            ("max,mean",),
            ("attention", "model.num_layers=2", "model.is_residual=true", "model.layer_norm=true"),
        ),
    )
]
VARIANTS = [
    *(each for each in CELL_VARIANTS if "model.is_bidirectional=true" in each),
    *(
        pytest.param(each, marks=pytest.mark.further)
        for each in CELL_VARIANTS
        if "model.is_bidirectional=false" in each
    ),
    *(each for each in OTHER_VARIANTS if each[0] == "model.cell=lstm"),
    *(pytest.param(each, marks=pytest.mark.slow) for each in OTHER_VARIANTS if each[0] != "model.cell=lstm"),
]


@pytest.mark.parametrize("settings", VARIANTS, ids=lambda settings: " ".join(settings).replace("model.", ""))
def test_padding_changes_no_answer(settings):
    model = build(*settings)
    logits = model(IDS).numpy()
    np.testing.assert_allclose(model(np.pad(IDS, ((0, 0), (0, 6)))).numpy(), logits, atol=5e-6)
    for row, length in enumerate((4, 2, 1)):
        np.testing.assert_allclose(model(IDS[row : row + 1, :length]).numpy()[0], logits[row], atol=5e-6)


@pytest.mark.parametrize(
    "settings",
    [
        (
            "model.cell=lstm",
            "model.num_layers=2",
            "model.is_residual=true",
            "model.layer_norm=true",
            "model.pooling=[attention]",
        ),
        ("model.cell=gru", "model.weight_dropout=0.2", "model.recurrent_dropout=0.2", "model.word_dropout=0.2"),
        pytest.param(("model.cell=min_gru", "model.num_layers=2", "model.dropout=0.2"), marks=pytest.mark.further),
        ("model.cell=simple_rnn", "model.is_bidirectional=false", "model.embedding_dropout=0.2", "model.dropout=0"),
    ],
)
def test_a_training_step_changes_every_weight(settings):
    model = build(*settings)
    before = [weight.numpy() for weight in model.trainable_variables]
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    model.fit(np.repeat(IDS, 8, axis=0), np.arange(24) % 3, batch_size=24, verbose=0)
    unchanged = [w.path for w, b in zip(model.trainable_variables, before, strict=True) if np.array_equal(w.numpy(), b)]
    assert not unchanged


def test_pooling_worked_out_by_hand():
    sequences = np.array([[[1.0, -4.0], [3.0, -2.0], [100.0, 100.0]]], np.float32)
    mask = np.array([[True, True, False]])
    assert MaskedPooling(("last", "max", "mean"))(sequences, mask).numpy().tolist() == [[3, -2, 3, -2, 2, -3]]
    assert MaskedPooling(("last",), is_bidirectional=True)(sequences, mask).numpy().tolist() == [[3, -4]]


def test_attention_pooling_worked_out_by_hand():
    layer = MaskedPooling(("attention",))
    sequences = np.array([[[0.0], [np.arctanh(0.5)], [9.0]]], np.float32)
    mask = np.array([[True, True, False]])
    layer(sequences, mask)
    layer.set_weights([np.ones((1, 1)), np.full((1, 1), 2 * np.log(3))])  # scores 0 and log 3: weights 1/4 and 3/4
    np.testing.assert_allclose(layer(sequences, mask).numpy(), [[0.75 * np.arctanh(0.5)]], rtol=1e-6)


@pytest.mark.parametrize("cell", ["simple_rnn", "lstm", "gru"])
def test_weight_drop_equals_the_layer_with_dropped_weights(cell):
    keras.utils.set_random_seed(1)
    layer = resolve(CELLS[cell].layer)(4, return_sequences=True)
    wrapped = WeightDrop(layer, 0.5, seed=3)
    inputs = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    plain = wrapped(inputs).numpy()
    np.testing.assert_array_equal(plain, layer(inputs).numpy())
    dropped = wrapped(inputs, training=True).numpy()
    assert not np.allclose(dropped, plain)
    kernel = layer.cell.recurrent_kernel
    original = kernel.numpy()
    kernel.assign(keras.random.dropout(kernel, 0.5, seed=keras.random.SeedGenerator(3)))
    np.testing.assert_allclose(layer(inputs).numpy(), dropped, atol=1e-6)
    kernel.assign(original)
    assert not np.allclose(wrapped(inputs, training=True).numpy(), dropped)  # a new mask each batch


def test_one_lstm_step_worked_out_by_hand():
    """Kernels of one, forget bias of Keras (1): i = f' = o = sigmoid(x), c = i * tanh(x), h = o * tanh(c)."""
    encoder_config = model_config(
        "model.units=1", "model.embedding_dim=1", "model.is_bidirectional=false", "model.pooling=[last]"
    )
    encoder = build_classifier_encoder(encoder_config, num_classes=2)
    x = 0.7
    kernel, recurrent, bias = np.ones((1, 4)), np.ones((1, 4)), np.zeros(4)
    encoder.set_weights([kernel, recurrent, bias, np.array([[1.0, -1.0]]), np.zeros(2)])
    gate = 1 / (1 + np.exp(-x))
    expected = gate * np.tanh(gate * np.tanh(x))
    logits = encoder([np.full((1, 1, 1), x, np.float32), np.array([[True]])]).numpy()
    np.testing.assert_allclose(logits, [[expected, -expected]], rtol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        MaskedPooling(("last", "attention"), is_bidirectional=True),
        WeightDrop(keras.layers.GRU(3, return_sequences=True), 0.25, seed=2),
        Flip(),
        ReadInChunks(
            [(keras.layers.Dropout(0.1), keras.layers.GRU(3, return_sequences=True, return_state=True), None)],
            MaskedPooling(("last",)),
            chunk_length=2,
        ),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_survive_a_config_round_trip(layer):
    arguments = set(inspect.signature(type(layer)).parameters) - {"kwargs"}
    assert arguments <= set(layer.get_config())
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert copy.get_config() == layer.get_config()
    inputs = [RNG.normal(size=(2, 5, 4)).astype(np.float32)]
    inputs += [np.ones((2, 5), bool)] if isinstance(layer, MaskedPooling | ReadInChunks) else []
    expected = layer(*inputs).numpy()
    copy(*inputs)
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(copy(*inputs).numpy(), expected)


@pytest.mark.parametrize("more", [[], ["model.is_bidirectional=false", "model.chunk_length=4"]], ids=["", "chunks"])
def test_a_saved_model_reloads_with_the_same_answers(tmp_path, more):
    model = build("model.weight_dropout=0.2", "model.pooling=[last,attention]", *more)
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "m.keras")(IDS).numpy(), model(IDS).numpy())


def test_half_precision_models_give_float32_logits():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build("model.pooling=[last,max,mean,attention]")
        assert model(IDS).dtype == "float32"
        assert model.get_layer("encoder").get_layer("lstm_0_forward").compute_dtype == "bfloat16"
        assert np.isfinite(model(IDS).numpy()).all()
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("cell", ["min_gru", "min_lstm"])
def test_linear_cells_are_what_the_paper_says(cell):
    def sigmoid(value):
        return 1 / (1 + np.exp(-value))

    layer = resolve(CELLS[cell].layer)(3)
    inputs, state = RNG.normal(size=(2, 5)).astype(np.float32), RNG.normal(size=(2, 3)).astype(np.float32)
    layer.cell(inputs, [state])  # builds it
    layer.cell.bias.assign(RNG.normal(size=layer.cell.bias.shape))
    found, _ = layer.cell(inputs, [state])
    *gates, candidate = np.split(
        inputs @ layer.cell.kernel.numpy() + layer.cell.bias.numpy(), layer.cell.num_gates, axis=1
    )
    candidate = np.where(candidate >= 0, candidate + 0.5, sigmoid(candidate))
    if cell == "min_gru":
        keep, update = 1 - sigmoid(gates[0]), sigmoid(gates[0])
    else:
        total = sigmoid(gates[0]) + sigmoid(gates[1])
        keep, update = sigmoid(gates[0]) / total, sigmoid(gates[1]) / total
    np.testing.assert_allclose(found, keep * state + update * candidate, atol=1e-6)


def test_weight_drop_leaves_the_layer_its_own_dropout():
    layer = WeightDrop(keras.layers.LSTM(5, recurrent_dropout=0.5, return_sequences=True), 1e-9)
    sequences = np.ones((2, 4, 3), np.float32)
    first, second = (keras.ops.convert_to_numpy(layer(sequences, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3  # another mask is drawn for each batch


def test_weight_drop_leaves_frozen_weights_as_they_are():
    layer = WeightDrop(keras.layers.LSTM(4, return_sequences=True, recurrent_dropout=0.2), 0.5, seed=1)
    inputs = RNG.normal(size=(2, 5, 3)).astype(np.float32)
    layer(inputs)
    layer.trainable = False
    kernel, seed = layer.layer.cell.recurrent_kernel, layer.layer.cell.seed_generator.state
    before, first = kernel.numpy(), seed.numpy()
    layer(inputs, training=True)
    np.testing.assert_array_equal(kernel.numpy(), before)
    assert (seed.numpy() != first).any()  # the next call drops others


def test_weight_drop_refuses_a_layer_that_keeps_its_states():
    with pytest.raises(ValueError, match="the layer is stateful"):
        WeightDrop(keras.layers.LSTM(4, stateful=True), 0.5)
