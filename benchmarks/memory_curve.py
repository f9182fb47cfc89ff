"""Reads the memory of a process over time: how much it grows, and a picture of the curve. For Linux."""

from pathlib import Path

SAMPLE_SECONDS = 10

Curve = list[tuple[float, float]]  # (minutes, MB)


def resident(pid: int) -> float:
    """The memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1000


def describe(memory: Curve) -> str:
    """The memory after a fifth of the time and at the end, the least of a minute each, and the most of all."""
    minutes = sorted({int(at) for at, _ in memory})
    least = [min(size for at, size in memory if int(at) == minute) for minute in minutes]
    settled = least[len(minutes) // 5 :]
    growth = settled[-1] / settled[0] - 1
    return (
        f"memory {settled[0]:.0f} MB after a fifth of the time, {settled[-1]:.0f} MB at the end ({growth:+.1%}), "
        f"{max(size for _, size in memory):.0f} MB at most"
    )


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
