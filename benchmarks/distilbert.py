"""Claim: our classifier answers one text faster than DistilBERT, and is smaller.

DistilBERT has its own shape and random weights, since neither its time nor its size depend on them; ONNX Runtime runs
it in float32 and in int8, on one core, like ours. Its accuracy on IMDB is published: 92.8 to 93.2 %.

    python -m benchmarks.distilbert --model saved_models/sentiment [--rounds 20]
"""

import os
import sys

# One core for all, before TensorFlow and ONNX Runtime start threads.
os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import statistics
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import timing
from benchmarks.memory_curve import resident_megabytes

LENGTHS = (64, 250)


def main() -> None:
    """Times one text of each length and prints times, sizes and memory."""
    parser = timing.parser(__doc__, rounds=20)
    parser.add_argument("--model", type=Path, default=Path("saved_models/sentiment"))
    parser.add_argument("--memory-of", help="prints this rival's memory in MB, and ends")
    parser.add_argument("--folder", type=Path, help="where DistilBERT's files are or will be")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    paths = {"ours": _newest(options.model), **{name: folder / f"{name}.onnx" for name in ("float32", "int8")}}
    if options.memory_of:
        _print_memory(options.memory_of, paths[options.memory_of])
        return
    timing.wait_until_quiet(options.wait)
    if not paths["int8"].exists():
        command = [sys.executable, "-m", "benchmarks.distilbert_files", str(folder)]
        subprocess.run(command, check=True, capture_output=True)
    runs = {name: (_ours if name == "ours" else _onnx)(path) for name, path in paths.items()}
    for length in LENGTHS:
        rivals = {name: run(length) for name, run in runs.items()}
        seconds = timing.interleave(rivals, options.rounds, lead_in=True)
        shown = ", ".join(f"{name} {1000 * statistics.median(each):.2f} ms" for name, each in seconds.items())
        ratios = ", ".join(f"{timing.ratio(seconds, name, 'ours'):.1f}" for name in ("float32", "int8"))
        print(f"one text of {length} tokens: {shown}; ours is {ratios} times as fast")
    for name, path in paths.items():
        command = [
            sys.executable,
            "-m",
            "benchmarks.distilbert",
            "--model",
            str(options.model),
            "--folder",
            str(folder),
        ]
        done = subprocess.run([*command, "--memory-of", name], capture_output=True, text=True, check=True)
        print(f"{name}: {_bytes(path) / 1e6:.1f} MB on disk, {done.stdout.strip().splitlines()[-1]} MB of memory")


def _newest(model: Path) -> Path:
    versions = [path for path in model.glob("[0-9]*") if path.is_dir()]
    return max(versions, key=lambda path: int(path.name)) if versions else model


def _bytes(path: Path) -> int:
    """Size of a file, or of the graph and the weights of a SavedModel."""
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in (path / "saved_model.pb", *(path / "variables").iterdir()))


def _ours(path: Path) -> Callable[[int], Callable[[], Any]]:
    import tensorflow as tf

    classify = tf.saved_model.load(str(path)).signatures["serving_default"]

    def make(length: int) -> Callable[[], Any]:
        text = tf.constant([" ".join(["film", "good", "the", "was"][place % 4] for place in range(length))])
        return lambda: classify(text=text)["probability"].numpy()

    return make


def _onnx(path: Path) -> Callable[[int], Callable[[], Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def make(length: int) -> Callable[[], Any]:
        ids = np.random.default_rng(0).integers(1000, 30000, (1, length))
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        return lambda: session.run(None, inputs)

    return make


def _print_memory(name: str, path: Path) -> None:
    """The resident memory that loading and one answer add to a process that has imported what they need."""
    if name == "ours":
        import tensorflow  # noqa: F401
    else:
        import onnxruntime  # noqa: F401
    before = resident_megabytes(os.getpid())
    (_ours if name == "ours" else _onnx)(path)(250)()
    print(round(resident_megabytes(os.getpid()) - before))


if __name__ == "__main__":
    main()
