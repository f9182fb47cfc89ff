import pytest

from nlp_rnn.word_kinds import is_emoji, is_word

FAMILY, FLAG, KEYCAP = "\U0001f469\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "1\ufe0f\u20e3"
ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"


@pytest.mark.parametrize("text", ["cat", "3.5", "1,000", "हिन्दी", "می‌خواهم", "don", "word_2", "中"])
def test_words_begin_with_a_letter_or_digit(text):
    assert is_word(text)
    assert not is_emoji(text)


@pytest.mark.parametrize("text", [FAMILY, FLAG, KEYCAP, ENGLAND, "\U0001f44d\U0001f3fd", "\u2764\ufe0f", "\u26bd"])
def test_emoji_of_several_code_points_are_one(text):
    assert is_word(text)
    assert is_emoji(text)


@pytest.mark.parametrize(
    "text", ['"', ",", "@-@", "'s", "n't", "\u2192", "\u00a9", "\u200d", "\ufe0f", "\U0001f3fd", "\U0001f1e9", "ी", ""]
)
def test_signs_ends_of_contractions_and_parts_of_emoji_are_no_words(text):
    assert not is_word(text)
