"""Character-generation commands as a user runs them: from a text to texts like it."""

import csv
import functools
import json
import math
import re
import sys

import numpy as np
import pexpect
import pytest
import tensorflow as tf

from nlp_rnn.config.loading import load_config
from nlp_rnn.evaluation import characters as character_evaluation
from nlp_rnn.evaluation import inspection
from nlp_rnn.models.build import build_language_model
from nlp_rnn.visualization import attributions
from tests import conftest
from tests.conftest import pipeline_environment, run_pipeline

SAVED = ("--model", "saved_models/char_generation")


ask, refused = (functools.partial(command, task="char_generation") for command in (conftest.ask, conftest.refused))


def test_evaluate_scores_every_character_and_tells_copies(characters_trained):
    found = json.loads(ask("evaluate", "--json", "--run", "runs/small", "--split", "test", cwd=characters_trained))
    metrics, report = found["metrics"], found["originality"]
    text = (characters_trained / "lines.txt").read_text(encoding="utf-8")
    assert metrics["num_characters"] == len(text) - int(0.9 * len(text))
    assert metrics["nats_per_character"] < 0.5
    assert metrics["bits_per_character"] == pytest.approx(metrics["nats_per_character"] / math.log(2))
    assert metrics["accuracy"] > 0.8
    assert report["written"]["copied_passage"] in text
    assert len(report["written"]["copied_passage"]) == report["written"]["longest_copy"] > 20
    assert report["held_out"]["invented_words"] < 0.02  # passages begin and end within words
    assert found["sample"].startswith(text[-metrics["num_characters"] :][:100])
    written = json.loads((characters_trained / "runs" / "small" / "metrics.json").read_text())
    assert written["test"] == metrics
    assert (characters_trained / "runs" / "small" / "gradients.png").stat().st_size > 10_000
    shown = character_evaluation.describe(found)
    assert re.search(r"^test: [\d,]+ characters, 0\.\d{4} nats", shown)
    assert f"longest copied: {report['written']['copied_passage']!r}" in shown


def test_train_counts_characters_as_evaluate_does(tmp_path):
    """Of texts with four characters, each fifth token is the end of a text, which costs but is no character."""
    (tmp_path / "words.csv").write_text("text\n" + "abcd\nbcda\n" * 60, encoding="utf-8")
    data = ["data.source=csv", "data.train=words.csv", "data.remove_repeated=false"]
    small = [
        "model.units=4",
        "model.embedding_dim=4",
        "training.epochs=1",
        "training.batch_size=4",
        "training.window=8",
    ]
    found = json.loads(ask("train", "--json", *data, *small, "name=a", cwd=tmp_path))
    with open(tmp_path / "runs" / "a" / "history.csv", encoding="utf-8", newline="") as file:
        (epoch,) = csv.DictReader(file)
    assert found["validation"]["nats_per_character"] == pytest.approx(5 / 4 * float(epoch["val_cross_entropy"]))
    scored = json.loads(ask("evaluate", "--json", "--run", "runs/a", cwd=tmp_path))["metrics"]
    assert scored["nats_per_character"] == pytest.approx(found["validation"]["nats_per_character"], rel=0.02)


def test_predict_writes_on_from_arguments_and_from_a_pipe(characters_trained):
    shown = ask("predict", *SAVED, "The cat ", "--length", "30", "--temperature", "0", cwd=characters_trained)
    assert re.fullmatch(r"The cat [a-z .\nA-Z]{30}\n", shown)
    options = ("--json", "--length", "40", "--seed", "5", "--stop", "\n", "--stop", " .", "--top-p", "0.9")
    lines = ask("predict", *SAVED, *options, text="A dog li\n\nA dog €li\n", cwd=characters_trained).splitlines()
    facts = [json.loads(line) for line in lines]
    assert [fact["prompt"] for fact in facts] == ["A dog li", "", "A dog €li"]
    assert facts[0]["text"] == facts[2]["text"]
    assert facts[0]["text"].startswith("kes")
    assert not any("\n" in fact["text"] or " ." in fact["text"] for fact in facts)
    assert all(fact["log_probability"] < 0 for fact in facts)


def test_unknown_characters_of_a_prompt_are_told(characters_trained):
    done = run_pipeline(
        "predict", *SAVED, "日本 The c\u0301at", "--length", "9", cwd=characters_trained, task="char_generation"
    )
    assert done.returncode == 0
    assert "were not in the training text; they are skipped: '\u0301' '日' '本'" in done.stderr


@pytest.mark.further
def test_words_are_compared_as_the_tokenizer_reads_them(tmp_path):
    """A letter and its accent apart, and a ligature: NFKC makes other characters of them, and another number."""
    line = "l'e\u0301cole e\u0301tait si \ufb01ne\n"
    for name in ("train", "test"):
        (tmp_path / f"{name}.txt").write_text(line * 200, encoding="utf-8")
    small = ["model.units=4", "model.embedding_dim=4", "training.epochs=1", "training.batch_size=4"]
    data = ["data.source=documents", "data.train=train.txt", "data.validation=test.txt", "data.test=test.txt"]
    told = refused("train", "name=a", *data, *small, cwd=tmp_path)
    assert "data.train has no examples: its only text is repeated (1 also in" in told
    data += ["tokenizer.nfkc=true", "data.remove_repeated=false"]
    ask("train", "name=a", *data, *small, cwd=tmp_path)
    found = json.loads(ask("evaluate", "--json", "--run", "runs/a", "--split", "test", cwd=tmp_path))
    report = found["originality"]["held_out"]
    assert report["invented_words"] < 0.05  # passages begin and end within words
    assert report["copied_passage"].count("\u00e9cole \u00e9tait si fine\n") > 3


