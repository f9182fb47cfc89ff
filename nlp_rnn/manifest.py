"""Writes and checks manifest.json, which holds a checksum of each file in a run directory, cache or export.

It is checked before the files are used. Without it, a damaged or exchanged file could give wrong results without an
error: one changed letter in a vocabulary shifts the ids of a model.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nlp_rnn import files
from nlp_rnn.errors import ConfigError

logger = logging.getLogger(__name__)

NAME = "manifest.json"
_FORMAT = 1


class DamagedFileError(ConfigError):
    """A file differs from its entry in the manifest."""


def write(folder: Path) -> None:
    """Writes the manifest of all files in a folder. The folder must not be in use yet."""
    entries = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME):
        entries[path.relative_to(folder).as_posix()] = {**_stamp(path), "blake2b": digest_of(path)}
    content = {"format": _FORMAT, "files": entries}
    (folder / NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8", newline="\n")


def check(folder: Path, mend: str, *, names: Iterable[str] | None = None, is_thorough: bool = True) -> bool:
    """Compares files with the folder's manifest.

    Args:
      folder: the folder with the manifest.
      mend: what to do about a damaged file, for the message.
      names: the files or folders to check; None: all files of the manifest. The folder may hold other files.
      is_thorough: whether to compare contents even if size and modification time equal those of the manifest.

    Returns:
      whether there is a manifest; folders of earlier versions have none.

    Raises:
      DamagedFileError: if a file is missing or differs, or the manifest is damaged; the message names the first one.
    """
    path = folder / NAME
    if not os.path.lexists(path):
        return False
    entries = _entries(path, mend)
    wanted = None if names is None else tuple(names)
    for name, entry in entries.items():
        if wanted is None or name in wanted or name.startswith(tuple(f"{each}/" for each in wanted)):
            _check_file(folder / name, entry, mend, is_thorough=is_thorough)
    missing = [each for each in wanted or () if not any(f"{name}/".startswith(f"{each}/") for name in entries)]
    if missing:
        raise DamagedFileError(f"{path}: does not name {missing[0]}, so it belongs to another folder; {mend}")
    return True


def identity(folder: Path, names: tuple[str, ...] = ()) -> str | None:
    """A digest that identifies a folder's contents.

    Args:
      names: files and folders that count; empty: all.

    Returns:
      the digest of the manifest without modification times, 32 hexadecimal digits; None if there is no manifest.

    Raises:
      DamagedFileError: if the manifest is damaged.
    """
    path = folder / NAME
    if not os.path.lexists(path):
        return None
    entries = _entries(path, "restore it from a copy")
    contents = {
        name: entry.get("blake2b")
        for name, entry in entries.items()
        if not names or name in names or name.startswith(tuple(f"{each}/" for each in names))
    }
    return hashlib.blake2b(json.dumps(contents, sort_keys=True).encode(), digest_size=16).hexdigest()


def digest_of(path: Path) -> str:
    """The checksum of a file: BLAKE2b with 16 bytes, as 32 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def log_missing(folder: Path) -> None:
    """Logs that a folder has no manifest."""
    logger.info("%s: has no %s (an earlier version wrote it), so damaged files are not detected", folder, NAME)


def _entries(path: Path, mend: str) -> dict[str, dict[str, Any]]:
    """The entries of a manifest by the files' names."""
    try:
        entries = files.read_json(path, dict, mend).get("files")
    except ConfigError as error:
        raise DamagedFileError(str(error)) from None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise DamagedFileError(f"{path}: is damaged (names no files); {mend}")
    return entries


def _check_file(path: Path, entry: Any, mend: str, *, is_thorough: bool) -> None:
    try:
        stamp = _stamp(path)
        if stamp["bytes"] != entry["bytes"]:
            raise DamagedFileError(
                f"{path}: has {stamp['bytes']:,} bytes, but had {entry['bytes']:,} when it was written; {mend}"
            )
        if (is_thorough or stamp["modified_ns"] != entry["modified_ns"]) and digest_of(path) != entry["blake2b"]:
            raise DamagedFileError(
                f"{path}: was changed or damaged since it was written (its checksum differs); {mend}"
            )
    except OSError as error:
        raise DamagedFileError(f"{path}: cannot be read ({error.strerror}); {mend}") from None
    except (KeyError, TypeError):
        raise DamagedFileError(f"{path.parent / NAME}: is damaged; {mend}") from None


def _stamp(path: Path) -> dict[str, int]:
    facts = os.stat(path)
    return {"bytes": facts.st_size, "modified_ns": facts.st_mtime_ns}
