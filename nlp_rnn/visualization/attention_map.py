"""Shows where a translator attended: a map for the terminal, an HTML page, numbers for pipes."""

import html
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf
from rich.cells import cell_len

from nlp_rnn import files
from nlp_rnn.printable import visible
from nlp_rnn.special_ids import WORD_START
from nlp_rnn.visualization.colors import ORANGE

_SHADES = " ░▒▓█"
_ORANGE = ",".join(map(str, ORANGE))


class AttentionMap(NamedTuple):
    """The attention of one translation.

    Attributes:
      attention: per target piece, the share of each source piece; rows add up to 1.
      log_probabilities: of the target pieces, in nats.
    """

    source_tokens: list[str]
    target_tokens: list[str]
    attention: list[list[float]]
    log_probabilities: list[float]


def read_attention(loaded: Any, text: str, translation: str = "") -> AttentionMap:
    """Calls an exported translator's `explain` signature for one sentence.

    Args:
      translation: the translation to explain; "" for the model's own.
    """
    sides = (tf.constant([side.encode("utf-8", "surrogateescape")]) for side in (text, translation))
    facts = {name: value.numpy()[0] for name, value in loaded.explain(*sides).items()}
    source, target = ([piece.decode("utf-8") for piece in facts[f"{side}_tokens"]] for side in ("source", "target"))
    weights = [[float(share) for share in row[: len(source)]] for row in facts["attention"][: len(target)]]
    return AttentionMap(source, target, weights, [float(value) for value in facts["log_probabilities"]])


def to_terminal(alignment: AttentionMap) -> str:
    """One row per target piece, one column (two characters wide) per source piece, with the source pieces below."""
    targets, names = map(_shown, (alignment.target_tokens, alignment.source_tokens))
    width = max(map(cell_len, targets))
    lines = [
        f"{' ' * (width - cell_len(piece))}{piece} |{''.join(2 * _shade(share) for share in row)}|"
        for piece, row in zip(targets, alignment.attention, strict=True)
    ]
    columns = [_characters(name) for name in names]
    feet = [
        " " * (width + 2) + "".join(_padded(name[line] if line < len(name) else "") for name in columns)
        for line in range(max(map(len, columns)))
    ]
    return "\n".join([*lines, *(foot.rstrip() for foot in feet)])


def to_plain(alignment: AttentionMap) -> str:
    """One line per target piece: the piece, the source piece with most attention, and its share."""
    rows = []
    targets = zip(alignment.target_tokens, alignment.attention, alignment.log_probabilities, strict=True)
    for piece, row, value in targets:
        place = max(range(len(row)), key=row.__getitem__)
        rows.append(f"{visible(piece)}\t{visible(alignment.source_tokens[place])}\t{row[place]:.4f}\t{value:+.4f}")
    return "\n".join(rows)


def write_html(alignment: AttentionMap, path: Path) -> None:
    """Writes a self-contained HTML page: a table of shaded cells whose shares show on hover."""
    heads = "".join(
        f"<th><span>{html.escape(piece.replace(WORD_START, ' '))}</span></th>" for piece in alignment.source_tokens
    )
    rows = "".join(
        f'<tr><th scope="row">{html.escape(piece.replace(WORD_START, " "))}</th>'
        + "".join(f'<td style="background:rgba({_ORANGE},{share:.3f})" title="{share:.4f}"></td>' for share in row)
        + "</tr>"
        for piece, row in zip(alignment.target_tokens, alignment.attention, strict=True)
    )
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Attention</title>
<style>body{{font:15px/1.4 Georgia,serif;max-width:70em;margin:3em auto;padding:0 1em;color:#222}} h1{{font-size:1.2em}}
table{{border-collapse:collapse}} td{{width:2em;height:1.7em;border:1px solid #eee}}
tr th[scope]{{text-align:right;padding-right:.6em}}
thead th{{font-weight:normal;vertical-align:bottom;height:7em}}
thead span{{writing-mode:vertical-rl;transform:rotate(180deg)}}
th{{white-space:pre;font-weight:normal}} p.note{{color:#666;font-size:.8em}}</style>
<h1>Attention of each piece of the translation</h1>
<table><thead><tr><td style="border:0"></td>{heads}</tr></thead><tbody>{rows}</tbody></table>
<p class="note">Rows: the translation, from top to bottom. Columns: the source. The stronger the colour, the larger the
share of the attention; hover for the number.</p></html>
"""
    with files.atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _shown(pieces: list[str]) -> list[str]:
    return [visible(piece.replace(WORD_START, " ")) for piece in pieces]


def _characters(name: str) -> list[str]:
    """Its characters, each with the marks that follow it and take no space of their own."""
    found: list[str] = []
    for character in name:
        if found and not cell_len(character):
            found[-1] += character
        else:
            found.append(character)
    return found


def _padded(character: str) -> str:
    """A character in two cells of the terminal; Chinese ones fill both."""
    return character + " " * (2 - cell_len(character))


def _shade(share: float) -> str:
    return _SHADES[min(int(share * len(_SHADES)), len(_SHADES) - 1)]
