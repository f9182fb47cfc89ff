"""Knowledge distillation for translators: the teachers' translations as further pairs, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

import nlp_rnn
from nlp_rnn.config.loading import load_config
from nlp_rnn.data import datasets
from nlp_rnn.data.corpus import load_corpus
from nlp_rnn.errors import ConfigError
from nlp_rnn.special_ids import EOS_ID, PAD_ID
from nlp_rnn.tokenization.tokenizer import Tokenizer
from nlp_rnn.training import translation_teacher
from tests.conftest import TRANSLATION_SETTINGS, ask, refused, run_pipeline, told_to_stop

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
    assert taught(folder, monkeypatch)[1].rows.tolist() == first.rows.tolist()
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


def test_a_student_is_trained_on_both(folder):
    done = run_pipeline("train", "name=student", *STUDENT, cwd=folder, task="translation")
    assert done.returncode == 0, done.stderr
    assert "training.teacher: 480 further pairs" in done.stderr
    assert "training on 960 pairs" in done.stderr
    facts = json.loads((folder / "runs" / "student" / "data.json").read_text())
    assert facts["train"]["examples"] == 480
    assert len(facts["train"]["teachers"]) == 1


def test_prepared_ids_hold_the_translations_and_need_no_teacher(folder):
    ask("prepare", "name=prepared", *STUDENT, cwd=folder, task="translation")
    (folder / "runs" / "small").rename(folder / "elsewhere")
    done = run_pipeline("train", "name=prepared", *STUDENT, cwd=folder, task="translation")
    assert done.returncode == 0, done.stderr
    assert "training on 960 pairs" in done.stderr


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


def test_translators_learn_from_whole_translations_without_a_share():
    message = "teacher_share is 0.2, but applies only to classifiers and language models"
    with pytest.raises(ConfigError, match=message):
        load_config(None, ["training.teacher=[runs/a]", "training.teacher_share=0.2"], task="translation")
