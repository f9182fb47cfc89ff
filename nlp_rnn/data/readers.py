"""The user's own files: each reader is a function of the data settings that returns a split's examples as a stream."""

import csv
import fnmatch
import functools
import importlib.metadata
import importlib.util
import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nlp_rnn.config.settings import DataConfig
from nlp_rnn.errors import ConfigError
from nlp_rnn.files import Part, decoded_lines, read_lines


class Example(NamedTuple):
    """A text and its label; the label is "" where the source has none."""

    text: str
    label: str


Splits = dict[str, Callable[[], Iterator[Example]]]
SPLIT_NAMES = ("train", "validation", "test")

csv.field_size_limit(2**31 - 1)


def load_csv(data: DataConfig) -> Splits:
    """Comma-separated files with a header line, quoted as RFC 4180 says."""
    return load_files(data, lambda path: _table_examples(path, ",", data))


def load_tsv(data: DataConfig) -> Splits:
    """Tab-separated files with a header line."""
    return load_files(data, lambda path: PART_READERS["tsv"](path, data))


def load_jsonl(data: DataConfig) -> Splits:
    """One JSON object per line."""
    return load_files(data, lambda path: PART_READERS["jsonl"](path, data))


def load_text(data: DataConfig) -> Splits:
    """One text per line; a line may begin with `__label__NAME ` (fastText's format)."""
    return load_files(data, lambda path: PART_READERS["text"](path, data))


def load_documents(data: DataConfig) -> Splits:
    """One text per file, with its line ends and spaces: a file, or all files below a folder that data.patterns name."""
    return load_files(data, lambda path: _document_examples(path, data))


def load_folders(data: DataConfig) -> Splits:
    """One folder per label, one text per file: TRAIN/LABEL/*.txt or *.txt.gz."""
    return load_files(data, _folder_examples)


def load_files(data: DataConfig, read: Callable[[Path], Iterator[Example]]) -> Splits:
    splits: Splits = {}
    for name in SPLIT_NAMES:
        setting = getattr(data, name)
        if setting:
            path = Path(setting)
            if not path.exists():
                raise ConfigError(
                    f"data.{name} is {setting}, but there is no such file or folder; give the path of your data"
                )
            if path.is_dir() != (data.source == "folders") and data.source != "documents":
                kind, wanted = ("folder", "file") if path.is_dir() else ("file", "folder with a folder per label")
                raise ConfigError(f"data.{name} is {setting}, a {kind}, but data.source {data.source} reads a {wanted}")
            splits[name] = functools.partial(read, path)
    return splits


def read_table(path: Path | Part, delimiter: str, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Streams (line number, the named columns' values)."""
    lines: Iterator[str] = (line for _, line in decoded_lines(path))
    lines_before = 0
    if isinstance(path, Part) and path.start:  # the header stands in another part
        lines = itertools.chain((line for _, line in itertools.islice(decoded_lines(path.path), 1)), lines)
        lines_before = path.first_line - 2
    # A quotation mark in a TSV file is a quotation mark.
    options: dict[str, Any] = {"strict": True} if delimiter == "," else {"quoting": csv.QUOTE_NONE}
    reader = csv.reader(lines, delimiter=delimiter, **options)
    try:
        header = next(reader, None)
        if header is None:
            return
        missing = [name for name in columns if name not in header]
        if missing:
            raise ConfigError(
                f"{path}: has no column {missing[0]!r}; its header line names {', '.join(map(repr, header))}: "
                "set data.text_column and data.label_column"
            )
        places = [header.index(name) for name in columns]
        for row in reader:
            if not row:
                continue
            number = lines_before + reader.line_num
            if len(row) != len(header):
                raise ConfigError(
                    f"{path}: line {number} has {len(row)} fields, but the header has {len(header)}; quote it or fix it"
                )
            yield number, [row[place] for place in places]
    except csv.Error as error:
        number = lines_before + reader.line_num
        raise ConfigError(
            f"{path}: line {number}: not readable as data.source says ({error}); check the quotes"
        ) from None


def _table_examples(path: Path | Part, delimiter: str, data: DataConfig) -> Iterator[Example]:
    columns = (data.text_column, data.label_column) if data.label_column else (data.text_column,)
    for _, (text, *labels) in read_table(path, delimiter, columns):
        yield Example(text, labels[0].strip() if labels else "")


def line_examples(path: Path) -> Iterator[Example]:
    return (Example(line, "") for _, line in read_lines(path))


def _json_examples(path: Path | Part, data: DataConfig) -> Iterator[Example]:
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(
                f"{path}: line {number}, column {error.colno}: not JSON ({error.msg}); write one object per line"
            ) from None
        if not isinstance(row, dict) or not isinstance(row.get(data.text_column), str):
            raise ConfigError(
                f"{path}: line {number} has no string {data.text_column!r}; set data.text_column to the name of the text"
            )
        label = row.get(data.label_column, "")
        if isinstance(label, (dict, list)) or label is None:
            raise ConfigError(
                f"{path}: line {number}: {data.label_column!r} is {label!r}, but a label is a string, number or boolean"
            )
        # JSON can spell half of a surrogate pair, which is no text.
        text, label = (re.sub("[\ud800-\udfff]", "\ufffd", value) for value in (row[data.text_column], str(label)))
        yield Example(text, label)


def _text_examples(path: Path | Part) -> Iterator[Example]:
    for _, line in read_lines(path):
        if not line.strip():
            continue
        label = ""
        if line.startswith("__label__"):
            first, _, line = line.partition(" ")
            label = first.removeprefix("__label__")
        yield Example(line, label)


# Of the sources that can be read from any line on, for `records`.
PART_READERS: dict[str, Callable[[Path | Part, DataConfig], Iterator[Example]]] = {
    "tsv": lambda path, data: _table_examples(path, "\t", data),
    "jsonl": _json_examples,
    "text": lambda path, data: _text_examples(path),
}


def _folder_examples(path: Path) -> Iterator[Example]:
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        for file in sorted(entry for entry in folder.iterdir() if entry.name.endswith((".txt", ".txt.gz"))):
            yield Example("".join(line for _, line in decoded_lines(file)), folder.name)


def _document_examples(path: Path, data: DataConfig) -> Iterator[Example]:
    files = (
        [path]
        if path.is_file()
        else [file for file in sorted(path.rglob("*")) if _is_document(file, path, data.patterns)]
    )
    if not files:
        raise ConfigError(
            f"data.patterns is {list(data.patterns)}, but no file below {path} has such a name (hidden ones are left out); "
            'give patterns such as ["*.txt"], or another folder'
        )
    for file in files:
        text = "".join(line for _, line in decoded_lines(file))
        if "\0" in text:
            raise ConfigError(
                f"{file}: holds NUL bytes, so it is not text; remove it, or name the files to read, as data.patterns=[*.txt]"
            )
        if text:
            yield Example(text, "")


def _is_document(file: Path, folder: Path, patterns: tuple[str, ...]) -> bool:
    is_hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.is_file() and not is_hidden and any(fnmatch.fnmatch(file.name, pattern) for pattern in patterns)


def require_package(module: str, extra: str, why: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f"{why}, which needs the package {module}; install it: pip install 'nlp-rnn[{extra}]'")
