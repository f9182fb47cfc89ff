"""Knowledge distillation for translators: the teachers' translations and predictions, and what is refused."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

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


def taught(folder, cache, monkeypatch, *settings):
    """The pairs of train.en and train.de, what `teach` makes of them, and the tokenizer."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NLP_RNN_CACHE", str(cache))
    config = load_config(None, [*STUDENT, *settings], task="translation")
    tokenizer = Tokenizer.load(Path(config.training.teacher[0]) / "tokenizer")
    corpus = load_corpus(config.data, config.seed, is_parallel=True)
    plain = datasets.prepare_pairs(corpus, "train", config.data, tokenizer)
    return plain, translation_teacher.teach(plain, config, tokenizer), tokenizer


def ids_of(cache, rows):
    return [ids.tolist() for ids in cache.rows(rows)]


def test_the_teachers_translations_follow_the_pairs(folder, monkeypatch):
    plain, found, tokenizer = taught(folder, folder / "cache", monkeypatch)
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
    def fail(what):
        def of_this(*_):
            raise AssertionError(f"{what} again")

        monkeypatch.setattr(translation_teacher, what, of_this)

    first = taught(folder, folder / "cache", monkeypatch)[1]
    fail("_translations")
    fail("_write_likeliest")
    again = taught(folder, folder / "cache", monkeypatch)[1]
    assert again.rows.tolist() == first.rows.tolist()
    np.testing.assert_array_equal(again.target.targets, first.target.targets)
    with pytest.raises(AssertionError, match="_write_likeliest again"):
        taught(folder, folder / "cache", monkeypatch, "training.teacher_share=0.2")
    with pytest.raises(AssertionError, match="_translations again"):
        taught(folder, folder / "cache", monkeypatch, "data.max_length=30")


def test_empty_and_too_long_translations_are_left_out(folder, monkeypatch):
    def answers(_, pairs):
        longest = [[7] * 20 + [EOS_ID], [7] * 21 + [EOS_ID], [EOS_ID]]
        return [np.int32(ids) for ids in longest + [[9, EOS_ID]] * (len(pairs) - 3)]

    monkeypatch.setattr(translation_teacher, "_translations", answers)
    plain, found, _ = taught(folder, folder / "cache", monkeypatch, "data.max_length=20")
    count = len(plain)
    assert ids_of(found.target, found.rows[count:]) == [[7] * 20 + [EOS_ID]] + [[9, EOS_ID]] * (count - 3)
    kept = [plain.rows[0], *plain.rows[3:]]
    assert ids_of(found.source, found.rows[count:]) == ids_of(plain.source, kept)


@pytest.fixture(scope="module")
def weak(tmp_path_factory):
    """A folder with pairs of different lengths and the runs one and two, which are far from sure of any token."""
    folder = tmp_path_factory.mktemp("weak")
    generator = np.random.default_rng(1)
    for name, count in (("train", 80), ("validation", 20)):
        lengths = generator.integers(1, 9, count)
        rows = [[(f"w{word}", f"v{word}") for word in generator.integers(0, 20, length)] for length in lengths]
        for place, language in enumerate(("en", "de")):
            lines = (" ".join(word[place] for word in row) for row in rows)
            (folder / f"{name}.{language}").write_text("".join(f"{line}\n" for line in lines))
    for name, units in (("one", 16), ("two", 24)):
        ask("train", *WEAK, f"name={name}", f"model.units={units}", cwd=folder, task="translation")
    return folder


WEAK = [
    *TRANSLATION_SETTINGS, "data.test=", "model.embedding_dim=8", "model.units=16", "training.epochs=2",
    "training.optimizer=sgd", "training.learning_rate=0.5", "training.clip_norm=0", "training.patience=0",
]  # fmt: skip
OF_WEAK = [*WEAK, "training.teacher=[runs/one,runs/two]", "training.teacher_share=0.8"]


