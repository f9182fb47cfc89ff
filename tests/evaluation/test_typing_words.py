"""The rules of `benchmarks.typing_words`, worked out by hand."""

import pytest

from benchmarks.typing_words import drawn, keys_to_mend, texts_of


@pytest.mark.parametrize(
    ("typed", "word", "keys"),
    [
        ("hell", "hell", 0),
        ("hel", "hell", 1),  # the missing letter
        ("", "a", 1),
        ("helll", "hell", 1),  # a backspace
        ("heol", "hell", 4),  # two backspaces, two letters
        ("ehll", "hell", 8),
    ],
)
def test_a_mistake_costs_backspaces_and_the_letters_from_there_on(typed, word, keys):
    assert keys_to_mend(typed, word) == keys


def test_texts_are_the_lines_of_a_file_or_a_split_of_a_config(tmp_path, monkeypatch):
    (tmp_path / "pairs.txt").write_text("One sentence.\tUna frase.\nAnother.\tOtra.\n", encoding="utf-8")
    assert list(texts_of(tmp_path / "pairs.txt", "test")) == ["One sentence.", "Another."]
    (tmp_path / "own.yaml").write_text(
        "task: next_word\ndata: {source: text, train: pairs.txt, validation: pairs.txt, test: test.txt, "
        "remove_repeated: false}\n",
        encoding="utf-8",
    )
    (tmp_path / "test.txt").write_text("A<br />text.\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert list(texts_of(tmp_path / "own.yaml", "test")) == ["A text."]


def test_lines_are_drawn_once_each_and_of_4_to_25_words():
    texts = ["one two three", "a b c d", "a b c d", "e f g h", " ".join("x" * 25), " ".join("x" * 26)]
    assert sorted(drawn(texts, 10)) == ["a b c d", "e f g h", " ".join("x" * 25)]
    assert len(drawn(texts, 2)) == 2
