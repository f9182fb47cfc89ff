"""Claim: in half an hour of typing, learning all the time, the memory of the console stays flat.

The console runs in a terminal of its own (a pseudo-terminal). Keys come at a steady rate; in each line one suggestion
is accepted by Tab, and each tenth line is followed by /words. The file is typed again from its beginning when it ends.
Memory is read every ten seconds.

    python -m benchmarks.console_soak --file test.txt [--minutes 30] [--plot FILE]
"""

import argparse
import itertools
import os
import pty
import random
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import memory_curve

_LONGEST = 200  # characters of a line that are typed


def main() -> None:
    """Types for so many minutes; prints how many keys it typed, the memory, and how many words were learnt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="saved_models/next_word_litert")
    parser.add_argument("--file", type=Path, required=True, help="what is typed")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=25, help="keys per second (default: %(default)s)")
    parser.add_argument("--plot", type=Path, help="a PNG file to write the curve of memory to")
    options = parser.parse_args()
    lines = [line[:_LONGEST] for line in options.file.read_text(encoding="utf-8").splitlines() if line.strip()]
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "memory.json"
        memory, count = _type(options, itertools.cycle(lines), kept)
        size = kept.stat().st_size
    print(f"{count:,} keys in {options.minutes:g} minutes; the memory file has {size:,} bytes at the end")
    print(memory_curve.describe(memory))
    if options.plot:
        memory_curve.plot(options.plot, memory, "Memory of the console while typing")


def _type(options: argparse.Namespace, lines: Iterator[str], kept: Path) -> tuple[memory_curve.Curve, int]:
    process, terminal = pty.fork()
    if not process:
        command = ["-m", "pipelines.next_word", "console", "--model", options.model, "--learn"]
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, [sys.executable, *command])
    _wait_for(terminal, b"/help")
    begun, memory, count = time.monotonic(), memory_curve.Curve(), 0
    for key in _keys(lines):
        passed = time.monotonic() - begun
        if passed > 60 * options.minutes:
            break
        if passed > memory_curve.SAMPLE_SECONDS * len(memory):
            memory.append((passed / 60, memory_curve.resident(process)))
        os.write(terminal, key.encode())
        count += len(key)
        while select.select([terminal], [], [], 0)[0]:
            os.read(terminal, 65_536)
        time.sleep(max(0.0, begun + count / options.rate - time.monotonic()))
    os.write(terminal, b"\x15/save " + os.fsencode(kept) + b"\r")  # clears the line before
    _wait_for(terminal, b"saved to")
    os.write(terminal, b"/quit\r")
    _read_to_end(terminal)
    _, status = os.waitpid(process, 0)
    if status:
        raise SystemExit(f"the console ended with status {os.waitstatus_to_exitcode(status)}")
    return memory, count


def _keys(lines: Iterator[str]) -> Iterator[str]:
    generator = random.Random(1)
    for number, line in enumerate(lines, start=1):
        taken = generator.randrange(len(line))
        for place, character in enumerate(line):
            yield character
            if place == taken:
                yield "\t"
        yield "\r"
        if number % 10 == 0:
            yield "/words\r"


def _wait_for(terminal: int, text: bytes, seconds: float = 60) -> None:
    seen, limit = b"", time.monotonic() + seconds
    while text not in seen:
        if time.monotonic() > limit or not select.select([terminal], [], [], seconds)[0]:
            raise SystemExit(f"the console does not say {text!r}, but {seen[-500:]!r}")
        try:
            seen += os.read(terminal, 65_536)
        except OSError:
            raise SystemExit(f"the console ended: {seen!r}") from None


def _read_to_end(terminal: int) -> None:
    signal.alarm(60)
    try:
        while os.read(terminal, 65_536):
            pass
    except OSError:  # the other end is closed
        pass
    signal.alarm(0)


if __name__ == "__main__":
    main()
