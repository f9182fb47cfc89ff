"""Measures how more processes speed up training and what their communication costs, and predicts more machines.

A sentiment classifier (GRU(64), 20,000 words, texts of 100 words) with 32 texts per process and step. Each process is
bound to its own processor cores as far as there are enough. The step of processes that train together is compared with
the step of as many processes that train separately at the same time: the difference is communication and waiting. Sums
over processes are also timed alone, for several sizes.

    python -m benchmarks.scaling [--workers 1 2 4] [--steps 40]

The prediction: a ring sum over N machines sends 2(N-1) messages of 1/N of the gradients each, one after the other. It
takes 2(N-1) a + 2(N-1)/N S/b seconds, where a is the time per message and b the bandwidth as measured here between two
processes (or your network's, with --latency and --bandwidth), S is the size of the gradients in bytes, and nothing is
computed meanwhile. Several GPUs of one machine (mirrored) compute the same sum over their own links, which are not
measured here.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import timing
from nlp_rnn.cli.launch import run_workers, shares_of_cores

ROWS, WORDS, TIME = 32, 20_000, 100
MACHINES = (2, 8, 64)
SIZES = (2**10, 2**20, 2**23, 2**26)  # bytes of a sum
SETTINGS = [
    "model.cell=gru",
    "model.units=64",
    "model.embedding_dim=64",
    "model.is_bidirectional=false",
    "model.fast=on",
]
WARM_UP = 8


def main() -> None:
    """Prints a line for each number of processes, the measured constants, and the computed table."""
    parser = timing.parser(__doc__, rounds=1)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--latency", type=float, help="of your network, seconds a message")
    parser.add_argument("--bandwidth", type=float, help="of your network, bytes a second")
    parser.add_argument(
        "--worker", metavar="FILE", help="used by the benchmark itself: a process that trains, and writes to FILE"
    )
    parser.add_argument("--alone", action="store_true", help="used by the benchmark itself")
    options = parser.parse_args()
    if options.worker:
        work(Path(options.worker), options.steps, is_alone=options.alone)
        return
    timing.wait_until_quiet(options.wait)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # of the processes
    found: dict[int, dict[str, Any]] = {}
    for count in options.workers:
        together = measure(count, options.steps)
        apart = measure(count, options.steps, is_alone=True)["step"] if count > 1 else together["step"]
        found[count] = together
        rate = count * ROWS / together["step"]
        share = 100 * (together["step"] - apart) / together["step"]
        print(
            f"{count} processes: {rate:.0f} examples/s, step {1000 * together['step']:.1f} ms, of which {share:.0f} % "
            f"communication and "
            f"waiting ({1000 * apart:.1f} ms apart)",
            flush=True,
        )
    if 2 in found:
        describe_model(found[2], found[min(found)], options.latency, options.bandwidth)


def measure(count: int, steps: int, *, is_alone: bool = False) -> dict[str, Any]:
    """The figures of process 0 of `count`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        command = [sys.executable, "-m", "benchmarks.scaling", "--worker", str(file), "--steps", str(steps)]
        status = run_workers([*command, "--alone"] if is_alone else command, count, cores=shares_of_cores(count))
        if status:
            sys.exit(status)
        return json.loads(file.read_text(encoding="utf-8"))


def work(file: Path, steps: int, *, is_alone: bool) -> None:
    """One process: trains on random texts and times its steps and sums; process 0 writes what it found."""
    is_first = json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 0
    if is_alone:
        del os.environ["TF_CONFIG"]
    from nlp_rnn.config.loading import load_config
    from nlp_rnn.distribution.placement import start_devices
    from nlp_rnn.models.classifier import build_classifier
    from nlp_rnn.training import fit

    batch_size = ROWS * (1 if is_alone else len(json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"]))
    config = load_config(None, [*SETTINGS, f"training.batch_size={batch_size}"], task="sentiment")
    placement = start_devices(config.hardware)
    with placement.scope():
        model = build_classifier(config.model, vocab_size=WORDS, num_classes=2)
    fit.compile_model(model, config.training, 1000, placement)
    found = {"step": step_seconds(model, placement, steps), "bytes": 4 * model.count_params(), "sums": {}}
    if placement.num_workers > 1:
        found["sums"] = {size: sum_seconds(placement, size) for size in SIZES}
    if is_first:
        file.write_text(json.dumps(found), encoding="utf-8")


def step_seconds(model: Any, placement: Any, steps: int) -> float:
    """Median seconds of a training step, reading the batch included."""
    import keras

    from nlp_rnn.data.bucketing import Batches
    from nlp_rnn.data.datasets import make_dataset

    ends: list[float] = []
    clock = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs=None: ends.append(time.perf_counter()))
    dataset = placement.distribute(make_dataset(Batches(lambda: batches(steps), steps)))
    model.fit(dataset, steps_per_epoch=steps, epochs=1, callbacks=[clock], shuffle=False, verbose=0)
    return statistics.median(np.diff(ends)[WARM_UP:].tolist())


def batches(count: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Random texts, this process's rows."""
    generator = np.random.default_rng(1)
    for _ in range(count):
        ids = generator.integers(4, WORDS, (ROWS, TIME), np.int32)
        yield ids, generator.integers(0, 2, ROWS, np.int32), np.ones(ROWS, np.float32)


def sum_seconds(placement: Any, size: int) -> float:
    """Median seconds of a sum of float32 vectors over all processes."""
    import tensorflow as tf

    vector = tf.zeros([size // 4])

    @tf.function
    def add() -> Any:
        return placement.strategy.run(lambda: tf.distribute.get_replica_context().all_reduce("SUM", vector))

    seconds = timing_of(lambda: add(), 20)
    return statistics.median(seconds[3:])


def timing_of(call: Callable[[], Any], count: int) -> list[float]:
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def describe_model(two: dict[str, Any], one: dict[str, Any], latency: float | None, bandwidth: float | None) -> None:
    """Prints the constants and what they give for more machines."""
    sums = {int(size): seconds for size, seconds in two["sums"].items()}
    print(
        "a sum over 2 processes: "
        + ", ".join(f"{size / 2**20:.3g} MiB {1000 * seconds:.2f} ms" for size, seconds in sums.items())
    )
    # Of two processes the ring has 2 messages of half the bytes.
    a = latency if latency is not None else min(sums.values()) / 2
    b = bandwidth if bandwidth is not None else max(sums) / (sums[max(sums)] - min(sums.values()))
    print(
        f"constants: {1e6 * a:.0f} microseconds a message, {b / 1e9:.2f} GB/s, {1000 * one['step']:.1f} ms of "
        f"computing a step\n"
    )
    print(f"{'gradients':<24}" + "".join(f"{f'{count} machines':>22}" for count in MACHINES))
    for name, size in (("this model", two["bytes"]), ("1 MiB", 2**20), ("64 MiB", 2**26)):
        row = []
        for count in MACHINES:
            seconds = one["step"] + 2 * (count - 1) * a + 2 * (count - 1) / count * size / b
            row.append(f"{count * ROWS / seconds:.0f}/s ({100 * one['step'] / seconds:.0f} %)")
        print(f"{f'{name}, {size / 2**20:.1f} MiB':<24}" + "".join(f"{each:>22}" for each in row))
    print("examples a second, and the share of the time in which machines compute")


if __name__ == "__main__":
    main()
