import gc
import weakref

import numpy as np
import pytest

from nlp_rnn.evaluation.typing_metrics import KeyboardMeter

WORDS = ["", "\ufffd", "", "", "cat", "car", "cart", "dog", "do", "done"]
SYMBOLS = np.array([True, False, True, True, *[False] * 6])
PROPOSABLE = ~SYMBOLS & (np.arange(10) != 1)


def meter():
    return KeyboardMeter(WORDS, PROPOSABLE, SYMBOLS, splitter="unicode")


def row(**scores):
    """Log-probabilities: those given by word, the others tiny."""
    found = np.full(10, 1e-6)
    for word, score in scores.items():
        found[WORDS.index(word)] = score
    return np.log(found / found.sum())


def measure(target, **scores):
    found = meter()
    found.update(
        row(**scores)[None].astype(np.float32), np.array([target if isinstance(target, int) else WORDS.index(target)])
    )
    return found.result()


def test_a_word_among_the_first_three_costs_one_key():
    found = measure("cart", dog=0.5, do=0.3, cart=0.2)
    assert found["keystroke_savings"] == pytest.approx(1 - 1 / 4)
    assert found["mean_reciprocal_rank"] == pytest.approx(1 / 3)
    assert [found[f"recall_at_{k}"] for k in (1, 3, 5)] == [0, 1, 1]


def test_typing_narrows_the_suggestions():
    # Offered at first: dog, do, done; after "c" cat, car, cart.
    found = measure("cart", dog=0.4, do=0.2, done=0.15, cat=0.1, car=0.1, cart=0.05)
    assert found["keystroke_savings"] == pytest.approx(1 - 2 / 4)
    assert found["recall_at_5"] == 0


def test_a_word_never_offered_before_its_end_is_typed_whole():
    words = ["", "a", "ab", "abc", "abd", "abe", "abf"]
    found = KeyboardMeter(words, np.array([False] + [True] * 6), np.array([True] + [False] * 6), splitter="unicode")
    scores = np.log(np.array([1e-9, 1e-3, 1e-3, 0.3, 0.3, 0.3, 0.05], np.float32))
    found.update(scores[None], np.array([2]))  # "ab": abc, abd and abe are likelier until its end
    assert found.result()["keystroke_savings"] == 0


def test_unknown_words_are_misses_and_typed_at_the_mean_length():
    found = meter()
    scores = np.stack([row(dog=0.9), row(dog=0.9)]).astype(np.float32)
    found.update(scores, np.array([7, 1]))
    result = found.result()
    assert result["num_words"] == 2
    assert result["recall_at_1"] == 0.5
    assert result["keystroke_savings"] == pytest.approx(
        1 - (1 + 3) / 7
    )  # dog, the space that it brought, and three letters


def test_symbols_count_for_the_perplexity_only():
    found = measure(3, dog=0.5)
    assert found["num_tokens"] == 1
    assert found["num_words"] == 0
    assert found["cross_entropy"] == pytest.approx(-row(dog=0.5)[3], rel=1e-5)
    assert found["perplexity"] == pytest.approx(np.exp(found["cross_entropy"]))


def test_equal_scores_do_not_all_come_first():
    found = measure("dog")  # all equal: in the order of the alphabet dog is the fifth of six
    assert found["mean_reciprocal_rank"] == pytest.approx(1 / 5)
    assert found["recall_at_3"] == 0


SIGNS = ["", "\ufffd", "", "", "cat", "(", "dog", ")", ",", '"', "'s", "@-@", "-", "n't", "do"]


def keys(text, *, known, splitter="whitespace"):
    """(characters, keys) of a text of SIGNS where the words in `known` are the first suggestion and others are none."""
    is_symbol = np.array([not word for word in SIGNS])
    found = KeyboardMeter(SIGNS, np.isin(SIGNS, known), is_symbol, splitter=splitter)
    targets = np.array([SIGNS.index(word) for word in text.split()] + [3])
    scores = np.full((len(targets), len(SIGNS)), -9.0, np.float32)
    scores[np.arange(len(targets)), targets] = 0
    found.update(scores, targets)
    return found._characters, found._keys


@pytest.mark.parametrize(
    ("text", "typed", "accepted"),
    [
        ("cat dog", "cat dog", 2),
        ("cat , dog", "cat, dog", 1 + 1 + 1 + 1),  # the comma replaces the space of cat, so another one is typed
        ("cat ( dog ) cat", "cat (dog) cat", 1 + 1 + 1 + 1 + 1 + 1),
        ('cat " dog " cat', 'cat "dog" cat', 1 + 1 + 1 + 1 + 1 + 1),
        ("cat 's dog", "cat's dog", 1 + 2 + 1 + 1),
        ("do n't dog", "don't dog", 1 + 3 + 1 + 1),
        ("cat @-@ dog", "cat-dog", 1 + 1 + 1),
        ("cat - dog", "cat - dog", 1 + 1 + 1 + 1),
    ],
)
def test_signs_cost_what_they_cost_to_type(text, typed, accepted):
    assert keys(text, known=["cat", "dog", "do"]) == (len(typed), accepted)


def test_a_hyphen_that_the_splitter_cut_is_joined_again():
    assert keys("cat - dog", known=["cat", "dog"], splitter="unicode") == (len("cat-dog"), 3)


def test_signs_are_no_words_and_take_no_suggestion():
    found = KeyboardMeter(
        SIGNS, np.isin(SIGNS, ["cat", "dog"]), np.array([not word for word in SIGNS]), splitter="whitespace"
    )
    scores = np.array([[-9.0] * len(SIGNS)], np.float32)
    scores[0, [5, 7, 8, 9]] = 0  # brackets, comma and quote are likelier than any word
    scores[0, 4] = -1
    found.update(scores, np.array([4]))
    found.update(scores, np.array([8]))
    assert found.result()["num_words"] == 1
    assert found.result()["recall_at_1"] == 1


def test_a_meter_and_its_cached_places_are_freed():
    found = meter()
    found.update(np.stack([row(dog=5), row(cart=2, cat=3)]).astype(np.float32), np.array([WORDS.index("cart")] * 2))
    alive = weakref.ref(found)
    del found
    gc.collect()
    assert alive() is None
