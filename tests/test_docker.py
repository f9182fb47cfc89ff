"""The images of docs/docker: clean for a linter, with the files and packages that there are."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

FOLDER = ROOT / "docs" / "docker"
IMAGES = sorted(FOLDER.glob("*.Dockerfile"))


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_the_linter_finds_nothing(path):
    linter = shutil.which("hadolint", path=Path(sys.executable).parent)
    done = subprocess.run([linter, "--no-color", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_linter_finds_a_mistake(tmp_path):
    path = tmp_path / "Dockerfile"
    path.write_text("FROM python\nRUN cd /tmp\n", encoding="utf-8")
    linter = shutil.which("hadolint", path=Path(sys.executable).parent)
    assert subprocess.run([linter, path], capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_what_an_image_copies_is_there(path):
    for line in re.findall(r"(?m)^COPY (.*)$", path.read_text(encoding="utf-8")):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), line


def test_the_small_installation_needs_what_the_package_needs():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    lists = settings["options"]["install_requires"], settings["options.extras_require"]["serve"]
    needed = [line for text in lists for line in text.strip().splitlines() if not line.startswith("#")]
    found = (FOLDER / "requirements_cpu.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert found == [line.replace("tensorflow>=", "tensorflow-cpu>=") for line in needed]