@pytest.mark.parametrize("count", [2, 16])
def test_each_place_has_the_teachers_likeliest_tokens(weak, tmp_path, monkeypatch, count):
    monkeypatch.setattr(likeliest, "_NUM_LIKELIEST", count)
    monkeypatch.setattr(likeliest, "MAX_PROBABILITIES", 7 * 7 * 45 * 2)  # so that a batch has about seven pairs
    plain, found, _ = taught(weak, tmp_path, monkeypatch, *OF_WEAK, "data.max_length=6")
    assert len(plain) < 80  # some are left out
    assert len(set(found.target.lengths)) > 4
    assert found.source.targets is None
    assert found.target.targets.shape == (found.target.num_tokens, 2 * count)
    models = [trained_models.load_translator(load_run(weak / "runs" / name))[0] for name in ("one", "two")]
    for number in (*range(0, len(found), 7), len(found) - 1):
        row = found.rows[number]
        (source,), (target,) = found.source.rows([row]), found.target.rows([row])
        inputs = np.array([[BOS_ID, *target[:-1]]], np.int32)
        means = np.mean([np.exp(m.head(m.decode(inputs, m.encode(source[None]))[0])[0]) for m in models], axis=0)
        answers = found.target.targets[found.target.offsets[row] : found.target.offsets[row + 1]]
        expected = -np.sort(-means, axis=1)[:, :count]
        np.testing.assert_allclose(answers[:, count:], 0.8 * expected, rtol=1e-3, atol=1e-6)
        of_ids = np.take_along_axis(means, answers[:, :count].astype(int), axis=1)
        np.testing.assert_allclose(of_ids, expected, rtol=1e-3, atol=1e-6)


def test_other_translations_have_other_predictions(weak, tmp_path, monkeypatch):
    first = taught(weak, tmp_path, monkeypatch, *OF_WEAK)[1]
    shutil.rmtree(first.target.path.parent)  # as after damage
    search = translation_teacher._translations

    def others(*given):
        return [np.array([7, *ids[1:]], np.int32) for ids in search(*given)]

    monkeypatch.setattr(translation_teacher, "_translations", others)
    second = taught(weak, tmp_path, monkeypatch, *OF_WEAK)[1]
    assert second.target.targets.shape == first.target.targets.shape
    assert not np.array_equal(second.target.targets, first.target.targets)


def test_without_a_share_there_are_no_predictions(folder, monkeypatch):
    monkeypatch.setattr(translation_teacher, "_write_likeliest", None)
    _, found, _ = taught(folder, folder / "cache", monkeypatch, "training.teacher_share=0")
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
    total, cross_entropy = token_loss(
        head, passes, y=y, weights=weights, training=True, r_drop=r_drop, label_smoothing=smoothing
    )
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


def test_a_student_comes_nearer_to_its_teachers(weak, monkeypatch):
    monkeypatch.setattr(likeliest, "_NUM_LIKELIEST", 1000)  # all tokens: only the teachers count
    for share in (0, 1):
        more = [f"name=share{share}", "training.epochs=8", f"training.teacher_share={share}"]
        ask("train", *OF_WEAK, *more, cwd=weak, task="translation")
    ask("prepare", "name=ids", *WEAK, "training.start_from=runs/one", cwd=weak, task="translation")
    pairs = load_inputs(weak / "runs" / "ids" / "ids").validation
    (source, target), _, weights = pair_batch(*next(pair_reader(pairs, slice(0, 20))([np.arange(20)])))
    runs = [load_run(weak / "runs" / name) for name in ("one", "two", "share0", "share1")]
    models = [trained_models.load_translator(run)[0] for run in runs]
    of_models = [model.head(model.decode(target, model.encode(source))[0]).numpy() for model in models]
    teachers = np.exp(of_models[:2]).mean(axis=0)
    divergences = [((teachers * (np.log(teachers) - each)).sum(axis=-1) * weights).sum() for each in of_models[2:]]
    assert divergences[1] < divergences[0] / 2


@pytest.mark.further
def test_two_replicas_and_two_parts_learn_the_same(weak):
    settings = [*OF_WEAK, "training.label_smoothing=0.1"]
    ask("train", "name=alone", *settings, cwd=weak, task="translation")
    ask("train", "name=parts", *settings, "training.gradient_accumulation=2", cwd=weak, task="translation")
    settings += ["name=replicas", "hardware.strategy=mirrored", "hardware.num_replicas=2"]
    command = [sys.executable, "-m", "pipelines.translation", "train", *settings]  # a process has its devices
    subprocess.run(command, cwd=weak, env=pipeline_environment(weak), capture_output=True, check=True)
    for name in ("parts", "replicas"):
        assert max(differences(weak / "runs" / "alone", weak / "runs" / name)) < 1e-4


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
