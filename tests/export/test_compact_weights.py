"""Exports whose weights are integers on disk and float32 in memory."""

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import nlp_rnn
from nlp_rnn.config.loading import load_saved_config
from nlp_rnn.export import compact_weights
from nlp_rnn.layers.rounding import from_int4, to_int4
from nlp_rnn.ondevice.litert_model import OnDeviceModel
from nlp_rnn.serving.served_model import ServedModel
from nlp_rnn.training.exported_weights import load_exported
from tests.conftest import BAD, GOOD, SMALL, ask, refused


@pytest.fixture(autouse=True)
def _of_any_size(monkeypatch):
    monkeypatch.setattr(compact_weights, "_SMALLEST", 1)
    monkeypatch.setattr(compact_weights, "_LEAST_PER_SCALE", 8)


def size_of(version):
    return sum(path.stat().st_size for path in (version / "variables").iterdir())


@pytest.mark.parametrize(
    ("task", "fixture", "name"),
    [
        ("sentiment", "trained", "sentiment"),
        ("next_word", "next_word_trained", "next_word"),
        pytest.param("char_generation", "characters_trained", "char_generation", marks=pytest.mark.further),
        pytest.param("translation", "translation_trained", "translation_en_de", marks=pytest.mark.further),
    ],
)
def test_answers_stay_and_the_checkpoint_is_smaller(task, fixture, name, request, tmp_path):
    folder = request.getfixturevalue(fixture)
    ask("export", "--run", "runs/small", "--to", str(tmp_path), "--weights", "int8", cwd=folder, task=task)
    whole, compact = folder / "saved_models" / name / "1", tmp_path / name / "1"
    assert size_of(compact) < 0.6 * size_of(whole)
    models = [nlp_rnn.load(path) for path in (whole, compact)]
    if task == "sentiment":
        probabilities = [model("a good , lovely film").probabilities["pos"] for model in models]
        assert probabilities[1] == pytest.approx(probabilities[0], abs=0.02)
        one, other = (model.explain("a good , lovely film").scores for model in models)
        assert other == pytest.approx(one, abs=0.1)
    elif task == "next_word":
        one, other = (model.suggest("The cat likes the ", count=1)[0] for model in models)
        assert (other.word, other.probability) == (one.word, pytest.approx(one.probability, abs=0.02))
    elif task == "char_generation":
        one, other = (model.score("the cat sat").log_probability for model in models)
        assert other == pytest.approx(one, rel=0.02)
        assert len(models[1].generate("the ", max_length=9, min_length=9).text) == 9
    else:
        text = "the old king sees the green garden today"
        assert models[1].translate(text).text == models[0].translate(text).text


@pytest.mark.further
def test_the_linear_part_comes_too(reviews, tmp_path):
    settings = [*SMALL, "data.source=csv", f"data.train={reviews}", "model.ngrams=2", "name=wide"]
    ask("train", *settings, cwd=tmp_path)
    for weights in ("float32", "int8"):
        ask("export", "--run", "runs/wide", "--to", weights, "--weights", weights, cwd=tmp_path)
    one, other = (nlp_rnn.load(tmp_path / weights / "sentiment") for weights in ("float32", "int8"))
    text = "a dull , awful story"
    assert other(text).probabilities["pos"] == pytest.approx(one(text).probabilities["pos"], abs=0.02)


