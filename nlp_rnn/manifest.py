"""manifest.json: a checksum of each file in a run directory, a cache or an export, checked before the files are used.

A damaged or exchanged file would otherwise give wrong answers silently: one changed letter in a vocabulary moves the ids
of a model.
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
    """A file is not the one that the manifest names."""


def write(folder: Path) -> None:
    """Writes the manifest of all files now in a folder that is not in use yet."""
    entries = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME):
        entries[path.relative_to(folder).as_posix()] = {**_stamp(path), "blake2b": digest_of(path)}
    content = {"format": _FORMAT, "files": entries}
    (folder / NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8", newline="\n")


def check(folder: Path, mend: str, *, names: Iterable[str] | None = None, is_thorough: bool = True) -> bool:
    """Compares files with the folder's manifest.

    Args:
      mend: what to do about a damaged file.
      names: of the files or folders to check; None: all of the manifest. Others may be there too.
      is_thorough: whether contents are compared also where size and time of the last change are those of the manifest.

    Returns:
      whether there is a manifest; folders that earlier versions wrote have none.

    Raises:
      DamagedFileError: naming the first file that is missing or another one.
    """
    path = folder / NAME
    if not path.is_file():
        return False
    entries = files.read_json(path, dict, mend).get("files")
    if not isinstance(entries, dict):
        raise DamagedFileError(f"{path}: is damaged (names no files); {mend}")
    wanted = None if names is None else tuple(names)
    for name, entry in entries.items():
        if wanted is None or name in wanted or name.startswith(tuple(f"{each}/" for each in wanted)):
            _check_file(folder / name, entry, mend, is_thorough=is_thorough)
    missing = [each for each in wanted or () if not any(f"{name}/".startswith(f"{each}/") for name in entries)]
    if missing:
        raise DamagedFileError(f"{path}: does not name {missing[0]}, so it is of another folder; {mend}")
    return True


def identity(folder: Path) -> str | None:
    """A digest of a folder's manifest that does not depend on times; None without one. It tells folders apart."""
    path = folder / NAME
    if not path.is_file():
        return None
    entries = files.read_json(path, dict, "restore it from a copy").get("files", {})
    contents = {name: entry.get("blake2b") for name, entry in entries.items()}
    return hashlib.blake2b(json.dumps(contents, sort_keys=True).encode(), digest_size=16).hexdigest()


def digest_of(path: Path) -> str:
    """The checksum of a file: BLAKE2b, 16 bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def tell_of_missing(folder: Path) -> None:
    """Logs that a folder has no manifest."""
    logger.info("%s: has no %s (an earlier version wrote it), so damaged files would not be noticed", folder, NAME)


def _check_file(path: Path, entry: Any, mend: str, *, is_thorough: bool) -> None:
    try:
        stamp = _stamp(path)
        if stamp["bytes"] != entry["bytes"]:
            raise DamagedFileError(
                f"{path}: has {stamp['bytes']:,} bytes, but had {entry['bytes']:,} when it was written; {mend}"
            )
        if (is_thorough or stamp["modified_ns"] != entry["modified_ns"]) and digest_of(path) != entry["blake2b"]:
            raise DamagedFileError(
                f"{path}: was changed or damaged since it was written (its checksum is another one); {mend}"
            )
    except OSError as error:
        raise DamagedFileError(f"{path}: cannot be read ({error.strerror}); {mend}") from None
    except (KeyError, TypeError):
        raise DamagedFileError(f"{path.parent / NAME}: is damaged; {mend}") from None


def _stamp(path: Path) -> dict[str, int]:
    facts = os.stat(path)
    return {"bytes": facts.st_size, "modified_ns": facts.st_mtime_ns}
