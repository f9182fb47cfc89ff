"""Claim: in half an hour of typing, learning all the time, the memory of the console grows by at most 5 %.

The console runs in a terminal of its own (a pseudo-terminal). Keys come at a steady rate. After one of the spaces of
each line Tab accepts a suggestion, which becomes part of the text; after each tenth line comes /words. The file is
typed again from its beginning when it ends. Memory is read every ten seconds; the growth counts from the first fifth of
the time.

    python -m benchmarks.console_soak --file test.txt [--minutes 30] [--plot FILE]
"""

import argparse
import contextlib
import itertools
import os
import pty
import random
import re
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import memory_curve

_LONGEST = 200  # characters of a line that are typed
_PATIENCE = 60  # seconds without an answer of the console


def main() -> None:
    """Types for so many minutes; prints the number of keys, what the console counted, and how its memory grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="saved_models/next_word_litert")
    parser.add_argument("--file", type=Path, required=True, help="what is typed")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=25, help="keys per second (default: %(default)s)")
    parser.add_argument("--plot", type=Path, help="a PNG file to write the curve of memory to")
    options = parser.parse_args()
    lines = [" ".join(line.split())[:_LONGEST] for line in options.file.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line and not line.startswith("/")]
    if not lines:
        parser.error(f"--file {options.file} has no line to type")
    process, terminal = pty.fork()
    if not process:
        os.environ["TERM"] = "xterm"
        command = ["-m", "pipelines.next_word", "console", "--model", options.model, "--learn"]
        os.execv(sys.executable, [sys.executable, *command])
    try:
        memory, count, told = _type(options, itertools.cycle(lines), process, terminal)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    print(f"{count:,} keys in {options.minutes:g} minutes; {told}")
    if options.plot:
        memory_curve.plot(options.plot, memory, "Memory of the console while typing")
    memory_curve.check_growth(memory)


def _type(
    options: argparse.Namespace, lines: Iterator[str], process: int, terminal: int
) -> tuple[memory_curve.Curve, int, str]:
    """Returns (the curve, the number of keys, what /stats says at the end)."""
    _read_until(terminal, "/help")
    begun, memory, count = time.monotonic(), memory_curve.Curve(), 0
    for key in _keys(lines):
        passed = time.monotonic() - begun
        if passed > 60 * options.minutes:
            break
        if passed >= memory_curve.SAMPLE_SECONDS * len(memory):
            memory.append((passed / 60, memory_curve.resident_megabytes(process)))
        os.write(terminal, key.encode())
        count += len(key)
        while select.select([terminal], [], [], 0)[0]:
            _read(terminal)
        time.sleep(max(0.0, begun + count / options.rate - time.monotonic()))
    os.write(terminal, b"\x15/stats\r")  # clears the line before
    told = _read_until(terminal, "new ones learnt")
    return memory, count, re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", told[told.rindex("\n") :]).strip()


def _keys(lines: Iterator[str]) -> Iterator[str]:
    generator = random.Random(1)
    for number, line in enumerate(lines, start=1):
        spaces = [place for place, character in enumerate(line) if character == " "]
        taken = generator.choice(spaces) if spaces else -1
        for place, character in enumerate(line):
            yield character
            if place == taken:
                yield "\t"
        yield "\r"
        if number % 10 == 0:
            yield "/words\r"


def _read_until(terminal: int, text: str) -> str:
    """What the console prints up to a text."""
    seen = ""
    while text not in seen:
        if not select.select([terminal], [], [], _PATIENCE)[0]:
            raise SystemExit(f"the console does not say {text!r}, but {seen[-500:]!r}")
        seen += _read(terminal)
    return seen[: seen.index(text) + len(text)]


def _read(terminal: int) -> str:
    try:
        return os.read(terminal, 65_536).decode("utf-8", "replace")
    except OSError:  # the other end is closed
        raise SystemExit("the console has ended; try: python -m pipelines.next_word console --learn") from None


if __name__ == "__main__":
    main()
