"""Knowledge distillation for translators: the teachers' translations and predictions, and what is refused."""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import nlp_rnn
from nlp_rnn.config.loading import load_config
from nlp_rnn.data import datasets
from nlp_rnn.data.bucketing import pair_batch, pair_reader, pair_stream
from nlp_rnn.data.corpus import load_corpus
from nlp_rnn.data.inputs import load_inputs
from nlp_rnn.data.token_cache import PairCache, TokenCache, write_ids
from nlp_rnn.layers.r_drop import twice
from nlp_rnn.layers.softmax_head import SoftmaxHead
from nlp_rnn.models.token_loss import token_loss
from nlp_rnn.special_ids import BOS_ID, EOS_ID, PAD_ID
from nlp_rnn.tokenization.tokenizer import Tokenizer
from nlp_rnn.training import likeliest, trained_models, translation_teacher
from nlp_rnn.training.run_directory import load_run
from tests.conftest import (
    TRANSLATION_SETTINGS,
    ask,
    differences,
    outcome,
    pipeline_environment,
    refused,
    run_pipeline,
    told_to_stop,
)

STUDENT = [*TRANSLATION_SETTINGS, "training.epochs=1", "training.teacher=[runs/small]"]


@pytest.fixture
def folder(translation_trained, tmp_path):
    """A folder with pairs and the finished run runs/small."""
    shutil.copytree(translation_trained, tmp_path / "work", ignore=shutil.ignore_patterns("saved_models", "cache"))
    return tmp_path / "work"


def taught(folder, monkeypatch, *settings):
    """The pairs of train.en and train.de, what `teach` makes of them, and the tokenizer."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NLP_RNN_CACHE", str(folder / "cache"))
    config = load_config(None, [*STUDENT, *settings], task="translation")
    tokenizer = Tokenizer.load(folder / "runs" / "small" / "tokenizer")
    corpus = load_corpus(config.data, config.seed, is_parallel=True)
    plain = datasets.prepare_pairs(corpus, "train", config.data, tokenizer)
    return plain, translation_teacher.teach(plain, config, tokenizer), tokenizer


def ids_of(cache, rows):
    return [ids.tolist() for ids in cache.rows(rows)]


def test_the_teachers_translations_follow_the_pairs(folder, monkeypatch):
    plain, found, tokenizer = taught(folder, monkeypatch)
    count = len(plain)
    assert len(found) == 2 * count
    for side in ("source", "target"):
        before, after = getattr(plain, side), getattr(found, side)
        assert ids_of(after, found.rows[:count]) == ids_of(before, plain.rows)
    assert ids_of(found.source, found.rows[count:]) == ids_of(plain.source, plain.rows)
    sources = (folder / "train.en").read_text().splitlines()
    assert len(sources) == count
    expected = [each.text for each in nlp_rnn.load("runs/small").translate(sources)]
    answers = ids_of(found.target, found.rows[count:])
    assert all(ids[-1] == EOS_ID for ids in answers)
    padded = tf.ragged.constant(answers, tf.int32).to_tensor(PAD_ID)
    assert [text.decode() for text in tokenizer.detokenize(padded).numpy()] == expected


def test_they_are_translated_once(folder, monkeypatch):
    first = taught(folder, monkeypatch)[1]
    monkeypatch.setattr(translation_teacher, "_translations", None)
    monkeypatch.setattr(translation_teacher, "_write_likeliest", None)
    again = taught(folder, monkeypatch)[1]
    assert again.rows.tolist() == first.rows.tolist()
    np.testing.assert_array_equal(again.target.targets, first.target.targets)
    with pytest.raises(TypeError):  # the same pairs, other predictions
        taught(folder, monkeypatch, "training.teacher_share=0.2")
    with pytest.raises(TypeError):  # other lengths, other pairs
        taught(folder, monkeypatch, "data.max_length=30")


def test_empty_and_too_long_translations_are_left_out(folder, monkeypatch):
    def answers(_, pairs):
        longest = [[7] * 20 + [EOS_ID], [7] * 21 + [EOS_ID], [EOS_ID]]
        return [np.int32(ids) for ids in longest + [[9, EOS_ID]] * (len(pairs) - 3)]

    monkeypatch.setattr(translation_teacher, "_translations", answers)
    plain, found, _ = taught(folder, monkeypatch, "data.max_length=20")
    count = len(plain)
    assert ids_of(found.target, found.rows[count:]) == [[7] * 20 + [EOS_ID]] + [[9, EOS_ID]] * (count - 3)
    kept = [plain.rows[0], *plain.rows[3:]]
    assert ids_of(found.source, found.rows[count:]) == ids_of(plain.source, kept)


@pytest.mark.parametrize("count", [2, 16])
def test_each_token_has_the_teachers_likeliest_ones(folder, monkeypatch, count):
    other = ["name=other", "training.epochs=1", "training.start_from=runs/small"]
    ask("train", *TRANSLATION_SETTINGS, *other, cwd=folder, task="translation")
    monkeypatch.setattr(likeliest, "_COUNT", count)
    monkeypatch.setattr(likeliest, "MAX_PROBABILITIES", 7 * 10 * 100 * 2)  # so that a batch has about seven pairs
    teachers = "training.teacher=[runs/small,runs/other]"
    plain, found, tokenizer = taught(folder, monkeypatch, teachers, "training.teacher_share=0.25")
    assert found.source.targets is None
    assert found.target.targets.shape == (found.target.num_tokens, 2 * count)
    models = [trained_models.load_translator(load_run(folder / "runs" / name))[0] for name in ("small", "other")]
    for number in (0, 3, len(plain) - 1, len(plain), len(found) - 1):
        row = found.rows[number]
        (source,), (target,) = found.source.rows([row]), found.target.rows([row])
        assert target[-1] == EOS_ID
        inputs = np.array([[BOS_ID, *target[:-1]]], np.int32)
        means = np.mean([np.exp(m.head(m.decode(inputs, m.encode(source[None]))[0])[0]) for m in models], axis=0)
        answers = found.target.targets[found.target.offsets[row] : found.target.offsets[row + 1]]
        expected = -np.sort(-means, axis=1)[:, :count]
        np.testing.assert_allclose(answers[:, count:], 0.25 * expected, rtol=1e-3, atol=1e-6)
        of_ids = np.take_along_axis(means, answers[:, :count].astype(int), axis=1)
        np.testing.assert_allclose(of_ids, expected, rtol=1e-3, atol=1e-6)
    assert tokenizer.vocab_size == models[0].vocab_size


def test_without_a_share_there_are_no_predictions(folder, monkeypatch):
    monkeypatch.setattr(translation_teacher, "_write_likeliest", None)
    _, found, _ = taught(folder, monkeypatch, "training.teacher_share=0")
    assert found.target.targets is None


def some_pairs(folder):
    """Five pairs of which the second is left out, and predictions that are each token's own id."""
    sides, generator = [], np.random.default_rng(1)
    for name in ("source", "target"):
        (folder / name).mkdir()
        texts = [[*generator.integers(10, 99, length), EOS_ID] for length in (4, 3, 1, 2, 6)]
        write_ids(folder / name, map(np.int32, texts))
        offsets = np.load(folder / name / "offsets.npy")
        sides.append(TokenCache(folder / name, offsets, np.zeros(5, np.int32)))
    own = np.concatenate(sides[1].rows(range(5)))
    target = dataclasses.replace(sides[1], targets=np.stack([own, own + 0.5], axis=1).astype(np.float32))
    return PairCache(sides[0], target, np.array([0, 2, 3, 4]))


