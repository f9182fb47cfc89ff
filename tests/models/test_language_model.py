import itertools

import keras
import numpy as np
import pytest

from nlp_rnn.config.settings import ModelConfig, TrainingConfig
from nlp_rnn.data.bptt import TokenStream, WindowStream
from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.models.build import build_language_model
from nlp_rnn.models.language_model import LanguageModel
from nlp_rnn.special_ids import EOS_ID
from nlp_rnn.training.optimizers import build_optimizer

VOCAB_SIZE = 30
RNG = np.random.default_rng(0)


def make_cache(folder, num_tokens):
    ids = RNG.integers(4, VOCAB_SIZE, num_tokens).astype(np.int32)
    ids.tofile(folder / "ids.bin")
    return ids, TokenCache(folder, np.array([0, num_tokens]), np.zeros(1, np.int32))


def make_model(batch_size=0, **settings):
    config = ModelConfig(**({"is_bidirectional": False, "embedding_dim": 8, "units": 12, "num_layers": 2} | settings))
    keras.utils.set_random_seed(1)
    training = TrainingConfig(batch_size=batch_size, window=7) if batch_size else None
    return build_language_model(config, vocab_size=VOCAB_SIZE, training=training)


# --- streams -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_tokens", [40, 41, 43])
def test_every_token_is_a_target_once_and_follows_its_input(tmp_path, num_tokens):
    ids, cache = make_cache(tmp_path, num_tokens)
    stream = TokenStream(cache, 4, drop_remainder=False)
    rows = [[] for _ in range(4)]
    for start, length in stream.windows(3):
        inputs, targets, weights = stream.read(start, length)
        assert inputs.shape == targets.shape == weights.shape == (4, length)
        for row in range(4):
            rows[row] += [
                pair
                for pair, weight in zip(zip(inputs[row], targets[row], strict=True), weights[row], strict=True)
                if weight
            ]
    pairs = [pair for row in rows for pair in row]
    np.testing.assert_array_equal([target for _, target in pairs], ids)
    np.testing.assert_array_equal([token for token, _ in pairs], [EOS_ID, *ids[:-1]])


def test_training_leaves_out_less_than_a_row(tmp_path):
    ids, cache = make_cache(tmp_path, 43)
    stream = TokenStream(cache, 4, drop_remainder=True)
    _, targets, weights = stream.read(0, 10)
    assert stream.row_length == 10
    assert weights.all()
    np.testing.assert_array_equal(targets.ravel(), ids[:40])


def test_drawn_windows_cover_the_rows_and_depend_on_seed_and_epoch_only(tmp_path):
    _, cache = make_cache(tmp_path, 4000)
    windows = WindowStream(TokenStream(cache, 4, drop_remainder=True), window=35, is_random=True, seed=1)
    plans = [windows.plan(epoch) for epoch in range(3)]
    for plan in plans:
        assert [start for start, _ in plan] == list(np.cumsum([0] + [length for _, length in plan[:-1]]))
        assert sum(length for _, length in plan) == 1000
        assert all(length % 5 == 0 for _, length in plan[:-1])
    assert plans[0] != plans[1]
    assert plans == [windows.plan(epoch) for epoch in range(3)]
    assert windows.num_steps(3) == sum(len(plan) for plan in plans)
    windows.start_at(1, 2)
    batches = list(windows())
    assert len(batches) == windows.steps_per_epoch - 2
    np.testing.assert_array_equal(batches[0][0], windows._stream.read(*plans[1][2])[0])


