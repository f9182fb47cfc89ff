"""The command `nlp-rnn launch`: starts several workers on this machine. It does not import TensorFlow.

It is meant for tests and for machines with several CPU sockets.
"""

import argparse
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from nlp_rnn.cli.options import Parser
from nlp_rnn.errors import ConfigError

_END_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux
_GRACE = 30.0  # seconds that the other workers have to end after one failed

USAGE = """usage: nlp-rnn launch --workers N [--bind] TASK train ...

Trains with N worker processes on this machine's CPU, as TF_CONFIG does on N machines. Standard output is that of worker
0, the chief. All other output goes to standard error; each line starts with the number of its worker.

  --workers N  number of workers
  --bind       bind each worker to its own CPU cores; neighbouring cores stay together
"""


def main(arguments: list[str], tasks: tuple[str, ...]) -> int:
    """Runs `nlp-rnn launch ...`; returns 0, or the exit status of the first worker that failed.

    Raises:
      ConfigError: if an option is unknown or has a wrong value.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    parser = Parser(prog="nlp-rnn launch", allow_abbrev=False, add_help=False)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--bind", action="store_true")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    if options.workers < 1:
        raise ConfigError(f"nlp-rnn launch: --workers is {options.workers}, but must be a whole number of 1 or more")
    if len(options.command) < 2 or options.command[0] not in tasks or options.command[1] != "train":
        given = " ".join(options.command[:2]) or "nothing"
        raise ConfigError(
            f"nlp-rnn launch: the options must be followed by TASK train ..., not by {given!r}; "
            f"tasks: {', '.join(tasks)}"
        )
    if os.name == "nt":
        raise ConfigError("nlp-rnn launch: does not run on Windows, which lacks its signals; use Linux, WSL or macOS")
    if options.bind and not hasattr(os, "sched_setaffinity"):
        raise ConfigError(f"nlp-rnn launch: --bind is given, but {sys.platform} cannot bind to cores; leave it out")
    command = [sys.executable, "-m", f"pipelines.{options.command[0]}", *options.command[1:]]
    return run_workers(command, options.workers, cores=shares_of_cores(options.workers) if options.bind else None)


def run_workers(command: list[str], num_workers: int, *, cores: list[set[int]] | None = None) -> int:
    """Runs a command as each worker of a cluster on this machine.

    Args:
      command: the program and its arguments.
      num_workers: number of processes; 1 or more.
      cores: the CPU cores that each worker may use; None: all cores.

    Returns:
      0, or the exit status of the first worker that failed (128 + the signal's number if a signal ended it).
    """
    addresses = [f"localhost:{port}" for port in _free_ports(num_workers)]
    workers: list[subprocess.Popen[bytes]] = []
    readers = []
    with _forwarding(workers):
        for number in range(num_workers):
            worker = _start(command, addresses, number, cores[number] if cores else None)
            workers.append(worker)
            for source in (worker.stderr, worker.stdout):  # the chief writes to our standard output
                if source is not None:
                    readers.append(threading.Thread(target=_pass_on, args=(source, f"[{number}] "), daemon=True))
                    readers[-1].start()
        status = _wait(workers)
    for reader in readers:
        reader.join(timeout=5)
    return status


def _start(command: list[str], addresses: list[str], number: int, cores: set[int] | None) -> subprocess.Popen[bytes]:
    cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": number}}

    def set_up() -> None:  # in the new process
        if cores:
            os.sched_setaffinity(0, cores)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGTERM)

    return subprocess.Popen(  # noqa: S603 - the user's own command
        command, env=os.environ | {"TF_CONFIG": json.dumps(cluster), "CUDA_VISIBLE_DEVICES": ""},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if number else None, stderr=subprocess.PIPE, preexec_fn=set_up,
        start_new_session=True,  # so that it receives Ctrl-C once, from `_forwarding`
    )  # fmt: skip


def _wait(workers: list[subprocess.Popen[bytes]]) -> int:
    """Waits until all workers have ended. Kills the others _GRACE seconds after one has failed."""
    status, deadline = 0, float("inf")
    while True:
        codes = [worker.poll() for worker in workers]
        failed = next((number for number, code in enumerate(codes) if code), None)
        if failed is not None and not status:
            code = codes[failed] or 0
            status = code if code > 0 else 128 - code
            deadline = time.monotonic() + _GRACE
            if code < 0:
                signal_name = signal.Signals(-code).name
                print(
                    f"worker {failed} was ended by {signal_name}; the others end too; rerun the same command to resume",
                    file=sys.stderr,
                )
        if None not in codes:
            return status
        if time.monotonic() > deadline:
            for worker in workers:
                worker.kill()
        time.sleep(0.1)


@contextlib.contextmanager
def _forwarding(workers: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Forwards Ctrl-C and SIGTERM to the workers, which save and end. On exit, kills workers that still run."""

    def forward(number: int, _frame: object) -> None:
        for worker in workers:
            worker.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for worker in workers:
            if worker.poll() is None:
                worker.kill()


def _pass_on(source: IO[bytes], prefix: str) -> None:
    for line in source:  # Read to the end even if our standard error is closed, or the worker would block.
        with contextlib.suppress(OSError):
            sys.stderr.write(prefix + line.decode("utf-8", "replace"))
            sys.stderr.flush()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]


def shares_of_cores(num_workers: int) -> list[set[int]]:
    """The CPU cores of each worker: this process's cores in equal shares. More workers than cores share cores."""
    cores = sorted(os.sched_getaffinity(0), key=_place)
    if num_workers >= len(cores):
        return [{cores[number % len(cores)]} for number in range(num_workers)]
    size = len(cores) // num_workers
    return [set(cores[number * size : (number + 1) * size]) for number in range(num_workers)]


def _place(core: int) -> tuple[int, int, int]:
    """A sort key that puts the threads of a core, and the cores of a socket, next to each other."""
    topology = Path(f"/sys/devices/system/cpu/cpu{core}/topology")
    try:
        return int((topology / "physical_package_id").read_text()), int((topology / "core_id").read_text()), core
    except (OSError, ValueError):
        return 0, core, core
