"""Runs commands of `nlp-rnn` in forked children, where they can be killed, and judges how they ended."""

import contextlib
import importlib
import io
import json
import os
import pkgutil
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nlp_rnn

_ELSEWHERE = ("jax_devices", "ray_serve")  # these need other packages
_CONTROLS = re.compile("[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f]")
_LONGEST = 3000  # characters of a clear message


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status (None: it hung and was killed; negative: a signal), and what it printed."""

    status: int | None
    output: str
    errors: str
    seconds: float

    @property
    def message(self) -> str:
        """The last line of standard error."""
        return next((line for line in reversed(self.errors.splitlines()) if line.strip()), "")


def import_everything() -> None:
    """Imports all modules once, without running an operation, so that children begin at once."""
    for module in pkgutil.walk_packages(nlp_rnn.__path__, "nlp_rnn."):
        if module.name.rpartition(".")[2] not in _ELSEWHERE:
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)
    for name in ("__main__", "sentiment", "next_word", "char_generation", "translation"):
        importlib.import_module(f"pipelines.{name}")
    importlib.import_module("matplotlib.backends.backend_agg")


def start(arguments: list[object], folder: Path, streams: Path, *, before: Callable[[], Any] | None = None) -> int:
    """Starts `nlp-rnn ARGUMENTS` in a folder, with the folder's cache. Returns the process id.

    Args:
      streams: a folder with the file `input`, for the files `output` and `errors`.
      before: is called in the child first.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        _connect(streams)
        os.chdir(folder)
        os.environ["NLP_RNN_CACHE"] = str(folder / "cache")
        if before:
            before()
        sys.argv = ["nlp-rnn", *(os.fspath(argument) for argument in arguments)]  # type: ignore[call-overload]
        status = sys.modules["pipelines.__main__"].main()
        sys.stdout.flush()
    except BaseException:  # the child must not go on as its parent
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(status or 0)
    return 0


def _connect(streams: Path) -> None:
    os.setpgid(0, 0)
    for number, name in enumerate(("input", "output", "errors")):
        flags = os.O_WRONLY | os.O_CREAT if number else os.O_RDONLY
        os.dup2(os.open(streams / name, flags, 0o600), number)
    sys.stdin = io.TextIOWrapper(os.fdopen(0, "rb", closefd=False), encoding="utf-8")
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(os.fdopen(number, "wb", closefd=False), encoding="utf-8", errors="backslashreplace")
        for number in (1, 2)
    )


def run(
    *arguments: object, folder: Path, text: bytes = b"", before: Callable[[], Any] | None = None,
    kill: tuple[float, signal.Signals] | None = None, timeout: float = 180,
) -> Ended:  # fmt: skip
    """Runs `nlp-rnn ARGUMENTS` in a folder to its end.

    Args:
      text: standard input.
      before: see `start`.
      kill: seconds after which the command gets a signal, and which.
      timeout: in seconds; a command that takes longer hangs.
    """
    with tempfile.TemporaryDirectory() as name:
        streams = Path(name)
        (streams / "input").write_bytes(text)
        begun = time.monotonic()
        process = start(list(arguments), folder, streams, before=before)
        status = _status_within(process, kill[0]) if kill else None
        if kill and status is None:
            os.kill(process, kill[1])
        status = _status_within(process, timeout) if status is None else status
        if status is None:
            end(process)
        seconds = time.monotonic() - begun
        output, errors = ((streams / each).read_text("utf-8", "backslashreplace") for each in ("output", "errors"))
    return Ended(status, output, errors, seconds)


def _status_within(process: int, seconds: float) -> int | None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


def end(process: int) -> None:
    """Kills a child of `start`."""
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def judge(ended: Ended, differences: list[str] | None = None) -> tuple[str, str]:
    """The verdict "ok", "refused" or "FINDING", and the detail.

    Args:
      differences: from what a command with status 0 should have done.
    """
    if ended.status is None:
        return "FINDING", f"hangs: {ended.message}"
    if "Traceback (most recent call last)" in ended.errors:
        return "FINDING", f"traceback, status {ended.status}: {ended.message}"
    if found := _CONTROLS.search(ended.output + ended.errors):
        return "FINDING", f"prints the control character {found[0]!r}: {ended.message!r}"
    if ended.status == 0:
        return ("FINDING", f"status 0, but {'; '.join(differences)}") if differences else ("ok", "")
    if ended.status == 2 and ended.message and len(ended.errors) < _LONGEST + 40 * ended.errors.count("\n"):
        return "refused", ended.message
    return "FINDING", f"status {ended.status}, {len(ended.errors)} characters: {ended.message}"


# --- what happens to a command --------------------------------------------------------------------------------------


def killed_at_rename(number: int) -> Callable[[], None]:
    """Kills the child before its `number`-th rename of a file or folder."""
    count = 0

    def before() -> None:
        for name in ("replace", "rename"):
            setattr(os, name, counted(getattr(os, name)))

    def counted(usual: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return usual(*arguments, **options)

        return call

    return before


def with_short_files(limit: int) -> Callable[[], None]:
    """Lets the child write no file beyond `limit` bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """Makes a folder a disk of `size` bytes, for root; yields whether it is one."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    is_mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def resize(folder: Path, size: int) -> None:
    """Makes a small disk larger or smaller, in bytes."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def fresh(source: Path, folder: Path) -> Path:
    """A fresh copy of a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(source, folder, symlinks=True))


def leftovers(folder: Path) -> list[str]:
    """Temporary files and folders that commands left."""
    return [str(path.relative_to(folder)) for path in folder.rglob(".*") if path.name != ".lock"]


def as_json(text: str) -> Any:
    """A command's JSON lines."""
    return [json.loads(line) for line in text.splitlines()]
