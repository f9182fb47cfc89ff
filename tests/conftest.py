"""What the tests share: small corpora, and commands run as a user runs them."""

import contextlib
import csv
import gc
import importlib
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import hypothesis
import numpy as np
import pytest

from nlp_rnn.cli import main as cli

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
ROOT = Path(__file__).parent.parent
hypothesis.settings.register_profile("same", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("same")


def pytest_collection_finish() -> None:
    """Keeps the garbage collector from searching TensorFlow's half a million objects: a tenth of a training's time."""
    gc.collect()
    gc.freeze()


GOOD = ["good", "great", "lovely", "warm", "funny"]
BAD = ["bad", "awful", "dull", "cold", "boring"]
FILLER = ["the", "film", "was", "a", "story", "with", "actors", "and", "music", "it's", "."]


def make_review(generator: random.Random, words: list[str]) -> str:
    """A text of filler with three telling words."""
    text = [generator.choice(FILLER) for _ in range(generator.randint(4, 25))]
    for word in generator.sample(words, 3):
        text.insert(generator.randrange(len(text)), word)
    return " ".join(text)


def write_csv(path: Path, rows: list[tuple[str, str]]) -> Path:
    """A CSV file with the columns text and label."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], None]) -> Path:
    """A folder that `build` fills, once for all workers of pytest-xdist: to read, not to work in."""
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    shared.mkdir(exist_ok=True)
    with filelock.FileLock(shared / f"{name}.lock"):
        if not (shared / name).exists():
            unfinished = factory.mktemp(f"unfinished_{name}")
            build(unfinished)
            unfinished.rename(shared / name)
    return shared / name


def own_copy(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], None]) -> Path:
    """A copy of `built_once`'s folder for the tests of this worker, which may write into it."""
    return Path(shutil.copytree(built_once(factory, name, build), factory.mktemp("own") / name))


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file of 300 distinct made-up reviews, labels neg and pos."""

    def build(folder: Path) -> None:
        generator = random.Random(0)
        rows = [(make_review(generator, GOOD if i % 2 else BAD), "pos" if i % 2 else "neg") for i in range(300)]
        write_csv(folder / "reviews.csv", rows)

    return built_once(tmp_path_factory, "reviews", build) / "reviews.csv"


SMALL = [
    "data.max_length=20",
    "model.units=6",
    "model.embedding_dim=8",
    "training.batch_size=16",
    "training.epochs=2",
    "training.learning_rate=0.02",
    "training.patience=0",
]


def run_pipeline(
    *arguments: object, cwd: Path, task: str = "sentiment", text: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Does what `python -m pipelines.TASK ...` does, in this process, which has imported TensorFlow already.

    Cache and runs are below `cwd`.

    Args:
      text: standard input.
    """
    out, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        patch.chdir(cwd)
        for name, value in (pipeline_environment(cwd) | environment).items():
            patch.setenv(name, value)
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode("utf-8", "surrogateescape"))))
        status = cli.main(importlib.import_module(f"pipelines.{task}"), [str(argument) for argument in arguments])
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), errors.getvalue())


def spawn_pipeline(*arguments: object, cwd: Path, task: str = "sentiment") -> subprocess.CompletedProcess[str]:
    """As `run_pipeline`, but in a new process."""
    command = [sys.executable, "-m", f"pipelines.{task}", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=pipeline_environment(cwd), capture_output=True, text=True, timeout=300, check=False
    )


def pipeline_environment(cwd: Path) -> dict[str, str]:
    """The environment of a process that runs a pipeline."""
    return os.environ | {"NLP_RNN_CACHE": str(cwd / "cache"), "PYTHONPATH": str(ROOT)}


