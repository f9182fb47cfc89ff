"""Next-word commands as a user runs them: from a text to words suggested."""

import contextlib
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
import pexpect
import pyte
import pytest
import tensorflow as tf

from nlp_rnn.errors import ConfigError
from nlp_rnn.models.calibration import Calibration
from nlp_rnn.ondevice.litert_model import OnDeviceModel, StepOutput
from nlp_rnn.ondevice.typing_session import TypingSession
from nlp_rnn.special_ids import EOS_ID
from nlp_rnn.training.checkpoints import load_progress
from nlp_rnn.training.run_directory import load_run
from nlp_rnn.training.trained_models import load_language_model
from tests import conftest
from tests.conftest import ROOT, pipeline_environment, run_pipeline

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


# --- the console ---------------------------------------------------------------------------------------------------


def test_console_through_a_pipe(next_word_trained):
    done = run_pipeline(
        "console",
        *LITERT,
        "--count",
        "1",
        cwd=next_word_trained,
        task="next_word",
        text="the cat likes the\nthe k\n/stats\n",
    )
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].startswith("the ")
    assert done.stdout.splitlines()[1].split()[0] in ("king", "kingdom", "kitchen")
    assert done.stderr.strip().endswith("0 words remembered, 0 new ones learnt")
    found = json.loads(ask("console", "--json", *LITERT, cwd=next_word_trained, text="A dog sees a shiny \n"))
    assert found["words"][0]["word"] == "kingdom"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("/top " + "9" * 5000, "9, but must be a whole number from 1 to 9"),
        ("/top ٣", "/top is ٣, but must be a whole number from 1 to 9"),
        ("/save " + "a" * 300, "each name in it 255; give a shorter one; give another file"),
        ("/\x1b]0;title\x07", "/\\x1b]0;title\\x07 is not a command; see /help"),
    ],
)
def test_console_commands_that_cannot_be_are_one_line(next_word_trained, command, message):
    lines = f"/learn on\nthe cat likes the\n{command}\n"
    done = run_pipeline("console", *LITERT, cwd=next_word_trained, task="next_word", text=lines)
    assert done.returncode == 0, done.stderr
    assert message in done.stderr.splitlines()[-1]


