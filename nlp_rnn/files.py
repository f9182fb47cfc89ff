"""Files: read as UTF-8 lines, or say where they are not; written under a temporary name, then renamed: whole or not there."""

import contextlib
import errno
import gzip
import itertools
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from nlp_rnn.errors import ConfigError

# --- reading -------------------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """The lines of a file that begin at the bytes from `start` up to `end` (None: its end)."""

    path: Path
    start: int = 0
    end: int | None = None
    first_line: int = 1

    def __str__(self) -> str:
        return str(self.path)


def parts_of(path: Path, count: int) -> list[Part]:
    """Cuts a file between its lines into `count` parts of like size, or fewer; .gz files stay whole.

    Raises:
      ConfigError: if it cannot be read.
    """
    if path.suffix == ".gz":
        return [Part(path)]
    with _reading_errors(path), open(path, "rb") as file:
        size = os.stat(path).st_size
        cuts = {0, size}
        for number in range(1, count):
            file.seek(max(size * number // count - 1, 0))
            file.readline()
            cuts.add(file.tell())
        parts, line = [], 1
        file.seek(0)
        for start, end in itertools.pairwise(sorted(cuts)):
            parts.append(Part(path, start, end, line))
            line += _count_lines(file, end - start)
    return parts or [Part(path)]


def _count_lines(file: BinaryIO, size: int) -> int:
    found = 0
    while size and (block := file.read(min(size, 2**20))):
        found += block.count(b"\n")
        size -= len(block)
    return found


def read_lines(path: Path | Part) -> Iterator[tuple[int, str]]:
    """Streams (line number from 1, line without its line end) of a UTF-8 file, plain or .gz, or of a part of one.

    Raises:
      ConfigError: with file, line and byte offset (of the unpacked text) where it is not UTF-8.
    """
    for number, line in decoded_lines(path):
        yield number, line.rstrip("\r\n")


def decoded_lines(path: Path | Part) -> Iterator[tuple[int, str]]:
    """As `read_lines`, with line ends."""
    part = path if isinstance(path, Part) else Part(path)
    offset = part.start
    with _reading_errors(part.path), _open_binary(part.path) as file:
        if offset:  # a pipe cannot seek
            file.seek(offset)
        for number, line in enumerate(file, start=part.first_line):
            if part.end is not None and offset >= part.end:
                return
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                utf16 = number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff")
                raise ConfigError(
                    f"{path}: line {number}, byte {offset + error.start}: not UTF-8; "
                    f"convert it, for example: iconv -f {'UTF-16' if utf16 else 'LATIN1'} -t UTF-8"
                ) from None
            offset += len(line)
            yield number, text.removeprefix("\ufeff") if number == 1 else text


@contextlib.contextmanager
def _reading_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: not a whole gzip file ({error}); pack it again or give it without .gz") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None


def _open_binary(path: Path) -> Any:
    return gzip.open(path) if path.suffix == ".gz" else open(path, "rb")


# --- writing -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Gives a temporary path to write to; renames it to `path` if the block succeeds, removes it otherwise.

    Raises:
      ConfigError: if the disk is full or the folder not writable.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Gives a temporary folder to fill; renames it to `path` (which must not exist) if the block succeeds.

    Raises:
      ConfigError: if the disk is full or the folder not writable.
      FileExistsError: if `path` appeared meanwhile.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
        try:
            yield temporary
            os.chmod(temporary, 0o777 & ~_umask())
            try:
                os.rename(temporary, path)
            except OSError as error:
                if path.exists():
                    raise FileExistsError(errno.EEXIST, "exists already", str(path)) from error
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns a full disk or a missing permission into one line that says what to do."""
    try:
        yield
    except (ConfigError, FileExistsError):
        raise
    except OSError as error:
        raise _explained(path, error.errno, error.strerror or str(error)) from error
    except Exception as error:
        # TensorFlow's file system raises its own classes: the text is what they share with OSError.
        number = next(
            (n for n in (errno.ENOSPC, errno.EACCES, errno.EROFS) if os.strerror(n).lower() in str(error).lower()), None
        )
        if number is None:
            raise
        raise _explained(path, number, os.strerror(number)) from error


def _explained(path: Path, number: int | None, reason: str) -> ConfigError:
    mend = {
        errno.ENOSPC: "free some space or choose another folder",
        errno.EDQUOT: "free some space or choose another folder",
        errno.EACCES: "make the folder writable or choose another one",
        errno.EROFS: "choose a writable folder",
    }.get(number or 0, "check the path")
    return ConfigError(f"{path}: cannot be written ({reason}); nothing half-written was left: {mend}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
