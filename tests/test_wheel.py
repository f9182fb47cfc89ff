"""The wheel and the sdist hold all that is needed outside of the checkout."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile

import pytest

from tests.conftest import ROOT, SMALL

BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with a wheel and an sdist, built from the tracked files, and the wheel's content in installed/."""
    folder = tmp_path_factory.mktemp("built")
    known = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if known.returncode:
        pytest.skip("this is no git checkout")
    for name in known.stdout.decode().split("\0"):
        is_wanted = name.startswith(("nlp_rnn/", "pipelines/", "configs/")) or "/" not in name
        if is_wanted and (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    for kind in ("build_wheel", "build_sdist"):
        done = subprocess.run(
            [sys.executable, "-c", BUILD, kind, str(folder)],
            cwd=folder / "source",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "installed")
    data = next((folder / "installed").glob("*.data/data"))
    (data / "share").rename(folder / "installed" / "share")  # where pip install --target puts it
    return folder


def run(built, tmp_path, *arguments):
    environment = os.environ | {
        "PYTHONPATH": str(built / "installed"),
        "NLP_RNN_CACHE": str(tmp_path / "cache"),
        "PYTHONSAFEPATH": "1",
    }
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_every_module_and_file_of_the_packages(built):
    paths = [path for folder in ("nlp_rnn", "pipelines") for path in (ROOT / folder).rglob("*")]
    expected = {str(path.relative_to(ROOT)) for path in paths if path.suffix in (".py", ".md", ".typed")}
    there = {str(path.relative_to(built / "installed")) for path in (built / "installed").rglob("*")}
    assert expected <= there
    assert {path.name for path in (ROOT / "configs").glob("*.yaml")} == {
        path.name for path in (built / "installed/share").rglob("*.yaml")
    }
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert expected <= names
    assert {"LICENSE", "NOTICE", "README.md", "configs/sentiment.yaml"} <= names


# Several commands in one process, which imports TensorFlow once.
COMMANDS = """
import json, sys
from pipelines.__main__ import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["nlp-rnn", *arguments]
    if main():
        sys.exit(f"failed: {arguments}")
import nlp_rnn
print(nlp_rnn.load("sentiment")("a great film").label)
"""


@pytest.mark.further  # builds and installs it
def test_the_wheel_works_in_an_empty_folder(built, tmp_path, next_word_trained, reviews):
    assert run(built, tmp_path, "-c", "import nlp_rnn; print(nlp_rnn.__file__)").strip() == str(
        built / "installed/nlp_rnn/__init__.py"
    )
    assert "tasks: sentiment" in run(built, tmp_path, "-m", "pipelines", "--help")
    settings = [*SMALL, "data.source=csv", f"data.train={reviews}", "data.split=hash"]
    files = [f"data.{name}={next_word_trained / name}.txt" for name in ("train", "validation", "test")]
    commands = [
        ["sentiment", "train", "--config", "sentiment_smoke", "name=mine", *settings],
        ["sentiment", "export", "--run", "runs/mine"],
        ["next_word", "export", "--run", str(next_word_trained / "runs/small"), "--format", "litert", *files],
    ]
    said = run(built, tmp_path, "-c", COMMANDS, json.dumps(commands))
    assert said.splitlines()[-1] in ("pos", "neg")
    assert (tmp_path / "saved_models/next_word_litert/1/README.md").is_file()  # which is package data
