"""Word attributions as coloured text: terminal, HTML, PNG. Orange speaks for the label, blue against it."""

import html
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from nlp_rnn import files

_ORANGE, _BLUE = (217, 96, 26), (31, 95, 168)


class Attribution(NamedTuple):
    """A text's words and what each adds to the log-odds of `label`."""

    label: str
    probability: float
    words: list[str]
    scores: list[float]

    @property
    def title(self) -> str:
        """One line: the verdict."""
        return f"{self.label} ({100 * self.probability:.1f} %)"


def attribute(loaded: Any, text: str) -> Attribution:
    """Asks an exported classifier's `explain` signature about one text; scores are for the label it answers."""
    strings = tf.constant([text.encode("utf-8", "surrogateescape")])
    answer = {name: value.numpy()[0] for name, value in loaded.classify(strings).items()}
    found = {name: value.numpy()[0] for name, value in loaded.explain(strings).items()}
    winner, probabilities = int(answer["probabilities"].argmax()), answer["probabilities"]
    sign = -1 if len(probabilities) == 2 and winner == 0 else 1  # of two, the signature explains the positive one
    words = [word.decode("utf-8") for word in found["tokens"]]
    scores = [sign * float(score) for score in found["attributions"]]
    return Attribution(answer["label"].decode("utf-8"), float(probabilities[winner]), words, scores)


def to_terminal(attribution: Attribution) -> str:
    """The words with ANSI background colours, the verdict first."""
    from rich.console import Console
    from rich.text import Text

    text = Text(attribution.title + "\n", style="bold")
    for word, share in _shares(attribution):
        color = _mixed(share, (0, 0, 0))
        text.append(word, style=f"white on rgb({color[0]},{color[1]},{color[2]})" if abs(share) > 0.05 else "")
        text.append(" ")
    console = Console(force_terminal=True, color_system="truecolor")
    with console.capture() as capture:
        console.print(text, soft_wrap=True)
    return capture.get().rstrip("\n")


def to_plain(attribution: Attribution) -> str:
    """The verdict, then a word and its score a line: for pipes."""
    rows = [f"{score:+.4f}\t{word}" for word, score in zip(attribution.words, attribution.scores, strict=True)]
    return "\n".join([attribution.title, *rows])


def write_html(attribution: Attribution, path: Path) -> None:
    """A page that needs nothing else; a word's score shows on hover."""
    spans = []
    for (word, share), score in zip(_shares(attribution), attribution.scores, strict=True):
        red, green, blue = _ORANGE if share > 0 else _BLUE
        style = f"background:rgba({red},{green},{blue},{0.8 * abs(share):.2f})"
        spans.append(f'<span style="{style}" title="{score:+.4f}">{html.escape(word)}</span>')
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(attribution.title)}</title>
<style>body{{font:17px/1.9 Georgia,serif;max-width:46em;margin:3em auto;padding:0 1em;color:#222}}
h1{{font-size:1.2em}} span{{padding:.15em .1em;border-radius:.2em}} p.note{{color:#666;font-size:.8em}}</style>
<h1>{html.escape(attribution.title)}</h1>
<p dir="auto">{" ".join(spans)}</p>
<p class="note">Orange words speak for “{html.escape(attribution.label)}”, blue ones against it (integrated gradients;
hover for the share of the log-odds).</p></html>
"""
    with files.atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def write_png(attribution: Attribution, path: Path) -> None:
    """The same as a picture."""
    from nlp_rnn.plots import plot_attributions

    plot_attributions(attribution.words, attribution.scores, path, title=attribution.title)


def _shares(attribution: Attribution) -> list[tuple[str, float]]:
    largest = max((abs(score) for score in attribution.scores), default=0.0) or 1.0
    return [(word, score / largest) for word, score in zip(attribution.words, attribution.scores, strict=True)]


def _mixed(share: float, background: tuple[int, int, int]) -> tuple[int, ...]:
    """The colour of a share in [-1, 1] over a background."""
    color = _ORANGE if share > 0 else _BLUE
    return tuple(round(abs(share) * front + (1 - abs(share)) * back) for front, back in zip(color, background, strict=True))
