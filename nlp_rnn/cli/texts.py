"""The texts that a command reads: arguments, a file or standard input."""

import argparse
import codecs
import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from nlp_rnn.errors import ConfigError
from nlp_rnn.text_files import encoding_advice, read_lines


def input_texts(options: argparse.Namespace, *, batch_size: int = 64) -> Iterator[list[bytes]]:
    """Yields batches of UTF-8 texts: those of the command line, or the lines of --file or of standard input.

    Args:
      options: with `text` (list of str) and `file` (a path, or "").
      batch_size: texts per batch; a terminal's lines come one by one.

    Raises:
      ConfigError: if both texts and --file are given, the file cannot be read, or a text is not UTF-8.
    """
    if options.text and options.file:
        raise ConfigError(f"--file is {options.file}, but texts are given too; give one of the two")
    if options.text:
        yield [utf8(text, ", or pass the text in a file with --file") for text in options.text]
        return
    if options.file:
        lines: Iterator[bytes] = (line.encode() for line in _file_lines(Path(options.file)))
    else:
        lines = stdin_lines()
    size = batch_size if options.file or not sys.stdin.isatty() else 1
    while batch := list(itertools.islice(lines, size)):
        yield batch


def _file_lines(path: Path) -> Iterable[str]:
    """The lines of a file, which was read to its end before, so that a damaged file gives no output at all."""
    can_be_read_again = path.is_file()  # not a pipe, such as that of the shell's <(command)
    lines: list[str] = []
    try:
        for _, line in read_lines(path):
            if not can_be_read_again:
                lines.append(line)
    except ConfigError as error:
        raise ConfigError(f"--file is {path}: {str(error).removeprefix(f'{path}: ')}") from None
    return (line for _, line in read_lines(path)) if can_be_read_again else lines


def stdin_lines() -> Iterator[bytes]:
    """The lines of standard input, without line ends and byte order mark.

    Raises:
      ConfigError: naming the line that is not UTF-8.
    """
    for number, line in enumerate(sys.stdin.buffer, start=1):
        text = line.rstrip(b"\r\n").removeprefix(codecs.BOM_UTF8 if number == 1 else b"")
        try:
            text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(
                f"standard input: line {number}, byte {error.start}: not UTF-8; {encoding_advice(line, None)}"
            ) from None
        if b"\0" in text:
            raise ConfigError(
                f"standard input: line {number} contains NUL bytes, so it is not text; {encoding_advice(line, None)}"
            )
        yield text


def utf8(text: str, or_else: str = "") -> bytes:
    """A text of the command line; raises ConfigError if it is not UTF-8."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:  # an argument in another encoding
        raise ConfigError(f"TEXT is {text[:80]!r}, which is not UTF-8; set the terminal to UTF-8{or_else}") from None
