"""Knowledge distillation: targets from other classifiers, texts without a label, and what is refused."""

import csv
import json
import math
import random
import shutil

import keras
import numpy as np
import pytest

import nlp_rnn
from nlp_rnn.cli import check
from nlp_rnn.config.loading import load_config
from nlp_rnn.data import datasets
from nlp_rnn.data.corpus import load_corpus
from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.models.calibration import Calibration
from nlp_rnn.models.objective import Objective
from nlp_rnn.tokenization.tokenizer import Tokenizer
from nlp_rnn.training import classifier_teacher, fit
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


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def taught(folder, monkeypatch, share=0.25, teachers="[runs/small]"):
    """The texts' cache of few.csv, and what `teach` makes of it."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NLP_RNN_CACHE", str(folder / "cache"))
    config = load_config(
        None, [*FEW, f"training.teacher={teachers}", f"training.teacher_share={share}"], task="sentiment"
    )
    tokenizer = Tokenizer.load(folder / "runs" / "small" / "tokenizer")
    corpus = load_corpus(config.data, config.seed)
    plain = datasets.prepare_split(corpus, "train", config.data, tokenizer, {"neg": 0, "pos": 1})
    return plain, classifier_teacher.teach(plain, config, ["neg", "pos"], tokenizer)


def test_targets_mix_the_teachers_answers_with_the_labels(folder, monkeypatch):
    plain, found = taught(folder, monkeypatch)
    texts = [text for text, _ in read_csv(folder / "few.csv")]
    answers = np.array([list(each.probabilities.values()) for each in nlp_rnn.load("runs/small")(texts)])
    assert plain.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1] + 72 * [-1]
    np.testing.assert_allclose(found.targets[:8], 0.75 * np.eye(2)[plain.labels[:8]] + 0.25 * answers[:8], atol=1e-5)
    np.testing.assert_allclose(found.targets[8:], answers[8:], atol=1e-5)
    assert found.labels.tolist() == plain.labels.tolist()
    assert [ids.tolist() for ids in found.rows(range(80))] == [ids.tolist() for ids in plain.rows(range(80))]
    assert found.first(3).targets.tolist() == found.targets[:3].tolist()


def test_answers_are_computed_once(folder, monkeypatch):
    taught(folder, monkeypatch)
    monkeypatch.setattr(fit, "predict_logits", None)
    assert taught(folder, monkeypatch, share=0.5)[1].targets[0].sum() == pytest.approx(1)
    with open(folder / "runs" / "small" / "calibration.json", "w", encoding="utf-8") as file:
        file.write(Calibration(3.0).to_json())
    with pytest.raises(TypeError):  # another calibration gives other answers
        taught(folder, monkeypatch)


def test_several_teachers_answer_with_their_mean(folder, monkeypatch):
    alone = taught(folder, monkeypatch, share=1.0)[1].targets
    shutil.copytree(folder / "runs" / "small", folder / "runs" / "hot")
    (folder / "runs" / "hot" / "calibration.json").write_text(Calibration(1e6).to_json(), encoding="utf-8")
    both = taught(folder, monkeypatch, share=1.0, teachers="[runs/small,runs/hot]")[1].targets
    np.testing.assert_allclose(both, (alone + 0.5) / 2, atol=1e-4)


def test_a_student_learns_from_texts_without_a_label(folder, monkeypatch):
    settings = [*FEW, "training.epochs=6", "model.units=4"]
    ask("train", "name=student", *settings, cwd=folder)
    monkeypatch.chdir(folder)
    metrics = nlp_rnn.Run.open(folder / "runs" / "student").evaluate("validation").metrics
    assert metrics["accuracy"] > 0.9


def test_check_says_how_many_texts_have_no_label(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NLP_RNN_CACHE", str(folder / "cache"))
    result = check.main(FEW, ("sentiment",))
    assert result.facts["splits"]["train"]["unlabelled"] == 72
    row = next(line for line in result.text.splitlines() if line.startswith("without a label"))
    assert row.split()[-2:] == ["72", "0"]


@pytest.mark.further  # three trainings
def test_a_student_resumes_the_same(folder):
    ask("train", "name=whole", *FEW, cwd=folder)
    with told_to_stop(lambda callback: callback.progress.epoch == 1):
        stopped = run_pipeline("train", "name=resumed", *FEW, cwd=folder)
    assert "stopped in epoch 2" in stopped.stderr
    ask("train", "name=resumed", *FEW, cwd=folder)
    assert outcome(folder / "runs" / "resumed") == outcome(folder / "runs" / "whole")


def test_prepared_ids_hold_the_answers_and_need_no_teacher(folder, monkeypatch):
    expected = taught(folder, monkeypatch)[1]
    ask("prepare", "name=prepared", *FEW, "training.teacher_share=0.25", cwd=folder)
    found = TokenCache.load(folder / "runs" / "prepared" / "ids" / "train")
    np.testing.assert_array_equal(found.targets, expected.targets)
    np.testing.assert_array_equal(found.labels, expected.labels)
    (folder / "runs" / "small").rename(folder / "elsewhere")
    ask("train", "name=prepared", *FEW, "training.teacher_share=0.25", cwd=folder)


def test_texts_without_a_label_are_drawn_for_training_only(folder):
    rows = [(text, "") for text, _ in read_csv(folder / "few.csv")]
    write_csv(folder / "mixed.csv", [*rows, *read_csv(folder / "validation.csv")])
    settings = ["data.train=mixed.csv", "data.validation=", "data.test_fraction=0.2", "model.ngrams=1"]
    ask("train", "name=drawn", *FEW, *settings, cwd=folder)
    facts = json.loads((folder / "runs" / "drawn" / "data.json").read_text())
    assert facts["train"]["labels"][""] == 80
    assert "" not in facts["validation"]["labels"]
    told = ask("evaluate", "--run", "runs/drawn", "--split", "test", "--baseline", cwd=folder)
    assert "baseline NBSVM" in told


def test_a_run_goes_on_with_the_teachers_that_it_began_with(folder):
    with told_to_stop(lambda callback: callback.progress.epoch == 1):
        run_pipeline("train", "name=student", *FEW, cwd=folder)
    (folder / "runs" / "small" / "calibration.json").write_text(Calibration(3.0).to_json(), encoding="utf-8")
    told = refused("train", "name=student", *FEW, cwd=folder)
    assert "data.train has other teachers (training.teacher), or they were trained further" in told


@pytest.mark.parametrize("outputs", ["label_sets", "ordinal"])
def test_what_label_sets_and_scales_learn(outputs, monkeypatch, tmp_path):
    labels = np.uint8([[1, 0, 0]]) if outputs == "label_sets" else np.int32([-1])
    setting = "data.multi_label=true" if outputs == "label_sets" else "data.labels_are=ordinal"
    config = load_config(
        None,
        [setting, "data.source=csv", "data.train=a.csv", "data.label_separator=;"][: 3 + (outputs == "label_sets")],
    )
    monkeypatch.setattr(classifier_teacher, "load_teachers", lambda _: [None])
    monkeypatch.setattr(classifier_teacher, "_check", lambda *_: None)
    monkeypatch.setattr(classifier_teacher, "_answers", lambda *_: np.float32([[0.4, 0.3, 0.3]]))
    found = classifier_teacher.teach(TokenCache(tmp_path, np.array([0, 1]), labels), config, ["1", "2", "3"], None)
    if outputs == "label_sets":
        assert found.labels.tolist() == [[1, 0, 0]]
        np.testing.assert_allclose(found.targets, [[0.7, 0.15, 0.15]], atol=1e-6)
    else:
        np.testing.assert_allclose(found.targets, [[0.4, 0.3, 0.3]], atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.teacher=[runs/none]"], "runs/none, which is no run directory"),
        (
            ["data.train=other.csv"],
            "runs/small, whose labels are not those of data.train; they differ in 'neg', 'pos', 'x'",
        ),
        (
            ["training.teacher=[runs/small,runs/other]"],
            "runs/other, which has another vocabulary than runs/small; name",
        ),
        (["training.teacher=[runs/stopped]"], "runs/stopped, whose training has not ended; rerun its command"),
        (["training.teacher=runs/small"], "training.teacher is 'runs/small', but must be a list, such as [runs/small]"),
        (["training.teacher=[runs/small,runs/small]"], "name each run once"),
        (["training.teacher=[]", "training.teacher_share=0.9"], "teacher_share is 0.9, but training.teacher is empty"),
        (
            ["training.class_weights=balanced"],
            "training.class_weights is set, but training.teacher gives probabilities",
        ),
        (
            ["data.validation=few2.csv"],
            "data.validation has 72 examples without a label, the first begins",
        ),
        (["tokenizer.case=keep"], r"whose vocabulary is taken, but tokenizer.case is 'keep' and was 'lower' there"),
        (["training.focal_gamma=2"], "training.focal_gamma is 2.0, but training.teacher gives probabilities"),
        (["training.teacher=[]"], "name classifiers that label them in training.teacher"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_fit_is_refused(folder, settings, message):
    rows = [("a story", "x"), ("a film", "y"), ("the music", "x"), ("a dull film", "y")]
    write_csv(folder / "other.csv", rows)
    shutil.copy(folder / "few.csv", folder / "few2.csv")
    if "runs/stopped" in settings[0]:
        shutil.copytree(folder / "runs" / "small", folder / "runs" / "stopped")
        (folder / "runs" / "stopped" / "calibration.json").unlink()
    if "runs/other" in settings[0]:
        ask("train", "name=other", *SMALL, "data.source=csv", "data.train=validation.csv", cwd=folder)
    if settings[0] == "data.train=other.csv":
        settings = [*settings, "data.validation=other.csv", "data.remove_repeated=false"]
    if settings[0] == "data.validation=few2.csv":
        settings = [*settings, "data.remove_repeated=false"]
    assert message in refused("train", "name=refused", *FEW, *settings, cwd=folder)


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


def test_the_truth_of_a_scale_is_the_median():
    targets = np.float32([[0.4, 0.3, 0.3]])
    assert Objective("ordinal").are_right(targets, np.log(targets)).numpy().tolist() == [True]


def test_label_sets_are_right_where_each_label_is_likelier_than_not():
    logits, targets = np.float32([[1.0, -1.0], [1.0, -1.0]]), np.float32([[0.6, 0.4], [0.4, 0.4]])
    assert Objective("label_sets").are_right(targets, logits).numpy().tolist() == [True, False]
