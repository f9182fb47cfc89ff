"""Plots: training curves, confusion matrix, word attributions, gradients over time, activations, attention."""

import io
import logging
import math
import re
import textwrap
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from rich.cells import cell_len

from nlp_rnn import files
from nlp_rnn.printable import printable, shortened, visible
from nlp_rnn.special_ids import WORD_START
from nlp_rnn.visualization.colors import BLUE, ORANGE

matplotlib.use("agg")  # no screen needed

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

logger = logging.getLogger(__name__)

_BLUE, _ORANGE = ("#{:02x}{:02x}{:02x}".format(*color) for color in (BLUE, ORANGE))


def plot_curves(history: list[dict[str, float]], path: Path, *, title: str) -> None:
    """Plots training and validation curves per epoch: cross-entropy, and accuracy or perplexity.

    Marks the best value of each validation curve.
    """
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(title, fontsize=11)
    has_accuracy = "accuracy" in history[0]
    second: tuple[str, str, Any, str] = (
        ("accuracy", "accuracy (%)", lambda value: 100 * value, ".1f")
        if has_accuracy
        else ("cross_entropy", "perplexity", lambda value: math.exp(min(value, 50)), ".1f")
    )
    first = ("cross_entropy", "cross-entropy (nats)", lambda value: value, ".3f")
    for axes, (name, label, scale, form) in zip(figure.subplots(1, 2), (first, second), strict=True):
        validation = [scale(row[f"val_{name}"]) for row in history]
        training = [scale(row[name]) for row in history]
        axes.plot(epochs, training, color=_BLUE, marker="o", markersize=3, label="training")
        axes.plot(epochs, validation, color=_ORANGE, marker="o", markersize=3, label="validation")
        best = int(np.argmax(validation) if name == "accuracy" else np.argmin(validation))
        axes.annotate(
            format(validation[best], form),
            (epochs[best], validation[best]), xytext=(0, 8 if validation[best] > training[best] else -15),
            textcoords="offset points",
            ha="center", color=_ORANGE, fontsize=9,
        )  # fmt: skip
        if label == "perplexity":
            axes.set_yscale("log")
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.margins(y=0.15)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    _save(figure, path)


