import re

import numpy as np

from nlp_rnn.visualization.attributions import (
    Attribution,
    attribution_of,
    pieces_to_terminal,
    to_plain,
    to_terminal,
    write_html,
    write_png,
)

FOUND = Attribution("pos", 0.75, ["<b>", "good", "bad"], [0.0, 2.0, -1.0])


def test_terminal_colours_words_by_their_share():
    lines = to_terminal(FOUND).split("\n")
    assert "pos (75.0 %)" in lines[0]
    assert "48;2;217;96;26m" in lines[1].split("good")[0]  # the full orange before "good"
    assert "48;2;16;48;84m" in lines[1].split("bad")[0]  # half of the blue before "bad"
    assert re.sub("\x1b\\[[0-9;]*m", "", lines[1]).strip() == "<b> good bad"


def test_subwords_are_shown_as_the_text_they_make():
    found = Attribution("pos", 0.75, ["\u2581an", "\u2581extra", "ordinary"], [0.0, 2.0, -1.0])
    assert re.sub("\x1b\\[[0-9;]*m", "", to_terminal(found)).split("\n")[1] == "an extraordinary"


def test_characters_are_shown_as_the_text_they_make():
    found = Attribution("pos", 0.75, [*"good it"], [1.0] * 7)
    assert re.sub("\x1b\\[[0-9;]*m", "", to_terminal(found)).split("\n")[1] == "good it"


def test_pieces_are_shown_with_ids_and_unknown_ones_in_red():
    shown = pieces_to_terminal(["the", "xyzzy"], [7, 1])
    assert re.sub("\x1b\\[[0-9;]*m", "", shown) == "the7 xyzzy1 "
    assert "48;5;88mxyzzy" in shown
    assert "48;5;88m" not in shown.split("xyzzy")[0].split("the")[0]


def test_plain_lists_scores():
    assert to_plain(FOUND) == "pos (75.0 %)\n+0.0000\t<b>\n+2.0000\tgood\n-1.0000\tbad"


def test_html_escapes_words(tmp_path):
    write_html(FOUND, tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert 'background:rgba(217,96,26,0.80)" title="+2.0000">good' in page


def test_png_is_a_picture(tmp_path):
    write_png(Attribution("pos", 0.75, ["word"] * 300, [0.1] * 300), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_text_without_words_is_explained_too(tmp_path):
    empty = Attribution("neg", 0.5, [""], [0.0])
    write_png(empty, tmp_path / "a.png")
    assert to_plain(empty) == "neg (50.0 %)\n+0.0000\t"


def test_what_raises_a_score_does_not_support_the_lowest_label(tmp_path):
    answer = {"label": b"1", "probability": 0.6, "score": 1.5, "probabilities": np.array([0.6, 0.3, 0.1])}
    found = attribution_of(answer, {"tokens": [b"great", b"awful"], "attributions": [1.0, -2.0]})
    write_html(found, tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "Orange words raise the score, blue words lower it" in page
    write_html(FOUND, tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "Orange words support “pos”, blue words oppose it" in page


def test_plain_has_one_line_for_each_token():
    assert to_plain(Attribution("pos", 0.75, ["a", "\n", "b"], [0.0, 1.0, 2.0])).splitlines()[1:] == [
        "+0.0000\ta", r"+1.0000	\n", "+2.0000\tb",
    ]  # fmt: skip
