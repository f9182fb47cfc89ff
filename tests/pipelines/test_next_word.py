"""Next-word commands as a user runs them: from a text to words suggested."""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.errors import ConfigError
from nlp_rnn.models.calibration import Calibration
from nlp_rnn.ondevice.litert_model import OnDeviceModel
from nlp_rnn.special_ids import EOS_ID
from nlp_rnn.training.checkpoints import load_progress
from nlp_rnn.training.run_directory import load_run
from nlp_rnn.training.trained_models import load_language_model
from tests import conftest
from tests.conftest import pipeline_environment, run_pipeline

ask, refused = (functools.partial(command, task="next_word") for command in (conftest.ask, conftest.refused))


SAVED = ("--model", "saved_models/next_word")
FILES = ("data.train=train.txt", "data.validation=validation.txt")
LITERT = ("--model", "saved_models/next_word_litert")


def test_evaluate_scores_model_cache_and_ngram(next_word_trained):
    found = json.loads(
        ask(
            "evaluate",
            "--json",
            "--run",
            "runs/small",
            "--split",
            "test",
            "--baseline",
            "--adapt",
            cwd=next_word_trained,
        )
    )
    metrics = found["metrics"]
    assert metrics["num_tokens"] == metrics["num_words"] + 2 * 60  # a full stop and an end a line
    assert metrics["perplexity"] < 2.5
    assert found["baseline"]["perplexity"] < 3
    assert found["adapted"]["perplexity"] < 1.2 * metrics["perplexity"]
    assert found["mixture"]["perplexity"] < min(1.05 * found["baseline"]["perplexity"], metrics["perplexity"])
    assert 0 < found["mixture"]["ngram_share"] < 1
    assert 0.5 < metrics["recall_at_1"] < metrics["recall_at_3"] <= metrics["recall_at_5"] <= 1
    assert metrics["keystroke_savings"] > 0.4
    written = json.loads((next_word_trained / "runs" / "small" / "metrics.json").read_text())
    assert written["test"] == metrics
    assert written["cache"] == {"share": found["adapted"]["share"], "theta": found["adapted"]["theta"]}
    text = ask("evaluate", "--run", "runs/small", cwd=next_word_trained)
    assert text.startswith("validation: ")
    few = json.loads(ask("evaluate", "--json", "--run", "runs/small", "--max-examples", "7", cwd=next_word_trained))
    assert (few["metrics"]["num_texts"], few["metrics"]["num_tokens"]) == (7, few["metrics"]["num_words"] + 2 * 7)


def test_the_phone_scores_what_the_run_scores(next_word_trained):
    run, device = (
        json.loads(ask("evaluate", "--json", *where, "--split", "test", cwd=next_word_trained))["metrics"]
        for where in (("--run", "runs/small", "--max-examples", "20"), (*LITERT, "--max-examples", "20"))
    )
    assert device["num_tokens"] == run["num_tokens"]
    assert device["perplexity"] == pytest.approx(run["perplexity"], rel=0.02)
    assert device["recall_at_3"] == pytest.approx(run["recall_at_3"], abs=0.01)


def test_predict_suggests_next_words_and_completions(next_word_trained):
    texts = ["the cat likes the ", "The cat likes the gre", "my neighbour follows", "zzzz", ""]
    answers = [
        json.loads(line) for line in ask("predict", "--json", *SAVED, *texts, cwd=next_word_trained).splitlines()
    ]
    words = [[each["word"] for each in answer["words"]] for answer in answers]
    assert words[0][0] == "green"
    assert words[1] == ["green"]
    assert words[2] == ["follows"]
    assert words[3] == []
    assert len(words[4]) == 5
    assert answers[1]["words"][0]["probability"] == pytest.approx(1, abs=1e-5)
    assert not {"", "<unk>", "\ufffd", "</s>"} & {word for each in words for word in each}