def free_port() -> int:
    """A port of this machine that nothing listens at."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def ask(*arguments: object, cwd: Path, task: str = "sentiment", text: str = "") -> str:
    """The standard output of a command that succeeds."""
    done = run_pipeline(*arguments, cwd=cwd, task=task, text=text)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(*arguments: object, cwd: Path, task: str = "sentiment", text: str = "", **environment: str) -> str:
    """The standard error of a command that must fail with a user error, and leave nothing but the cache in cwd."""
    before = _files_below(cwd)
    done = run_pipeline(*arguments, cwd=cwd, task=task, text=text, **environment)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert _files_below(cwd) == before
    return done.stderr.rstrip()


def _files_below(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*") if "cache" not in path.parts)


@pytest.fixture(scope="session")
def trained(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, runs/small, and its export, saved_models/sentiment/1."""
    settings = [*SMALL, "training.epochs=6", "data.source=csv", f"data.train={reviews}", "data.test_fraction=0.2"]

    def build(folder: Path) -> None:
        for arguments in (["train", "name=small", *settings], ["export", "--run", "runs/small"]):
            ask(*arguments, cwd=folder)

    return own_copy(tmp_path_factory, "sentiment", build)


SUBJECTS = ["The cat", "A dog", "My neighbour", "The old king", "Nobody", "Every child"]
VERBS = ["likes", "sees", "follows", "remembers"]
OBJECTS = ["the green garden", "a shiny kingdom", "the long river", "an empty kitchen"]


def make_lines(count: int, seed: int) -> list[str]:
    """Sentences in which the verb tells the object."""
    generator = random.Random(seed)
    lines = []
    for _ in range(count):
        verb = generator.randrange(len(VERBS))
        lines.append(f"{generator.choice(SUBJECTS)} {VERBS[verb]} {OBJECTS[verb]} .")
    return lines


@pytest.fixture(scope="session")
def next_word_trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of next_word, runs/small, its SavedModel and its LiteRT export."""
    files = [f"data.{name}={name}.txt" for name in ("train", "validation", "test")]
    settings = [
        "data.source=text", *files, "data.remove_repeated=false", "model.units=24", "model.embedding_dim=16",
        "model.num_layers=2",
        "model.dropout=0.05", "model.weight_dropout=0.05", "training.batch_size=8", "training.window=10",
        "training.epochs=8",
        "training.learning_rate=0.02", "training.patience=0",
    ]  # fmt: skip

    def build(folder: Path) -> None:
        for name, count in (("train", 800), ("validation", 60), ("test", 60)):
            (folder / f"{name}.txt").write_text("\n".join(make_lines(count, len(name))) + "\n", encoding="utf-8")
        for arguments in (
            ["train", "name=small", *settings],
            ["export", "--run", "runs/small"],
            ["export", "--run", "runs/small", "--format", "litert"],
        ):
            ask(*arguments, cwd=folder, task="next_word")

    return own_copy(tmp_path_factory, "next_word", build)


@pytest.fixture(scope="session")
def characters_trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, lines.txt, a finished run of char_generation on it, runs/small, and its SavedModel."""
    settings = [
        "data.source=documents", "data.train=lines.txt", "data.test_fraction=0.1", "model.units=40",
        "model.embedding_dim=16",
        "model.dropout=0", "training.batch_size=8", "training.window=40", "training.epochs=5",
        "training.learning_rate=0.02",
    ]  # fmt: skip

    def build(folder: Path) -> None:
        (folder / "lines.txt").write_text("\n".join(make_lines(700, 3)) + "\n", encoding="utf-8")
        for arguments in (["train", "name=small", *settings], ["export", "--run", "runs/small"]):
            ask(*arguments, cwd=folder, task="char_generation")

    return own_copy(tmp_path_factory, "char_generation", build)


GERMAN = {
    "the": "der", "an": "ein", "old": "alte", "young": "junge", "king": "König", "cook": "Koch", "child": "Kind",
    "sees": "sieht",
    "hears": "hört", "likes": "mag", "green": "grüne", "long": "lange", "garden": "Garten", "river": "Fluss",
    "song": "Lied",
    "today": "heute", "often": "oft", "never": "nie",
}  # fmt: skip


