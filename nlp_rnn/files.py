"""Writes files and folders atomically, and reads JSON files.

A file is written under a temporary name, flushed to the disk and renamed, so that it is complete or absent. While it is
written, it is locked; what a killed command left is not locked, and is removed by the next command that writes there.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nlp_rnn.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked or removed
    fcntl = None  # type: ignore[assignment]

FULL = {  # errors of a full disk, and what to do
    errno.ENOSPC: "free some space or choose another folder",
    errno.EDQUOT: "free some space or choose another folder",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f) or choose another folder",
}
RESTORE_RUN = "restore it from a copy, or train again under another name=..."  # advice about a damaged run directory
_TEMPORARY = ".nlp-rnn-"  # how the names of temporary files and folders begin
_UMASK = os.umask(0o077)  # it can be read only by setting it, so once, before there are threads
os.umask(_UMASK)
_MIN_AGE = 10  # seconds until a temporary file counts as left over: longer than between its creation and its lock


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to. Renames it to `path` if the block succeeds; removes it otherwise.

    A file that is replaced keeps its permissions. If `path` is a symbolic link, its target is replaced. If it is a
    device or a pipe, the content is written to it.

    Raises:
      ConfigError: if the disk is full or the folder is not writable.
    """
    check_path("the path", path)
    with disk_errors(path):
        path = _target(path)
        is_special = path.exists() and not stat.S_ISREG(path.stat().st_mode)
        folder = Path(tempfile.gettempdir()) if is_special else path.parent
        _make_folder(folder)
        _remove_leftovers(folder)
        descriptor, name = tempfile.mkstemp(
            dir=folder, prefix=f"{_TEMPORARY}{_short(path.stem)}-", suffix=_short(path.suffix)
        )
        temporary, handle = Path(name), None
        try:
            handle = _locked(descriptor)
            yield temporary
            if is_special:
                with open(temporary, "rb") as source, open(path, "wb") as device:
                    shutil.copyfileobj(source, device)
                return
            os.chmod(temporary, stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~_UMASK)
            _flush(temporary)
            os.replace(temporary, path)
            _flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
            if handle is not None:
                os.close(handle)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder to fill. Renames it to `path` (which must not exist) if the block succeeds.

    Raises:
      ConfigError: if the disk is full or the folder is not writable.
      FileExistsError: if `path` was created in the meantime.
    """
    check_path("the path", path)
    with disk_errors(path):
        _make_folder(path.parent)
        _remove_leftovers(path.parent)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{_TEMPORARY}{_short(path.name)}-"))
        handle = None
        try:
            handle = _locked(os.open(temporary, os.O_RDONLY)) if fcntl else None
            yield temporary
            os.chmod(temporary, 0o777 & ~_UMASK)
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
            if handle is not None:
                os.close(handle)


def remove_folder(path: Path) -> None:
    """Removes a folder, which disappears at once. Does nothing if another process has removed it.

    Raises:
      ConfigError: if it is not writable.
    """
    temporary = path.with_name(f"{_TEMPORARY}{_short(path.name)}-{os.getpid()}")
    with disk_errors(path), contextlib.suppress(FileNotFoundError):
        os.rename(path, temporary)  # what a killed command leaves of it, the next one removes
        shutil.rmtree(temporary)


def _short(name: str) -> str:
    """The beginning of a name, so that a temporary name is not too long."""
    return os.fsencode(name)[:100].decode("utf-8", "ignore")


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """A context that one thread or process at a time is in, of all that use it with the same folder.

    No file is left, so that other users of the folder can do the same. Where nothing can be locked, nobody waits.
    """
    handle = None
    try:
        if fcntl:
            with contextlib.suppress(OSError):  # a folder that cannot be read, or a file system without locks
                handle = os.open(folder, os.O_RDONLY)
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _locked(handle: int) -> int | None:
    """Locks a file or folder as long as the handle is open. Returns the handle; None: closed, since nothing locks."""
    if fcntl is None:
        os.close(handle)
        return None
    with contextlib.suppress(OSError):  # a file system without locks, on which nothing is removed either
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


def _remove_leftovers(folder: Path) -> None:
    """Removes the temporary files and folders of killed commands: with our names, and not locked."""
    if fcntl is None:
        return
    names: list[str] = []
    with contextlib.suppress(OSError):  # a folder that may be written to, but not listed
        names = [name for name in os.listdir(folder) if name.startswith(_TEMPORARY)]
    for path in (folder / name for name in names):
        with contextlib.suppress(OSError):  # locked, or just removed by another command, or of another user
            if time.time() - path.lstat().st_mtime < _MIN_AGE:
                continue
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            finally:
                os.close(handle)


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


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # as a file; callers take this error for what they were to write
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None


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
        if error.errno is None and re.search(r"requested and \d+ written", str(error)):  # NumPy's words for a full disk
            raise _explained(path, errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise _explained(path, error.errno, error.strerror or str(error)) from error
    except Exception as error:
        # TensorFlow's file system raises its own classes, which share only the text with OSError.
        known = (*FULL, errno.EACCES, errno.EROFS)
        number = next((each for each in known if os.strerror(each).lower() in str(error).lower()), None)
        if number is None:
            raise
        raise _explained(path, number, os.strerror(number)) from error


def _explained(path: Path, number: int | None, reason: str) -> ConfigError:
    advice = {
        **FULL,
        errno.ENAMETOOLONG: "choose a shorter name",
        errno.EACCES: "make the folder writable or choose another one",
        errno.EROFS: "choose a writable folder",
        errno.ENOTDIR: "a file has the name of a folder in this path; choose another path",
    }.get(number or 0, "check the path")
    return ConfigError(f"{path}: cannot be written ({reason}); no partial file was left; {advice}")


# --- folders, names and JSON ------------------------------------------------------------------------------------------


def entries(folder: Path) -> list[Path]:
    """The files and folders in a folder.

    Raises:
      ConfigError: if it may not be read.
    """
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise unreadable(error) from None


def unreadable(error: OSError) -> ConfigError:
    """The error of a folder that may not be read."""
    return ConfigError(f"{error.filename}: cannot be read ({error.strerror}); make the folder readable")


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


def check_path(name: str, path: str | os.PathLike[str]) -> None:
    """Checks that a path from settings or arguments can name a file.

    Args:
      name: the setting or option, for the message.

    Raises:
      ConfigError: if it is empty, too long, or holds a NUL character or no valid Unicode.
    """
    text = os.fspath(path)
    shown = f"{name} is {text if len(text) < 80 else f'{text[:80]}...'}"
    try:
        parts = re.split(rb"[/\\]", os.fsencode(text))
    except UnicodeEncodeError:
        raise ConfigError(f"{shown!a}, but this is not valid Unicode; give another path") from None
    if not text:
        raise ConfigError(f"{name} is empty, but must be a path; give the path")
    if "\0" in text:
        raise ConfigError(f"{shown}, which contains a NUL character, so it is not a path; give another one")
    if len(os.fsencode(text)) > _LONGEST_PATH or max(map(len, parts)) > _LONGEST_NAME:
        raise ConfigError(
            f"{shown}, but a path has at most {_LONGEST_PATH:,} bytes and each name in it {_LONGEST_NAME}; "
            "give a shorter one"
        )


_LONGEST_PATH, _LONGEST_NAME = 4095, 255  # in bytes, on Linux


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


def versions(folder: Path, *, folders_only: bool = True) -> dict[int, Path]:
    """The versions of an exported model, which lie in saved_models/<task>: number -> path.

    Args:
      folders_only: False: also files, which take a number as well.
    """
    entries = (entry for entry in folder.glob("*") if re.fullmatch(r"[0-9]{1,18}", entry.name))
    return {int(entry.name): entry for entry in entries if entry.is_dir() or not folders_only}


def newest_version(folder: Path) -> Path:
    """The folder of the newest version of an exported model; the given folder itself if it has no versions."""
    numbered = versions(folder)
    return numbered[max(numbered)] if numbered else folder