def test_rows_are_rotated_anew_in_each_epoch_however_the_windows_are_cut(tmp_path):
    ids, cache = make_cache(tmp_path, 4 * 23)
    rows = ids.reshape(4, 23)
    whole = TokenStream(cache, 4, drop_remainder=True)
    for window, is_random in ((23, False), (6, False), (10, True)):
        stream = WindowStream(whole, window=window, is_random=is_random, seed=1, is_rotated=True)
        for epoch in range(3):
            stream.start_at(epoch, 0)
            offsets = stream.offsets(epoch)
            inputs, targets, weights = (np.concatenate(parts, axis=1) for parts in zip(*stream(), strict=True))
            np.testing.assert_array_equal(targets, [np.roll(rows[row], -offsets[row]) for row in range(4)])
            np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])
            before = [ids[23 * row + offsets[row] - 1] if row or offsets[row] else EOS_ID for row in range(4)]
            np.testing.assert_array_equal(inputs[:, 0], before)
            assert weights.all()
    assert len({*map(tuple, (stream.offsets(epoch) for epoch in range(3)))}) == 3
    assert len(set(stream.offsets(0))) > 1
    assert stream.offsets(2) == WindowStream(whole, window=5, is_random=False, seed=1, is_rotated=True).offsets(2)
    assert stream.offsets(2) != WindowStream(whole, window=5, is_random=False, seed=2, is_rotated=True).offsets(2)


def test_workers_read_their_rows_of_the_rotated_batch(tmp_path):
    _, cache = make_cache(tmp_path, 4 * 50)

    def batches(rows):
        text = TokenStream(cache, 4, drop_remainder=True, rows=rows)
        stream = WindowStream(text, window=20, is_random=True, seed=1, is_rotated=True)
        stream.start_at(1, 1)  # within the epoch, as after an interruption
        return list(stream())

    for own, whole in zip(batches(slice(2, 4)), batches(None), strict=True):
        for one, other in zip(own, whole, strict=True):
            np.testing.assert_array_equal(one, other[2:])


def test_short_epochs_read_on_where_the_last_one_stopped(tmp_path):
    _, cache = make_cache(tmp_path, 4 * 50)
    stream = TokenStream(cache, 4, drop_remainder=True)
    windows = WindowStream(stream, window=10, is_random=False, seed=1, max_steps=2)
    assert [windows.plan(epoch) for epoch in range(3)] == [
        [(0, 10), (10, 10)],
        [(20, 10), (30, 10)],
        [(40, 10), (0, 10)],
    ]
    assert windows.steps_per_epoch == 2
    assert windows.num_steps(3) == 6
    assert [windows.goes_on(epoch) for epoch in range(3)] == [False, True, True]


def test_short_epochs_of_random_windows_read_on_too(tmp_path):
    _, cache = make_cache(tmp_path, 4 * 500)
    stream = TokenStream(cache, 4, drop_remainder=True)
    windows = WindowStream(stream, window=20, is_random=True, seed=1, max_steps=7)
    plans = [window for epoch in range(20) for window in windows.plan(epoch)]
    for (start, length), (after, _) in itertools.pairwise(plans):
        assert after == (start + length) % stream.row_length
    readings = plans.count((0, plans[0][1])), sum(start == 0 for start, _ in plans)
    assert 3 <= readings[1] > readings[0]  # each time in other windows


# --- the model -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell",
    ["lstm", "min_gru", *(pytest.param(each, marks=pytest.mark.further) for each in ("simple_rnn", "gru", "min_lstm"))],
)
@pytest.mark.parametrize("fast", ["auto", "off"])
def test_a_text_in_chunks_costs_what_it_costs_in_one_piece(tmp_path, cell, fast):
    _, cache = make_cache(tmp_path, 4 * 25)
    stream = TokenStream(cache, 4, drop_remainder=False)
    model = make_model(batch_size=4, cell=cell, fast=fast)
    model.compile(jit_compile=False)
    found = []
    for length in (25, 7, 10, 1):
        model.reset_states("evaluation")
        losses = [
            (model.test_on_batch(*stream.read(*place), return_dict=True)["cross_entropy"], place[1])
            for place in stream.windows(length)
        ]
        found.append(sum(loss * steps for loss, steps in losses) / 25)
    np.testing.assert_allclose(found, found[0], rtol=1e-5)
    assert abs(found[0] - np.log(VOCAB_SIZE)) < 0.5


