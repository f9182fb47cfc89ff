"""Classifiers whose output layer reads standardised features."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import nlp_rnn
from nlp_rnn.config.loading import load_config
from nlp_rnn.config.settings import ModelConfig
from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.errors import ConfigError
from nlp_rnn.layers.standardize import Standardize
from nlp_rnn.models.classifier import build_classifier
from nlp_rnn.training.checkpoints import load_arrays
from nlp_rnn.training.stacking import fit_standardization
from tests.conftest import ask, spawn_pipeline

GENERATOR = np.random.default_rng(0)
SETTINGS = [
    "data.source=csv", "data.train=reviews.csv", "model.units=6", "model.embedding_dim=6", "training.batch_size=16",
    "training.epochs=2", "training.patience=0", "data.max_length=20", "model.standardize=true",
]  # fmt: skip


def test_it_subtracts_the_mean_and_divides_by_the_spread():
    features = GENERATOR.normal(3, 0.01, (500, 4)).astype(np.float32)
    features[:, 2] = 0.5  # never changes
    layer = Standardize()
    layer.build((None, 4))
    np.testing.assert_array_equal(layer(features), features)
    layer.assign(features)
    found = np.array(layer(features))
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(found.std(axis=0), [1, 1, 0, 1], atol=1e-3)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_in_half_precision_the_mean_is_still_subtracted_exactly(policy):
    dtype = policy.removeprefix("mixed_")
    features = keras.ops.cast(GENERATOR.normal(0.8, 0.01, (5000, 3)), dtype)
    layer = Standardize(dtype=policy)
    layer.build((None, 3))
    layer.assign(np.array(keras.ops.cast(features, "float32")))
    found = layer(features)
    assert found.dtype == dtype
    np.testing.assert_allclose(np.array(keras.ops.cast(found, "float32")).mean(axis=0), 0, atol=1e-3)


def test_the_features_of_texts_of_any_length_are_standardised(tmp_path):
    lengths = GENERATOR.integers(1, 30, 60)
    GENERATOR.integers(4, 50, lengths.sum(), np.int32).tofile(tmp_path / "ids.bin")
    texts = TokenCache(tmp_path, np.concatenate([[0], np.cumsum(lengths)]), np.zeros(60, np.int32))
    config = ModelConfig(units=6, embedding_dim=5, standardize=True)
    model = build_classifier(config, vocab_size=50, num_classes=2)
    fit_standardization(model, texts, seed=1)
    encoder, embedding = model.get_layer("encoder"), model.get_layer("embedding")
    standardized = keras.Model(encoder.inputs, encoder.get_layer("standardize").output)
    rows = [texts.rows(np.array([number]))[0][None] for number in range(60)]
    features = np.concatenate([standardized([embedding(ids), tf.constant(ids != 0)], training=False) for ids in rows])
    assert features.shape == (60, 6 * 2 * 3)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(features.std(axis=0), 1, atol=1e-4)


@pytest.mark.further  # several processes
def test_training_keeps_them_exports_have_them_and_another_training_takes_them(reviews, tmp_path):
    (tmp_path / "reviews.csv").write_bytes(reviews.read_bytes())
    ask("train", "name=first", *SETTINGS, cwd=tmp_path)
    replicas = ["hardware.strategy=mirrored", "hardware.num_replicas=2", "training.epochs=1"]
    done = spawn_pipeline("train", "name=two", *SETTINGS, *replicas, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ask("train", "name=second", "training.start_from=runs/first", "training.epochs=1", *SETTINGS, cwd=tmp_path)
    first, second, two = (
        {
            name.rsplit("/", 1)[-1]: values
            for name, values in load_arrays(tmp_path / "runs" / run / "checkpoints" / "best.npz").items()
            if "standardize" in name
        }
        for run in ("first", "second", "two")
    )
    assert first["factor"].min() > 1  # the features of small random layers vary little
    for name in ("mean", "factor"):
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_allclose(first[name], two[name], rtol=1e-4)
    ask("export", "--run", "runs/first", cwd=tmp_path)
    texts = ["a great film and lovely music", "a dull and awful story"]
    found = [nlp_rnn.load(tmp_path / folder)(texts) for folder in ("runs/first", "saved_models/sentiment")]
    for one, other in zip(*found, strict=True):
        assert one.label == other.label
        assert one.probability == pytest.approx(other.probability, abs=1e-5)


def test_only_classifiers_can_have_it():
    with pytest.raises(ConfigError, match=r"model\.standardize is true, but applies only to classifiers"):
        load_config(None, ["model.standardize=true"], task="next_word")
