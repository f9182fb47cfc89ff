import errno
import os
import subprocess
import sys

import pytest

from nlp_rnn import files
from nlp_rnn.errors import ConfigError
from tests.conftest import ROOT


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), files.atomic_file(path) as temporary:
        temporary.write_text("new")
        raise ZeroDivisionError
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"
    with files.atomic_file(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_a_failed_folder_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), files.atomic_folder(tmp_path / "a") as temporary:
        (temporary / "part").write_text("x")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_a_folder_that_appeared_meanwhile_stays(tmp_path):
    with pytest.raises(FileExistsError), files.atomic_folder(tmp_path / "a") as temporary:
        (temporary / "part").write_text("mine")
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "part").write_text("theirs")
    assert (tmp_path / "a" / "part").read_text() == "theirs"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), RuntimeError("RESOURCE_EXHAUSTED: x; No space left on device")],
    ids=["python", "tensorflow"],
)
def test_a_full_disk_is_one_line(tmp_path, error):
    with pytest.raises(ConfigError) as caught, files.atomic_file(tmp_path / "a"):
        raise error
    assert str(caught.value) == (
        f"{tmp_path / 'a'}: cannot be written (No space left on device); no partial file was left; "
        "free some space or choose another folder"
    )


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(RuntimeError, match="something else"), files.atomic_file(tmp_path / "a"):
        raise RuntimeError("something else")


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small tmpfs needs Linux and root")
def test_a_really_full_disk_leaves_nothing_half_written(tmp_path):
    """A checkpoint larger than the tmpfs it is written to, beside one that fits."""
    probe = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", str(tmp_path)], capture_output=True, check=False
    )
    if probe.returncode:
        pytest.skip("this sandbox does not allow mounts")
    code = f"""
import pathlib, numpy as np, sys
sys.path.insert(0, {str(ROOT)!r})
from nlp_rnn.training import checkpoints
from nlp_rnn.errors import ConfigError
folder = pathlib.Path({str(tmp_path)!r})
checkpoints.save_checkpoint(folder / "small.npz", dict(), checkpoints.Progress(epoch=1))
try:
    checkpoints.save_checkpoint(folder / "last.npz", dict(v=np.zeros(40000, np.float32)))
except ConfigError as error:
    print(error)
print(sorted(entry.name for entry in folder.iterdir()))
"""
    script = (
        f"mount -t tmpfs -o size=96k none {tmp_path} && exec {sys.executable} -c '{code.replace(chr(39), chr(34))}'"
    )
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        f"{tmp_path}/last.npz: cannot be written (No space left on device); no partial file was left; "
        "free some space or choose another folder",
        "['small.npz']",
    ], done.stderr
