"""Measures the time per key and the start-up time of the next-word console.

Types a text key by key, as the console reads it, and prints the distribution of the times from key to suggestions:
plain, learning, and learning with as many own words as the console keeps. The start-up time is that of a new process
until its first suggestions.
"""

import argparse
import itertools
import string
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.timing import wait_until_quiet
from nlp_rnn.ondevice import litert_file
from nlp_rnn.ondevice.litert_file import PRECISIONS
from nlp_rnn.ondevice.litert_model import OnDeviceModel
from nlp_rnn.ondevice.personal_words import MAX_WORDS
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
    folder = litert_file.find(Path(arguments.model))
    for precision in (each for each in PRECISIONS if (folder / f"model_{each}.tflite").is_file()):
        for name, learns, num_own in (("plain", False, 0), ("learning", True, 0), ("own words", True, MAX_WORDS)):
            session, times = TypingSession(OnDeviceModel(folder, precision=precision), adapts=learns), []
            for word in _made_up(num_own):
                session.words.learn(f"see {word} see {word}")
            for line in lines:
                for end in range(1, len(line) + 1):
                    start = time.perf_counter()
                    session.suggest(line[:end])
                    times.append(1e3 * (time.perf_counter() - start))
                session.finish_line(line)
            figures = "".join(f"{np.percentile(times, share):>8.2f}" for share in (50, 90, 99))
            shown = f"{precision}, {f'{len(session.words):,} ' if num_own else ''}{name}"
            print(f"{shown:<24}{figures}{max(times):>9.2f}{len(times):>7,}", flush=True)
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", _START, str(folder), precision], check=True)
            seconds.append(time.perf_counter() - start)
        print(f"{precision}, start to first suggestions: {np.median(seconds):.2f} s", flush=True)


def _made_up(count: int) -> list[str]:
    """Words that no model knows, as many for each first letter."""
    endings = itertools.product("aeiou", "bdfgklmnprst", "aeiou", "xz", "aeiou")
    words = ("".join((letter, *ending, "q")) for ending in endings for letter in string.ascii_lowercase)
    return list(itertools.islice(words, count))


if __name__ == "__main__":
    main()
