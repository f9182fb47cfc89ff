"""The linear part of wide and deep classifiers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.config.loading import load_config
from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.layers.ngrams import NgramLinear, Stack, ngram_ids, ngram_keys, num_buckets
from nlp_rnn.models.calibration import probabilities_of
from nlp_rnn.training import fit, stacking, trained_models
from nlp_rnn.training.checkpoints import load_arrays
from nlp_rnn.training.recipes import train_run
from nlp_rnn.training.run_directory import load_run
from tests.conftest import SMALL, ask, outcome, run_pipeline, told_to_stop

WIDE = [*SMALL, "data.source=csv", "data.test_fraction=0.2", "model.ngrams=2", "training.epochs=3"]


def make_layer(longest=2, num_classes=2, seed=0):
    layer = NgramLinear(longest, num_classes)
    layer.build((None, None))
    columns = num_classes if num_classes > 2 else 1
    generator = np.random.default_rng(seed)
    layer.assign(generator.normal(size=(num_buckets(longest), columns)), generator.normal(size=columns))
    return layer


def weight(layer, ids):
    return np.asarray(layer.table.numpy())[ids].astype(float) * layer.scale.numpy()


def test_ngrams_of_two_and_three_tokens_have_ids_of_their_own():
    ids = ngram_ids(np.array([[5, 6, 7, 0], [5, 6, 0, 0]]), 3, ops=np)
    assert ids.shape == (2, 12)
    assert ids[0, :4].tolist() == [5, 6, 7, 0]
    assert ids[0, 4:8].tolist() == [*ids[0, 4:6], 0, 0]
    assert ids[1, 4:].tolist() == [ids[0, 4], 0, 0, 0, 0, 0, 0, 0]  # what would reach into the padding is none
    assert (ids[0, 8] > 0, ids[0, 9:].any()) == (True, False)
    assert len({*ids[0]} - {0}) == 6


def test_texts_may_be_shorter_than_the_longest_ngram():
    for ids in ([[5]], [[5, 6]], [[0]]):
        array = np.array(ids, np.int32)
        found = ngram_ids(array, 5, ops=np)
        assert found.shape == (1, 5 * len(ids[0]))
        np.testing.assert_array_equal(tf.function(lambda x: ngram_ids(x, 5))(tf.constant(array)), found)
        assert np.isfinite(make_layer(5)(array)).all()


def test_the_hash_is_the_same_in_the_graph_and_spreads_as_chance_would():
    generator = np.random.default_rng(1)
    words = np.minimum(np.exp(generator.uniform(1.5, 10, (400, 200))), 25000).astype(
        np.int32
    )  # frequent words are frequent
    for longest in (2, 3):
        ids, keys, buckets = ngram_ids(words, longest, ops=np), ngram_keys(words, longest), num_buckets(longest)
        np.testing.assert_array_equal(
            tf.function(lambda x, n=longest: ngram_ids(x, n), autograph=False)(tf.constant(words)), ids
        )
        assert ids.max() < buckets
        for size in range(2, longest + 1):
            start = 200 * (size - 1)
            grams = {tuple(row[i : i + size]) for row in words for i in range(200 - size + 1)}
            found = len(set(ids[:, start : start + 200].ravel().tolist()) - {0})
            expected = buckets * (1 - np.exp(-len(grams) / buckets))
            assert abs(found - expected) < 0.01 * expected
            assert len(set(keys[:, start : start + 200 - size + 1].ravel().tolist())) == len(grams)


def test_logits_are_the_sum_over_distinct_ngrams():
    layer, ids = make_layer(), np.array([[5, 6, 5, 6, 0]])
    grams = ngram_ids(ids, 2, ops=np)[0]
    score = sum(weight(layer, gram)[0] for gram in {5, 6, grams[5], grams[6]}) + layer.bias.numpy()[0]
    np.testing.assert_allclose(layer(ids)[0], [-score / 2, score / 2], rtol=1e-5)
    np.testing.assert_allclose(
        layer(np.array([[5, 6, 5, 6, 0, 0, 0]]))[0], layer(ids)[0], rtol=1e-5
    )  # padding changes nothing
    np.testing.assert_allclose(
        layer(np.array([[0]]))[0], np.array([-1, 1]) * layer.bias.numpy()[0] / 2, rtol=1e-5
    )  # an empty text


@pytest.mark.parametrize("num_classes", [2, 3])
def test_contributions_add_up_to_the_logits_without_the_bias(num_classes):
    layer, ids = make_layer(3, num_classes), np.array([[5, 6, 5, 6, 7, 0], [9, 0, 0, 0, 0, 0]])
    found = layer.contributions(ids).numpy()
    assert found.shape == (2, 6, num_classes)
    empty = layer(np.zeros((2, 1), np.int32)).numpy()
    np.testing.assert_allclose(found.sum(axis=1), layer(ids).numpy() - empty, atol=1e-5)
    assert not found[0, 5].any()
    assert not found[1, 1:].any()


def test_a_layer_survives_its_config():
    layer = NgramLinear.from_config(NgramLinear(3, 4, name="x").get_config())
    assert (layer.longest, layer.num_classes, layer.name) == (3, 4, "x")
    assert Stack.from_config(Stack(name="y").get_config()).name == "y"


def make_cache(folder, texts, labels):
    lengths = [len(text) for text in texts]
    np.concatenate(texts).astype(np.int32).tofile(folder / "ids.bin")
    return TokenCache(folder, np.concatenate([[0], np.cumsum(lengths)]), np.array(labels, np.int32))


def test_the_linear_part_learns_what_only_pairs_of_words_tell(tmp_path):
    # "5 6" is good and "6 5" bad: no single word tells.
    generator = np.random.default_rng(1)
    texts, labels = [], []
    for number in range(200):
        filler = generator.integers(10, 40, generator.integers(1, 8))
        texts.append(np.concatenate([filler, [5, 6] if number % 2 else [6, 5], [4]]))
        labels.append(number % 2)
    layer = NgramLinear(2, 2)
    layer.build((None, None))
    stacking.fit_linear_part(layer, make_cache(tmp_path, texts, labels), seed=1)
    answers = layer(np.array([[5, 6, 0], [6, 5, 0], [11, 5, 6]])).numpy()
    assert answers.argmax(axis=1).tolist() == [1, 0, 1]
    assert not layer.table.numpy()[ngram_ids(np.array([[50, 51]]), 2, ops=np)[0]].any()  # unseen n-grams weigh nothing


@pytest.mark.parametrize("longest", [2, 3])
def test_ngrams_of_one_text_only_have_no_weight_but_tokens_do(tmp_path, longest):
    texts = [[5, 6, 7], [5, 6, 8], [9, 10, 11], [9, 10, 12]]
    layer = NgramLinear(longest, 2)
    layer.build((None, None))
    stacking.fit_linear_part(layer, make_cache(tmp_path, texts, [1, 1, 0, 0]), seed=0)
    ids = ngram_ids(np.array(texts, np.int32), longest, ops=np)
    of_both, of_one = ids[0, 3], ids[0, 4]  # 5 6, which two texts have, and 6 7
    assert weight(layer, of_both)[0] > 0
    assert weight(layer, of_one)[0] == 0
    assert weight(layer, 7)[0] > 0
    assert weight(layer, ids[2, 3])[0] < 0
    assert not weight(layer, ids[:, 6:].ravel()).any()  # three tokens that one text has


def test_texts_without_a_label_are_left_out_of_the_linear_part(tmp_path):
    texts = [np.array([10 + number % 2, 20]) for number in range(40)] + [np.array([10, 30])] * 40
    layer = NgramLinear(1, 2)
    layer.build((None, None))
    stacking.fit_linear_part(
        layer, make_cache(tmp_path, texts, [number % 2 for number in range(40)] + [-1] * 40), seed=1
    )
    known, unlabelled = layer.table.numpy()[ngram_ids(np.array([[10, 30]]), 1, ops=np)[0]]
    assert known.any()
    assert not unlabelled.any()


def test_three_classes_are_told_apart(tmp_path):
    texts = [np.array([10 + number % 3, 20 + number % 7]) for number in range(90)]
    layer = NgramLinear(2, 3)
    layer.build((None, None))
    stacking.fit_linear_part(layer, make_cache(tmp_path, texts, [number % 3 for number in range(90)]), seed=1)
    assert layer(np.array([[10, 22], [11, 22], [12, 22]])).numpy().argmax(axis=1).tolist() == [0, 1, 2]


def test_a_class_without_a_drawn_text_is_unlikely_and_no_error(tmp_path):
    texts = [np.array([10 + number % 2, 20]) for number in range(40)]
    layer = NgramLinear(2, 3)
    layer.build((None, None))
    stacking.fit_linear_part(layer, make_cache(tmp_path, texts, [number % 2 for number in range(40)]), seed=1)
    assert layer(np.array([[10, 20], [11, 20]])).numpy().argmax(axis=1).tolist() == [0, 1]
    assert layer.bias.numpy()[2] < -3


@pytest.fixture(scope="module")
def whole(reviews, tmp_path_factory):
    """(settings, run directory, what the command told) of a training that nothing stopped."""
    folder, settings = tmp_path_factory.mktemp("wide"), [*WIDE, f"data.train={reviews}"]
    done = run_pipeline("train", "name=whole", *settings, cwd=folder)
    assert done.returncode == 0, done.stderr
    return settings, folder / "runs" / "whole", done.stderr


@pytest.mark.further
def test_in_half_precision_and_from_another_run_the_deep_part_trains_by_itself(whole, tmp_path):
    settings, run, _ = whole
    with np.load(run / "checkpoints/best.npz") as arrays:
        fitted = next(arrays[name] for name in arrays.files if name.endswith("stack/shares"))
    assert fitted.tolist() != [1, 0]
    more = [f"training.start_from={run}", "hardware.mixed_precision=bfloat16"]
    with told_to_stop(lambda callback: callback.progress.step == 1):
        done = run_pipeline("train", "name=two", *settings, *more, cwd=tmp_path)
    keras.config.set_dtype_policy("float32")  # of this process, which training has set
    assert done.returncode == 130, done.stderr
    with np.load(tmp_path / "runs/two/checkpoints/last.npz") as arrays:
        assert next(arrays[name] for name in arrays.files if name.endswith("stack/shares")).tolist() == [1, 0]


def test_the_parts_are_fitted_once_and_the_log_tells_it(whole):
    settings, run, _ = whole
    log = (run / "log.txt").read_text(encoding="utf-8")
    assert log.index("finished: best") < log.index("linear part:") < log.index("calibrated on")
    before = (run / "checkpoints" / "best.npz").stat().st_mtime_ns, (run / "calibration.json").read_bytes()
    again = run_pipeline("train", "name=whole", *settings, cwd=run.parent.parent)
    assert again.returncode == 0, again.stderr
    assert "linear part:" not in again.stderr
    assert ((run / "checkpoints" / "best.npz").stat().st_mtime_ns, (run / "calibration.json").read_bytes()) == before


def test_after_half_precision_the_calibration_is_that_of_the_answers(reviews, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = [*SMALL, "data.source=csv", f"data.train={reviews}", "hardware.mixed_precision=bfloat16", "name=half"]
    try:
        done = train_run(load_config(None, settings, task="sentiment"))
    finally:
        keras.config.set_dtype_policy("float32")  # of this process, which training has set
    model = trained_models.load_classifier(done.run)[0]
    logits = fit.predict_logits(model, done.inputs.validation, done.run.config.training)
    answers = probabilities_of(logits, "classes", done.calibration.temperature)
    np.testing.assert_allclose(done.probabilities, answers, atol=1e-6)


def test_a_training_may_start_from_a_run_with_another_linear_part(whole, tmp_path):
    settings, run, _ = whole
    more = [f"training.start_from={run}", "training.learning_rate=1e-12", "training.epochs=1"]
    for name, ngrams in (("three", 3), ("none", 0)):
        ask("train", f"name={name}", *settings, *more, f"model.ngrams={ngrams}", cwd=tmp_path)
        first, second = (
            {key.partition(":")[2]: values for key, values in load_arrays(each / "checkpoints/best.npz").items()}
            for each in (run, tmp_path / "runs" / name)
        )
        assert second["embedding/embeddings"] == pytest.approx(first["embedding/embeddings"], abs=1e-6)
        assert ("ngrams/table" in second) == bool(ngrams)
    assert second.keys() == {name for name in first if not name.startswith(("ngrams/", "stack/"))}


def test_the_stack_gives_the_better_part_the_larger_share():
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, 2000)
    signal = np.stack([-(2 * labels - 1), 2 * labels - 1], axis=1) / 2.0
    noisy = signal + generator.normal(size=signal.shape) * 0.7
    layer = Stack()
    layer.build((None, 2), (None, 2))
    assert layer.shares.numpy().tolist() == [1, 0]  # as long as nothing is fitted
    stacking.fit_stack(layer, generator.normal(size=signal.shape), noisy, labels, np.full(2000, 20))
    useless, useful = layer.shares.numpy()
    assert useless < 0.1 < 1 < useful


def test_a_part_that_is_wrong_about_short_texts_counts_less_there():
    generator = np.random.default_rng(2)
    labels, lengths = generator.integers(0, 2, 4000), np.repeat([2, 20, 200, 400], 1000)
    signal = np.stack([1 - 2 * labels, 2 * labels - 1], axis=1)
    deep = np.where(lengths[:, None] > 20, signal, generator.normal(size=signal.shape)) * 2.0
    wide = signal * 0.5 + generator.normal(size=signal.shape) * 0.5
    layer = Stack()
    layer.build((None, 2), (None, 2))
    stacking.fit_stack(layer, deep, wide, labels, lengths)
    assert float(layer.half_length) >= 32
    everywhere = signal * 0.5 + generator.normal(size=signal.shape) * 0.5
    stacking.fit_stack(layer, everywhere, wide, labels, lengths)
    assert float(layer.half_length) <= 1


def test_the_share_of_the_recurrent_part_by_length():
    layer = Stack()
    deep, wide = np.float32([[-1, 1], [-1, 1], [-1, 1]]), np.float32([[4, 0], [4, 0], [4, 0]])
    is_token = np.array([[True] * 1 + [False] * 3, [True] * 2 + [False] * 2, [True] * 4])
    np.testing.assert_allclose(layer(deep, wide, is_token), deep)  # as long as nothing is fitted
    layer.assign([0.5, 0.25], half_length=2.0)
    parts = np.float32([[1 / 5], [4 / 8], [16 / 20]])
    np.testing.assert_allclose(layer(deep, wide, is_token), 0.5 * parts * deep + 0.25 * wide, rtol=1e-6)
    np.testing.assert_allclose(layer(deep, wide, is_token[2:]), 0.5 * 0.8 * deep + 0.25 * wide, rtol=1e-6)


def test_excerpts_for_stacking(tmp_path):
    texts = [np.arange(start, start + length) for start, length in ((10, 1), (100, 7), *[(1000, 400)] * 500)]
    (tmp_path / "texts").mkdir()
    cache = make_cache(tmp_path / "texts", texts, [0, 1] * 251)
    (tmp_path / "excerpts").mkdir()
    found = stacking.draw_excerpts(cache, tmp_path / "excerpts", seed=1)
    assert found.labels.tolist() == cache.labels.tolist()
    excerpts = found.rows(range(len(found)))
    for text, excerpt in zip(texts, excerpts, strict=True):
        assert 1 <= len(excerpt) == excerpt[-1] - excerpt[0] + 1
        assert text[0] <= excerpt[0] <= excerpt[-1] <= text[-1]
    assert 0.4 < np.mean([len(each) <= 20 for each in excerpts[2:]]) < 0.6  # 20 is the root of 400
    assert found.lengths.tolist() == [len(each) for each in excerpts]


@pytest.mark.further
def test_a_wide_and_deep_classifier_trains_resumes_exports_and_explains(whole, tmp_path):
    settings, folder, told = whole
    assert "linear part: " in told
    assert "stacked on validation: " in told
    with told_to_stop(lambda callback: (callback.progress.epoch, callback.progress.step) == (1, 3)):
        assert run_pipeline("train", "name=stopped", *settings, cwd=tmp_path).returncode == 130
    done = run_pipeline("train", "name=stopped", *settings, cwd=tmp_path)
    assert "linear part: " in done.stderr  # it is fitted after the training
    assert outcome(tmp_path / "runs" / "stopped") == outcome(folder)

    run = load_run(folder, "sentiment")
    model, tokenizer = trained_models.load_classifier(run)
    assert model.get_layer("stack").shares.numpy()[1] > 0
    ask("export", "--run", folder, cwd=tmp_path)
    loaded = tf.saved_model.load(str(tmp_path / "saved_models" / "sentiment" / "1"))
    text = tf.constant(["a good lovely film was dull", ""])
    probabilities = loaded.classify(text)["probabilities"].numpy()
    np.testing.assert_allclose(probabilities[:1], keras.ops.softmax(model(tokenizer(text[:1])), axis=-1), atol=1e-5)
    explained = loaded.explain(text)["attributions"].numpy().sum(axis=1)
    ids = tokenizer(text[:1])
    vectors, mask = model.get_layer("embedding")(ids), ids != 0
    start = model.get_layer("stack")(model.get_layer("encoder")([vectors * 0, mask]), tf.zeros([1, 2]), mask).numpy()[0]
    end = (
        model(ids).numpy()[0]
        - model.get_layer("stack").shares.numpy()[1] * model.get_layer("ngrams")(np.zeros((1, 1), np.int32))[0]
    )
    assert explained[0] == pytest.approx(float((end[1] - end[0]) - (start[1] - start[0])), rel=0.02)
