"""Writes files and folders atomically, and reads JSON files.

A file is written under a temporary name, flushed to the disk and renamed, so that it is complete or absent.
"""

import contextlib
import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nlp_rnn.errors import ConfigError


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to. Renames it to `path` if the block succeeds; removes it otherwise.

    If `path` is a symbolic link, its target is replaced. If it is a device or a pipe, the content is written to it.

    Raises:
      ConfigError: if the disk is full or the folder is not writable.
    """
    with disk_errors(path):
        path = _target(path)
        is_special = path.exists() and not stat.S_ISREG(path.stat().st_mode)
        folder = Path(tempfile.gettempdir()) if is_special else path.parent
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{path.stem[:100]}-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            if is_special:
                with open(temporary, "rb") as source, open(path, "wb") as device:
                    shutil.copyfileobj(source, device)
                return
            os.chmod(temporary, 0o666 & ~_umask())
            _flush(temporary)
            os.replace(temporary, path)
            _flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder to fill. Renames it to `path` (which must not exist) if the block succeeds.

    Raises:
      ConfigError: if the disk is full or the folder is not writable.
      FileExistsError: if `path` was created in the meantime.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
        try:
            yield temporary
            os.chmod(temporary, 0o777 & ~_umask())
            for entry in (*temporary.rglob("*"), temporary):
                _flush(entry)
            try:
                os.rename(temporary, path)
            except OSError as error:
                if path.exists():
                    raise FileExistsError(errno.EEXIST, "exists already", str(path)) from error
                raise
            _flush(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _target(path: Path) -> Path:
    """The target of a symbolic link, whether or not it exists; any other path as it is."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _flush(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk, so that a power cut cannot lose content."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open folders
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EROFS):  # a file system without fsync
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns a full disk or a missing permission into a ConfigError that says what to do.

    Args:
      path: the file or folder that is written; the message names it.
    """
    try:
        yield
    except (ConfigError, FileExistsError):
        raise
    except OSError as error:
        raise _explained(path, error.errno, error.strerror or str(error)) from error
    except Exception as error:
        # TensorFlow's file system raises its own classes, which share only the text with OSError.
        number = next(
            (n for n in (errno.ENOSPC, errno.EACCES, errno.EROFS) if os.strerror(n).lower() in str(error).lower()), None
        )
        if number is None:
            raise
        raise _explained(path, number, os.strerror(number)) from error


def _explained(path: Path, number: int | None, reason: str) -> ConfigError:
    advice = {
        errno.ENOSPC: "free some space or choose another folder",
        errno.EDQUOT: "free some space or choose another folder",
        errno.EACCES: "make the folder writable or choose another one",
        errno.EROFS: "choose a writable folder",
    }.get(number or 0, "check the path")
    return ConfigError(f"{path}: cannot be written ({reason}); no partial file was left; {advice}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# --- names and JSON ------------------------------------------------------------------------------------------------


def child(folder: Path, name: str) -> Path:
    """Returns folder/name for a name that comes from settings or files.

    Raises:
      ConfigError: if the name leads out of the folder or is not a file name.
    """
    if name in ("", ".", "..") or any(mark in name for mark in ("/", "\\", "\0")) or len(os.fsencode(name)) > 255:
        raise ConfigError(
            f"{name[:80]!r} cannot be the name of a folder below {folder}; use letters, digits, '-' and '_'"
        )
    return folder / name


def read_json(path: Path, kind: type, mend: str) -> Any:
    """Reads a JSON file.

    Args:
      path: the file, in UTF-8.
      kind: list or dict, the type that the value must have.
      mend: what to do if the file is damaged or missing, for the message.

    Returns:
      the value, a list or dict.

    Raises:
      ConfigError: if the file is missing or damaged, or holds a value of another type.
    """
    try:
        value = json.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: is missing; {mend}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); {mend}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is damaged ({str(error)[:100] or 'nested too deeply'}); {mend}") from None
    if not isinstance(value, kind):
        raise ConfigError(f"{path}: is damaged (holds no {'list' if kind is list else 'object'}); {mend}")
    return value
