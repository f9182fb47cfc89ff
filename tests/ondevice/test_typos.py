import math

import pytest

from nlp_rnn.ondevice.typos import LAYOUTS, MIN_LETTERS, TypoModel, neighbours

WORDS = ["people", "kitchen", "garden", "zebra", "quick", "fox", "jumps", "very", "word"]


@pytest.mark.parametrize(
    ("layout", "key", "near"),
    [("qwerty", "g", "bfhtvy"), ("qwertz", "z", "ghtu"), ("azerty", "a", "qz"), ("qwertz", "ü", "pö")],
)
def test_keys_have_the_neighbours_of_their_layout(layout, key, near):
    assert set(near) <= set(neighbours(layout)[key])
    assert all(key in neighbours(layout)[other] for other in neighbours(layout)[key])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("peopke", "people"), ("pople", "people"), ("peoople", "people"), ("poeple", "people"), ("peopla", "people")],
    ids=["neighbour", "too few", "doubled", "exchanged", "another letter"],
)
def test_one_mistake_of_any_kind_is_understood(typed, meant):
    found = TypoModel(WORDS).meant(typed)
    assert meant in found
    assert typed not in found


def test_neighbours_are_likelier_than_other_letters():
    found = TypoModel(WORDS).meant("peopke")
    assert found["people"] > found["peopze"]


def test_the_layout_decides_what_is_near():
    qwerty, qwertz = (TypoModel(WORDS, layout).meant("zebra") for layout in ("qwerty", "qwertz"))
    assert qwertz["tebra"] > qwerty["tebra"]


def test_short_beginnings_are_taken_as_typed():
    assert TypoModel(WORDS).meant("pe"[: MIN_LETTERS - 1]) == {}
    assert TypoModel(WORDS).meant("x" * 1000) == {}


def test_letters_are_those_of_the_language():
    assert "γεια" in TypoModel(["γεια"]).meant("γεα")
    assert not any("q" in beginning for beginning in TypoModel(["γεια"]).meant("γεα"))


def test_every_mistake_is_less_likely_than_none():
    for layout in LAYOUTS:
        assert max(TypoModel(WORDS, layout).meant("garden").values()) < math.log(0.02)
