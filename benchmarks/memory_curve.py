"""Reads the memory of a process over time: how much it grows, and a picture of the curve. For Linux."""

from pathlib import Path

SAMPLE_SECONDS = 10
MOST_GROWTH = 0.05  # from the first fifth of the time to the end

Curve = list[tuple[float, float]]  # (minutes, MB)


def resident_megabytes(pid: int) -> float:
    """The memory of a process, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1000


def check_growth(memory: Curve) -> None:
    """Prints how the memory grew; ends the process with status 1 if it is by more than MOST_GROWTH.

    The memory of a minute is the least in it: while a server exchanges a version, it holds two.
    """
    minutes = sorted({int(at) for at, _ in memory})
    least = [min(size for at, size in memory if int(at) == minute) for minute in minutes]
    settled = least[len(minutes) // 5 :]
    growth = settled[-1] / settled[0] - 1
    print(
        f"memory {settled[0]:.0f} MB after a fifth of the time, {settled[-1]:.0f} MB at the end ({growth:+.1%}), "
        f"{max(size for _, size in memory):.0f} MB at most"
    )
    if growth > MOST_GROWTH:
        raise SystemExit(f"it grew by more than {MOST_GROWTH:.0%}")


def plot(path: Path, memory: Curve, title: str) -> None:
    """Draws the curve as a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    axes.plot(*zip(*memory, strict=True))
    axes.set(title=title, xlabel="minutes", ylabel="MB", ylim=(0, None))
    figure.savefig(path, dpi=120)
    print(f"plot: {path}")
