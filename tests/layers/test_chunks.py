"""Texts that are read in chunks: the same results and gradients as those of the whole text."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.config.settings import ModelConfig
from nlp_rnn.errors import ConfigError
from nlp_rnn.layers.pooling import MaskedPooling
from nlp_rnn.layers.recurrent import unwrapped
from nlp_rnn.models.classifier import build_classifier, encoder_layers, layer_groups
from nlp_rnn.training.checkpoints import load_arrays
from tests.conftest import ROOT, SMALL, ask, differences, pipeline_environment, refused

CASES = [
    {"cell": "lstm", "layer_norm": True, "dropout": 0.3, "weight_dropout": 0.2},
    {"cell": "gru", "is_reversed": True, "embedding_dropout": 0.2, "fast": "on"},
    {"cell": "min_gru", "is_residual": True, "embedding_dim": 16, "fast": "on"},
    {"cell": "simple_rnn", "recurrent_dropout": 0.2},
    {"cell": "lstm", "recurrent_dropout": 0.2},
    {"cell": "gru", "recurrent_dropout": 0.2, "weight_dropout": 0.2},
]
TEXTS = np.random.default_rng(0).integers(5, 50, (4, 37)).astype(np.int32)
for row, length in enumerate((37, 20, 3, 31)):
    TEXTS[row, length:] = 0


def make_both(case, chunk_length=7):
    """The same classifier without and with chunks, and with the same dropout to come."""
    settings = {"embedding_dim": 8, "units": 16, "num_layers": 2, "is_bidirectional": False,
                "pooling": ("last", "max", "mean", "attention")}  # fmt: skip
    models = [
        build_classifier(ModelConfig(**settings | case, chunk_length=each), vocab_size=50, num_classes=3)
        for each in (0, chunk_length)
    ]
    whole, chunked = models
    assert [each.shape for each in whole.weights] == [each.shape for each in chunked.weights]
    for one, other in zip(whole.weights, chunked.weights, strict=True):
        other.assign(one)
    generators = [
        {
            (layer.name, each.name): each.seed_generator
            for layer in encoder_layers(model)
            for each in (layer, getattr(unwrapped(layer), "cell", None))
            if getattr(each, "seed_generator", None)
        }
        for model in models
    ]
    assert generators[0].keys() == generators[1].keys()
    for name, generator in generators[0].items():
        generators[1][name].state.assign(generator.state)
    return whole, chunked


def step(model, texts):
    """The loss of a training step and its gradients, traced for batches of any size."""

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)], autograph=False)
    def compute(ids):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(ids, training=True)) * tf.constant([1.0, 2.0, 3.0]))
        return loss, tape.gradient(loss, [each.value for each in model.trainable_weights])

    return compute, *compute(tf.constant(texts))


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_outputs_and_gradients_are_those_of_the_whole_text(case):
    whole, chunked = make_both(case)
    (once_more, loss, gradients), (again, of_chunks, theirs) = step(whole, TEXTS), step(chunked, TEXTS)
    np.testing.assert_allclose(of_chunks, loss, rtol=1e-5)
    for one, other in zip(gradients, theirs, strict=True):
        one, other = (tf.convert_to_tensor(each).numpy() for each in (one, other))
        np.testing.assert_allclose(other, one, atol=1e-4 * max(1, np.abs(one).max()))
    following = again(tf.constant(TEXTS))[0]
    assert following != of_chunks  # the next step drops others
    np.testing.assert_allclose(following, once_more(tf.constant(TEXTS))[0], rtol=1e-5)  # and the same ones in both
    np.testing.assert_allclose(chunked(TEXTS), whole(TEXTS), atol=1e-5)  # last: in it, too, Keras's cells draw masks


@pytest.mark.parametrize("length", [1, 6, 7, 8, 15])
def test_texts_of_any_length_are_read(length):
    whole, chunked = make_both({"cell": "lstm"})
    texts = np.maximum(TEXTS[:, :length], 5)
    np.testing.assert_allclose(chunked(texts), whole(texts), atol=1e-5)


def test_the_layers_are_found_by_group_and_not_in_both_directions():
    whole, chunked = make_both(CASES[0])
    config = ModelConfig(**CASES[0], num_layers=2)
    groups = [[[each.shape for each in group] for group in layer_groups(model, config)] for model in (whole, chunked)]
    assert groups[0] == groups[1]
    assert [len(group) for group in groups[1]] == [4, 5, 5, 1]  # output and attention, LSTM and norm twice, embedding
    with pytest.raises(ConfigError, match="is_bidirectional is true"):
        build_classifier(ModelConfig(chunk_length=5), vocab_size=50, num_classes=2)


def test_in_half_precision_sums_are_exact():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        whole, chunked = make_both({"cell": "lstm", "dropout": 0.1}, chunk_length=5)
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(chunked(TEXTS), whole(TEXTS), atol=0.05)
    (_, loss, _), (_, of_chunks, theirs) = step(whole, TEXTS), step(chunked, TEXTS)
    np.testing.assert_allclose(of_chunks, loss, rtol=0.05)
    assert all(np.isfinite(tf.convert_to_tensor(each).numpy()).all() for each in theirs)


def test_sums_over_thousands_of_chunks_in_half_precision_are_exact():
    pooling = MaskedPooling(("mean", "attention"), dtype="mixed_bfloat16")
    pooling.build((None, None, 3))
    length, num_chunks = 4, 2000
    chunk = keras.ops.cast(np.random.default_rng(0).uniform(0.5, 1, (2, length, 3)), "bfloat16")
    mask = keras.ops.ones((2, length), "bool")
    pooled = pooling.begin(2, 3, "bfloat16")
    for _ in range(num_chunks):
        pooled = pooling.add(pooled, chunk, mask, keras.ops.full((2, length), 1 / (length * num_chunks)))
    found = np.array(keras.ops.cast(pooling.finish(pooled), "float32"))
    right = np.array(keras.ops.cast(pooling(chunk, mask), "float32"))  # all chunks are the same
    np.testing.assert_allclose(found, right, rtol=0.01)


IN_A_PROCESS = """
import re, sys
import tensorflow as tf
from nlp_rnn.config.settings import ModelConfig
from nlp_rnn.models.classifier import build_classifier