def test_rows_of_a_batch_never_leak_into_each_other():
    model = make_model()
    ids = RNG.integers(4, VOCAB_SIZE, (3, 9)).astype(np.int32)
    states = [[RNG.normal(size=state.shape).astype(np.float32) for state in layer] for layer in model.zero_states(3)]
    hidden, after = model.run(ids, states)
    other = ids.copy()
    other[0] = RNG.integers(4, VOCAB_SIZE, 9)
    changed = [[np.concatenate([state[:1] + 1, state[1:]]) for state in layer] for layer in states]
    found, found_after = model.run(other, changed)
    np.testing.assert_allclose(found[1:], hidden[1:], atol=1e-6)
    assert np.abs(found[0] - hidden[0]).max() > 1e-3
    for layer, found_layer in zip(after, found_after, strict=True):
        for state, found_state in zip(layer, found_layer, strict=True):
            np.testing.assert_allclose(found_state[1:], state[1:], atol=1e-6)


def test_training_carries_the_state_on_and_no_gradient_with_it(tmp_path):
    _, cache = make_cache(tmp_path, 4 * 20)
    stream = TokenStream(cache, 4, drop_remainder=True)
    model = make_model(batch_size=4, dropout=0.0)
    model.compile("sgd", jit_compile=False)
    model.reset_states("training")
    expected = model.run(stream.read(0, 10)[0], model.zero_states(4))[1]
    model.train_on_batch(*stream.read(0, 10))
    for variables, values in zip(model._carried["training"], expected, strict=True):
        for variable, value in zip(variables, values, strict=True):
            np.testing.assert_allclose(variable.numpy(), value, atol=1e-5)
    assert all(not variable.numpy().any() for layer in model._carried["evaluation"] for variable in layer)
    model.reset_states("training")
    assert all(not variable.numpy().any() for layer in model._carried["training"] for variable in layer)


@pytest.mark.further
def test_all_regularisers_together_learn_a_repeated_text(tmp_path):
    np.tile(np.arange(4, 16, dtype=np.int32), 200).tofile(tmp_path / "ids.bin")
    stream = TokenStream(TokenCache(tmp_path, np.array([0, 2400]), np.zeros(1, np.int32)), 8, drop_remainder=True)
    settings = {
        "embedding_dim": 32,
        "units": 40,
        "softmax": "sampled",
        "num_sampled": 12,
        "layer_norm": True,
        "is_residual": True,
    }
    dropouts = {"word_dropout": 0.05, "embedding_dropout": 0.1, "dropout": 0.1, "weight_dropout": 0.1}
    model = make_model(batch_size=8, **settings, **dropouts)
    model.activation_regularization = model.temporal_regularization = 0.01
    model.compile(build_optimizer(TrainingConfig(learning_rate=1e-2, schedule="constant"), 100), jit_compile=False)
    for _ in range(6):
        model.reset_states("training")
        for place in stream.windows(20):
            model.train_on_batch(*stream.read(*place))
    logs = model.test_on_batch(*stream.read(0, stream.row_length), return_dict=True)
    assert float(logs["cross_entropy"]) < 0.2


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="tied"),
        pytest.param({"softmax": "sampled", "num_sampled": 8}, id="sampled", marks=pytest.mark.further),
        pytest.param(
            {"softmax": "adaptive", "cutoffs": (6, 14), "tie_embeddings": False},
            id="adaptive",
            marks=pytest.mark.further,
        ),
        pytest.param({"tie_embeddings": False}, id="untied", marks=pytest.mark.further),
    ],
)
def test_evaluation_is_exact_whatever_training_computes(tmp_path, settings):
    _, cache = make_cache(tmp_path, 4 * 12)
    batch = TokenStream(cache, 4, drop_remainder=True).read(0, 12)
    model = make_model(batch_size=4, embedding_dim=12, **settings)
    model.compile(build_optimizer(TrainingConfig(learning_rate=1e-2), 5), jit_compile=False)
    for _ in range(3):
        assert np.isfinite(model.train_on_batch(*batch)[0])
    model.reset_states("evaluation")
    found = model.test_on_batch(*batch, return_dict=True)["cross_entropy"]
    log_probabilities = np.array(model.head(model.run(batch[0], model.zero_states(4))[0]))
    np.testing.assert_allclose(np.exp(log_probabilities).sum(axis=-1), 1, atol=1e-4)
    np.testing.assert_allclose(
        found, -np.take_along_axis(log_probabilities, batch[1][..., None], axis=-1).mean(), rtol=1e-5
    )


