"""What the tests share: small corpora, and commands run as a user runs them."""

import csv
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
ROOT = Path(__file__).parent.parent

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


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file of 300 distinct made-up reviews, labels neg and pos."""
    generator = random.Random(0)
    rows = [(make_review(generator, GOOD if i % 2 else BAD), "pos" if i % 2 else "neg") for i in range(300)]
    return write_csv(tmp_path_factory.mktemp("data") / "reviews.csv", rows)


SMALL = [
    "data.max_length=20",
    "model.units=6",
    "model.embedding_dim=8",
    "training.batch_size=16",
    "training.epochs=2",
    "training.learning_rate=0.02",
    "training.patience=0",
]


def run_sentiment(*arguments: object, cwd: Path, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m pipelines.sentiment ...` in a new process, cache and runs below `cwd`."""
    return subprocess.run(
        [sys.executable, "-m", "pipelines.sentiment", *map(str, arguments)],
        cwd=cwd,
        env=sentiment_environment(cwd) | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def sentiment_environment(cwd: Path) -> dict[str, str]:
    """The environment of such a process."""
    return os.environ | {"NLP_RNN_CACHE": str(cwd / "cache"), "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def trained(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, runs/small, and its export, saved_models/sentiment/1."""
    folder = tmp_path_factory.mktemp("trained")
    settings = [*SMALL, "training.epochs=6", "data.source=csv", f"data.train={reviews}", "data.test_fraction=0.2"]
    for arguments in (["train", "name=small", *settings], ["export", "--run", "runs/small"]):
        done = run_sentiment(*arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder
