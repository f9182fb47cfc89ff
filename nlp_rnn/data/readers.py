"""Readers of the user's own files. Each function takes the data settings and returns the splits as streams."""

import fnmatch
import functools
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nlp_rnn import extras
from nlp_rnn.config.settings import DataConfig
from nlp_rnn.data import labels
from nlp_rnn.data.labels import clean_label, without_surrogates
from nlp_rnn.data.tables import TableFormat, read_parquet, read_table, recognised
from nlp_rnn.errors import ConfigError
from nlp_rnn.files import entries, unreadable
from nlp_rnn.text_files import Part, decoded_lines, is_companion, read_lines

logger = logging.getLogger(__name__)


@functools.cache
def tell_once(message: str) -> None:
    """Logs a message once, although files are read several times."""
    logger.info("%s", message)


class Example(NamedTuple):
    """A text and its label (or several, joined by `labels.join`); the label is "" where the source has none."""

    text: str
    label: str


class WeightedExample(Example):
    """An example of a source with data.weight_column; `weight` says how much it counts."""

    weight: float

    @classmethod
    def of(cls, text: str, label: str, weight: float) -> "WeightedExample":
        """Makes one: tuples take no further field in their constructor."""
        example = cls(text, label)
        example.weight = weight
        return example


def without_label(example: Example) -> Example:
    """The example without its label."""
    if isinstance(example, WeightedExample):
        return WeightedExample.of(example.text, "", example.weight)
    return Example(example.text, "")


Splits = dict[str, Callable[[], Iterator[Example]]]
SPLIT_NAMES = ("train", "validation", "test")


def load_csv(data: DataConfig) -> Splits:
    """Comma-separated files (or data.delimiter) with a header line, quoted as RFC 4180 says."""
    return load_files(data, lambda path: _table_examples(path, data))


def load_tsv(data: DataConfig) -> Splits:
    """Tab-separated files with a header line."""
    return load_files(data, lambda path: PART_READERS["tsv"](path, data))


def load_parquet(data: DataConfig) -> Splits:
    """Parquet files."""
    extras.require("parquet", "data.source is parquet")
    return load_files(data, lambda path: _parquet_examples(path, data))


def load_jsonl(data: DataConfig) -> Splits:
    """One JSON object per line; or one list of objects, alone or within an object."""
    return load_files(data, lambda path: PART_READERS["jsonl"](path, data))


def load_text(data: DataConfig) -> Splits:
    """One text per line. Words that begin with `__label__` are its label or labels (fastText's format)."""
    return load_files(data, lambda path: PART_READERS["text"](path, data))


def load_documents(data: DataConfig) -> Splits:
    """One text per file, with its line ends and spaces: a file, or all files below a folder that data.patterns name."""
    return load_files(data, lambda path: _document_examples(path, data))


def load_folders(data: DataConfig) -> Splits:
    """One folder per label, one text per file: TRAIN/LABEL/FILE."""
    return load_files(data, lambda path: _folder_examples(path, data))


def load_files(data: DataConfig, read: Callable[[Path], Iterator[Example]]) -> Splits:
    """The splits whose settings name a file, or a folder for the sources that read one."""
    splits: Splits = {}
    for name in SPLIT_NAMES:
        setting = getattr(data, name)
        if setting:
            path = existing_path(f"data.{name}", setting)
            if path.is_dir() != (data.source == "folders") and data.source != "documents":
                kind, wanted = ("folder", "file") if path.is_dir() else ("file", "folder with a folder per label")
                raise ConfigError(f"data.{name} is {setting}, a {kind}, but data.source {data.source} reads a {wanted}")
            splits[name] = functools.partial(read, path)
    return splits


def existing_path(setting: str, value: str) -> Path:
    """The path in a setting.

    Raises:
      ConfigError: if nothing is there, or a pipe, which can be read only once.
    """
    path = Path(value)
    try:
        if not path.exists():
            raise ConfigError(f"{setting} is {value}, but there is no such file or folder; give the path of your data")
        if not path.is_file() and not path.is_dir():
            raise ConfigError(
                f"{setting} is {value}, a pipe or device, but data are read more than once; write them to a file first"
            )
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{setting} is {value[:200]!r}, which cannot be read ({reason}); give a path") from None
    return path


def _example(text: str, row: Mapping[str, Any], data: DataConfig, place: str) -> Example:
    """The example of a row of a table: column -> cell."""
    label = labels.label_of(row, data, place)
    if not data.weight_column:
        return Example(text, label)
    return WeightedExample.of(text, label, labels.weight_of(row, data, place))


# --- tables ----------------------------------------------------------------------------------------------------------


