"""Makes text safe to print. Control characters could move the cursor or run commands of the terminal."""

import json
import math
import re
from typing import Any

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_NOT_IN_JSON = re.compile("[\x7f-\x9f\ud800-\udfff]")  # json.dumps does not escape these
_MOST_SHOWN = 60  # characters
_LONG_WORD = re.compile(r"(\S{100})\S{300,}(\S{100})")
_LINE_ENDS = {"\n": "\\n", "\r": "\\r", "\u0085": "\\x85", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def printable(text: str) -> str:
    """Escapes control characters and unpaired surrogates, for example as \\x1b. Keeps tabs and line ends."""
    return _CONTROLS.sub(_escape, text)


def message(text: str) -> str:
    """Like `printable`, for messages: of a word of 500 characters or more, the first and last 100 are shown."""
    return printable(_LONG_WORD.sub(r"\1...\2", text))


def one_line(text: str) -> str:
    """Like `printable`, and also escapes line ends, for example as \\n, so that one text is one line."""
    return printable("".join(_LINE_ENDS.get(character, character) for character in text))


def visible(text: str) -> str:
    """Like `one_line`, and also escapes tabs, so that each character has a width."""
    return one_line(text).replace("\t", "\\t")


def to_json(value: Any, *, is_ascii: bool = False) -> str:
    """Formats a value as one line of valid JSON that is safe to print. NaN and infinite numbers become null.

    Args:
      value: of dicts, lists, tuples, strings, numbers, booleans and None.
      is_ascii: whether to escape all non-ASCII characters.
    """
    text = json.dumps(_finite(value), ensure_ascii=is_ascii, allow_nan=False)
    return _NOT_IN_JSON.sub(lambda control: f"\\u{ord(control[0]):04x}", text)


def _escape(control: re.Match[str]) -> str:
    code = ord(control[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value


def shortened(word: str) -> str:
    """A word of the user's for a message: at most 60 characters of it."""
    return word if len(word) <= _MOST_SHOWN else word[:_MOST_SHOWN] + "..."
