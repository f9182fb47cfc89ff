"""Standard output that cannot be written: one line, not a traceback."""

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device /dev/full, of Linux")
@pytest.mark.parametrize("arguments", [["pipelines", "doctor"], ["pipelines"]])
def test_a_full_disk_under_the_output_is_told_in_one_line(arguments):
    with open("/dev/full", "w", encoding="utf-8") as full:
        ended = subprocess.run(
            [sys.executable, "-m", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 2
    assert ended.stderr == (
        "the output cannot be written (No space left on device); free some space, or write it to another disk\n"
    )
