"""The rules of `benchmarks.typing_words`, worked out by hand."""

import pytest

from benchmarks.typing_words import keys_to_mend


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
