import json

from hypothesis import given
from hypothesis import strategies as st

from nlp_rnn.printable import message, one_line, printable, shortened, to_json
from tests.conftest import run_pipeline


def test_control_characters_become_escapes():
    assert printable("a\x1b[31mred\x07\x9b2J\x7f\ud83d\tb\n") == "a\\x1b[31mred\\x07\\x9b2J\\x7f\\ud83d\tb\n"
    assert one_line("a\r\nb\u2028c\x00") == "a\\r\\nb\\u2028c\\x00"


def test_text_in_other_scripts_stays():
    assert printable("日本語 😀 שלום crème") == "日本語 😀 שלום crème"


@given(
    st.recursive(
        st.text() | st.floats() | st.integers() | st.none(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    )
)
def test_json_is_one_valid_line_without_control_characters(value):
    for is_ascii in (False, True):
        text = to_json(value, is_ascii=is_ascii)
        json.loads(text, parse_constant=lambda name: 1 / 0)
        assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in text)


def test_json_gives_back_its_text_and_null_for_nan():
    assert json.loads(to_json({"text": "\x1b\x9b\n日", "share": float("nan"), "row": (1, float("inf"))})) == {
        "text": "\x1b\x9b\n日", "share": None, "row": [1, None],
    }  # fmt: skip


def test_a_long_word_is_shortened_and_so_is_an_unknown_command(tmp_path):
    assert shortened("a" * 60) == "a" * 60
    assert shortened("a" * 61) == "a" * 60 + "..."
    assert len(run_pipeline("a/" * 2000, cwd=tmp_path).stderr) < 300


def test_messages_repeat_no_long_words(tmp_path):
    assert message("a\x1b " + "b" * 499) == "a\\x1b " + "b" * 499
    assert message("is " + "b" * 250 + "c" * 250 + ", but") == "is " + "b" * 100 + "..." + "c" * 99 + ", but"
    refused = run_pipeline("train", "a/" * 2000, cwd=tmp_path)
    assert refused.returncode == 2
    assert len(refused.stderr) < 400
