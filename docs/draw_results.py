"""Draws docs/results_*.png: a bar for each row of the tables of RESULTS.md that compare models, and a training's curve.

    python docs/draw_results.py

Each picture keeps the rows it shows in its PNG description; a test compares them with the tables.
"""

import re
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
from matplotlib.figure import Figure

FOLDER = Path(__file__).parent
BLUE, GREY = "#1f5fa8", "#b9bfc7"


class Picture(NamedTuple):
    """A picture of one column of one table.

    Attributes:
      heading: how the heading above the table begins, in RESULTS.md.
      column: of the table, from 1.
      caption: below the axis.
      start: where the axis begins.
    """

    heading: str
    column: int
    caption: str
    start: float


PICTURES = {
    "results_sentiment.png": Picture("Sentiment", 1, "accuracy on IMDB's test split, % (more is better)", 80),
    "results_next_word.png": Picture("Next word", 1, "perplexity of WikiText-2's test split (less is better)", 0),
    "results_characters.png": Picture("Characters", 1, "nats per character of tiny Shakespeare (less is better)", 1.3),
    "results_translation.png": Picture("Translation", 1, "BLEU, Multi30k English to German (more is better)", 30),
}


class Row(NamedTuple):
    """A row of a table.

    Attributes:
      name: of the model, "ours" at the beginning of our own.
      shown: the figure as the table has it.
      value: of a range, the middle.
    """

    name: str
    shown: str
    value: float


def rows_of(picture: Picture, text: str) -> list[Row]:
    """The rows of the first table below a heading in RESULTS.md. Those without a number are left out."""
    section = next(part for part in re.split(r"(?m)^## ", text) if part.startswith(picture.heading))
    found = []
    table = re.search(r"(?m)^\|(?:.*\n\|)*.*$", section)  # the first one
    for line in table[0].splitlines()[2:] if table else []:
        cells = [re.sub(r"[*`%]", "", cell).strip() for cell in line.strip("|").split("|")]
        numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", cells[picture.column])]
        if numbers:
            found.append(Row(cells[0], cells[picture.column], sum(numbers) / len(numbers)))
    return found


def describe(rows: list[Row]) -> str:
    """The rows as the PNG keeps them."""
    return "\n".join(f"{row.name}\t{row.shown}" for row in rows)


def draw(picture: Picture, rows: list[Row], path: Path) -> None:
    """Draws the bars, ours in blue, the best one at the top."""
    figure = Figure(figsize=(8, 0.5 + 0.36 * len(rows)), layout="constrained")
    axes = figure.subplots()
    ordered = sorted(rows, key=lambda row: row.value, reverse="less" in picture.caption)
    axes.barh(
        [row.name for row in ordered],
        [row.value - picture.start for row in ordered],
        left=picture.start,
        color=[BLUE if row.name.startswith("ours") else GREY for row in ordered],
    )
    axes.margins(x=0.1)
    axes.set_xlim(left=picture.start)
    for place, row in enumerate(ordered):
        axes.annotate(row.shown, (row.value, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    begins = f"; the axis begins at {picture.start:g}" if picture.start else ""
    axes.set_xlabel(picture.caption + begins, fontsize=8)
    axes.tick_params(labelsize=8, left=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path, dpi=130, metadata={"Description": describe(rows), "Software": None})


CURVE = "results_imdb_curve.png"  # of the first table below this heading of docs/results.md
_CURVE_HEADING = "### Virtual adversarial training without a teacher"


def points_of(text: str) -> list[tuple[float, ...]]:
    """The curve in docs/results.md: (steps, accuracy in %, cross-entropy) of each row."""
    rows = re.findall(r"(?m)^\| (\d+) \| ([\d.]+) % \| ([\d.]+) \|$", text.split(_CURVE_HEADING)[1].split("\n### ")[0])
    return [tuple(map(float, row)) for row in rows]


def draw_curve(points: list[tuple[float, ...]], path: Path) -> None:
    """Draws accuracy and cross-entropy on validation by step."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    steps, *columns = zip(*points, strict=True)
    captions = ("accuracy on validation, %", "cross-entropy on validation, nats")
    for axes, values, caption in zip(figure.subplots(1, 2), columns, captions, strict=True):
        axes.plot(steps, values, color=BLUE, marker="o", markersize=3)
        axes.set_title(caption, fontsize=8, loc="left")
        axes.set_xlabel("steps of 384 reviews", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130, metadata={"Description": repr(points), "Software": None})


def main() -> None:
    """Draws all pictures."""
    draw_curve(points_of((FOLDER / "results.md").read_text(encoding="utf-8")), FOLDER / CURVE)
    text = (FOLDER.parent / "RESULTS.md").read_text(encoding="utf-8")
    for name, picture in PICTURES.items():
        draw(picture, rows_of(picture, text), FOLDER / name)


if __name__ == "__main__":
    main()
