"""Text of unknown origin made safe to print: a control character in it could move the cursor, or run a terminal's commands."""

import json
import math
import re
from typing import Any

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_NOT_IN_JSON = re.compile("[\x7f-\x9f\ud800-\udfff]")  # what JSON leaves as it is
_LINE_ENDS = {"\n": "\\n", "\r": "\\r", "\u0085": "\\x85", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def printable(text: str) -> str:
    """The text with control characters, but for tabs and line ends, and halves of surrogate pairs as escapes such as \\x1b."""
    return _CONTROLS.sub(_escape, text)


def one_line(text: str) -> str:
    """As `printable`, with line ends as \\n: one line for one text."""
    return printable("".join(_LINE_ENDS.get(character, character) for character in text))


def to_json(value: Any, *, is_ascii: bool = False) -> str:
    """One valid line of JSON, safe to print: NaN and infinite numbers are null.

    Args:
      is_ascii: whether all but ASCII is escaped.
    """
    text = json.dumps(_finite(value), ensure_ascii=is_ascii, allow_nan=False)
    return _NOT_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
