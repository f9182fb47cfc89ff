"""Splits texts into the words, or characters, of `tokenization.tokenizer`, without TensorFlow."""

from typing import Any

import regex

from nlp_rnn.word_kinds import EMOJI, is_emoji

# The expressions of `word_splitters` and `normalization` for Python's regex. A test compares their results.
_CONTRACTION = regex.compile(r"(?i)(\p{L})(n['’]t|['’](?:s|re|ve|ll|d|m))(?![A-Za-z0-9_])")
_WORD = regex.compile(
    r"(?i:n['’]t(?![A-Za-z0-9_])|['’](?:s|re|ve|ll|d|m)(?![A-Za-z0-9_]))|[0-9]+(?:[.,:/][0-9]+)+"
    r"|[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*|[\p{L}\p{M}\p{N}_\u200c\u200d]+|\S"
)
_WORD_OR_EMOJI = regex.compile(f"{EMOJI}|{_WORD.pattern}")
_INVISIBLE = regex.compile(r"[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]+")
_SPACE = regex.compile(r"[\s\p{Z}\p{Cc}]+")
HTML_BREAK = regex.compile(r"(?i)<br\s*/?>")
# Capitals of Unicode 14 and later, which Python lowers, but TensorFlow 2.21 does not.
_NEW_CAPITALS = regex.compile(
    r"([\u1c89\u2c2f\ua7c0\ua7cb\ua7cc\ua7d0\ua7d6\ua7d8\ua7da\ua7dc\U00010570-\U00010595\U00010d50-\U00010d65])"
)


def split_whitespace(text: str) -> list[str]:
    """Splits like `word_splitters.SPLITTERS["whitespace"]`."""
    return text.split()


def split_unicode(text: str, *, whole_emoji: bool = False) -> list[str]:
    """Splits like `word_splitters.split_unicode`."""
    return (_WORD_OR_EMOJI if whole_emoji else _WORD).findall(_CONTRACTION.sub(r"\1 \2", text))


SPLITTERS = {"unicode": split_unicode, "whitespace": split_whitespace}
# A word goes on behind a joiner of Persian or Indic script.
_WORD_ENDS = {
    "unicode": regex.compile(r"[\p{L}\p{N}_][\p{M}\u200c\u200d]*$"),
    "whitespace": regex.compile(r"\S$"),
}


def split_text(text: str, *, splitter: str, lowercase: bool, html_breaks: bool, whole_emoji: bool = False) -> list[str]:
    """Splits a text into the words of `Tokenizer.pieces`."""
    text = _INVISIBLE.sub("", text)
    if html_breaks:
        text = HTML_BREAK.sub(" ", text)
    text = _SPACE.sub(" ", text).strip(" ")
    text = _to_lower(text) if lowercase else text
    return split_unicode(text, whole_emoji=True) if whole_emoji else SPLITTERS[splitter](text)


def splitting_of(settings: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `split_text` in an export's settings."""
    names = ("splitter", "lowercase", "html_breaks")
    return {name: settings[name] for name in names} | {"whole_emoji": settings.get("whole_emoji", False)}


def may_go_on(word: str, splitter: str) -> bool:
    """Whether the last word of a text may go on."""
    return bool(_WORD_ENDS[splitter].search(word)) and not is_emoji(word)


def split_characters(text: str, *, lowercase: bool) -> list[str]:
    """Splits a text into the characters of `Tokenizer.pieces` at level char: line ends become \\n."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return list(_to_lower(text) if lowercase else text)


def _to_lower(text: str) -> str:
    return "".join(part if number % 2 else part.lower() for number, part in enumerate(_NEW_CAPITALS.split(text)))
