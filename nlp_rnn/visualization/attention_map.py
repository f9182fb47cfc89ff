"""What a translator looked at while it wrote: a map for the terminal, a page, numbers for pipes."""

import html
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from nlp_rnn import files

_SHADES = " ░▒▓█"
_WORD_START = "\u2581"


class AttentionMap(NamedTuple):
    """weights: of each target piece a row, of each source piece a share of it; rows add up to 1. log_probabilities: of the target
    pieces, in nats."""

    source: list[str]
    target: list[str]
    weights: list[list[float]]
    log_probabilities: list[float]


def read_attention(loaded: Any, text: str, translation: str = "") -> AttentionMap:
    """Asks an exported translator's `explain` signature about one sentence.

    Args:
      translation: a translation of one's own; "": the model's.
    """
    sides = (tf.constant([side.encode("utf-8", "surrogateescape")]) for side in (text, translation))
    found = {name: value.numpy()[0] for name, value in loaded.explain(*sides).items()}
    source, target = ([piece.decode("utf-8") for piece in found[f"{side}_tokens"]] for side in ("source", "target"))
    weights = [[float(share) for share in row[: len(source)]] for row in found["attention"][: len(target)]]
    return AttentionMap(source, target, weights, [float(value) for value in found["log_probabilities"]])


def to_terminal(found: AttentionMap) -> str:
    """A row for each target piece; a column, two characters wide, for each source piece, whose names stand at the foot."""
    width = max(map(len, found.target))
    lines = [
        f"{piece.replace(_WORD_START, ' '):>{width}} |{''.join(2 * _shade(share) for share in row)}|"
        for piece, row in zip(found.target, found.weights, strict=True)
    ]
    names = [piece.replace(_WORD_START, " ") for piece in found.source]
    feet = [
        " " * (width + 2) + "".join(f"{name[line] if line < len(name) else ' '} " for name in names)
        for line in range(max(map(len, names)))
    ]
    return "\n".join([*lines, *(foot.rstrip() for foot in feet)])


def to_plain(found: AttentionMap) -> str:
    """A target piece, the source piece it looked at most, and its share, one line each: for pipes."""
    rows = []
    for piece, row, value in zip(found.target, found.weights, found.log_probabilities, strict=True):
        place = max(range(len(row)), key=row.__getitem__)
        rows.append(f"{piece}\t{found.source[place]}\t{row[place]:.4f}\t{value:+.4f}")
    return "\n".join(rows)


def write_html(found: AttentionMap, path: Path) -> None:
    """A page that needs nothing else: a table of shaded cells; the share shows on hover."""
    heads = "".join(f"<th><span>{html.escape(piece.replace(_WORD_START, ' '))}</span></th>" for piece in found.source)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(piece.replace(_WORD_START, " "))}</th>'
        + "".join(f'<td style="background:rgba(217,96,26,{share:.3f})" title="{share:.4f}"></td>' for share in row)
        + "</tr>"
        for piece, row in zip(found.target, found.weights, strict=True)
    )
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Attention</title>
<style>body{{font:15px/1.4 Georgia,serif;max-width:70em;margin:3em auto;padding:0 1em;color:#222}} h1{{font-size:1.2em}}
table{{border-collapse:collapse}} td{{width:2em;height:1.7em;border:1px solid #eee}} tr th[scope]{{text-align:right;padding-right:.6em}}
thead th{{font-weight:normal;vertical-align:bottom;height:7em}} thead span{{writing-mode:vertical-rl;transform:rotate(180deg)}}
th{{white-space:pre;font-weight:normal}} p.note{{color:#666;font-size:.8em}}</style>
<h1>What each piece of the translation looked at</h1>
<table><thead><tr><td style="border:0"></td>{heads}</tr></thead><tbody>{rows}</tbody></table>
<p class="note">Rows: the translation, from top to bottom. Columns: the source. The stronger the colour, the larger the share of the
attention; hover for the number.</p></html>
"""
    with files.atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _shade(share: float) -> str:
    return _SHADES[min(int(share * len(_SHADES)), len(_SHADES) - 1)]
