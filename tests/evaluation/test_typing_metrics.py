import numpy as np
import pytest

from nlp_rnn.evaluation.typing_metrics import KeyboardMeter

WORDS = ["", "<unk>", "", "", "cat", "car", "cart", "dog", "do", "done"]
SYMBOLS = np.array([True, False, True, True, *[False] * 6])
PROPOSABLE = ~SYMBOLS & (np.arange(10) != 1)


def meter():
    return KeyboardMeter(WORDS, PROPOSABLE, SYMBOLS)


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
    assert found["keystroke_savings"] == pytest.approx(1 - 1 / 5)
    assert found["mean_reciprocal_rank"] == pytest.approx(1 / 3)
    assert [found[f"recall_at_{k}"] for k in (1, 3, 5)] == [0, 1, 1]


def test_typing_narrows_the_suggestions():
    # Offered at first: dog, do, done; after "c" cat, car, cart.
    found = measure("cart", dog=0.4, do=0.2, done=0.15, cat=0.1, car=0.1, cart=0.05)
    assert found["keystroke_savings"] == pytest.approx(1 - 2 / 5)
    assert found["recall_at_5"] == 0


def test_a_word_never_offered_before_its_end_is_typed_whole():
    found = meter()
    words = ["", "a", "ab", "abc", "abd", "abe", "abf"]
    found = KeyboardMeter(words, np.array([False] + [True] * 6), np.array([True] + [False] * 6))
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
    assert result["keystroke_savings"] == pytest.approx(1 - (1 + 4) / 8)


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
