"""Draws docs/packages.png from docs/packages.yaml: the packages from the bottom up, and what each may import.

python docs/draw_packages.py
"""

from pathlib import Path

import matplotlib
import yaml

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FOLDER = Path(__file__).parent
BLUE = "#1f5fa8"


def levels(rules: dict[str, dict[str, list[str]]]) -> dict[str, int]:
    """Of each package how far it lies above the lowest: one above the highest that it imports."""
    found: dict[str, int] = {}
    for name, rule in rules.items():  # in the file a package stands behind those that it imports
        found[name] = max((found[other] + 1 for other in rule["may_import"]), default=0)
    return found


def reduced(rules: dict[str, dict[str, list[str]]]) -> list[tuple[str, str]]:
    """The imports that do not follow from others: (importing, imported)."""

    def below(name: str) -> set[str]:
        return {other for one in rules[name]["may_import"] for other in (one, *below(one))}

    return [
        (name, other)
        for name, rule in rules.items()
        for other in rule["may_import"]
        if not any(other in below(between) for between in rule["may_import"])
    ]


def main() -> None:
    """Writes the picture."""
    rules = yaml.safe_load((FOLDER / "packages.yaml").read_text(encoding="utf-8"))
    level = levels(rules)
    height = max(level.values()) + 1
    places = {}
    for number in range(height):
        row = [name for name in rules if level[name] == number]
        for place, name in enumerate(row):
            places[name] = ((place + 0.5) * 12 / len(row), number * 1.9)
    figure, axes = plt.subplots(figsize=(11, 1.25 * height + 0.6))
    for one, other in reduced(rules):
        axes.annotate(
            "", xy=(places[other][0], places[other][1] + 0.6), xytext=(places[one][0], places[one][1] - 0.6),
            arrowprops={"arrowstyle": "->", "color": "#8899aa", "lw": 1.1}, zorder=0,
        )  # fmt: skip
    for name, (x, y) in places.items():
        text = rules[name]["holds"]
        words, lines = text.split(), [""]
        for word in words:
            if len(lines[-1]) + len(word) > 28:
                lines.append("")
            lines[-1] = f"{lines[-1]} {word}".strip()
        axes.text(x, y + 0.33, name, ha="center", va="center", fontsize=12, fontweight="bold", color=BLUE, zorder=2)
        axes.text(x, y - 0.2, "\n".join(lines), ha="center", va="center", fontsize=7.5, color="#333333", zorder=2)
        axes.add_patch(plt.Rectangle((x - 1.35, y - 0.6), 2.7, 1.2, facecolor="#eef3f9", edgecolor=BLUE, zorder=1))
    axes.set(xlim=(-0.2, 12.2), ylim=(-1.0, height * 1.9 - 0.6))
    axes.axis("off")
    legend = (
        "An arrow: may import. Not shown: what follows from other arrows; the modules of nlp_rnn itself, open to all."
    )
    figure.text(0.5, 0.06, legend, ha="center", fontsize=8, color="#555555")
    figure.savefig(FOLDER / "packages.png", dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