def _table_examples(path: Path | Part, data: DataConfig) -> Iterator[Example]:
    given = TableFormat.of(data)
    table = recognised(path, given)
    if not given.quoting and table.quoting == "double":
        tell_once(f"{path}: its fields are quoted, and read without their quotes; data.quoting=none keeps them")
    columns = labels.columns_of(data)
    for number, cells in read_table(path, columns, table):
        yield _example(cells[0], dict(zip(columns, cells, strict=True)), data, f"{path}: line {number}")


def _parquet_examples(path: Path, data: DataConfig) -> Iterator[Example]:
    columns = labels.columns_of(data)
    for number, cells in read_parquet(path, columns):
        row, text = dict(zip(columns, cells, strict=True)), cells[0]
        label = row.get(data.label_column)
        if not isinstance(text, str) or (isinstance(label, dict | list) and not data.multi_label):
            wrong = "text" if not isinstance(text, str) else "label"
            raise ConfigError(
                f"{path}: row {number} has no {wrong} that is a string; set data.{wrong}_column to another column"
            )
        yield _example(text, row, data, f"{path}: row {number}")


# --- JSON ------------------------------------------------------------------------------------------------------------


def _json_examples(path: Path | Part, data: DataConfig) -> Iterator[Example]:
    if is_json_document(path, data):
        rows = ((f"example {number}", row) for number, row in enumerate(_json_list(path, data), start=1))
    else:
        rows = (
            (f"line {number}", _json_value(line, f"{path}: line {number}"))
            for number, line in read_lines(path, data.encoding)
            if line.strip()
        )
    for place, row in rows:
        if isinstance(row, dict) and not isinstance(row.get(data.text_column, ""), str):
            value = json.dumps(row[data.text_column])[:80]
            raise ConfigError(f"{path}: {place}: {data.text_column!r} is {value}, but a text is a string")
        if not isinstance(row, dict) or data.text_column not in row:
            raise ConfigError(
                f"{path}: {place} has no string {data.text_column!r}; set data.text_column to the name of the text"
            )
        label = row.get(data.label_column, "") if data.label_column else ""
        if not data.multi_label and isinstance(label, (dict, list)):
            raise ConfigError(
                f"{path}: {place}: {data.label_column!r} is {json.dumps(label)[:80]}, but a label is a string, "
                "number or boolean"
            )
        yield _example(without_surrogates(row[data.text_column]), row, data, f"{path}: {place}")


def is_json_document(path: Path | Part, data: DataConfig) -> bool:
    """Whether a file is one JSON value over several lines, or a list, instead of one object per line."""
    whole = path.path if isinstance(path, Part) else path
    lines = (line.strip() for _, line in read_lines(whole, data.encoding) if line.strip())
    first = next(lines, "")
    if not first.startswith(("[", "{")):
        return False
    try:
        value = json.loads(first)
        return not isinstance(value, dict) or (_is_wrapper(value, data) and next(lines, None) is None)
    except (ValueError, RecursionError):
        # The first line of an object that goes on, not a damaged line of its own.
        return first.startswith("[") or bool(re.fullmatch(r'\{\s*|\{\s*"[^"]*"\s*:\s*[\[{]?\s*', first))


def _is_wrapper(value: dict[str, Any], data: DataConfig) -> bool:
    return data.text_column not in value and len(_lists_of_objects(value)) == 1


def _lists_of_objects(value: dict[str, Any]) -> list[list[Any]]:
    return [each for each in value.values() if isinstance(each, list) and each and isinstance(each[0], dict)]


def _json_list(path: Path | Part, data: DataConfig) -> list[Any]:
    whole = path.path if isinstance(path, Part) else path
    value = _json_value("".join(line for _, line in decoded_lines(whole, data.encoding)), str(path))
    if isinstance(value, dict):
        lists = _lists_of_objects(value)
        if len(lists) != 1:
            raise ConfigError(
                f"{path}: is an object with {len(lists)} lists of objects; "
                "give one object per line, or one list of objects"
            )
        return lists[0]
    return list(value)


