"""Claim: a corpus larger than memory is prepared and trained on in constant memory.

Writes a CSV file of made-up reviews (2 GB unless told otherwise), trains on it, and prints the peak resident memory
beside that of the same command on a file a hundredth of the size. Both runs tokenise all of their file.

    python -m benchmarks.streaming_memory [--megabytes 2000]
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Measures both sizes and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=2000)
    megabytes = parser.parse_args().megabytes
    with tempfile.TemporaryDirectory() as folder:
        found = [measure(Path(folder), size) for size in (megabytes // 100, megabytes)]
    for row in found:
        print(json.dumps(row))
    print(f"peak resident memory: {found[1]['peak_mb']} MB for {megabytes} MB of text, {found[0]['peak_mb']} MB for a hundredth of it")


def measure(folder: Path, megabytes: int) -> dict[str, float]:
    """Trains on a file of the size in a process of its own."""
    path = folder / f"{megabytes}.csv"
    write_reviews(path, megabytes * 10**6)
    settings = [
        "data.source=csv",
        f"data.train={path}",
        f"data.cache_dir={folder}/cache",
        f"runs_dir={folder}/runs",
        f"name=run{megabytes}",
    ]
    settings += ["data.validation_fraction=0.01", "training.epochs=1", "training.max_steps_per_epoch=20", "model.units=16"]
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "pipelines.sentiment", "train", *settings], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"training failed with status {status}")
    path.unlink()
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, kilobytes elsewhere
    return {"megabytes": megabytes, "peak_mb": round(peak), "seconds": round(time.monotonic() - start)}


def write_reviews(path: Path, size: int) -> None:
    """A CSV file of about `size` bytes: texts of 50 to 400 words of a vocabulary of 50,000 with natural frequencies."""
    generator = random.Random(0)
    vocabulary = [f"word{number}" for number in range(50_000)]
    weights = [1 / (rank + 2.7) for rank in range(50_000)]  # Zipf-Mandelbrot
    words = generator.choices(vocabulary, weights, k=2_000_000)
    with open(path, "w", encoding="utf-8") as file:
        written = file.write("text,label\n")
        number = 0
        while written < size:
            start = generator.randrange(len(words) - 400)
            text = " ".join(words[start : start + generator.randint(50, 400)])
            written += file.write(f"{number} {text},{'pos' if number % 2 else 'neg'}\n")
            number += 1


if __name__ == "__main__":
    main()
