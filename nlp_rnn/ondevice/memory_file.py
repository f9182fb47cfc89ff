"""What the console has learnt, as a file: readable JSON with the user's words, and the continuous cache."""

import json
from pathlib import Path

from nlp_rnn import files
from nlp_rnn.errors import ConfigError
from nlp_rnn.ondevice.continuous_cache import ContinuousCache
from nlp_rnn.ondevice.personal_words import PersonalWords

_FORMAT = 1
_MAX_BYTES = 50_000_000
_MEND = "remove it, or give another file"


def save_memory(path: Path, words: PersonalWords, cache: ContinuousCache) -> None:
    """Writes the file atomically: a full disk leaves the old one."""
    content = {"format": _FORMAT, "words": words.to_json(), "cache": cache.to_json() if len(cache) else None}
    with files.atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8", newline="\n")


def load_memory(path: Path, words: PersonalWords, cache: ContinuousCache) -> None:
    """Reads a file of `save_memory`, or the arrays of earlier versions.

    Raises:
      ConfigError: if the file is not readable, damaged, of a newer version, or its cache of another model. What was
        learnt before stays.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(2)
            if path.stat().st_size > _MAX_BYTES:
                raise ConfigError(
                    f"{path}: has more than {_MAX_BYTES:,} bytes, so the console did not write it; {_MEND}"
                )
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give another file") from None
    try:
        if start == b"PK":
            cache.load_arrays(path)
            return
        content = files.read_json(path, dict, _MEND)
        if not isinstance(content.get("format"), int) or "words" not in content:
            raise ConfigError("is not a memory of the console")
        if content["format"] > _FORMAT:
            raise ConfigError(f"has the format {content['format']}, of a later version than this one ({_FORMAT})")
        before = words.to_json()
        try:
            words.from_json(content["words"])
            if content.get("cache") is not None:
                cache.from_json(content["cache"])
        except ConfigError:
            words.from_json(before)
            raise
    except ConfigError as error:
        told = str(error)
        raise error if told.startswith(str(path)) else ConfigError(f"{path}: {told}; {_MEND}") from None