def plot_confusion(matrix: list[list[int]], labels: list[str], path: Path, *, title: str) -> None:
    """Plots counts and row percentages. Rows are true classes. Of very many classes, only colours are shown."""
    counts = np.array(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    is_large = len(labels) > _MAX_LABELLED
    size = 2.4 + 0.7 * min(len(labels), _MAX_LABELLED)
    # Long labels often differ at their ends only.
    names = [_literal(label if len(label) <= 14 else f"{label[:7]}…{label[-6:]}") for label in labels]
    longest = max(map(len, names))
    room = 0.3 + 0.09 * (0 if is_large else longest)  # inches, for the names at the left
    figure = Figure(figsize=(size + room, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    figure.suptitle(textwrap.fill(title, int(10 * size)), fontsize=10)
    if is_large:
        _save(figure, path)
        return
    for row, column in np.ndindex(counts.shape):
        axes.text(
            column, row, f"{counts[row, column]:,}\n{100 * shares[row, column]:.1f} %",
            ha="center", va="center", fontsize=9, color="white" if shares[row, column] > 0.5 else "black",
        )  # fmt: skip
    axes.set_xticks(range(len(labels)), names, rotation=45 if len(labels) > 4 or longest > 10 else 0)
    axes.set_yticks(range(len(labels)), names)
    _save(figure, path)


_MAX_LABELLED = 40  # classes; the picture then has 4,000 pixels


def plot_attributions(words: list[tuple[str, str, float]], path: Path, *, title: str) -> None:
    """Plots the text, each word on a background of its attribution: orange above zero, blue below.

    Args:
      words: (space before it, word, share in [-1, 1]) of each.
    """
    lines = _wrap(words, _COLUMNS)
    height = 0.6 + 0.3 * len(lines)  # inches: the title, then one line each
    figure = Figure(figsize=(9, height))
    figure.text(0.02, 1 - 0.3 / height, _literal(title), fontsize=10, weight="bold")
    axes = figure.add_axes((0.02, 0.1 / height, 0.96, 0.3 * len(lines) / height))
    axes.set(xlim=(0, 0.96 * 9 * 72 / _CELL), ylim=(len(lines), 0))
    axes.axis("off")
    for row, line in enumerate(lines):
        for column, word, share in line:
            color = matplotlib.colors.to_rgba(_ORANGE if share > 0 else _BLUE, abs(share) * 0.8)
            axes.text(
                column, row + 0.5, _literal(word), family="monospace", fontsize=9, va="center",
                bbox={"facecolor": color, "edgecolor": "none", "pad": 1.5},
            )  # fmt: skip
    _save(figure, path)


_CELL = 10 * 72 / 130  # points: the width of a character of the monospaced font in size 9, which is rounded to pixels
_COLUMNS = 110  # of 112 that a line has room for


def plot_gradients(norms: dict[str, np.ndarray], path: Path, *, title: str) -> None:
    """Plots gradient norms by distance in time on a logarithmic scale. The first curve is highlighted."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    styles = [(_ORANGE, 2.2, "-"), (_BLUE, 1.2, ":"), (_BLUE, 1.2, "--"), (_BLUE, 1.2, "-")]
    lowest = 1.0
    for (name, values), (color, width, line) in zip(norms.items(), styles, strict=True):
        shown = np.maximum(values, 1e-8)  # below float32's resolution
        lowest = min(lowest, float(shown.min()))
        axes.plot(np.arange(len(values)), shown, label=name, color=color, linewidth=width, linestyle=line)
    axes.set(xlabel="time steps back", ylabel="gradient norm, relative", yscale="log", ylim=(lowest / 2, None))
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    _save(figure, path)


def plot_activations(characters: list[str], values: np.ndarray, path: Path, *, title: str) -> None:
    """Plots a text, each character on a background of one unit's activation: orange above zero, blue below."""
    columns = 100
    rows: list[list[int]] = [[]]
    for place, character in enumerate(characters):
        if len(rows[-1]) == columns:
            rows.append([])
        rows[-1].append(place)
        if character == "\n":
            rows.append([])
    height = 0.45 + 0.22 * len(rows)  # inches: title, then one line each
    figure = Figure(figsize=(10, height))
    figure.text(0.02, 1 - 0.3 / height, _literal(title), fontsize=10, weight="bold")
    axes = figure.add_axes((0.02, 0.05 / height, 0.96, 0.22 * len(rows) / height))
    axes.set(xlim=(0, columns), ylim=(len(rows), 0))
    axes.axis("off")
    largest = float(np.abs(values).max()) or 1.0
    for row, places in enumerate(rows):
        for column, place in enumerate(places):
            share = float(values[place]) / largest
            color = matplotlib.colors.to_rgba(_ORANGE if share > 0 else _BLUE, abs(share) * 0.8)
            axes.add_patch(Rectangle((column, row), 1, 1, facecolor=color, edgecolor="none"))
            if not characters[place].isspace():
                axes.text(
                    column + 0.5,
                    row + 0.52,
                    _literal(characters[place]),
                    family="monospace",
                    fontsize=8,
                    ha="center",
                    va="center",
                )
    _save(figure, path)


def plot_attention(source: list[str], target: list[str], weights: list[list[float]], path: Path) -> None:
    """Plots one row per target piece and one column per source piece; darker means a larger share."""
    figure = Figure(figsize=(1.6 + 0.34 * len(source), 1.4 + 0.27 * len(target)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.array(weights), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(
        range(len(source)),
        [_literal(piece.replace(WORD_START, " ")) for piece in source],
        rotation=60,
        ha="left",
        rotation_mode="anchor",
    )
    axes.set_yticks(range(len(target)), [_literal(piece.replace(WORD_START, " ")) for piece in target])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(source)) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(target)) - 0.5, minor=True)
    axes.grid(which="minor", color="#dddddd", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    _save(figure, path)


class Slice(NamedTuple):
    """The values of one setting in some trials, and how good these were."""

    name: str
    importance: float | None  # 0-1; None: not known
    settings: list[Any]
    values: list[float]
    is_logarithmic: bool


def plot_tuning(
    trials: list[tuple[int, float | None, str]], slices: list[Slice], path: Path, *, title: str, monitor: str
) -> None:
    """The best validation value of each trial with the best so far, then the values over some settings.

    Args:
      trials: (number, value, state: "complete", "pruned", "stopped", "failed" or "too large"), in order.
    """
    figure = Figure(figsize=(11, 6.4) if slices else (9, 3.6), layout="constrained")
    figure.suptitle(title, fontsize=11)
    upper: Any = figure
    lower: Any = None
    if slices:
        rows: Any = figure.subfigures(2, 1)
        upper, lower = rows
    axes = upper.subplots()
    best = np.maximum if monitor == "val_accuracy" else np.minimum
    valued = [(number, value) for number, value, _ in trials if value is not None]
    numbers = [number for number, _ in valued]
    axes.step(
        numbers, best.accumulate([value for _, value in valued]), color=_ORANGE, where="post", label="best so far"
    )
    for state, color, face in (("complete", _BLUE, _BLUE), ("pruned", _BLUE, "white"), ("stopped", _ORANGE, "white")):
        points = [(number, value) for number, value, its_state in trials if its_state == state and value is not None]
        if points:
            axes.scatter(*zip(*points, strict=True), s=30, edgecolors=color, facecolors=face, label=state, zorder=3)
    for state, mark in (("failed", "x"), ("too large", "^")):
        missing = [number for number, value, its_state in trials if its_state == state]
        if missing:  # at the edge: they have no value to show
            axes.scatter(
                missing, [0.03] * len(missing), marker=mark, color="#777777", label=state,
                transform=axes.get_xaxis_transform(),
            )  # fmt: skip
    axes.set(xlabel="trial", ylabel=monitor)
    axes.margins(y=0.2)
    axes.set_xlim(trials[0][0] - 0.5, trials[-1][0] + 0.5)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=9, ncols=5)
    _plain(axes)
    if lower is None:
        _save(figure, path)
        return
    for axes, each in zip(np.atleast_1d(lower.subplots(1, len(slices), sharey=True)), slices, strict=True):
        settings: list[Any] = list(map(str, each.settings)) if isinstance(each.settings[0], str) else each.settings
        axes.scatter(settings, each.values, s=24, color=_BLUE, alpha=0.7)
        place = each.values.index(best.reduce(each.values))
        axes.scatter(settings[place], each.values[place], s=30, color=_ORANGE)
        axes.set_xlabel(each.name)
        if each.is_logarithmic:
            axes.set_xscale("log")
            _label_plainly(axes, settings)
        if each.importance is not None:
            axes.set_title(f"importance {100 * each.importance:.0f} %", fontsize=9)
        _plain(axes)
    lower.axes[0].set_ylabel(monitor)
    _save(figure, path)


def _label_plainly(axes: Any, values: list[float]) -> None:
    """Labels a logarithmic axis with a few of its values, not too near each other, as plain numbers."""
    low, high = np.log(min(values)), np.log(max(values))
    ticks: list[float] = []
    for value in sorted(set(values)):
        if not ticks or np.log(value / ticks[-1]) > 0.25 * (high - low):
            ticks.append(value)
    axes.set_xticks(ticks, [f"{tick:.3g}" if tick >= 1 else f"{tick:.2g}" for tick in ticks])
    axes.minorticks_off()


def _plain(axes: Any) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _literal(text: str) -> str:
    """A text of the user as it is: without control characters, and without formulas between dollar signs."""
    return printable(text).replace("$", r"\$")


def _wrap(words: list[tuple[str, str, float]], width: int) -> list[list[tuple[int, str, float]]]:
    """Lines of (column, word, share), in cells of a monospaced font, in which Chinese characters take two."""
    lines: list[list[tuple[int, str, float]]] = [[]]
    used = 0
    for space, word, share in words:
        shown = shortened(visible(word))
        if used + len(space) + cell_len(shown) > width and lines[-1]:
            lines.append([])
            used = 0
        used += len(space) if lines[-1] else 0
        lines[-1].append((used, shown, share))
        used += cell_len(shown)
    return lines


def _save(figure: Any, path: Path) -> None:
    picture = io.BytesIO()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(picture, format="png", dpi=130)
    is_missing = [bool(re.match("Glyph .* missing from", str(each.message))) for each in caught]
    if any(is_missing):  # instead of one warning for each
        logger.warning("%s: boxes stand for %d characters that Matplotlib's font does not have", path, sum(is_missing))
    for each, is_known in zip(caught, is_missing, strict=True):
        if not is_known:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    with files.atomic_file(path) as temporary:
        temporary.write_bytes(picture.getvalue())