@pytest.mark.parametrize("rows", [slice(0, 3), slice(2, 3), slice(0, 5)])
def test_a_batch_has_the_predictions_of_its_targets_which_are_not_resampled(tmp_path, rows):
    pairs, training = some_pairs(tmp_path), load_config(None, ["training.batch_size=3"], task="translation").training
    stream = pair_stream(pairs, pair_reader(pairs, rows, resample=lambda ids, *_: ids + 100), training, 1)
    found = list(stream())
    assert len(found) == 2
    for (source, _), targets, weights in found:
        assert targets["ids"].shape == targets["likely"].shape[:2] == weights.shape
        np.testing.assert_array_equal(targets["likely"][..., 0], targets["ids"])  # 0 on padding
        assert (source >= 100).all()
        assert (targets["ids"] < 100).all()
        ends = targets["ids"][weights.sum(axis=1) > 0]
        assert (ends[np.arange(len(ends)), (ends != PAD_ID).sum(axis=1) - 1] == EOS_ID).all()


@pytest.mark.parametrize("r_drop", [0.0, 1.0])
def test_the_loss_is_the_cross_entropy_to_the_smoothed_mixture(r_drop):
    generator, size, smoothing = np.random.default_rng(1), 12, 0.1
    head = SoftmaxHead(size)
    head.build((None, 4))
    head.set_weights([generator.normal(size=each.shape) for each in head.weights])
    hidden = tf.constant(generator.normal(size=(2, 3, 4)), tf.float32)
    targets, weights = tf.constant([[3, 0, 11], [7, 7, 1]]), tf.constant([[1.0, 1, 0], [1, 1, 1]])
    probabilities = generator.dirichlet(np.ones(size), (2, 3))
    ids = np.argsort(-probabilities, axis=-1)[..., :4]
    of_ids = 0.7 * np.take_along_axis(probabilities, ids, axis=-1)
    y = {"ids": targets, "likely": tf.constant(np.concatenate([ids, of_ids], axis=-1), tf.float32)}
    passes = twice(hidden) if r_drop else hidden  # equal ones, between which there is no divergence
    total, cross_entropy = token_loss(head, passes, y, weights, training=True, r_drop=r_drop, label_smoothing=smoothing)
    mixture = np.zeros((2, 3, size))
    np.put_along_axis(mixture, ids, of_ids, axis=-1)
    for place in np.ndindex(2, 3):
        mixture[place][targets.numpy()[place]] += 1 - of_ids[place].sum()
    losses, truth = -head(hidden).numpy(), np.eye(size)[targets.numpy()]
    for found, expected in ((total, mixture), (cross_entropy, truth)):
        smoothed = (1 - smoothing) * expected + smoothing / size
        np.testing.assert_allclose(found, ((smoothed * losses).sum(axis=-1) * weights.numpy()).sum(), rtol=1e-5)


