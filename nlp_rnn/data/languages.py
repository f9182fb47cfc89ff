"""Checks that the sides of pairs are in the given languages and not exchanged."""

import functools
import re
import unicodedata
from collections.abc import Iterable

from nlp_rnn.config.settings import DataConfig
from nlp_rnn.errors import ConfigError

# Frequent words. Each language has some that no other has; a shared word counts for all its languages.
_COMMON_WORDS = {
    "cs": "je se na že to by jsem ale jako není", "da": "og det er ikke jeg til en af den på",
    "de": "der die und das ist nicht ein zu ich", "en": "the of and to in is that it you was",
    "es": "el la que de y en los se no es",
    "fi": "ja on ei että se oli hän mutta niin kun",
    "fr": "le la les et est des un une pas je", "hu": "a az és hogy nem egy is van de meg",
    "it": "il che di non è la un sono per si",
    "nl": "de het een en van ik niet dat is zijn", "no": "og det er ikke jeg til en av som på",
    "pl": "nie się w na to jest że do i z",
    "pt": "o que não de a os um uma é do", "ro": "și nu să de în la o că pe este",
    "sv": "och det är inte jag att en som på av",
    "tr": "bir ve bu ne için çok mi ben o de",
}  # fmt: skip
_SCRIPTS = {
    "ar": "ARABIC", "be": "CYRILLIC", "bg": "CYRILLIC", "el": "GREEK", "fa": "ARABIC", "he": "HEBREW",
    "hi": "DEVANAGARI",
    "hy": "ARMENIAN",
    "ja": "CJK HIRAGANA KATAKANA", "ka": "GEORGIAN", "ko": "HANGUL", "ru": "CYRILLIC", "th": "THAI", "uk": "CYRILLIC",
    "zh": "CJK",
}  # fmt: skip
_LEAST_EVIDENCE = 20  # words that the check needs


def check_order(data: DataConfig, pairs: Iterable[tuple[str, str]]) -> None:
    """Checks that source and target are not exchanged. Languages without a word list or script are not checked.

    Args:
      data: with source_language and target_language.
      pairs: a few hundred source and target sentences.

    Raises:
      ConfigError: if the sides seem to be exchanged.
    """
    source, target = (
        tag.replace("_", "-").split("-")[0].lower() for tag in (data.source_language, data.target_language)
    )
    if source == target or not {source, target} <= {*_COMMON_WORDS, *_SCRIPTS}:
        return
    straight = exchanged = 0
    for text, translation in pairs:
        straight += _evidence(text, source) + _evidence(translation, target)
        exchanged += _evidence(text, target) + _evidence(translation, source)
    if exchanged >= _LEAST_EVIDENCE and exchanged > 2 * straight:
        raise ConfigError(
            f"data.source_language is {data.source_language} and data.target_language is {data.target_language}, "
            "but the "
            f"source sentences read like {target} and the targets like {source}; exchange the two settings, or "
            "data.text_column and data.label_column"
        )


def _evidence(text: str, language: str) -> int:
    """The number of words that are typical of the language."""
    words = re.findall(r"[^\W\d_]+", text.lower())
    if language in _SCRIPTS:
        return sum(_script(word[0]) in _SCRIPTS[language].split() for word in words)
    return sum(word in _common_words(language) for word in words)


@functools.cache
def _common_words(language: str) -> frozenset[str]:
    return frozenset(_COMMON_WORDS[language].split())


@functools.cache
def _script(letter: str) -> str:
    return unicodedata.name(letter, "").split(" ")[0]