def _json_value(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if "\n" in text else ""
        raise ConfigError(
            f"{place}{line}, column {error.colno}: not JSON ({error.msg}); write one object per line"
        ) from None
    except RecursionError:
        raise ConfigError(f"{place}: not readable as JSON (nested too deeply); write one object per line") from None
    except ValueError as error:  # a number of more than 4,300 digits
        raise ConfigError(
            f"{place}: not readable as JSON ({str(error).split(';')[0]}); write one object per line"
        ) from None


# --- lines and files -------------------------------------------------------------------------------------------------


def line_examples(path: Path) -> Iterator[Example]:
    """Each line of a file, empty ones too."""
    return (Example(line, "") for _, line in read_lines(path))


_FASTTEXT_LABEL = re.compile(r"(?<!\S)__label__(\S*)\s?")


def _text_examples(path: Path | Part, data: DataConfig) -> Iterator[Example]:
    for number, line in read_lines(path, data.encoding):
        if not line.strip():
            continue
        labels_of_line = [each.rstrip(",") for each in _FASTTEXT_LABEL.findall(line)] if "__label__" in line else []
        text = _FASTTEXT_LABEL.sub("", line).strip() if labels_of_line else line
        if not data.label_column:
            yield Example(text, "")
            continue
        if data.multi_label:
            yield Example(text, labels.join(labels_of_line))
            continue
        if len(labels_of_line) > 1:
            shown = ", ".join(map(repr, labels_of_line[:5]))
            raise ConfigError(
                f"{path}: line {number} has {len(labels_of_line)} labels ({shown}), but a text has one; "
                "set data.multi_label=true, keep one "
                "label, or set data.label_column= (empty) to train without labels"
            )
        yield Example(text, labels_of_line[0] if labels_of_line else "")


# Of the sources that can be read from any line on, for `records`.
PART_READERS: dict[str, Callable[[Path | Part, DataConfig], Iterator[Example]]] = {
    "tsv": _table_examples,
    "jsonl": _json_examples,
    "text": _text_examples,
}


def can_be_cut(path: Path, data: DataConfig) -> bool:
    """Whether a file of one of PART_READERS can be cut between any two lines."""
    if data.source == "tsv" and recognised(path, TableFormat.of(data)).quoting == "double":
        return False
    if data.source == "jsonl" and is_json_document(path, data):
        return False
    return data.encoding.lower().replace("_", "-") in ("utf-8", "utf8")


def _folder_examples(path: Path, data: DataConfig) -> Iterator[Example]:
    folders = _in_order(entry for entry in entries(path) if entry.is_dir() and _is_users(entry))
    if not folders:
        raise ConfigError(
            f"{path}: holds no folders, but data.source folders reads one folder per label; "
            "for one file of labelled texts "
            "use data.source=csv, jsonl or text"
        )
    if {"pos", "neg", "unsup"} <= {folder.name for folder in folders}:
        tell_once(f"{path}: left out: its folder unsup, IMDB's reviews without a label")
        folders = [folder for folder in folders if folder.name != "unsup"]
    texts = {
        folder: _in_order(each for each in entries(folder) if each.is_file() and _is_users(each)) for folder in folders
    }
    usual = {folder: [each for each in paths if _TEXT_NAME.search(each.name)] for folder, paths in texts.items()}
    if any(usual.values()):
        others = [each for folder, paths in texts.items() for each in paths if each not in usual[folder]]
        if others:
            tell_once(f"{path}: left out: {len(others)} files that do not end with .txt, such as {others[0].name}")
        texts = usual
    for folder, paths in texts.items():
        if not paths:
            raise ConfigError(_why_empty(folder))
        for file in paths:
            yield Example("".join(line for _, line in decoded_lines(file, data.encoding)), clean_label(folder.name))


_TEXT_NAME = re.compile(r"\.txt(\.gz|\.zip)?$", re.IGNORECASE)


def _why_empty(folder: Path) -> str:
    inner = next((entry.name for entry in _in_order(entries(folder)) if entry.is_dir()), "")
    mend = f"its texts lie deeper, in {inner}: give the folder whose folders are the labels" if inner else "remove it"
    return f"{folder}: no files, but of data.source folders each folder holds the texts of one label; {mend}"


def _in_order(paths: Iterable[Path]) -> list[Path]:
    """Sorts paths alike on all systems; by itself, Windows ignores the case of letters."""
    return sorted(paths, key=lambda path: path.parts)


def _is_users(entry: Path) -> bool:
    return not entry.name.startswith(".") and not is_companion(entry.name) and entry.name != "__MACOSX"


def _document_examples(path: Path, data: DataConfig) -> Iterator[Example]:
    files = (
        [path]
        if path.is_file()
        else [file for file in _in_order(_files_below(path)) if _is_document(file, data.patterns)]
    )
    if not files:
        raise ConfigError(
            f"data.patterns is {list(data.patterns)}, but no file below {path} has such a name (hidden ones are left "
            "out); "
            'give patterns such as ["*.txt"], or another folder'
        )
    for file in files:
        try:
            text = "".join(line for _, line in decoded_lines(file, data.encoding))
        except ConfigError as error:
            if path.is_file():
                raise
            raise ConfigError(f"{error}; or name the files to read, as data.patterns=[*.txt]") from None
        if text:
            yield Example(text, "")


def _files_below(folder: Path) -> Iterator[Path]:
    """The user's files in a folder and its folders."""

    def fail(error: OSError) -> None:
        raise unreadable(error)

    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if _is_users(Path(name))]
        yield from (Path(parent, name) for name in names if _is_users(Path(name)))


def _is_document(file: Path, patterns: tuple[str, ...]) -> bool:
    return file.is_file() and any(fnmatch.fnmatchcase(file.name, pattern) for pattern in patterns)
