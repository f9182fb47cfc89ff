"""Claim: a corpus larger than memory is prepared and trained on in constant memory.

Writes a TSV file of generated reviews (2 GB by default), trains on it, and prints the peak resident memory, also for a
file of a hundredth of the size. Both runs tokenise their whole file. With --records the file is first written as
sharded records (`nlp-rnn records`, which needs the extra `records`), and the training reads these.

    python -m benchmarks.streaming_memory [--megabytes 2000] [--records]
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
from typing import Any


def main() -> None:
    """Measures both sizes and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--records", action="store_true", help="prepare the corpus as records, then train on these")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = [measure(Path(folder), size, options.records) for size in (options.megabytes // 100, options.megabytes)]
    for small, large in zip(*found, strict=True):
        print(json.dumps(small))
        print(json.dumps(large))
        sizes = (
            f"{large['peak_mb']} MB for {large['megabytes']} MB of text, {small['peak_mb']} MB for a hundredth of it"
        )
        print(f"{large['what']}: peak resident memory {sizes}")


def measure(folder: Path, megabytes: int, through_records: bool) -> list[dict[str, Any]]:
    """Trains on a file of the size in a process of its own, after another has made records of it if so asked."""
    path, records = folder / f"{megabytes}.tsv", folder / f"records{megabytes}"
    write_reviews(path, megabytes * 10**6)
    found, data = [], ["data.source=tsv", f"data.train={path}"]
    split = "data.validation_fraction=0.01"
    if through_records:
        command = ["pipelines", "records", "--to", str(records), "--shards", "16", *data]
        found.append({"what": "records", "megabytes": megabytes, **watched(command)})
        data = ["data.source=records", f"data.dir={records}"]
    settings = [*data, split, f"data.cache_dir={folder}/cache", f"runs_dir={folder}/runs", f"name=run{megabytes}"]
    settings += ["training.epochs=1", "training.max_steps_per_epoch=20", "model.units=16"]
    found.append({"what": "train", "megabytes": megabytes, **watched(["pipelines.sentiment", "train", *settings])})
    path.unlink()
    return found


def watched(module: list[str]) -> dict[str, int]:
    """Runs a module in a process of its own: its peak resident memory and its wall time."""
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", *module], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(module)} failed with status {status}")
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, kilobytes elsewhere
    return {"peak_mb": round(peak), "seconds": round(time.monotonic() - start)}


def write_reviews(path: Path, size: int) -> None:
    """A TSV file of about `size` bytes: texts of 50 to 400 words of a vocabulary of 50,000 with natural frequencies."""
    generator = random.Random(0)
    vocabulary = [f"word{number}" for number in range(50_000)]
    weights = [1 / (rank + 2.7) for rank in range(50_000)]  # Zipf-Mandelbrot
    words = generator.choices(vocabulary, weights, k=2_000_000)
    with open(path, "w", encoding="utf-8") as file:
        written = file.write("text\tlabel\n")
        number = 0
        while written < size:
            start = generator.randrange(len(words) - 400)
            text = " ".join(words[start : start + generator.randint(50, 400)])
            written += file.write(f"{number} {text}\t{'pos' if number % 2 else 'neg'}\n")
            number += 1


if __name__ == "__main__":
    main()