def make_pairs(count: int, seed: int) -> list[tuple[str, str]]:
    """Distinct sentences and their translations, word for word, but with the last word first."""
    generator, found = random.Random(seed), {}
    while len(found) < count:
        person = [generator.choice(words) for words in (("the", "an"), ("old", "young"), ("king", "cook", "child"))]
        thing = [generator.choice(words) for words in (("the", "an"), ("green", "long"), ("garden", "river", "song"))]
        words = [
            *person,
            generator.choice(("sees", "hears", "likes")),
            *thing,
            generator.choice(("today", "often", "never")),
        ]
        found[" ".join(words)] = " ".join(GERMAN[word] for word in [words[-1], *words[:-1]])
    return list(found.items())


TRANSLATION_SETTINGS = [
    "data.source=aligned", *(f"data.{name}={name}" for name in ("train", "validation", "test")),
    "tokenizer.level=word",
    "tokenizer.vocab_size=100", "tokenizer.min_count=1", "model.cell=gru", "model.units=32",
    "model.embedding_dim=64",
    "model.attention=additive",
    "model.dropout=0", "training.batch_size=16", "training.epochs=12", "training.learning_rate=0.01",
    "training.label_smoothing=0",
]  # fmt: skip


@pytest.fixture(scope="session")
def translation_trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pairs (train.en, ...), a finished run of translation on them, runs/small, and its export."""

    def build(folder: Path) -> None:
        rows = make_pairs(560, 1)
        for name, part in (("train", rows[:480]), ("validation", rows[480:520]), ("test", rows[520:])):
            for place, language in enumerate(("en", "de")):
                (folder / f"{name}.{language}").write_text("".join(f"{row[place]}\n" for row in part), encoding="utf-8")
        for arguments in (
            ["train", "name=small", *TRANSLATION_SETTINGS],
            ["export", "--run", "runs/small"],
        ):
            ask(*arguments, cwd=folder, task="translation")

    return own_copy(tmp_path_factory, "translation", build)


def outcome(run: Path) -> tuple[dict[str, bytes], dict[str, Any], str]:
    """What of a run must not depend on interruptions: its best weights, metrics and history."""
    metrics = json.loads((run / "metrics.json").read_text())
    del metrics["training"]["seconds"]
    with np.load(run / "checkpoints" / "best.npz") as arrays:
        weights = {name: arrays[name].tobytes() for name in arrays.files}
    return weights, metrics, (run / "history.csv").read_text()


@contextlib.contextmanager
def told_to_stop(when: Callable[[Any], bool]) -> Iterator[None]:
    """Stops trainings of this process, as SIGTERM does, at the step where `when(callback)` is true."""
    from nlp_rnn.training.run_callback import RunCallback  # which imports TensorFlow

    usual = RunCallback.on_train_batch_end

    def tell(callback: Any, batch: int, logs: Any = None) -> None:
        if when(callback):
            callback._signal = signal.SIGTERM
        usual(callback, batch, logs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunCallback, "on_train_batch_end", tell)
        yield


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 150 reviews and as many pairs; the last batches are not full."""
    folder, generator = tmp_path_factory.mktemp("corpora"), random.Random(0)
    rows = [(make_review(generator, GOOD if i % 2 else BAD), "pos" if i % 2 else "neg") for i in range(150)]
    write_csv(folder / "reviews.csv", rows)
    lines = ["source,target", *(f"{text.replace(',', '')},{' '.join(reversed(text.split()[:8]))}" for text, _ in rows)]
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def differences(one: Path, other: Path) -> tuple[float, float]:
    """The largest difference of the figures of all epochs, and of the best weights, of one task."""
    figures = [np.genfromtxt(run / "history.csv", delimiter=",", names=True) for run in (one, other)]
    assert figures[0].dtype.names == figures[1].dtype.names
    # np.max and not max, which ignores NaN.
    worst = float(np.max([np.abs(figures[0][name] - figures[1][name]).max() for name in figures[0].dtype.names]))
    with np.load(one / "checkpoints" / "best.npz") as left, np.load(other / "checkpoints" / "best.npz") as right:
        assert left.files == right.files
        return worst, float(np.max([np.abs(left[name] - right[name]).max() for name in left.files]))
