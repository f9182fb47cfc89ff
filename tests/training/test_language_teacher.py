"""Knowledge distillation for language models: the teachers' predictions of each token, and what is refused."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.config.loading import load_config
from nlp_rnn.config.settings import ModelConfig
from nlp_rnn.data import datasets
from nlp_rnn.data.bptt import TokenStream
from nlp_rnn.data.corpus import load_corpus
from nlp_rnn.data.token_cache import TokenCache, write_ids
from nlp_rnn.layers import softmax_head
from nlp_rnn.layers.softmax_head import SoftmaxHead
from nlp_rnn.models.language_model import LanguageModel
from nlp_rnn.tokenization.tokenizer import Tokenizer
from nlp_rnn.training import language_teacher, likeliest, trained_models
from nlp_rnn.training.run_directory import load_run
from tests.conftest import ask, differences, outcome, pipeline_environment, refused, run_pipeline, told_to_stop

SETTINGS = [
    "data.source=csv", "data.train=reviews.csv", "tokenizer.vocab_size=60", "model.units=8", "model.embedding_dim=6",
    "training.batch_size=8", "training.window=10", "training.epochs=2", "training.learning_rate=0.02",
]  # fmt: skip
STUDENT = [*SETTINGS, "training.teacher=[runs/one,runs/two]"]


@pytest.fixture(scope="module")
def folder(reviews, tmp_path_factory):
    """Holds reviews.csv and the trained runs one and two."""
    folder = tmp_path_factory.mktemp("language_teacher")
    (folder / "reviews.csv").write_bytes(reviews.read_bytes())
    ask("train", "name=one", *SETTINGS, cwd=folder, task="next_word")
    more = ["training.start_from=runs/one", "model.units=8"]
    ask("train", "name=two", *SETTINGS, *more, cwd=folder, task="next_word")
    return folder


def test_the_answers_are_the_likeliest_tokens_and_their_mean_probabilities(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NLP_RNN_CACHE", str(tmp_path))
    config = load_config(None, [*STUDENT, "training.teacher_share=0.25"], task="next_word")
    tokenizer = Tokenizer.load(folder / "runs" / "one" / "tokenizer")
    corpus = load_corpus(config.data, config.seed)
    plain = datasets.prepare_stream(corpus, "train", config.data, tokenizer)
    answers = language_teacher.teach(plain, config, tokenizer).targets
    assert answers.shape == (plain.num_tokens, 32)
    models = [trained_models.load_language_model(load_run(folder / "runs" / name))[0] for name in ("one", "two")]
    stream = TokenStream(plain, language_teacher._ROWS, drop_remainder=False)
    ids, _, weights = stream.read(0, stream.row_length)
    assert weights[-1].sum() < stream.row_length  # the last row is shorter
    means = np.mean([np.exp(m.head(m.run(ids, m.zero_states(len(ids)))[0])) for m in models], axis=0)[weights > 0]
    expected = -np.sort(-means, axis=1)[:, :16]
    np.testing.assert_allclose(answers[:, 16:], 0.25 * expected, rtol=1e-3, atol=1e-6)
    of_ids = np.take_along_axis(means, answers[:, :16].astype(int), axis=1)
    np.testing.assert_allclose(of_ids, expected, rtol=1e-3, atol=1e-6)
    again = language_teacher.teach(plain, config, tokenizer).targets  # from the cache
    np.testing.assert_array_equal(again, answers)


@pytest.mark.parametrize("offsets", [None, [0, 3, 5, 1]])
def test_a_batch_has_the_answers_of_its_targets(tmp_path, offsets):
    ids = np.arange(30, dtype=np.int32)
    write_ids(tmp_path, [ids])
    answers = np.stack([ids, ids + 0.5], axis=1).astype(np.float32)  # of each token its own id
    cache = TokenCache(tmp_path, np.array([0, 30]), np.zeros(1, np.int32), targets=answers)
    stream = TokenStream(cache, 4, drop_remainder=True, rows=slice(1, 4))
    for start, length in ((0, 3), (3, 4), (5, 4)):  # the last one extends beyond the rows
        _, targets, weights = stream.read(start, length, offsets)
        is_own = weights > 0
        np.testing.assert_array_equal(targets["likely"][is_own][:, 0], targets["ids"][is_own])
        assert not targets["likely"][~is_own].any()


@pytest.mark.parametrize("few_tokens", [0, 1000])
@pytest.mark.parametrize("softmax", ["full", "sampled"])
def test_the_loss_is_the_cross_entropy_to_the_mixture(softmax, few_tokens, monkeypatch):
    monkeypatch.setattr(softmax_head, "_FEW_TOKENS", few_tokens)
    generator, size = np.random.default_rng(1), 12
    head = SoftmaxHead(size, softmax=softmax, num_sampled=2 * size)  # sampled: all words are exact, none is drawn
    head.build((None, 4))
    head.set_weights([generator.normal(size=each.shape) for each in head.weights])
    hidden, targets = tf.constant(generator.normal(size=(5, 4)), tf.float32), tf.constant([3, 0, 11, 7, 7])
    weights = tf.constant([1.0, 1.0, 0.0, 2.0, 0.5])
    probabilities = generator.dirichlet(np.ones(size), 5)
    ids = np.argsort(-probabilities, axis=1)[:, :4]
    of_ids = 0.7 * np.take_along_axis(probabilities, ids, axis=1)
    likely = tf.constant(np.concatenate([ids, of_ids], axis=1), tf.float32)
    found = head.loss(hidden, targets, weights, training=True) + head.likely_loss(hidden, targets, likely, weights)
    mixture = np.zeros((5, size))
    np.put_along_axis(mixture, ids, of_ids, axis=1)
    mixture[np.arange(5), targets] += 1 - of_ids.sum(axis=1)
    expected = -(mixture * head(hidden).numpy()).sum(axis=1) @ weights.numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_both_passes_of_r_drop_learn_from_the_teacher():
    generator, steps = np.random.default_rng(1), (2, 5)
    losses = []
    for r_drop in (0.0, 1.0):
        config = ModelConfig(embedding_dim=6, units=8, dropout=0.0, is_bidirectional=False)
        model = LanguageModel(config, vocab_size=20, batch_size=2, r_drop=r_drop)
        if not losses:
            weights = [generator.normal(size=each.shape) for each in model.kept_weights]
            ids, targets = (generator.integers(5, 20, steps).astype(np.int32) for _ in range(2))
            likely = np.concatenate([generator.integers(5, 20, (*steps, 3)), generator.random((*steps, 3)) / 3], axis=2)
            counts = np.array([[1, 1, 0, 1, 1], [1, 0, 1, 1, 1]], np.float32)
        for each, values in zip(model.kept_weights, weights, strict=True):
            each.assign(values)
        y = {"ids": targets, "likely": likely.astype(np.float32)}
        losses.append(float(model.compute_loss(None, y, model(ids, training=True), counts, training=True)))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)  # without dropout both passes are the same


def test_teachers_of_another_seed_are_told_of(folder):
    settings = [*STUDENT, "seed=2", "data.split=blocks", "training.teacher=[runs/one]"]
    done = run_pipeline("prepare", "name=other_seed", *settings, cwd=folder, task="next_word")
    assert "training.teacher runs/one was trained with seed=1, so it may have learnt from this" in done.stderr


def test_a_student_trains_resumes_and_needs_no_teacher_once_it_is_prepared(folder, tmp_path):
    more = ["training.r_drop=0.5", "training.partial_shuffle=true", "model.dropout=0.2"]
    ask("train", "name=whole", *STUDENT, *more, cwd=folder, task="next_word")
    ask("prepare", "name=cut", *STUDENT, *more, cwd=folder, task="next_word")
    assert (folder / "runs" / "cut" / "ids" / "train" / "targets.npy").is_file()
    (folder / "runs" / "one").rename(tmp_path / "one")
    try:
        with told_to_stop(lambda callback: callback.progress.step == 3):
            done = run_pipeline("train", "name=cut", *STUDENT, *more, cwd=folder, task="next_word")
        assert done.returncode == 130, done.stderr
        ask("train", "name=cut", *STUDENT, *more, cwd=folder, task="next_word")
    finally:
        (tmp_path / "one").rename(folder / "runs" / "one")
    assert outcome(folder / "runs" / "cut")[0] == outcome(folder / "runs" / "whole")[0]
    keras.utils.clear_session()


@pytest.mark.further
def test_two_replicas_and_two_parts_learn_the_same(folder):
    plain = [*STUDENT, "model.dropout=0.0", "training.optimizer=sgd", "training.clip_norm=0"]
    ask("train", "name=alone", *plain, cwd=folder, task="next_word")
    ask("train", "name=parts", *plain, "training.gradient_accumulation=2", cwd=folder, task="next_word")
    replicas = ["name=replicas", "hardware.strategy=mirrored", "hardware.num_replicas=2"]
    command = [sys.executable, "-m", "pipelines.next_word", "train", *plain, *replicas]  # a process has its devices
    subprocess.run(command, cwd=folder, env=pipeline_environment(folder), capture_output=True, check=True)
    for name in ("parts", "replicas"):
        assert max(differences(folder / "runs" / "alone", folder / "runs" / name)) < 1e-3


def test_a_student_comes_nearer_to_its_teacher(folder, monkeypatch):
    """A teacher that has learnt little is less sure than a model that learns from the text alone."""
    monkeypatch.setattr(likeliest, "_NUM_LIKELIEST", 1000)  # all tokens: only the teacher counts
    little = ["training.learning_rate=0.002", "training.epochs=1"]
    taught = ["training.teacher=[runs/weak]", "training.teacher_share=1.0", "training.epochs=4"]
    for name, more in (("weak", little), ("taught", taught), ("plain", ["training.epochs=4"])):
        ask("train", f"name={name}", *SETTINGS, *more, cwd=folder, task="next_word")
    ask("prepare", "name=ids", *SETTINGS, cwd=folder, task="next_word")
    text = TokenCache.load(folder / "runs" / "ids" / "ids" / "validation")
    ids = TokenStream(text, 4, drop_remainder=True).read(0, 30)[0]
    runs = [load_run(folder / "runs" / name) for name in ("weak", "taught", "plain")]
    models = [trained_models.load_language_model(run)[0] for run in runs]
    weak, *students = (model.head(model.run(ids, model.zero_states(4))[0]).numpy() for model in models)
    divergences = [(np.exp(weak) * (weak - student)).sum(axis=-1).mean() for student in students]
    assert divergences[0] < divergences[1] / 2


def test_teachers_that_do_not_fit_are_refused(folder):
    for settings, message in (
        (["training.teacher=[runs/none]"], "runs/none, which is no run directory"),
        (["model.is_reversed=true"], "runs/one, whose model.is_reversed is false; use the same"),
        (["model.softmax=adaptive", "model.cutoffs=[20]", "model.tie_embeddings=false"],
         "but model.softmax is adaptive, which computes a cluster only for its own targets"),
        (["training.teacher_share=0"], "teacher_share is 0, but a language model learns nothing else from"),
        (["tokenizer.case=keep"], "whose vocabulary is taken, but tokenizer.case is"),
    ):  # fmt: skip
        assert message in refused("train", "name=x", *STUDENT, *settings, cwd=folder, task="next_word")