config = ModelConfig(embedding_dim=32, units=256, is_bidirectional=False, chunk_length=int(sys.argv[1]))
model = build_classifier(config, vocab_size=50, num_classes=2)

@tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)], autograph=False)
def step(ids):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(ids, training=True)))
    return tape.gradient(loss, [each.value for each in model.trainable_weights])

def peak():  # not ru_maxrss, which begins at the peak of the process that started this one
    return int(re.search(r"VmHWM:\\s+([0-9]+) kB", open("/proc/self/status").read())[1])

step(tf.ones([32, 100], tf.int32))
before = peak()
step(tf.ones([32, 3000], tf.int32))
print(peak() - before)
"""


@pytest.mark.further
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peaks of memory are read from Linux's /proc")
def test_a_step_over_long_texts_takes_less_than_a_third_of_the_memory(tmp_path):
    grown = []
    for chunk_length in ("0", "100"):
        command = [sys.executable, "-c", IN_A_PROCESS, chunk_length]
        environment = pipeline_environment(tmp_path)
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        grown.append(int(done.stdout))
    assert grown[1] < grown[0] / 3


IN_JAX = """
import jax, keras, numpy as np
from nlp_rnn.config.settings import ModelConfig
from nlp_rnn.models.classifier import build_classifier

texts = np.random.default_rng(0).integers(5, 50, (4, 37)).astype(np.int32)
texts[1, 20:] = 0
results = []
for chunk_length in (0, 7):
    config = ModelConfig(embedding_dim=8, units=16, num_layers=2, is_bidirectional=False, dropout=0.0,
                         chunk_length=chunk_length)
    model = build_classifier(config, vocab_size=50, num_classes=3)
    if results:
        model.set_weights(first)
    first = model.get_weights()

    def loss(weights):
        others = [each.value for each in model.non_trainable_variables]
        return (model.stateless_call(weights, others, texts, training=True)[0] ** 2).sum()

    results.append(jax.jit(jax.value_and_grad(loss))([each.value for each in model.trainable_variables]))
for one, other in zip(*map(jax.tree.leaves, results), strict=True):
    np.testing.assert_allclose(other, one, atol=1e-4)
