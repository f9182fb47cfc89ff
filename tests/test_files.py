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


@pytest.mark.parametrize("write", [files.atomic_file, files.atomic_folder])
def test_a_file_in_the_place_of_a_folder_is_told(tmp_path, write):
    (tmp_path / "models").touch()
    with pytest.raises(ConfigError) as caught, write(tmp_path / "models" / "1"):
        raise AssertionError
    assert str(caught.value) == (
        f"{tmp_path}/models/1: cannot be written (Not a directory); no partial file was left; "
        "a file has the name of a folder in this path; choose another path"
    )


def test_a_folder_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"none: cannot be read .*; make the folder readable"):
        files.entries(tmp_path / "none")


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


def test_tensorflows_word_of_a_limit_of_file_sizes_is_one_line(tmp_path):
    message = r"cannot be written \(File too large\).*raise the limit of file sizes"
    with pytest.raises(ConfigError, match=message), files.atomic_file(tmp_path / "a"):
        raise RuntimeError("OutOfRangeError: out/part-00000; File too large [Op:SaveV2]")


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


def test_numpys_words_for_a_full_disk_are_recognised(tmp_path):
    message = r"\(No space left on device\).*; free some space or choose another folder"
    with pytest.raises(ConfigError, match=message), files.atomic_file(tmp_path / "a"):
        raise OSError("6212 requested and 4096 written")


def killed_while_writing(kind, path):
    """Runs a process that is killed within `atomic_file` or `atomic_folder`."""
    code = f"""
import os, pathlib, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from nlp_rnn import files
with files.{kind}(pathlib.Path({str(path)!r})) as temporary:
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)


@pytest.mark.skipif(os.name == "nt", reason="Windows locks no folders, so nothing is removed there")
def test_leftovers_of_killed_commands_are_removed_and_nothing_else(tmp_path):
    killed_while_writing("atomic_file", tmp_path / "a.npz")
    killed_while_writing("atomic_folder", tmp_path / "b")
    left = list(tmp_path.iterdir())
    assert len(left) == 2
    strange = tmp_path / ".a-12345678.npz"
    strange.write_text("of somebody else")
    with files.atomic_folder(tmp_path / "in_use") as in_use:
        for path in (*left, strange, in_use):
            os.utime(path, (1, 1))
        with files.atomic_file(tmp_path / "c.txt") as temporary:
            temporary.write_text("c")
        assert sorted(tmp_path.iterdir()) == sorted([strange, in_use, tmp_path / "c.txt"])
        (in_use / "content").write_text("kept")
    assert (tmp_path / "in_use" / "content").read_text() == "kept"


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("", "empty, but must be a path"),
        ("a\0b", "contains a NUL character"),
        ("a/" + "b" * 256, "each name in it 255"),
        ("é" * 200, "each name in it 255"),
        ("a/" * 3000, "at most 4,095 bytes"),
        ("a\ud800", "this is not valid Unicode"),
    ],
)
def test_paths_that_no_file_can_have_are_refused(path, fault):
    with pytest.raises(ConfigError) as refused:
        files.check_path("--run", path)
    assert str(refused.value).strip("'").startswith("--run is ")
    assert fault in str(refused.value)
    files.check_path("--run", "a" * 255)


def test_a_replaced_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "memory.json"
    path.write_text("[]")
    path.chmod(0o600)
    with files.atomic_file(path) as temporary:
        temporary.write_text("[1]")
    assert path.read_text() == "[1]"
    assert path.stat().st_mode & 0o777 == 0o600
    with files.atomic_file(tmp_path / "new.json") as temporary:
        temporary.write_text("[]")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "new.json").stat().st_mode & 0o777 == 0o666 & ~mask


def test_versions_are_folders_with_numbers_as_names(tmp_path):
    for name in ("1", "007", "\u0663", "2-old", ".3"):
        (tmp_path / name).mkdir()
    (tmp_path / "9").write_text("a file")
    assert files.versions(tmp_path) == {1: tmp_path / "1", 7: tmp_path / "007"}
    assert files.newest_version(tmp_path) == tmp_path / "007"
    assert set(files.versions(tmp_path, folders_only=False)) == {1, 7, 9}
    assert files.newest_version(tmp_path / "1") == tmp_path / "1"


def test_a_folder_is_removed_once_by_whoever_comes_first(tmp_path):
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "file").write_text("x")
    files.remove_folder(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    files.remove_folder(tmp_path / "a")