def test_predict_reads_a_pipe_and_a_prompt_of_a_megabyte(next_word_trained):
    text = "the cat likes the green garden . " * 32_000 + "the cat likes the \n"
    lines = ask("predict", *SAVED, "--count", "2", cwd=next_word_trained, text=text).splitlines()
    assert lines[0].startswith("green ")


def test_one_text_has_one_answer_whatever_the_batch(next_word_trained):
    loaded = tf.saved_model.load(str(next_word_trained / "saved_models" / "next_word" / "1"))
    texts = ["the cat likes ", "", "a dog sees a shiny ki", "nobody remembers an \xff\xfe"]
    together = loaded.signatures["serving_default"](text=tf.constant(texts))
    for row, text in enumerate(texts):
        alone = loaded.signatures["serving_default"](text=tf.constant([text]))
        np.testing.assert_array_equal(alone["words"][0], together["words"][row])
        np.testing.assert_allclose(alone["probabilities"][0], together["probabilities"][row], atol=1e-5)


def test_an_empty_batch_has_an_empty_answer(next_word_trained):
    loaded = tf.saved_model.load(str(next_word_trained / "saved_models" / "next_word" / "1"))
    texts = tf.constant([], tf.string)
    assert loaded.signatures["serving_default"](text=texts)["words"].shape[0] == 0
    answer = loaded.suggest(texts, tf.constant([], tf.int32), tf.constant([], tf.bool))
    assert answer["words"].shape[0] == answer["probabilities"].shape[0] == 0


def test_steps_give_what_the_whole_text_gives(next_word_trained):
    loaded = tf.saved_model.load(str(next_word_trained / "saved_models" / "next_word" / "1"))
    ids = loaded.signatures["tokenize"](text=tf.constant(["the cat likes the"]))["token_ids"].numpy()[0]
    step = loaded.signatures["step"]
    states = tf.zeros([1, step.structured_input_signature[1]["states"].shape[1]])
    for token in [3, *ids]:
        answer = step(token_ids=tf.constant([token]), states=states)
        states = answer["states"]
    expected = loaded.signatures["serving_default"](text=tf.constant(["the cat likes the "]))
    assert float(tf.exp(tf.reduce_max(answer["log_probabilities"]))) == pytest.approx(
        float(expected["probabilities"][0, 0]), abs=1e-5
    )


def test_litert_files_are_small_and_a_readme_tells_how(next_word_trained):
    folder = next_word_trained / "saved_models" / "next_word_litert" / "1"
    text = (folder / "README.md").read_text()
    sample, _, ngrams = text.partition("\n\nThe sample uses the network alone.")
    assert len(sample.splitlines()) <= 36
    assert 5 < len(ngrams.splitlines()) < 12
    code = text.split("```python\n")[1].split("```")[0].replace('"in", "the"', '"the", "cat", "likes", "the"')
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "green"


def test_a_folder_that_is_no_litert_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no LiteRT model"):
        OnDeviceModel(tmp_path)


# --- what goes wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.window=5000"], "data.train has .* tokens, too few for training.batch_size 64"),
        (["model.is_bidirectional=true"], "model.is_bidirectional is true"),
        (["model.softmax=adaptive"], "model.cutoffs is"),
        (["training.monitor=val_accuracy"], "training.monitor is val_accuracy"),
        (["tokenizer.level=char", "model.units=4"], "tokenizer.level is char"),
        (["tokenizer.case=markers"], "tokenizer.case is markers"),
        (
            ["data.source=wikitext2", "data.train=", "data.validation=", "data.dir=nowhere"],
            "data.source is wikitext2, but there is no",
        ),
    ],
)
def test_settings_that_cannot_be(next_word_trained, settings, message):
    found = refused(
        "train",
        "name=bad",
        "data.source=text",
        "data.train=train.txt",
        "data.validation=validation.txt",
        *settings,
        cwd=next_word_trained,
    )
    assert re.search(message, found)
    assert not (next_word_trained / "runs" / "bad").exists()