"""


def test_jax_reads_in_chunks_too(tmp_path):
    pytest.importorskip("jax", reason="needs the extra `jax`")
    done = subprocess.run(
        [sys.executable, "-c", IN_JAX], cwd=ROOT, env=pipeline_environment(tmp_path) | {"KERAS_BACKEND": "jax"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


CHUNKED = [*SMALL, "data.source=csv", "model.is_bidirectional=false", "model.dropout=0.0", "data.test_fraction=0.2"]
PLAIN_SGD = [*CHUNKED, "training.optimizer=sgd", "training.learning_rate=0.5", "training.clip_norm=0"]


def test_a_training_in_chunks_ends_with_the_same_model_and_exports_it(reviews, tmp_path):
    (tmp_path / "reviews.csv").write_bytes(reviews.read_bytes())
    settings = [*CHUNKED, "data.train=reviews.csv", "model.ngrams=2", "model.standardize=true"]
    for name, length in (("whole", 0), ("chunked", 6)):
        ask("train", f"name={name}", *settings, f"model.chunk_length={length}", cwd=tmp_path)
    one, other = (load_arrays(tmp_path / "runs" / name / "checkpoints" / "best.npz") for name in ("whole", "chunked"))
    for left, right in zip(one.values(), other.values(), strict=True):
        np.testing.assert_allclose(np.float32(right), np.float32(left), atol=2e-3)

    def cross_entropy(*model):
        answer = ask("evaluate", *model, "--split", "test", "--json", cwd=tmp_path)
        return json.loads(answer)["metrics"]["cross_entropy"]

    scores = [cross_entropy("--run", f"runs/{name}") for name in ("whole", "chunked")]
    np.testing.assert_allclose(*scores, rtol=1e-2)
    ask("export", "--run", "runs/chunked", cwd=tmp_path)
    np.testing.assert_allclose(cross_entropy("--model", "saved_models/sentiment"), scores[1], rtol=1e-4)
    # Weights fit across: whole to chunked, and chunked to whole.
    for name, start, length in (("there", "runs/whole", 6), ("back", "saved_models/sentiment", 0)):
        more = [f"training.start_from={start}", "training.learning_rate=1e-12", f"model.chunk_length={length}"]
        ask("train", f"name={name}", *settings, *more, cwd=tmp_path)
        taken = load_arrays(tmp_path / "runs" / name / "checkpoints" / "best.npz")
        for values, right in zip(taken.values(), (one if name == "there" else other).values(), strict=True):
            if values.dtype == np.float32 and values.ndim == 2 and len(values) < 1000:
                np.testing.assert_allclose(values, right, atol=1e-6)


@pytest.mark.parametrize("kind", ["adversarial", "virtual_adversarial"])
def test_adversarial_training_in_chunks_is_that_of_the_whole_text(reviews, tmp_path, kind):
    settings = [*PLAIN_SGD, f"data.train={reviews}", f"training.{kind}=3"]
    found = []
    for length in (0, 6):
        ask("train", f"name=chunks{length}", *settings, f"model.chunk_length={length}", cwd=tmp_path)
        found.append(load_arrays(tmp_path / "runs" / f"chunks{length}" / "checkpoints" / "best.npz").values())
    for whole, chunked in zip(*found, strict=True):
        np.testing.assert_allclose(chunked, whole, atol=1e-4)


@pytest.mark.further
def test_two_replicas_and_two_parts_learn_the_same_in_chunks(reviews, tmp_path):
    settings = [*PLAIN_SGD, f"data.train={reviews}", "model.chunk_length=6"]
    ask("train", "name=alone", *settings, cwd=tmp_path)
    ask("train", "name=parts", *settings, "training.gradient_accumulation=2", cwd=tmp_path)
    replicas = ["name=replicas", "hardware.strategy=mirrored", "hardware.num_replicas=2"]
    command = [sys.executable, "-m", "pipelines.sentiment", "train", *settings, *replicas]  # a process has its devices
    subprocess.run(command, cwd=tmp_path, env=pipeline_environment(tmp_path), capture_output=True, check=True)
    for name in ("parts", "replicas"):
        assert max(differences(tmp_path / "runs" / "alone", tmp_path / "runs" / name)) < 1e-3


def test_both_directions_do_not_fit_chunks(tmp_path):
    text = refused("train", "model.chunk_length=100", "data.source=csv", "data.train=reviews.csv", cwd=tmp_path)
    assert "model.chunk_length is 100, but model.is_bidirectional is true" in text
    assert "use model.is_bidirectional=false" in text
    text = refused(
        "train", "model.chunk_length=100", "data.source=text", "data.train=x.txt", cwd=tmp_path, task="next_word"
    )
    assert "applies only to classifiers" in text