def test_one_step_by_the_cells_is_a_step_of_the_layers():
    for settings in (
        {},
        {"cell": "gru", "weight_dropout": 0.3},
        {"cell": "min_gru"},
        {"cell": "min_lstm"},
        {"cell": "simple_rnn", "layer_norm": True},
    ):
        model = make_model(embedding_dim=12, is_residual=True, **settings)
        ids = RNG.integers(4, VOCAB_SIZE, (3, 6)).astype(np.int32)
        expected, after = model.run(ids, model.zero_states(3))
        states = model.zero_states(3)
        for time in range(6):
            hidden, states = model.advance(ids[:, time], states)
            np.testing.assert_allclose(hidden, expected[:, time], atol=1e-5)
        np.testing.assert_allclose(model.pack_states(states), model.pack_states(after), atol=1e-5)
        assert len(model.unpack_states(model.pack_states(states))) == 2


def test_regularisers_are_what_their_source_says(tmp_path):
    _, cache = make_cache(tmp_path, 40)
    batch = TokenStream(cache, 4, drop_remainder=True).read(0, 7)
    model = make_model(batch_size=4, dropout=0.0)
    model.compile("sgd", jit_compile=False)
    hidden = np.array(model.run(batch[0], model.zero_states(4))[0])
    losses = []
    for alpha, beta in ((0.0, 0.0), (2000.0, 0.0), (0.0, 3000.0)):
        model.activation_regularization, model.temporal_regularization = alpha, beta
        model.reset_states("training")
        found = model(batch[0], training=True)
        losses.append(float(model.compute_loss(*batch[:1], batch[1], found, batch[2])))
    np.testing.assert_allclose(losses[1] - losses[0], 2000 * (hidden**2).mean(), rtol=1e-3)
    np.testing.assert_allclose(losses[2] - losses[0], 3000 * ((hidden[:, 1:] - hidden[:, :-1]) ** 2).mean(), rtol=1e-3)


def test_what_is_kept_is_without_states():
    trained, plain = make_model(batch_size=4), make_model()
    assert [weight.shape for weight in trained.kept_weights] == [weight.shape for weight in plain.weights]
    assert len(trained.weights) == len(plain.weights) + 2 * 4


def test_the_drawn_rows_begin_at_the_zero_state():
    config = ModelConfig(units=4, embedding_dim=4, is_bidirectional=False)
    models = [LanguageModel(config, vocab_size=9, batch_size=200, state_reset=rate) for rate in (0.0, 0.3)]
    assert models[0].reset_seeds is None  # so that checkpoints of models without it stay what they were
    for weight, other in zip(models[1].kept_weights, models[0].kept_weights, strict=True):
        weight.assign(other)

    def cell_states(model):
        return model._carried["training"][0][1].numpy()  # of each row; all rows read the same

    ids = np.ones((200, 1), np.int32)
    models[0](ids, training=True)
    first = cell_states(models[0])[0]
    for model in models:
        model.reset_states("training")
        for _ in range(2):
            model(ids, training=True)
    second = cell_states(models[0])
    assert np.allclose(second, second[0])
    assert not np.allclose(second[0], first)
    drawn = cell_states(models[1])
    is_new = np.isclose(drawn, first).all(axis=1)
    assert 0.2 < is_new.mean() < 0.4
    assert np.allclose(drawn[~is_new], second[0])
