"""Standard output on a full disk: one line and status 2, not a traceback."""

import os
import subprocess
import sys

import pytest

_TOLD = (
    "standard output or a temporary file: cannot be written (No space left on device); "
    "free some space or choose another folder\n"
)
_FAILING = """
import sys
from nlp_rnn.cli.main import guarded
from nlp_rnn.errors import ConfigError

def command():
    print("begun")
    raise ConfigError("the mistake")

sys.exit(guarded(command))
"""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device /dev/full, of Linux")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("arguments", "before"),
    [(["-m", "pipelines", "check", "-h"], ""), (["-m", "pipelines"], ""), (["-c", _FAILING], None)],
)
def test_a_full_disk_under_standard_output_is_told_in_one_line(arguments, before, unbuffered):
    with open("/dev/full", "w", encoding="utf-8") as full:
        ended = subprocess.run(
            [sys.executable, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    assert ended.returncode == 2
    if before is None:  # the command fails too, before the output is written or at once
        before = "" if unbuffered else "the mistake\n"
    assert ended.stderr == before + _TOLD
