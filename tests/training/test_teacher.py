"""Knowledge distillation: targets from other classifiers, texts without a label, and what is refused."""

import csv
import math
import random
import shutil

import keras
import numpy as np
import pytest

import nlp_rnn
from nlp_rnn.config.loading import load_config
from nlp_rnn.data import datasets
from nlp_rnn.data.corpus import load_corpus
from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.errors import ConfigError
from nlp_rnn.models.objective import Objective
from nlp_rnn.tokenization.tokenizer import Tokenizer
from nlp_rnn.training import fit, teacher
from tests.conftest import BAD, GOOD, SMALL, ask, make_review, outcome, refused, run_pipeline, told_to_stop, write_csv


@pytest.fixture
def folder(trained, tmp_path):
    """A folder with a finished run, runs/small, and few.csv: 80 new reviews, of which the first 8 have a label."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    generator = random.Random(7)
    rows = [(make_review(generator, GOOD if i % 2 else BAD), "pos" if i % 2 else "neg") for i in range(160)]
    write_csv(tmp_path / "few.csv", [(text, label if i < 8 else "") for i, (text, label) in enumerate(rows[:80])])
    write_csv(tmp_path / "validation.csv", rows[80:])
    return tmp_path


FEW = [
    *SMALL,
    "data.source=csv",
    "data.train=few.csv",
    "data.validation=validation.csv",
    "training.teacher=[runs/small]",
]


def taught(folder, monkeypatch, share=0.25):
    """What `teach` makes of few.csv, and the texts' cache before it."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NLP_RNN_CACHE", str(folder / "cache"))
    config = load_config(None, [*FEW, f"training.teacher_share={share}"], task="sentiment")
    tokenizer = Tokenizer.load(folder / "runs" / "small" / "tokenizer")
    corpus = load_corpus(config.data, config.seed)
    plain = datasets.prepare_split(corpus, "train", config.data, tokenizer, {"neg": 0, "pos": 1})
    return plain, teacher.teach(plain, config, ["neg", "pos"], tokenizer)


def test_targets_mix_the_teachers_answers_with_the_labels(folder, monkeypatch):
    plain, found = taught(folder, monkeypatch)
    with open(folder / "few.csv", encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    answers = np.array([list(each.probabilities.values()) for each in nlp_rnn.load("runs/small")(texts)])
    assert plain.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1] + 72 * [-1]
    np.testing.assert_allclose(found.targets[:8], 0.75 * np.eye(2)[plain.labels[:8]] + 0.25 * answers[:8], atol=1e-5)
    np.testing.assert_allclose(found.targets[8:], answers[8:], atol=1e-5)
    assert found.labels[:8].tolist() == plain.labels[:8].tolist()
    assert found.labels[8:].tolist() == answers[8:].argmax(axis=1).tolist()
    assert [ids.tolist() for ids in found.rows(range(80))] == [ids.tolist() for ids in plain.rows(range(80))]
    assert found.first(3).targets.tolist() == found.targets[:3].tolist()


def test_answers_are_computed_once(folder, monkeypatch):
    _, found = taught(folder, monkeypatch)
    monkeypatch.setattr(fit, "predict_logits", None)
    assert taught(folder, monkeypatch)[1].path == found.path
    with pytest.raises(TypeError):
        taught(folder, monkeypatch, share=0.5)


def test_a_student_learns_from_texts_without_a_label(folder, monkeypatch):
    settings = [*FEW, "training.epochs=6", "model.units=4"]
    ask("train", "name=student", *settings, cwd=folder)
    monkeypatch.chdir(folder)
    metrics = nlp_rnn.Run.open(folder / "runs" / "student").evaluate("validation").metrics
    assert metrics["accuracy"] > 0.9
    with told_to_stop(lambda callback: callback.progress.epoch == 2):
        stopped = run_pipeline("train", "name=resumed", *settings, cwd=folder)
    assert "stopped in epoch 3" in stopped.stderr
    ask("train", "name=resumed", *settings, cwd=folder)
    assert outcome(folder / "runs" / "resumed") == outcome(folder / "runs" / "student")


def test_prepared_ids_hold_the_answers(folder):
    ask("prepare", "name=prepared", *FEW, cwd=folder)
    assert TokenCache.load(folder / "runs" / "prepared" / "ids" / "train").targets.shape == (80, 2)


def test_label_sets_mix_each_label():
    labels, probabilities = np.uint8([[1, 0, 0]]), np.array([[0.5, 0.5, 0.0]])
    found, targets = teacher._mixed(labels, probabilities, 0.5)
    assert found is labels
    assert targets.tolist() == [[0.75, 0.25, 0.0]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.teacher=[runs/none]"], "runs/none, which is no run directory"),
        (["data.train=other.csv"], "training.teacher is runs/small, whose labels are 'neg', 'pos', but those of data"),
        (["training.teacher=[runs/small,runs/other]"], "training.teacher is runs/other, which has another vocabulary"),
        (["tokenizer.case=keep"], r"whose vocabulary is taken, but tokenizer.case is 'keep' and was 'lower' there"),
        (["training.focal_gamma=2"], "training.focal_gamma is 2.0, but training.teacher gives probabilities"),
        (["training.teacher=[]"], "or name classifiers that label them in training.teacher"),
    ],
    ids=["no run", "labels", "vocabulary", "tokenizer", "focal loss", "no teacher"],
)
def test_what_does_not_fit_is_refused(folder, settings, message):
    rows = [("a story", "x"), ("a film", "y"), ("the music", "x"), ("a dull film", "y")]
    write_csv(folder / "other.csv", rows)
    if "runs/other" in settings[0]:
        ask("train", "name=other", *SMALL, "data.source=csv", "data.train=validation.csv", cwd=folder)
    if settings[0] == "data.train=other.csv":
        settings = [*settings, "data.validation=other.csv", "data.remove_repeated=false"]
    assert message in refused("train", "name=refused", *FEW, *settings, cwd=folder)


def test_only_classifiers_have_teachers():
    for setting in ("training.teacher=[runs/a]", "training.teacher_share=0.2"):
        with pytest.raises(ConfigError, match="applies only to classifiers"):
            load_config(None, [setting], task="translation")


# --- the loss ------------------------------------------------------------------------------------------------------

LOGITS = keras.ops.convert_to_tensor(np.log(np.float32([[0.25, 0.75], [0.6, 0.4]])))


def test_the_cross_entropy_of_probabilities():
    targets = np.float32([[0.1, 0.9], [1.0, 0.0]])
    found = Objective().cross_entropies(targets, LOGITS)
    expected = [-0.1 * math.log(0.25) - 0.9 * math.log(0.75), -math.log(0.6)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(found[1], Objective().cross_entropies(np.int32([0, 0]), LOGITS)[1], rtol=1e-5)
    assert Objective().are_right(targets, LOGITS).numpy().tolist() == [True, True]
    assert Objective().are_right(targets[::-1], LOGITS).numpy().tolist() == [False, False]


def test_class_weights_count_by_the_share_of_each_class():
    targets, weights = np.float32([[0.1, 0.9], [1.0, 0.0]]), np.ones(2, np.float32)
    _, found = Objective(class_weights=(2.0, 1.0)).weigh(targets, weights, weights)
    np.testing.assert_allclose(found, [1.1, 2.0], rtol=1e-6)


def test_label_sets_are_right_where_each_label_is_likelier_than_not():
    logits, targets = np.float32([[1.0, -1.0], [1.0, -1.0]]), np.float32([[0.6, 0.4], [0.4, 0.4]])
    assert Objective("label_sets").are_right(targets, logits).numpy().tolist() == [True, False]
