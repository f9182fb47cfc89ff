import itertools
import math
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_rnn.tokenization.unigram import Segmenter

PIECES = [None, "a", "b", "ab", "ba", "abab", "cab", "日", "日本"]
SCORES = [0.0, -2.0, -2.5, -3.0, -3.5, -7.0, -4.0, -5.0, -6.0]
STRINGS = [tf.TensorSpec([None], tf.string)]
segmenter = Segmenter(PIECES, SCORES)
segment = tf.function(segmenter.segment, input_signature=STRINGS)


def ways(word):
    """All segmentations of a word with their scores; a character that is no piece is len(PIECES) + code point."""
    if not word:
        return [((), 0.0)]
    found = []
    for length in range(1, len(word) + 1):
        head, rest = word[:length], ways(word[length:])
        if head in PIECES:
            found += [((PIECES.index(head), *tail), SCORES[PIECES.index(head)] + score) for tail, score in rest]
        elif length == 1:
            found += [((len(PIECES) + ord(head), *tail), min(SCORES) - 10 + score) for tail, score in rest]
    return found


def best(word):
    """The best sum; of equal ones the longest last piece, then the longest one before it, and so on."""
    lengths = [len(piece or "") for piece in PIECES]
    return list(
        max(ways(word), key=lambda way: (way[1], [lengths[n] if n < len(PIECES) else 1 for n in reversed(way[0])]))[0]
    )


def test_words_worked_out_by_hand():
    assert segment(["abab", "日本ab", "", "x", "cab"]).to_list() == [[3, 3], [8, 3], [], [9 + ord("x")], [6]]


def test_all_short_words_have_their_best_segmentation():
    words = ["".join(letters) for length in range(7) for letters in itertools.product("abcd", repeat=length)]
    assert segment(words).to_list() == [best(word) for word in words]


@settings(max_examples=100)
@given(st.lists(st.text(st.sampled_from("abc日本x"), max_size=9), max_size=5))
def test_any_words_have_their_best_segmentation(words):
    assert segment(tf.constant(words, tf.string)).to_list() == [best(word) for word in words]


def test_drawn_segmentations_follow_their_probabilities():
    word, temperature, draws = "ababa", 1.5, 20_000
    weights = {way: math.exp(score / temperature) for way, score in ways(word)}
    sampled = segmenter.sample(tf.constant([word] * draws), temperature=temperature, seed=tf.constant([1, 2]))
    counts = Counter(map(tuple, sampled.to_list()))
    assert set(counts) <= set(weights)
    for way, weight in weights.items():
        share = weight / sum(weights.values())
        assert abs(counts[way] / draws - share) < 4 * math.sqrt(share * (1 - share) / draws) + 1e-4


def test_a_seed_draws_the_same_and_a_low_temperature_the_best():
    words = tf.constant(["ababab", "cabba", "x日本"])

    def draw(seed, temperature):
        return segmenter.sample(words, temperature=temperature, seed=tf.constant(seed)).to_list()

    assert draw([1, 1], 2.0) == draw([1, 1], 2.0)
    assert any(draw([1, 1], 2.0) != draw([1, step], 2.0) for step in range(2, 9))
    assert draw([1, 1], 0.01) == segment(words).to_list()


def test_pieces_of_many_characters_are_refused():
    with pytest.raises(ValueError, match="64 characters"):
        Segmenter(["a" * 64], [-1.0])


def test_scores_are_exact_sums_wherever_the_word_stands():
    """In float32 the same two ways differ or not with what was summed before them."""
    close = Segmenter([None, "a", "b", "ab", "c"], [0.0, -1.0, -1.0, np.nextafter(-2, -3), -1000.0])
    assert close.segment(tf.constant(["ab", "c" * 50 + "ab"])).to_list() == [[3], [4] * 50 + [3]]


@pytest.mark.further
def test_long_words_are_cut_before_they_are_segmented():
    """The loops take as many steps as the longest word, so one of a million letters held a translator for 75 s."""
    word = "cab" * 833 + "x"  # 2,500 characters
    parts = [word[:1000], word[1000:2000], word[2000:]]
    one, two, three = segment(parts).to_list()
    words = ["ab", word, "", "b" * 1000, word[:1001]]
    assert segment(words).to_list() == [
        [3],
        one + two + three,
        [],
        [2] * 1000,
        one + segment([word[1000]]).to_list()[0],
    ]
    drawn = segmenter.sample(tf.constant(words), temperature=0.01, seed=tf.constant([1, 2]))
    assert drawn.to_list() == segment(words).to_list()
