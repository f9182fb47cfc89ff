"""Coloured text: pieces with ids, word attributions, activations of a unit.

Orange words support the predicted label, or raise a score on a scale; blue words oppose it, or lower the score.
"""

import html
from pathlib import Path
from typing import Any, NamedTuple

from nlp_rnn import files
from nlp_rnn.printable import printable, visible
from nlp_rnn.special_ids import UNK_ID, WORD_START
from nlp_rnn.visualization.colors import BLUE, ORANGE

_BLUE_STYLE = f"rgb({','.join(map(str, BLUE))})"


# --- pieces --------------------------------------------------------------------------------------------------------


def tokens_of(loaded: Any, text: bytes, *, is_terminal: bool) -> tuple[dict[str, Any], str]:
    """The pieces and ids of a text as an exported model reads it, and the decoded ids: as facts, and formatted."""
    import tensorflow as tf

    answer = {name: value.numpy()[0] for name, value in loaded.tokenize(tf.constant([text])).items()}
    pieces = [piece.decode("utf-8") for piece in answer["tokens"]]
    facts = {"pieces": pieces, "ids": answer["token_ids"].tolist(), "text": answer["text"].decode("utf-8")}
    show = pieces_to_terminal if is_terminal else pieces_to_plain
    return facts, f"{show(pieces, facts['ids'])}\n{printable(facts['text'])}"


def pieces_to_terminal(pieces: list[str], token_ids: list[int]) -> str:
    """Formats the pieces on two alternating background colours, with their ids dimmed; unknown pieces in red."""
    from rich.text import Text

    text = Text()
    for number, (piece, token_id) in enumerate(zip(pieces, token_ids, strict=True)):
        background = "dark_red" if token_id == UNK_ID else (_BLUE_STYLE, "rgb(60,60,60)")[number % 2]
        text.append(printable(piece), style=f"white on {background}")
        text.append(f"{token_id} ", style="dim")
    return _to_ansi(text)


def pieces_to_plain(pieces: list[str], token_ids: list[int]) -> str:
    """Formats piece/id pairs, for pipes."""
    return " ".join(f"{printable(piece)}/{number}" for piece, number in zip(pieces, token_ids, strict=True))


# --- attributions --------------------------------------------------------------------------------------------------


class Attribution(NamedTuple):
    """The tokens of a text and what each adds to the log-odds of `label`.

    Attributes:
      is_scale: whether labels are scores on a scale. What each token adds is then to the log-odds that the score is
        above the lowest, whatever the label.
    """

    label: str
    probability: float
    tokens: list[str]
    scores: list[float]
    is_scale: bool = False

    @property
    def title(self) -> str:
        """One line: the predicted label."""
        return f"{self.label} ({100 * self.probability:.1f} %)"


def attribute(loaded: Any, text: str | bytes) -> Attribution:
    """Calls an exported classifier's `explain` signature for one text. See `Attribution` for the scores."""
    import tensorflow as tf

    strings = tf.constant([text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text])
    answer = {name: value.numpy()[0] for name, value in loaded.classify(strings).items()}
    facts = {name: value.numpy()[0] for name, value in loaded.explain(strings).items()}
    return attribution_of(answer, facts)


def attribution_of(answer: dict[str, Any], facts: dict[str, Any]) -> Attribution:
    """The attribution of one text, from its outputs of `classify` and `explain`."""
    winner, probabilities = int(answer["probabilities"].argmax()), answer["probabilities"]
    tokens, scores = [each.decode("utf-8") for each in facts["tokens"]], [float(each) for each in facts["attributions"]]
    if "labels" in answer:  # a label set: the signature explains the most likely label
        return Attribution(answer["labels"][winner].decode("utf-8"), float(probabilities[winner]), tokens, scores)
    if "score" in answer:  # a scale: the scores are of what raised the score
        label = answer["label"].decode("utf-8")
        return Attribution(label, float(answer["probability"]), tokens, scores, is_scale=True)
    if len(probabilities) == 2 and winner == 0:  # of two, the signature explains the positive one
        scores = [-score for score in scores]
    return Attribution(answer["label"].decode("utf-8"), float(probabilities[winner]), tokens, scores)