def test_a_vocabulary_that_misses_the_words_is_refused(next_word_trained):
    (next_word_trained / "other.txt").write_text("der\ndie\ndas\n", encoding="utf-8")
    settings = ("data.source=text", *FILES, "tokenizer.vocabulary=other.txt", "data.remove_repeated=false")
    found = refused(
        "train", "name=bad", *settings, "training.batch_size=2", "training.window=10", cwd=next_word_trained
    )
    assert "88% of the tokens of data.train are not in the vocabulary" in found
    assert not (next_word_trained / "runs" / "bad").exists()


def test_models_of_another_kind_are_refused(next_word_trained, trained):
    other = str(trained / "saved_models" / "sentiment")
    assert "this command is next_word" in refused("predict", "--model", other, "text", cwd=next_word_trained)
    assert "holds no LiteRT model" in refused("console", "--model", other, cwd=next_word_trained, text="")
    for name in ("next_word", "next_word_litert"):
        done = run_pipeline(
            "predict", "--model", str(next_word_trained / "saved_models" / name), "text", cwd=next_word_trained
        )
        assert done.returncode == 2
        assert "this command is sentiment" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "--count", "3000000000", "a"],
         "--count: is '3000000000', but must be a whole number from 1 to 100"),
        (["evaluate", "--run", "runs/small", "--precision", "float"],
         "--precision is float, but is for --model; a run's weights are float32"),
    ],
)  # fmt: skip
def test_options_that_cannot_be(next_word_trained, arguments, message):
    assert message in refused(*arguments, cwd=next_word_trained)


def test_a_pipe_must_be_utf_8(next_word_trained):
    done = run_pipeline("console", *LITERT, cwd=next_word_trained, task="next_word", text="the cat\ncaf\udce9 ")
    assert (done.returncode, len(done.stdout.splitlines())) == (2, 1)
    assert "standard input: line 2, byte 3: not UTF-8" in done.stderr


def test_a_memory_of_another_model_is_refused(next_word_trained):
    np.savez(next_word_trained / "other.npz", keys=np.zeros((2, 3)), ids=np.zeros(2), count=2)
    assert "memory of another model" in refused(
        "console", *LITERT, "--memory", "other.npz", cwd=next_word_trained, text=""
    )
    (next_word_trained / "broken.npz").write_bytes(os.urandom(100))
    assert "broken.npz: is damaged" in refused(
        "console", *LITERT, "--memory", "broken.npz", cwd=next_word_trained, text=""
    )


# --- calibration ---------------------------------------------------------------------------------------------------


@pytest.mark.further
def test_evaluation_and_exports_use_the_temperature_of_the_run(next_word_trained, tmp_path):
    shutil.copytree(next_word_trained / "runs", tmp_path / "runs")
    for file in next_word_trained.glob("*.txt"):
        shutil.copy(file, tmp_path)
    run, where = load_run(tmp_path / "runs" / "small"), ["--run", "runs/small"]
    before = json.loads(ask("evaluate", "--json", *where, cwd=tmp_path))["metrics"]
    plain = np.array(load_language_model(run)[0].head(np.zeros((1, 16), np.float32)))[0]
    run.write_calibration(Calibration(2.0))
    expected = plain / 2 - np.log(np.exp(plain / 2).sum())
    after = json.loads(ask("evaluate", "--json", *where, cwd=tmp_path))["metrics"]
    assert after["perplexity"] > 1.1 * before["perplexity"]
    assert after["recall_at_1"] == before["recall_at_1"]  # the order of words stays
    model = load_language_model(run)[0]
    np.testing.assert_allclose(np.array(model.head(np.zeros((1, 16), np.float32)))[0], expected, atol=1e-5)
    hidden, _ = model.advance(np.array([EOS_ID]), model.zero_states(1))
    expected = np.array(model.head(hidden))[0]
    ask("export", *where, cwd=tmp_path)
    ask("export", *where, "--format", "litert", cwd=tmp_path)
    step = tf.saved_model.load(str(tmp_path / "saved_models" / "next_word" / "1")).signatures["step"]
    found = step(token_ids=tf.constant([EOS_ID]), states=tf.zeros([1, sum(model.state_sizes)]))
    np.testing.assert_allclose(found["log_probabilities"][0], expected, atol=1e-5)
    device = OnDeviceModel(tmp_path / "saved_models" / "next_word_litert", precision="float")
    on_device = device.step(EOS_ID, device.zero_states()).log_probabilities
    np.testing.assert_allclose(on_device, expected, atol=1e-4)


