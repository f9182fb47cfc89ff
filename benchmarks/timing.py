"""Shared by the benchmarks: times rivals alternately in one process, on a quiet machine or with a warning."""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

QUIET = 0.1  # share of the processors' time that others may take


def parser(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--rounds", type=int, default=rounds, help="how often each rival is timed")
    found.add_argument("--wait", type=float, default=60, help="longest wait for a quiet machine, in seconds")
    found.add_argument("--plot", type=Path, help="a PNG file to write the ratios to")
    return found


def wait_until_quiet(seconds: float) -> None:
    """Waits until the processors are idle, or says that they were not."""
    end = time.monotonic() + seconds
    while (busy := busy_share()) > QUIET and time.monotonic() < end:
        time.sleep(2)
    state = "quiet" if busy <= QUIET else "NOT QUIET, the figures are too low for all"
    print(f"machine: {os.cpu_count()} processors, {busy:.0%} busy with other work before the start: {state}")


def busy_share(seconds: float = 1.0) -> float:
    """The share of all processors' time that was used during the next `seconds`, 0-1."""
    if not Path("/proc/stat").exists():
        return os.getloadavg()[0] / (os.cpu_count() or 1)

    def read() -> tuple[int, int]:
        ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(ticks), ticks[3] + ticks[4]  # all, and idle or waiting for a disk

    all_before, idle_before = read()
    time.sleep(seconds)
    all_after, idle_after = read()
    return 1 - (idle_after - idle_before) / max(1, all_after - all_before)


def interleave(
    rivals: Mapping[str, Callable[[], Any]], rounds: int, *, warm_up: int = 2, lead_in: bool = False
) -> dict[str, list[float]]:
    """Seconds of each rival's runs; every round runs all of them, one after the other.

    Args:
      warm_up: runs of each before the first round.
      lead_in: whether in every round an untimed run goes before the timed one, for what takes milliseconds: the rival
        before has left its own data in the caches.
    """
    for run in rivals.values():
        for _ in range(warm_up):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, run in rivals.items():
            time.sleep(0.1)  # threads of the rival before may still be spinning, in wait of work
            if lead_in:
                run()
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: Mapping[str, list[float]], reference: str, name: str) -> float:
    """How many times faster than the reference: the median of the rounds' ratios."""
    return statistics.median(theirs / ours for theirs, ours in zip(seconds[reference], seconds[name], strict=True))


def sgemm_peak(size: int = 2048, rounds: int = 5) -> float:
    """The best of some products of large float32 matrices, in operations a second."""
    matrix = tf.random.stateless_normal([size, size], [1, 2])
    product = tf.function(lambda: matrix @ matrix, autograph=False)
    seconds = interleave({"": lambda: product().numpy()}, rounds)[""]
    return 2 * size**3 / min(seconds)


def plot_ratios(path: Path, title: str, ratios: Mapping[str, Mapping[str, float]]) -> None:
    """Horizontal bars: what was measured -> rival -> how many times faster than the reference."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = sorted({name for each in ratios.values() for name in each})
    figure, axes = pyplot.subplots(figsize=(9, 1.3 + 0.3 * len(ratios) * len(names)), layout="constrained")
    height = 0.8 / len(names)
    for number, name in enumerate(names):
        places = [place + number * height for place, each in enumerate(ratios.values()) if name in each]
        bars = axes.barh(places, [each[name] for each in ratios.values() if name in each], height, label=name)
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
    axes.set_yticks([place + 0.4 - height / 2 for place in range(len(ratios))], list(ratios))
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(title=title, xlabel="times faster than the reference")
    figure.legend(loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=120)
    print(f"plot: {path}")