def to_terminal(attribution: Attribution) -> str:
    """Formats the predicted label and the words with ANSI background colours."""
    from rich.text import Text

    text = Text(printable(attribution.title) + "\n", style="bold")
    for space, word, share in _shares(attribution):
        color = _mixed(share, (0, 0, 0))
        text.append(space)
        text.append(
            printable(word), style=f"white on rgb({color[0]},{color[1]},{color[2]})" if abs(share) > 0.05 else ""
        )
    return _to_ansi(text)


def to_plain(attribution: Attribution) -> str:
    """Formats the predicted label, then one line per word with its score, for pipes."""
    tokens = map(visible, attribution.tokens)
    rows = [f"{score:+.4f}\t{word}" for word, score in zip(tokens, attribution.scores, strict=True)]
    return "\n".join([attribution.title, *rows])


def write_html(attribution: Attribution, path: Path) -> None:
    """Writes a self-contained HTML page. The score of a word shows on hover."""
    spans = []
    for (space, word, share), score in zip(_shares(attribution), attribution.scores, strict=True):
        red, green, blue = ORANGE if share > 0 else BLUE
        style = f"background:rgba({red},{green},{blue},{0.8 * abs(share):.2f})"
        spans.append(f'{space}<span style="{style}" title="{score:+.4f}">{html.escape(word)}</span>')
    support, oppose = f"support “{html.escape(attribution.label)}”", "oppose it"
    if attribution.is_scale:
        support, oppose = "raise the score", "lower it"
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(attribution.title)}</title>
<style>body{{font:17px/1.9 Georgia,serif;max-width:46em;margin:3em auto;padding:0 1em;color:#222}}
h1{{font-size:1.2em}} span{{padding:.15em .1em;border-radius:.2em}} p.note{{color:#666;font-size:.8em}}</style>
<h1>{html.escape(attribution.title)}</h1>
<p dir="auto">{"".join(spans)}</p>
<p class="note">Orange words {support}, blue words {oppose} (integrated gradients; hover for the share of the
log-odds).</p></html>
"""
    with files.atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def write_png(attribution: Attribution, path: Path) -> None:
    """Draws the pieces on their colours."""
    from nlp_rnn.visualization.plots import plot_attributions

    plot_attributions(_shares(attribution), path, title=attribution.title)


# --- activations ------------------------------------------------------------------------------------------------------


def activations_to_terminal(characters: list[str], values: list[float]) -> str:
    """Formats a text, each character on a background of its activation: orange above zero, blue below."""
    from rich.text import Text

    text, largest = Text(), max((abs(value) for value in values), default=0.0) or 1.0
    for character, value in zip(characters, values, strict=True):
        red, green, blue = _mixed(value / largest, (0, 0, 0))
        text.append(printable(character), style=f"white on rgb({red},{green},{blue})")
    return _to_ansi(text)


def _shares(attribution: Attribution) -> list[tuple[str, str, float]]:
    """(space before it, word, score in [-1, 1]) of each word. Subwords include their spaces as U+2581."""
    largest = max((abs(score) for score in attribution.scores), default=0.0) or 1.0
    are_subwords = any(word.startswith(WORD_START) and len(word) > 1 for word in attribution.tokens)
    are_words = not are_subwords and any(len(word) > 1 for word in attribution.tokens)  # not characters
    rows = []
    for number, (word, score) in enumerate(zip(attribution.tokens, attribution.scores, strict=True)):
        has_space = number and (are_words or (are_subwords and word.startswith(WORD_START)))
        rows.append(
            (" " if has_space else "", word.removeprefix(WORD_START) if are_subwords else word, score / largest)
        )
    return rows


def _to_ansi(text: Any) -> str:
    from rich.console import Console

    console = Console(force_terminal=True, color_system="truecolor")
    with console.capture() as capture:
        console.print(text, soft_wrap=True)
    return capture.get().rstrip("\n")


def _mixed(share: float, background: tuple[int, int, int]) -> tuple[int, ...]:
    """The colour of a share in [-1, 1] over a background."""
    color = ORANGE if share > 0 else BLUE
    return tuple(
        round(abs(share) * front + (1 - abs(share)) * back) for front, back in zip(color, background, strict=True)
    )