@pytest.mark.further
def test_a_training_fits_the_temperature_of_its_best_weights(next_word_trained, tmp_path):
    settings = [
        "data.source=text", f"data.train={next_word_trained / 'train.txt'}",
        f"data.validation={next_word_trained / 'validation.txt'}",
        "data.remove_repeated=false", "model.units=8", "model.embedding_dim=8", "training.batch_size=4",
        "training.window=5", "training.epochs=2", "training.patience=0", "training.ema_momentum=0.9",
    ]  # fmt: skip
    figures = {}
    for name, is_fitted in (("plain", "false"), ("fitted", "true")):
        ask("train", f"name={name}", *settings, f"training.fit_temperature={is_fitted}", cwd=tmp_path)
        figures[name] = json.loads(ask("evaluate", "--json", "--run", f"runs/{name}", cwd=tmp_path))["metrics"]
    fitted = load_run(tmp_path / "runs" / "fitted")
    assert fitted.metrics["temperature"] == fitted.calibration.temperature != 1
    assert not (tmp_path / "runs" / "plain" / "calibration.json").exists()
    assert figures["fitted"]["perplexity"] < figures["plain"]["perplexity"]


# --- interruptions -------------------------------------------------------------------------------------------------


def place_of(checkpoint):
    """(epochs, steps) done."""
    if not checkpoint.exists():
        return 0, 0
    progress = load_progress(checkpoint)
    return progress.epoch, progress.step


@pytest.mark.further
def test_a_training_stopped_in_mid_epoch_ends_as_an_uninterrupted_one(next_word_trained, tmp_path):
    settings = [
        "data.source=text", f"data.train={next_word_trained / 'train.txt'}",
        f"data.validation={next_word_trained / 'validation.txt'}",
        "data.remove_repeated=false", "model.units=8", "model.embedding_dim=8", "model.softmax=sampled",
        "model.num_sampled=8",
        "model.weight_dropout=0.2", "model.embedding_dropout=0.1", "model.word_dropout=0.1", "training.batch_size=2",
        "training.window=5",
        "training.epochs=2", "training.checkpoint_seconds=1", "training.ema_momentum=0.9",
        "training.activation_regularization=0.1", "training.partial_shuffle=true",
        "model.fast=off",
    ]  # fmt: skip

    def train(name):
        return run_pipeline("train", f"name={name}", *settings, cwd=tmp_path, task="next_word")

    assert train("whole").returncode == 0
    checkpoint, before = tmp_path / "runs" / "stopped" / "checkpoints" / "last.npz", (0, 0)
    for number in (signal.SIGTERM, signal.SIGKILL):
        command = [sys.executable, "-m", "pipelines.next_word", "train", "name=stopped", *settings]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=pipeline_environment(tmp_path), stderr=subprocess.PIPE, text=True
        )
        end = time.monotonic() + 120
        while (not (now := place_of(checkpoint))[1] or now <= before) and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(number)
        process.communicate(timeout=200)
        assert place_of(checkpoint)[1] > 0
        before = place_of(checkpoint)
    done = train("stopped")
    assert done.returncode == 0, done.stderr
    assert "resuming after epoch" in done.stderr
    whole, stopped = (tmp_path / "runs" / name for name in ("whole", "stopped"))
    assert (whole / "history.csv").read_text() == (stopped / "history.csv").read_text()
    with np.load(whole / "checkpoints" / "best.npz") as left, np.load(stopped / "checkpoints" / "best.npz") as right:
        for key in left.files:
            np.testing.assert_array_equal(left[key], right[key])