@pytest.mark.further
def test_tensorflow_alone_loads_it_twice_and_in_a_session(trained, tmp_path):
    ask("export", "--run", "runs/small", "--to", str(tmp_path), "--weights", "int8", cwd=trained)
    code = f"""
import gc
import tensorflow as tf
path = {str(tmp_path / "sentiment" / "1")!r}
one, other = tf.saved_model.load(path), tf.saved_model.load(path)
expected = other.signatures["serving_default"](text=tf.constant(["good film"]))["probability"].numpy()
del one
gc.collect()
assert other.classify(tf.constant(["good film"]))["probability"].numpy() == expected
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    graph = tf.compat.v1.saved_model.load(session, ["serve"], path)
    signature = graph.signature_def["serving_default"]
    feed = {{signature.inputs["text"].name: ["good film"]}}
    found = session.run(signature.outputs["probability"].name, feed)
assert abs(found - expected) < 1e-6, (found, expected)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_released_weights_take_no_memory(tmp_path):
    module = compact_weights.CompactWeights([])
    values, scales = compact_weights.quantized(np.ones((1000, 1000), np.float32))
    module._kept.append(compact_weights._Expanded(values, scales, "test"))
    tf.saved_model.save(module, str(tmp_path))
    sizes = []
    for _ in range(4):
        loaded = tf.saved_model.load(str(tmp_path))
        loaded.release()
        del loaded
        gc.collect()
        sizes.append(int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]))
    assert sizes[-1] - sizes[0] < 3 * 4000 / 2


def test_a_served_version_frees_its_own_memory_and_leaves_that_of_a_copy(tmp_path):
    module = tf.Module()
    module.compact_weights = compact_weights.CompactWeights([])
    values, scales = compact_weights.quantized(np.ones((100, 100), np.float32))
    kept = compact_weights._Expanded(values, scales, "own")
    module.compact_weights._kept.append(kept)
    module.total = tf.function(lambda: tf.reduce_sum(kept.read()), input_signature=[])
    tf.saved_model.save(module, str(tmp_path))
    one, other = (
        ServedModel("a", version, tf.saved_model.load(str(tmp_path)), signatures={}, signature_json="")
        for version in (1, 2)
    )
    one.release()
    assert other.loaded.total().numpy() == pytest.approx(10_000, rel=1e-3)
    with pytest.raises(tf.errors.OpError):
        one.loaded.total()


@pytest.mark.parametrize("shape", [(100, 40), (40, 100), (1000, 2)])
def test_rounding_loses_little(shape):
    matrix = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    values, scales = compact_weights.quantized(matrix)
    assert values.dtype == np.int8
    assert scales.size <= matrix.size // 8
    assert np.abs(values * scales - matrix).max() <= scales.max() / 2 + 1e-6


def test_groups_of_four_bits_lose_little_and_come_back():
    matrix = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32)
    matrix[3] = 0
    matrix[:, 32:] *= 0.01  # each group has its own scale
    packed, scales = to_int4(matrix)
    assert (packed.dtype, packed.shape, scales.shape) == (np.uint8, (50, 32), (50, 2))
    found = np.array(from_int4(packed, scales))
    steps = np.repeat(scales.astype(np.float32), 32, axis=1)
    assert (np.abs(found - matrix) <= 0.51 * steps).all()
    assert not found[3].any()


@pytest.mark.further  # two trainings
def test_embeddings_of_four_bits_answer_alike_and_can_be_trained_on(reviews, tmp_path):
    settings = ("model.embedding_dim=32", "data.source=csv", f"data.train={reviews}", "training.epochs=3", "name=a")
    ask("train", *SMALL, *settings, cwd=tmp_path)
    for weights in ("float32", "int4"):
        ask("export", "--run", "runs/a", "--weights", weights, "--to", weights, cwd=tmp_path)
    texts = [*GOOD, *BAD]
    one, other = (nlp_rnn.load(tmp_path / weights / "sentiment")(texts) for weights in ("float32", "int4"))
    assert [each.label for each in one] == [each.label for each in other]
    version = tmp_path / "int4" / "sentiment" / "1"
    exact = load_exported(tmp_path / "float32" / "sentiment" / "1", load_saved_config(tmp_path / "runs/a/config.yaml"))
    found = load_exported(version, load_saved_config(version / "assets.extra" / "config.yaml"))
    for name, values in found.items():
        assert np.abs(values - exact[name]).max() <= np.abs(exact[name]).max() / 13
    assert "weights is 'int4', but LiteRT files" in refused(
        "export", "--run", "runs/a", "--weights", "int4", "--format", "litert", cwd=tmp_path
    )


def test_a_litert_export_without_the_float_file(next_word_trained, tmp_path):
    command = ["export", "--run", "runs/small", "--weights", "int8", "--format", "litert", "--to", tmp_path]
    ask(*command, cwd=next_word_trained, task="next_word")
    version = tmp_path / "next_word_litert" / "1"
    assert [path.name for path in version.glob("*.tflite")] == ["model_int8.tflite"]
    assert OnDeviceModel(version).words[4:]
    told = refused("console", "--model", version, "--precision", "float", cwd=next_word_trained, task="next_word")
    assert "model_float.tflite" in told
