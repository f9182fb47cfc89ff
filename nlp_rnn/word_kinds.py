"""What a token is for someone who types: a word, an emoji, or a sign between words."""

import regex

# An emoji of one or more code points: a flag, a keycap, or pictures joined by U+200D, each with its variation selector,
# skin tone or tags. For Python's regex and for RE2. Source: Unicode Technical Standard 51, emoji sequences.
_PICTURE = (
    "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u21aa\u231a-\u23ff\u24c2\u25aa-\u27bf\u2934-\u2b55\u3030\u303d"
    "\u3297\u3299\U0001f000-\U0001f1e5\U0001f200-\U0001f3fa\U0001f400-\U0001faff]"
    "[\ufe0f\U0001f3fb-\U0001f3ff]?[\U000e0020-\U000e007f]*"
)
EMOJI = f"[\U0001f1e6-\U0001f1ff]{{2}}|[0-9#*]\ufe0f?\u20e3|{_PICTURE}(?:\u200d{_PICTURE})*"

# Signs such as arrows and © are pictures too, but only these look like one, by themselves or with the selector.
_LOOKS_LIKE_EMOJI = regex.compile(r"\p{Emoji_Presentation}|.*[\ufe0f\u20e3]", regex.DOTALL)
_EMOJI = regex.compile(EMOJI)
_WORD = regex.compile(r"[\p{L}\p{N}]")
UNSEPARATED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*")  # no spaces
CONTRACTION = regex.compile(r"(?i)n['’]t|['’](?:s|re|ve|ll|d|m)")


def is_emoji(text: str) -> bool:
    """Whether a text is one whole emoji. A joiner, a selector or a skin tone alone is none."""
    return bool(_EMOJI.fullmatch(text) and _LOOKS_LIKE_EMOJI.match(text))


def is_word(text: str) -> bool:
    """Whether a text can be suggested as a word: it begins with a letter or digit and is not the end of another."""
    return bool(_WORD.match(text) and not CONTRACTION.fullmatch(text)) or is_emoji(text)