def test_a_student_is_trained_on_both(folder):
    done = run_pipeline("train", "name=student", *STUDENT, cwd=folder, task="translation")
    assert done.returncode == 0, done.stderr
    assert "training.teacher: 480 further pairs" in done.stderr
    assert "training on 960 pairs" in done.stderr
    facts = json.loads((folder / "runs" / "student" / "data.json").read_text())
    assert facts["train"]["examples"] == 480
    assert len(facts["train"]["teachers"]) == 1


def test_prepared_ids_hold_the_answers_need_no_teacher_and_resume(folder):
    ask("train", "name=whole", *STUDENT, cwd=folder, task="translation")
    ask("prepare", "name=prepared", *STUDENT, cwd=folder, task="translation")
    assert (folder / "runs" / "prepared" / "ids" / "train_target" / "targets.npy").is_file()
    (folder / "runs" / "small").rename(folder / "elsewhere")
    with told_to_stop(lambda callback: callback.progress.step == 20):
        done = run_pipeline("train", "name=prepared", *STUDENT, cwd=folder, task="translation")
    assert done.returncode == 130, done.stderr
    assert "training on 960 pairs" in done.stderr
    ask("train", "name=prepared", *STUDENT, cwd=folder, task="translation")
    assert outcome(folder / "runs" / "prepared")[0] == outcome(folder / "runs" / "whole")[0]


def test_a_student_comes_nearer_to_its_teacher(folder, monkeypatch):
    """A teacher that has learnt little is less sure than a model that learns from the texts alone."""
    monkeypatch.setattr(likeliest, "_COUNT", 1000)  # all tokens: only the teacher counts
    settings = [*TRANSLATION_SETTINGS, "training.epochs=6"]
    ask("train", "name=weak", *TRANSLATION_SETTINGS, "training.epochs=2", cwd=folder, task="translation")
    for share in (0, 1):
        more = [f"name=student{share}", "training.teacher=[runs/weak]", f"training.teacher_share={share}"]
        ask("train", *settings, *more, cwd=folder, task="translation")
    monkeypatch.chdir(folder)
    ask("prepare", "name=ids", *settings, cwd=folder, task="translation")
    pairs = load_inputs(folder / "runs" / "ids" / "ids").validation
    (source, target), _, weights = pair_batch(*next(pair_reader(pairs, slice(0, 40))([np.arange(40)])))
    runs = [load_run(folder / "runs" / name) for name in ("weak", "student0", "student1")]
    models = [trained_models.load_translator(run)[0] for run in runs]
    weak, *students = (model.head(model.decode(target, model.encode(source))[0]).numpy() for model in models)
    divergences = [((np.exp(weak) * (weak - each)).sum(axis=-1) * weights).sum() for each in students]
    assert divergences[1] < divergences[0] / 2


@pytest.mark.further
def test_two_replicas_and_two_parts_learn_the_same(folder):
    plain = [*STUDENT, "training.optimizer=sgd", "training.clip_norm=0"]
    ask("train", "name=alone", *plain, cwd=folder, task="translation")
    ask("train", "name=parts", *plain, "training.gradient_accumulation=2", cwd=folder, task="translation")
    replicas = ["name=replicas", "hardware.strategy=mirrored", "hardware.num_replicas=2"]
    command = [sys.executable, "-m", "pipelines.translation", "train", *plain, *replicas]  # a process has its devices
    subprocess.run(command, cwd=folder, env=pipeline_environment(folder), capture_output=True, check=True)
    for name in ("parts", "replicas"):
        assert max(differences(folder / "runs" / "alone", folder / "runs" / name)) < 1e-3


def test_what_does_not_fit_is_refused(folder):
    def message(*settings):
        return refused("train", "name=refused", *STUDENT, *settings, cwd=folder, task="translation")

    assert "runs/none, which is no run directory; name the run directories" in message("training.teacher=[runs/none]")
    assert "which translates from en to de, but data.source_language is de and" in message(
        "data.source_language=de", "data.target_language=en"
    )
    with told_to_stop(lambda callback: callback.progress.epoch == 1):
        run_pipeline("train", "name=stopped", *TRANSLATION_SETTINGS, cwd=folder, task="translation")
    assert "runs/stopped, whose training has not ended; rerun" in message("training.teacher=[runs/stopped]")
    settings = [
        *TRANSLATION_SETTINGS,
        "training.epochs=1",
        "data.train=validation",
        "data.validation=test",
        "data.test=",
    ]
    ask("train", "name=other", *settings, cwd=folder, task="translation")
    assert "runs/other, which has another vocabulary than runs/small" in message(
        "training.teacher=[runs/small,runs/other]"
    )
