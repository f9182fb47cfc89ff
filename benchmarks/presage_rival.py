"""Presage, an n-gram keyboard engine (Debian: libpresage1v5, libpresage-data), through its C interface."""

import ctypes
import ctypes.util
import tempfile
from pathlib import Path
from types import TracebackType

import regex

_CONFIG = Path("/etc/presage.xml")
_Callback = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)


class Presage:
    """Presage with its defaults, English n-grams and recency, but without learning.

    Args:
      count: number of suggestions.

    Raises:
      OSError: if it is not installed.
    """

    def __init__(self, count: int) -> None:
        self._library = ctypes.CDLL(ctypes.util.find_library("presage") or "libpresage.so.1")
        self._folder = tempfile.TemporaryDirectory()
        config = Path(self._folder.name) / "presage.xml"
        text = regex.sub(r"<SUGGESTIONS>\d+<", f"<SUGGESTIONS>{count}<", _CONFIG.read_text(encoding="utf-8"))
        # When it learns while it is used, version 0.9.1 ends with a failed assertion after some hundred words.
        text = regex.sub(r"<ONLINE_LEARNING>\w+<", "<ONLINE_LEARNING>no<", text)
        text = text.replace("${HOME}/.presage", self._folder.name)  # not the user's own data
        config.write_text(text, encoding="utf-8")
        self._typed, self._text = "", ctypes.create_string_buffer(b"")
        self._nothing = ctypes.create_string_buffer(b"")
        self._past = _Callback(lambda _: ctypes.addressof(self._text))
        self._future = _Callback(lambda _: ctypes.addressof(self._nothing))
        self._engine = ctypes.c_void_p()
        error = self._library.presage_new_with_config(
            self._past, None, self._future, None, str(config).encode(), ctypes.byref(self._engine)
        )
        if error:
            raise OSError(f"Presage does not start (error {error})")

    def __enter__(self) -> "Presage":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._library.presage_free(self._engine)
        self._folder.cleanup()

    def suggest(self, text: str) -> list[str]:
        """The suggested words after what was typed."""
        self._text = ctypes.create_string_buffer((self._typed + text)[-2000:].encode())
        words = ctypes.POINTER(ctypes.c_char_p)()
        if self._library.presage_predict(self._engine, ctypes.byref(words)):
            return []
        found: list[str] = []
        while (word := words[len(found)]) is not None:
            found.append(word.decode("utf-8", "replace"))
        self._library.presage_free_string_array(words)
        return found

    def finish_line(self, text: str) -> None:
        """Goes on in a new line."""
        self._typed = (self._typed + text + "\n")[-4000:]