def test_console_without_tensorflow(next_word_trained):
    code = (
        "import sys; from pipelines import next_word; from nlp_rnn.cli import main as cli; "
        f"cli.main(next_word, ['console', '--model', "
        f"{str(next_word_trained / 'saved_models' / 'next_word_litert')!r}]); "
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, input="the \n", capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "False"


class Console:
    """The console in a terminal of 24 lines."""

    def __init__(self, folder, *arguments, **environment):
        command = ["-m", "pipelines.next_word", "console", *LITERT, *arguments]
        whole = pipeline_environment(folder) | {"TERM": "xterm"} | environment
        self.child = pexpect.spawn(
            sys.executable,
            command,
            cwd=str(folder),
            env=whole,
            encoding="utf-8",
            codec_errors="replace",
            dimensions=(24, 100),
        )
        self.screen = pyte.Screen(100, 24)
        self.screen.write_process_input = self.child.send  # answers where the cursor is
        self.stream = pyte.Stream(self.screen)
        self.see("help shows all keys")

    def type(self, *texts):
        for text in texts:
            self.child.send(text)

    def see(self, pattern):
        """Waits until the screen shows what matches."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            found = re.search(pattern, "\n".join(self.screen.display))
            if found:
                return found
            with contextlib.suppress(pexpect.TIMEOUT):
                self.stream.feed(self.child.read_nonblocking(4096, timeout=0.2))
        raise AssertionError(f"{pattern!r} is not on the screen:\n" + "\n".join(self.screen.display))

    def resize(self, rows, columns):
        self.child.setwinsize(rows, columns)
        self.screen.resize(rows, columns)

    def leave(self):
        self.type("/quit\r")
        self.child.expect(pexpect.EOF)
        self.child.close()
        assert self.child.exitstatus == 0


def test_console_in_a_terminal(next_word_trained):
    console = Console(next_word_trained, "--learn")
    console.type("the cat likes the gr")
    console.see(r"> the cat likes the green[^$]* 1 green 100\.0%")
    console.type("\x1b[C")  # Right
    console.see(" 1 garden")
    console.type("\x1b1")  # Alt-1
    console.see(r"> the cat likes the green garden (?! *1 garden)")
    console.see(r"9 keys saved")
    console.resize(12, 60)
    console.type("\r", "/stats\r")
    found = console.see(r"(\d+) of (\d+) keystrokes saved \(\d+ %\), (\d+) words accepted")
    assert found.groups() == ("9", str(len("the cat likes the green garden ")), "2")  # "een" and "garden"
    console.type("my neighbour")
    console.see(r"> my neighbour[^$]* 1 [^$]* \d+ keys saved")  # five suggestions would leave no room for it
    console.type("\r")
    console.see(r"> my neighbour *\n")  # what was entered stands without a suggestion
    console.type("my dog\x03")  # Ctrl-C: the line is gone, the console stays
    console.type("\U0001f600 \u05e9\u05dc\u05d5\u05dd \r")
    console.type("/save memory.json\r")
    assert int(console.see(r"(\d+) words and 0 new ones saved")[1]) >= 7
    console.leave()
    again = Console(next_word_trained, "--memory", "memory.json")
    again.type("/stats\r")
    assert int(again.see(r"(\d+) words remembered")[1]) >= 7
    again.leave()


def test_console_learns_words_and_not_in_private(next_word_trained):
    console = Console(next_word_trained, "--learn")
    console.type("/private on\r", "the cat likes Hrubieszow\r", "the cat likes Hrubieszow\r", "/private off\r")
    console.type("the cat likes Zofia\r", "the cat likes Zofia\r")
    console.type("the dog sees Zo")
    console.see(r"> the dog sees Zofia[^$]* 1 Zofia ")
    console.type("\t\r", "/words\r")
    console.see(r"Zofia \(3\)")
    console.type("/forget\r", "/words\r")
    console.see("no words yet")
    console.leave()


def test_console_takes_a_pasted_page_and_a_plain_terminal(next_word_trained):
    console = Console(next_word_trained, TERM="dumb", LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    console.type("the cat likes the green garden . " * 60 + "\r")
    console.type("a dog\r", "/top 0\r")
    console.see("/top is 0")
    console.type("/nonsense\r")
    console.see("/nonsense is not a command")
    console.leave()


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


# --- typing --------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(next_word_trained):
    return OnDeviceModel(next_word_trained / "saved_models" / "next_word_litert", precision="float")


def words(session, text):
    return [suggestion.word for suggestion in session.suggest(text)]


def test_typing_key_by_key_suggests_what_the_whole_line_suggests(model):
    line = "The cat likes the green garden . a dog sees"
    session, calls = TypingSession(model), []
    for end in range(len(line) + 1):
        found = session.suggest(line[:end])
        fresh = TypingSession(model).suggest(line[:end])
        assert [each.word for each in found] == [each.word for each in fresh]
        np.testing.assert_allclose(
            [each.probability for each in found], [each.probability for each in fresh], atol=1e-4
        )
        calls.append(found)
    assert calls[-1][0].word == "sees"


def test_corrections_are_read_from_where_they_stand(model):
    session = TypingSession(model)
    session.suggest("the cat likes the green garden")
    assert words(session, "the dog sees a ")[0] == "shiny"
    assert words(session, "the dog sees a shiny kingdom . " * 100 + "a dog sees a ")[0] == "shiny"
    assert words(session, "the cat likes the ")[0] == "green"


def test_a_key_costs_one_step_however_long_the_text_is(model, monkeypatch):
    session, count = TypingSession(model), []
    monkeypatch.setattr(model, "step", lambda *a, real=model.step: count.append(1) or real(*a))
    monkeypatch.setattr(model, "prefill", lambda ids, *a, real=model.prefill: count.append(len(ids)) or real(ids, *a))
    text = "the cat likes the green garden . " * 40
    session.suggest(text)
    for end in range(12):
        count.clear()
        session.suggest(text + "a dog sees a"[:end])
        assert sum(count) <= 1
    count.clear()
    session.suggest("the cat likes the green garden . " * 30_000)  # a pasted book: its end is read
    assert sum(count) <= 512


def test_lines_carry_the_text_on_and_reset_ends_it(model):
    session = TypingSession(model)
    first = session.suggest("")
    session.finish_line("the cat likes the green garden .")
    steps = [StepOutput(*model.step(3, model.zero_states()))]
    for token in [*model.ids(model.split("the cat likes the green garden .")), 3]:
        steps.append(model.step(token, steps[-1].states))
    np.testing.assert_allclose(session._start.states, steps[-1].states, atol=1e-5)
    session.reset()
    assert session.suggest("") == first


def test_accepting_counts_the_keys_saved(model):
    session = TypingSession(model)
    suggestion = session.suggest("the cat likes the gr")[0]
    assert session.accept(suggestion) == "een "
    session.finish_line("the cat likes the green ")
    assert (session.statistics.saved, session.statistics.characters, session.statistics.accepted) == (3, 24, 1)


def test_learning_makes_what_was_typed_likelier(model):
    plain, learning = TypingSession(model), TypingSession(model, adapts=True)
    line = "nobody remembers a shiny kitchen ."
    for session in (plain, learning):
        for _ in range(5):
            session.finish_line(line)
    probability = [
        {each.word: each.probability for each in session.suggest("nobody remembers a shiny ki")}["kitchen"]
        for session in (plain, learning)
    ]
    assert probability[1] > probability[0]
    assert len(plain.memory) == 0


def test_unknown_words_are_suggested_after_their_second_use(model):
    plain, learning = TypingSession(model), TypingSession(model, adapts=True)
    for session in (plain, learning):
        session.finish_line("nobody remembers a shiny Zofia .")
        assert words(session, "the cat likes zo") == []
        session.finish_line("every child sees Zofia 4711 .")
    assert words(plain, "the cat likes zo") == []
    (found,) = learning.suggest("the cat likes zo")
    assert (found.word, found.rest, found.probability) == ("Zofia", "fia", 1)
    learning.count = 9
    after = learning.suggest("nobody remembers a shiny ")
    assert "Zofia" in [each.word for each in after]
    assert sum(each.probability for each in after) <= 1.001
    learning.is_private = True
    for _ in range(2):
        learning.finish_line("the old king follows Wanda")
    assert words(learning, "the cat likes wa") == []


def test_profanity_is_suggested_on_request_only(model):
    place = model.words.index("garden")
    model.decent[place] = False
    assert words(TypingSession(model), "the cat likes the green ga") == []
    assert words(TypingSession(model, allows_profanity=True), "the cat likes the green ga") == ["garden"]


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
