import json
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nlp_rnn.ondevice.continuous_cache import SIZE, CacheSettings, ContinuousCache
from nlp_rnn.ondevice.words import split_text
from nlp_rnn.tokenization.tokenizer import Tokenizer

# --- the same words without TensorFlow -------------------------------------------------------------------------------

TOKENIZERS = {
    (splitter, case, emoji): Tokenizer("word", splitter=splitter, case=case, whole_emoji=emoji)
    for splitter, emoji in (("unicode", False), ("unicode", True), ("whitespace", False))
    for case in ("lower", "keep")
}
TEXT = st.text(
    st.one_of(
        st.sampled_from(
            "abcDEF ''’.,!? \n\t0123456789/-_<br/>nNtTsS\u00a0\u200b\ufeff\u0301\u4e00\u0e01\u200d"
            "\ufe0f\u20e3\u2764\u2642\U0001f1e9\U0001f1ea\U0001f44d\U0001f3fd\U0001f469\U000e0067\U000e007f"
        ),
        # Without what Unicode 15.1 added, which TensorFlow's tables do not know, and Python's do from 3.13 on.
        st.characters(exclude_categories=("Cs", "Co", "Cn")).filter(
            lambda character: not 0x2EBF0 <= ord(character) <= 0x2EE5D
        ),
    ),
    max_size=40,
)


@pytest.mark.parametrize(("splitter", "case", "emoji"), TOKENIZERS)
@settings(max_examples=300)
@given(text=TEXT)
@example("Don't you'll WE'VE it’s 3.5 1,000 10:30 <br />x<BR>y")
@example("\u0130stanbul \u03a3\u039f\u03a6\u039f\u03a3 stra\u00dfe \u01c5")
@example(
    "\u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u05e9\u05dc\u05d5\u05dd \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 "
    "\U0001f468\u200d\U0001f469"
)
def test_words_are_the_tokenizers(splitter, case, emoji, text):
    expected = [
        piece.decode("utf-8")
        for piece in TOKENIZERS[splitter, case, emoji].pieces(tf.constant([text.encode()])).to_list()[0]
    ]
    assert (
        split_text(text, splitter=splitter, lowercase=case == "lower", html_breaks=True, whole_emoji=emoji) == expected
    )


@pytest.mark.parametrize(("splitter", "case", "emoji"), TOKENIZERS)
def test_every_character_is_the_tokenizers(splitter, case, emoji):
    characters = [chr(point) for point in range(0x110000) if unicodedata.category(chr(point)) not in ("Cs", "Co", "Cn")]
    expected = (
        TOKENIZERS[splitter, case, emoji]
        .pieces(tf.constant([character.encode() for character in characters]))
        .to_list()
    )
    found = [
        split_text(character, splitter=splitter, lowercase=case == "lower", html_breaks=True, whole_emoji=emoji)
        for character in characters
    ]
    assert [[piece.decode() for piece in pieces] for pieces in expected] == found


# --- the cache -----------------------------------------------------------------------------------------------------


def test_cache_gives_what_followed_likely_places():
    cache = ContinuousCache(CacheSettings(share=0.25, theta=2.0), vocab_size=5, features=2)
    own = np.log(np.array([0.2, 0.2, 0.2, 0.2, 0.2], np.float32))
    np.testing.assert_array_equal(cache.mix(own, np.ones(2)), own)
    cache.add(np.array([1.0, 0.0]), 3)
    cache.add(np.array([0.0, 1.0]), 4)
    found = np.exp(cache.mix(own, np.array([1.0, 0.5])))
    weights = np.exp([2.0, 1.0]) / np.exp([2.0, 1.0]).sum()
    np.testing.assert_allclose(found, [0.15, 0.15, 0.15, 0.15 + 0.25 * weights[0], 0.15 + 0.25 * weights[1]], rtol=1e-5)


def test_cache_forgets_the_oldest_and_comes_back_from_files(tmp_path):
    cache = ContinuousCache(CacheSettings(share=0.5, theta=0.0), vocab_size=4, features=1)
    for token in [1] * 10 + [2] * SIZE:
        cache.add(np.ones(1), token)
    assert len(cache) == SIZE
    own = np.log(np.full(4, 0.25, np.float32))
    expected = cache.mix(own, np.ones(1))
    np.testing.assert_allclose(np.exp(expected), [0.125, 0.125, 0.625, 0.125], rtol=1e-5)
    again = ContinuousCache(CacheSettings(share=0.5, theta=0.0), vocab_size=4, features=1)
    again.from_json(json.loads(json.dumps(cache.to_json())))
    np.testing.assert_array_equal(again.mix(own, np.ones(1)), expected)
    np.savez(tmp_path / "memory.npz", keys=np.ones((SIZE, 1), np.float32), ids=np.full(SIZE, 2), count=SIZE)
    again.load_arrays(tmp_path / "memory.npz")  # as earlier versions wrote it
    np.testing.assert_allclose(np.exp(again.mix(own, np.ones(1)))[2], 0.625, rtol=1e-5)
    again.clear()
    assert not len(again)