@pytest.mark.further
def test_a_terminal_shows_the_text_as_it_is_written(characters_trained):
    arguments = ["-m", "pipelines.char_generation", "predict", *SAVED, "The cat ", "--length", "100", "--stop", " ."]
    child = pexpect.spawn(
        sys.executable,
        arguments,
        cwd=str(characters_trained),
        env=pipeline_environment(characters_trained),
        encoding="utf-8",
        timeout=120,
    )
    shown = child.read().replace("\r\n", "\n")
    child.close()
    assert child.exitstatus == 0
    assert shown == ask("predict", *SAVED, "The cat ", "--length", "100", "--stop", " .", cwd=characters_trained)


def test_explain_colours_a_unit(characters_trained):
    facts = json.loads(
        ask("explain", *SAVED, "The cat\nsees", "--unit", "3", "--png", "unit.png", "--json", cwd=characters_trained)
    )
    assert facts["unit"] == 3
    assert "".join(facts["tokens"]) == "The cat\nsees"
    assert len(facts["activations"]) == 12
    assert max(map(abs, facts["activations"])) <= 1
    assert (characters_trained / "unit.png").stat().st_size > 3000
    coloured = attributions.activations_to_terminal(facts["tokens"], facts["activations"])
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == "The cat\nsees"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--temperature", "-1"), "--temperature is -1.0, but must be greater than or equal to 0"),
        (("--top-p", "0"), "--top-p is 0.0, but must be greater than 0"),
        (("--top-p", "1.1"), "--top-p is 1.1, but must be less than or equal to 1"),
        (("--temperature", "nan"), "--temperature is nan, but must be a finite number"),
        (("--length", "0"), "--max-length is 0, but must be greater than or equal to 1"),
        (("--stop", "x" * 33), "of 33 characters, but at most 32 are compared"),
        (
            ("--length", "9", "--min-length", "10"),
            "--min-length is 10, but --max-length is 9; lower the first or raise the second",
        ),
    ],
)
def test_options_that_cannot_be(characters_trained, arguments, message):
    assert message in refused("predict", *SAVED, "The cat", *arguments, cwd=characters_trained)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("explain", *SAVED, ""), "TEXT is empty"),
        (("explain", *SAVED, "The", "--unit", "40"), "--unit is 40, but the model has units 0 to 39"),
        (
            ("train", "tokenizer.level=word", "data.source=documents", "data.train=lines.txt"),
            "but char_generation generates characters",
        ),
        (
            ("train", "model.softmax=adaptive", "model.cutoffs=[20]", "data.source=documents", "data.train=lines.txt"),
            "for characters use full",
        ),
        (("train", "name=bad", "data.source=documents", "data.train=one.txt"), "data.train has no examples"),
        (
            ("train", "name=bad", "data.source=documents", "data.train=few.txt"),
            "too few for training.batch_size 64 rows of one window",
        ),
        (("evaluate", "--run", "runs/small", "--split", "test", "data.test_fraction=0"), "test"),
    ],
)
def test_mistakes_are_one_line(characters_trained, arguments, message):
    (characters_trained / "one.txt").write_text("a", encoding="utf-8")
    (characters_trained / "few.txt").write_text("ab" * 500, encoding="utf-8")
    done = run_pipeline(*arguments, cwd=characters_trained, task="char_generation")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr.strip().splitlines()[-1]


def test_a_text_of_one_character_is_learned(tmp_path):
    (tmp_path / "a.txt").write_text("a" * 3000, encoding="utf-8")
    settings = (
        "data.source=documents",
        "data.train=a.txt",
        "model.units=8",
        "training.batch_size=4",
        "training.epochs=1",
        "training.learning_rate=0.05",
    )
    assert (
        float(re.search(r"validation ([\d.]+) nats per character", ask("train", "name=a", *settings, cwd=tmp_path))[1])
        < 1
    )


def test_the_saved_model_needs_tensorflow_alone(characters_trained):
    loaded = tf.saved_model.load(str(characters_trained / "saved_models" / "char_generation" / "1"))
    answer = loaded.signatures["serving_default"](prompt=tf.constant(["The cat ", b"\xff\xfe"]))
    assert [len(text) for text in answer["text"].numpy()] == [200, 200]
    assert {"generate", "begin", "extend", "score", "explain", "tokenize"} < set(loaded.signatures)


def test_gradients_of_a_model_without_recurrence_reach_nowhere():
    config = load_config(
        None, ["model.cell=simple_rnn", "model.units=8", "model.embedding_dim=4"], task="char_generation"
    ).model
    model = build_language_model(config, vocab_size=10)
    kernel = model.recurrent[0].cell.recurrent_kernel
    ids = np.random.default_rng(0).integers(4, 10, 300).astype(np.int32)
    kernel.assign(np.eye(8) * 0.5)
    found = inspection.gradient_norms(model, config, ids, seed=1)
    assert list(found) == ["simple_rnn, trained", "simple_rnn, untrained", "gru, untrained", "lstm, untrained"]
    assert all(norms.shape == (101,) and norms[0] == 1 for norms in found.values())
    assert found["simple_rnn, trained"][20] < 0.5**20
    kernel.assign(np.zeros((8, 8)))
    assert inspection.gradient_norms(model, config, ids, seed=1)["simple_rnn, trained"][1:].max() == 0


def test_the_most_informative_unit_is_slow():
    activations = np.random.default_rng(0).normal(size=(200, 5))
    activations[:, 3] = np.repeat([1, -1, 1, -1], 50)
    assert inspection.most_informative_unit(activations) == 3
    assert inspection.most_informative_unit(activations[:1]) in range(5)
