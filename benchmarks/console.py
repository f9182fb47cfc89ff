"""Measures the time per key and the start-up time of the next-word console.

Types a text key by key, as the console reads it, and prints the distribution of the times from key to suggestions. The
start-up time is that of a new process until its first suggestions.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.timing import wait_until_quiet
from nlp_rnn.ondevice.litert_file import PRECISIONS
from nlp_rnn.ondevice.litert_model import OnDeviceModel
from nlp_rnn.ondevice.typing_session import TypingSession

_START = """
import sys
from nlp_rnn.ondevice import console
from nlp_rnn.ondevice.litert_model import OnDeviceModel
from nlp_rnn.ondevice.typing_session import TypingSession
TypingSession(OnDeviceModel(sys.argv[1], precision=sys.argv[2])).suggest("The ")
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--model", default="saved_models/next_word_litert", help="LiteRT export (default: %(default)s)"
    )
    options.add_argument("--text", type=Path, default=Path("README.md"), help="what is typed (default: %(default)s)")
    options.add_argument("--keys", type=int, default=3000, help="so many of its characters (default: %(default)s)")
    options.add_argument("--wait", type=float, default=60, help="longest wait for a quiet machine, in seconds")
    arguments = options.parse_args()
    wait_until_quiet(arguments.wait)
    lines = arguments.text.read_text(encoding="utf-8")[: arguments.keys].splitlines()
    print(f"{'milliseconds a key':<24}{'p50':>8}{'p90':>8}{'p99':>8}{'largest':>9}{'keys':>7}")
    for precision in PRECISIONS:
        for learns in (False, True):
            session = TypingSession(OnDeviceModel(arguments.model, precision=precision), adapts=learns)
            times = []
            for line in lines:
                for end in range(1, len(line) + 1):
                    start = time.perf_counter()
                    session.suggest(line[:end])
                    times.append(1e3 * (time.perf_counter() - start))
                session.finish_line(line)
            name = f"{precision}, {'learning' if learns else 'not learning'}"
            figures = "".join(f"{np.percentile(times, share):>8.2f}" for share in (50, 90, 99))
            print(f"{name:<24}{figures}{max(times):>9.2f}{len(times):>7,}")
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", _START, arguments.model, precision], check=True)
            seconds.append(time.perf_counter() - start)
        print(f"{precision}, start to first suggestions: {np.median(seconds):.2f} s")


if __name__ == "__main__":
    main()
