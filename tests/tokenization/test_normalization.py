import random
import sys
import unicodedata

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_rnn.tokenization.normalization import normalize, normalize_nfkc, valid_utf8

STRINGS = [tf.TensorSpec([None], tf.string)]
nfkc = tf.function(normalize_nfkc, input_signature=STRINGS)
CHARACTERS = [chr(code_point) for code_point in range(sys.maxunicode + 1) if not 0xD800 <= code_point < 0xE000]


def normalized(text, **options):
    settings = {"lowercase": False, "nfkc": False, "html_breaks": True, "keep_spaces": False} | options
    return normalize(tf.constant([text]), **settings).numpy()[0].decode()


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("a<br /><BR>b\tc\u00a0\u3000d\x00\x85e \r\n", {}, "a b c d e"),
        ("a<br />b", {"html_breaks": False}, "a<br />b"),
        ("\ufeffsoft\u00adly \u200b", {}, "softly"),
        ("می\u200cخواهم 👩\u200d👧", {}, "می\u200cخواهم 👩\u200d👧"),
        ("ÜBER ΣΑΣ", {"lowercase": True}, "über σας"),
        ("ﬁn ＡＢＣ ½ Å e\u0301", {"nfkc": True}, "fin ABC 1⁄2 Å é"),
        ("a  b   \t<BR > c", {}, "a b c"),
        (" a\r\n\tb\rc ", {"keep_spaces": True}, " a\n\tb\nc "),
        ("", {"nfkc": True}, ""),
        ("e\u00ad\u0301", {"nfkc": True}, "é"),
    ],
)
def test_normalisation_worked_out_by_hand(text, options, expected):
    assert normalized(text, **options) == expected


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=12) | st.text(max_size=6).map(str.encode), max_size=3))
def test_invalid_utf8_becomes_replacement_characters(texts):
    found = valid_utf8(tf.constant(texts, tf.string)).numpy()
    assert (
        found.tolist() == tf.strings.unicode_transcode(tf.constant(texts, tf.string), "UTF-8", "UTF-8").numpy().tolist()
    )
    assert all(
        each.decode("utf-8") == text.decode("utf-8") for each, text in zip(found, texts, strict=True) if is_utf8(text)
    )


def is_utf8(data):
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("form", [None, "NFD", "NFKD"])
def test_every_code_point_has_pythons_normal_form(form):
    texts = CHARACTERS if form is None else [unicodedata.normalize(form, character) for character in CHARACTERS]
    found = nfkc(texts).numpy()
    wrong = [
        text for text, each in zip(texts, found, strict=True) if unicodedata.normalize("NFKC", text) != each.decode()
    ]
    assert wrong == []


def test_marks_in_any_order_have_pythons_normal_form():
    """Random runs of what decomposes, combines or composes: reordering, blocking, Hangul, pairs of starters."""
    generator = random.Random(0)
    lively = [c for c in CHARACTERS if unicodedata.combining(c) or not unicodedata.is_normalized("NFKC", c)]
    seconds = {unicodedata.normalize("NFD", c)[-1] for c in CHARACTERS if len(unicodedata.normalize("NFD", c)) > 1}
    kinds = [lively, sorted(seconds), list("aeiouAEIOU가각가"), [c for c in lively if unicodedata.combining(c)]]
    texts = [
        "".join(generator.choice(generator.choice(kinds)) for _ in range(generator.randint(0, 9)))
        for _ in range(50_000)
    ]
    assert [each.decode() for each in nfkc(texts).numpy()] == [unicodedata.normalize("NFKC", text) for text in texts]


@settings(max_examples=300)
@given(st.lists(st.text(max_size=30), max_size=4))
def test_any_texts_have_pythons_normal_form(texts):
    assert [each.decode() for each in nfkc(tf.constant(texts, tf.string)).numpy()] == [
        unicodedata.normalize("NFKC", text) for text in texts
    ]
