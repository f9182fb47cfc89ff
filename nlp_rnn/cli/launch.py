"""Several workers on this machine, for tests and for machines with several sockets: `nlp-rnn launch`. No TensorFlow."""

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

from nlp_rnn.cli.main import Parser
from nlp_rnn.errors import ConfigError

_END_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux
_GRACE = 30.0  # seconds in which the others may end by themselves when one has

USAGE = """usage: nlp-rnn launch --workers N [--bind] TASK train ...

Starts N workers of a training on this machine's processor, as TF_CONFIG would on N machines. The result is the chief's,
worker 0's; what the workers say goes to standard error, each line with its worker's number.

  --workers N  how many
  --bind       give each worker processor cores of its own, neighbours together
"""


def main(arguments: list[str], tasks: tuple[str, ...]) -> int:
    """Runs `nlp-rnn launch ...`; returns the exit status: 0, or that of the first worker that failed.

    Raises:
      ConfigError: for options that are not understood.
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
        found = " ".join(options.command[:2]) or "nothing"
        raise ConfigError(
            f"nlp-rnn launch: after its options it takes TASK train ..., but found {found!r}; tasks: {', '.join(tasks)}"
        )
    command = [sys.executable, "-m", f"pipelines.{options.command[0]}", *options.command[1:]]
    return run_workers(command, options.workers, cores=shares_of_cores(options.workers) if options.bind else None)


def run_workers(command: list[str], num_workers: int, *, cores: list[set[int]] | None = None) -> int:
    """Runs a command as each worker of a cluster on this machine.

    Args:
      cores: which processor cores each worker may use; None: all.

    Returns:
      0, or the exit status of the first that failed.
    """
    addresses = [f"localhost:{port}" for port in _free_ports(num_workers)]
    workers: list[subprocess.Popen[bytes]] = []
    readers = []
    with _forwarding(workers):
        for number in range(num_workers):
            worker = _start(command, addresses, number, cores[number] if cores else None)
            workers.append(worker)
            for source in (worker.stderr, worker.stdout):  # the chief's standard output is ours
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
        command, env=os.environ | {"TF_CONFIG": json.dumps(cluster), "CUDA_VISIBLE_DEVICES": ""}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if number else None, stderr=subprocess.PIPE, preexec_fn=set_up,
        start_new_session=True,  # Ctrl-C reaches it once, through us
    )  # fmt: skip


def _wait(workers: list[subprocess.Popen[bytes]]) -> int:
    """Until all have ended; when one has failed, the others have some seconds to say so themselves."""
    status, deadline = 0, float("inf")
    while True:
        found = [worker.poll() for worker in workers]
        failed = next((number for number, code in enumerate(found) if code), None)
        if failed is not None and not status:
            code = found[failed] or 0
            status = code if code > 0 else 128 - code
            deadline = time.monotonic() + _GRACE
            if code < 0:
                how = signal.Signals(-code).name
                print(
                    f"worker {failed} was ended by {how}; the others end too; rerun the same command to resume",
                    file=sys.stderr,
                )
        if None not in found:
            return status
        if time.monotonic() > deadline:
            for worker in workers:
                worker.kill()
        time.sleep(0.1)


@contextlib.contextmanager
def _forwarding(workers: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Passes Ctrl-C and SIGTERM on to the workers, which save and end; kills what is left in the end."""

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
    for line in source:  # to the end, also if nobody listens any more: else the worker would wait for ever
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
    """For each worker, the cores of this process, dealt out evenly; with more workers than cores, they share them."""
    cores = sorted(os.sched_getaffinity(0), key=_place)
    if num_workers >= len(cores):
        return [{cores[number % len(cores)]} for number in range(num_workers)]
    size = len(cores) // num_workers
    return [set(cores[number * size : (number + 1) * size]) for number in range(num_workers)]


def _place(core: int) -> tuple[int, int, int]:
    """Sorts the threads of a core, and the cores of a socket, next to each other."""
    topology = Path(f"/sys/devices/system/cpu/cpu{core}/topology")
    try:
        return int((topology / "physical_package_id").read_text()), int((topology / "core_id").read_text()), core
    except (OSError, ValueError):
        return 0, core, core
