"""Reads text files line by line: encodings, compressed files and line ends.

A file that cannot be read raises a one-line ConfigError with the reason.
"""

import codecs
import contextlib
import gzip
import io
import itertools
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from nlp_rnn.errors import ConfigError

_SAMPLE = 2**16  # bytes at the start of a file, for recognising line ends and encodings
_FOREIGN_FILES = (  # first bytes, kind of file, what to do
    (b"PAR1", "a Parquet file", "set data.source=parquet"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document", "save it as CSV UTF-8"),
    (b"%PDF", "a PDF document", "give its text"),
    (b"SQLite format 3\0", "an SQLite database", "export the table as CSV"),
    (b"BZh", "compressed by bzip2", "unpack it first: bunzip2"),
    (b"\xfd7zXZ", "compressed by xz", "unpack it first: unxz"),
    (b"(\xb5/\xfd", "compressed by zstd", "unpack it first: unzstd"),
    (b"7z\xbc\xaf'\x1c", "a 7-Zip archive", "unpack it first"),
)


class Part(NamedTuple):
    """The lines of a file that begin at byte `start` or later and before byte `end`.

    Attributes:
      path: the file.
      start: first byte.
      end: byte after the last one; None: the end of the file.
      first_line: number of the first line, from 1.
    """

    path: Path
    start: int = 0
    end: int | None = None
    first_line: int = 1

    def __str__(self) -> str:
        return str(self.path)


def parts_of(path: Path, count: int) -> list[Part]:
    """Splits a UTF-8 file between lines into at most `count` parts of similar size; a compressed file is one part.

    Raises:
      ConfigError: if the file cannot be read.
    """
    with _reading_errors(path), open(path, "rb") as file:
        if file.peek(4)[:2] in (b"\x1f\x8b", b"PK"):
            return [Part(path)]
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
    count = 0
    while size and (block := file.read(min(size, 2**20))):
        count += block.count(b"\n")
        size -= len(block)
    return count


def read_lines(path: Path | Part, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, line without its line end); see `decoded_lines`."""
    for number, line in decoded_lines(path, encoding):
        yield number, line.rstrip("\r\n")


def decoded_lines(path: Path | Part, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, line with its line end) of a text file or a part of one.

    gzip files and zip archives of one file are unpacked; they are recognised by their first bytes. Lines end with LF or
    CR LF, or with CR in files without LF. A byte order mark is removed.

    Args:
      path: the file, or a part of it.
      encoding: the setting data.encoding; None: UTF-8, which no setting changes.

    Raises:
      ConfigError: if the bytes are not text in that encoding, or the file is damaged or missing; the message names the
        file and the line.
    """
    part = path if isinstance(path, Part) else Part(path)
    with _reading_errors(part.path), open_binary(part.path) as file:
        sample = b"" if part.start else file.peek(_SAMPLE)[:_SAMPLE]
        if encoding is None or codecs.lookup(encoding).name == "utf-8":
            lines = _utf8_lines(file, part, sample, encoding)
        else:
            lines = _encoded_lines(file, part, sample, encoding)
        for number, line in lines:
            if "\0" in line:
                raise ConfigError(
                    f"{path}: line {number} contains NUL bytes, so it is not text; {encoding_advice(sample, encoding)}"
                )
            yield number, line.removeprefix("\ufeff") if number == 1 else line


def _utf8_lines(file: Any, part: Part, sample: bytes, encoding: str | None) -> Iterator[tuple[int, str]]:
    offset = part.start
    if offset:  # a pipe cannot seek
        file.seek(offset)
    raw = _lines_ended_by_cr(file) if _ends_lines_by_cr(sample) else file
    for number, line in enumerate(raw, start=part.first_line):
        if part.end is not None and offset >= part.end:
            return
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(
                f"{part}: line {number}, byte {offset + error.start}: not UTF-8; "
                f"{encoding_advice(sample if number == 1 else line, encoding)}"
            ) from None
        offset += len(line)


def _encoded_lines(file: Any, part: Part, sample: bytes, encoding: str) -> Iterator[tuple[int, str]]:
    number, text = 0, None
    try:
        start = codecs.getincrementaldecoder(encoding)("ignore").decode(sample)
        ends_by_cr = "\r" in start and "\n" not in start
        text = io.TextIOWrapper(file, encoding, newline="\r" if ends_by_cr else "\n")
        for number, line in enumerate(text, start=1):
            yield number, line
    except UnicodeError as error:
        raise ConfigError(
            f"{part}: near line {number + 1}: not {encoding}, as data.encoding says ({error}); "
            f"{encoding_advice(sample, encoding)}"
        ) from None
    finally:
        if text is not None and not file.closed:
            text.detach()  # otherwise it closes the file when it is freed


def _ends_lines_by_cr(sample: bytes) -> bool:
    return b"\r" in sample and b"\n" not in sample and b"\0" not in sample


def _lines_ended_by_cr(file: BinaryIO) -> Iterator[bytes]:
    begun = b""
    while block := file.read(2**20):
        *lines, begun = (begun + block).split(b"\r")
        yield from (line + b"\r" for line in lines)
    if begun:
        yield begun


# --- files that are not plain text ---------------------------------------------------------------------------------


def open_binary(path: Path) -> Any:
    """Opens a file for reading bytes. Unpacks gzip files and zip archives of one file.

    Returns:
      a binary file, which the caller closes.

    Raises:
      ConfigError: if the file is an archive of several files, or its first bytes are not those of a text file.
    """
    file = open(path, "rb")  # noqa: SIM115 - closed by the caller, or below
    head = file.peek(16)[:16]
    if head.startswith(b"\x1f\x8b"):
        return io.BufferedReader(_Gzip(file))
    try:
        if head.startswith(b"PK\x03\x04"):
            return io.BufferedReader(_only_member(zipfile.ZipFile(file), path))
        if path.suffix == ".gz" and head:
            raise gzip.BadGzipFile("it does not begin like one")
        for start, what, mend in _FOREIGN_FILES:
            if head.startswith(start):
                raise ConfigError(f"{path}: is {what}, not text; {mend}")
    except BaseException:
        file.close()
        raise
    return file


class _Gzip(gzip.GzipFile):
    """A gzip file that also closes the file that it reads."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(fileobj=file)
        self._file = file

    def close(self) -> None:
        super().close()
        self._file.close()


def _only_member(archive: zipfile.ZipFile, path: Path) -> Any:
    names = [name for name in archive.namelist() if not name.endswith("/") and not is_companion(name)]
    if "[Content_Types].xml" in names:
        kinds = {"xl": "an Excel workbook", "word": "a Word document"}
        kind = next(
            (text for folder, text in kinds.items() if any(name.startswith(f"{folder}/") for name in names)), ""
        )
        raise ConfigError(f"{path}: is {kind or 'an Office document'}, not text; save it as CSV UTF-8")
    if len(names) != 1:
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise ConfigError(
            f"{path}: is a zip archive of {len(names)} files ({shown}); give an archive of one file, or unpack it"
        )
    if archive.getinfo(names[0]).flag_bits & 1:
        raise ConfigError(f"{path}: is an encrypted zip archive; unpack it first")
    return archive.open(names[0])


def is_companion(name: str) -> bool:
    """Whether macOS or Windows added the file, such as ._name, .DS_Store, Thumbs.db or __MACOSX/name."""
    parts = name.split("/")
    return parts[-1].startswith(("._", ".DS_Store")) or parts[-1] in ("Thumbs.db", "desktop.ini") or "__MACOSX" in parts


@contextlib.contextmanager
def opened_bytes(path: Path) -> Iterator[BinaryIO]:
    """Yields a file for reading bytes, unpacked; see `open_binary`.

    Raises:
      ConfigError: if the file cannot be opened, or cannot be read inside the block.
    """
    with _reading_errors(path), open_binary(path) as file:
        yield file


@contextlib.contextmanager
def _reading_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: not a whole gzip file ({error}); compress it again") from None
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ConfigError(f"{path}: not a readable zip archive ({error}); pack it again") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    except ValueError as error:
        if isinstance(error, ConfigError) or "embedded null" not in str(error):
            raise
        raise ConfigError(f"{str(path)!r}: contains a NUL character, so it is not a path; check the path") from None


# --- encodings -----------------------------------------------------------------------------------------------------

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_WESTERN = {"cp1250", "cp1252", "cp1254", "cp1257", "cp1258", "latin_1", "iso8859_15", "iso8859_2", "iso8859_9"}
_CANDIDATES = [
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp932", "euc_jp", "gb18030", "big5",
    "cp949", "koi8_r",
]  # fmt: skip
_UNDEFINED_IN_CP1252 = frozenset(b"\x81\x8d\x8f\x90\x9d")


def guess_encoding(sample: bytes) -> str | None:
    """Python's name of the likeliest encoding of bytes that are not UTF-8; None if none fits. Only for suggestions."""
    for mark, name in _BYTE_ORDER_MARKS:
        if sample.startswith(mark):
            return name
    if b"\0" in sample:
        even, odd = (sum(byte == 0 for byte in sample[first::2]) for first in (0, 1))
        if len(sample) >= 4 and max(even, odd) > 0.4 * (len(sample) // 2) and min(even, odd) < 0.1 * max(even, odd):
            return "utf-16-le" if odd > even else "utf-16-be"
        return None
    import charset_normalizer

    best = charset_normalizer.from_bytes(sample, cp_isolation=_CANDIDATES).best()
    encoding = best.encoding if best else None
    is_western = not _UNDEFINED_IN_CP1252 & set(sample)
    return "cp1252" if is_western and (encoding is None or encoding in _WESTERN) else encoding


def encoding_advice(sample: bytes, encoding: str | None) -> str:
    """What to do about bytes that are not text in an encoding, for a message.

    Args:
      sample: the bytes.
      encoding: the setting data.encoding; None: UTF-8, which no setting changes.
    """
    guess = guess_encoding(sample)
    if guess is None:
        return "give a text file" if b"\0" in sample else "convert it to UTF-8, with iconv for example"
    setting = "" if encoding is None else f"it looks like {iconv_name(guess)}: set data.encoding={guess}, or "
    return f"{setting}convert it, for example: iconv -f {iconv_name(guess)} -t UTF-8"


def iconv_name(encoding: str) -> str:
    """The name that iconv uses for an encoding of Python."""
    name = encoding.upper().replace("_", "-")
    return f"WINDOWS-{name[2:]}" if name.startswith("CP125") else {"CP932": "SHIFT_JIS", "CP949": "UHC"}.get(name, name)
