"""Emoji of several code points are one word."""

import pytest
import tensorflow as tf

from nlp_rnn.config.settings import TokenizerConfig
from nlp_rnn.tokenization.build import untrained_tokenizer
from nlp_rnn.tokenization.tokenizer import Tokenizer

FAMILY, THUMB, FLAG, HEART = (
    "\U0001f469\u200d\U0001f467",
    "\U0001f44d\U0001f3fd",
    "\U0001f1e9\U0001f1ea",
    "\u2764\ufe0f",
)


def test_an_emoji_of_several_code_points_is_one_word():
    tokenizer = untrained_tokenizer(TokenizerConfig())
    words = tokenizer.pieces(tf.constant([f"hi{FAMILY}{THUMB} {FLAG}{FLAG}{HEART}!"])).to_list()[0]
    assert [word.decode() for word in words] == ["hi", FAMILY, THUMB, FLAG, FLAG, HEART, "!"]


def test_a_tokenizer_of_an_earlier_version_cuts_emoji_as_before(tmp_path):
    Tokenizer("word", vocabulary=["hi"]).save(tmp_path)
    assert "whole_emoji" not in (tmp_path / "tokenizer.json").read_text()
    words = Tokenizer.load(tmp_path).pieces(tf.constant([f"hi {THUMB}"])).to_list()[0]
    assert [word.decode() for word in words] == ["hi", THUMB[0], THUMB[1]]


def test_only_the_unicode_splitter_keeps_emoji_whole():
    with pytest.raises(ValueError, match="whole_emoji is for words"):
        Tokenizer("word", splitter="whitespace", whole_emoji=True)
