"""Reads tables: delimited text files and Parquet."""

import csv
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nlp_rnn.config.settings import DataConfig
from nlp_rnn.errors import ConfigError
from nlp_rnn.text_files import Part, decoded_lines

csv.field_size_limit(2**31 - 1)

_NUM_PROBED = 1000  # lines at the start of a file, for recognising quoting
_DELIMITERS = {";": "';'", "\t": "tab", "|": "'|'", ",": ","}  # delimiter -> value of data.delimiter


@dataclass(frozen=True)
class TableFormat:
    """The format of a delimited text file.

    Attributes:
      delimiter: one character.
      has_header: whether the first row names the columns; otherwise they are numbered from 1.
      quoting: "double": fields may be enclosed in quotation marks, which are doubled inside; "none": quotation marks
        are part of the text; "": recognised from the first rows.
      encoding: encoding of the file; None: UTF-8.
    """

    delimiter: str = ","
    has_header: bool = True
    quoting: str = "double"
    encoding: str | None = None

    @classmethod
    def of(cls, data: DataConfig) -> "TableFormat":
        """The format that the settings describe."""
        usual = "\t" if data.source == "tsv" else ","
        delimiter = {"": usual, "tab": "\t", r"\t": "\t"}.get(data.delimiter, data.delimiter)
        return cls(
            delimiter, data.has_header, data.quoting or ("" if data.source == "tsv" else "double"), data.encoding
        )


def recognised(path: Path | Part, table: TableFormat) -> TableFormat:
    """The format with its quoting filled in from the file."""
    if table.quoting:
        return table
    return replace(table, quoting="double" if is_quoted_by_doubling(path, table) else "none")


def read_table(
    path: Path | Part, columns: tuple[str, ...], table: TableFormat = TableFormat()
) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number from 1, values of the given columns).

    Args:
      path: the file, or a part of it.
      columns: names of columns, or their numbers from 1 if there is no header.
      table: the format of the file; see `recognised`.

    Raises:
      ConfigError: if a column is missing or a row has another number of fields than the first one.
    """
    lines: Iterator[str] = (line for _, line in decoded_lines(path, table.encoding))
    lines_before = 0
    is_later_part = isinstance(path, Part) and path.start > 0
    if is_later_part and table.has_header:  # the header is in another part
        header = (line for _, line in itertools.islice(decoded_lines(path.path), 1))  # type: ignore[union-attr]
        lines = itertools.chain(header, lines)
    if is_later_part:
        lines_before = path.first_line - 1 - table.has_header  # type: ignore[union-attr]
    is_quoted = table.quoting == "double"
    options: dict[str, Any] = {"strict": True} if is_quoted else {"quoting": csv.QUOTE_NONE}
    reader = csv.reader(lines, delimiter=table.delimiter, **options)
    try:
        first = next(reader, None)
        if first is None:
            return
        places = _places(path, first, columns, table)
        for row in reader if table.has_header else itertools.chain([first], reader):
            if not row:
                continue
            if len(row) != len(first):
                raise ConfigError(
                    _wrong_width(path, lines_before + reader.line_num, row, first, table, is_quoted=is_quoted)
                )
            yield lines_before + reader.line_num, [row[place] for place in places]
    except csv.Error as error:
        reason = "a field contains a carriage return" if "new-line character" in str(error) else str(error)
        raise ConfigError(
            f"{path}: line {lines_before + reader.line_num}: not readable as data.source says ({reason}); check the "
            "quotation marks, or set data.quoting=none if they are part of the texts"
        ) from None


def is_quoted_by_doubling(path: Path | Part, table: TableFormat) -> bool:
    """Whether the fields were quoted by a program such as pandas, R or Excel.

    This is assumed if a field begins with a quotation mark and contains doubled ones up to the one at its end, or if
    the header is quoted, and if all of the first lines can be read like this.
    """
    whole = path.path if isinstance(path, Part) else path
    probed = [line for _, line in itertools.islice(decoded_lines(whole, table.encoding), _NUM_PROBED)]
    if not any(line.startswith('"') or f'{table.delimiter}"' in line for line in probed):
        return False
    reader = csv.reader(probed, delimiter=table.delimiter, strict=True)
    rows: list[list[str]] = []
    try:
        rows.extend(reader)
    except csv.Error:
        if len(probed) < _NUM_PROBED or reader.line_num < len(probed):
            return False  # else the last row goes on after the probed lines
    if not rows:  # a quotation mark in the header is not closed
        return False
    widths = {len(row) for row in rows if row}
    is_header_quoted = table.has_header and probed[0].startswith('"') and probed[0].count('"') == 2 * len(rows[0])
    has_doubled = any('"' in field for row in rows for field in row) and any('""' in line for line in probed)
    has_line_ends = any("\n" in field or "\r" in field for row in rows for field in row)
    return len(widths) == 1 and (is_header_quoted or has_doubled or has_line_ends)


def _places(path: Path | Part, header: list[str], columns: tuple[str, ...], table: TableFormat) -> list[int]:
    """The indices of the named columns."""
    if not table.has_header:
        return [_numbered(path, name, len(header)) for name in columns]
    for name in columns:
        if name not in header:
            raise ConfigError(f"{path}: has no column {name!r}; {_names_of(header, table)}")
        if header.count(name) > 1:
            raise ConfigError(
                f"{path}: has {header.count(name)} columns named {name!r}; rename one, or set data.text_column and "
                "data.label_column to others"
            )
    return [header.index(name) for name in columns]


def _numbered(path: Path | Part, name: str, width: int) -> int:
    if not name.isdecimal() or not 1 <= int(name[:9]) <= width:
        raise ConfigError(
            f"{path}: has no column {name!r}: data.has_header is false, so columns are numbered from 1 to {width}; set "
            "data.text_column and data.label_column to numbers"
        )
    return int(name) - 1


def _names_of(header: list[str], table: TableFormat) -> str:
    other = next((mark for mark in _DELIMITERS if mark != table.delimiter and mark in "".join(header)), None)
    if len(header) == 1 and other is not None:
        return (
            f"its first line is one field, {header[0][:80]!r}, so its columns seem to be separated by "
            f"{_DELIMITERS[other]}: set data.delimiter={_DELIMITERS[other]}"
        )
    shown = ", ".join(repr(name[:40]) for name in header[:20]) + (", ..." if len(header) > 20 else "")
    return (
        f"its header line names {shown}: set data.text_column and data.label_column; if that line is an example, not a "
        "header, set data.has_header=false data.text_column=1 data.label_column=2, the columns' numbers"
    )


def _wrong_width(
    path: Path | Part, number: int, row: list[str], first: list[str], table: TableFormat, *, is_quoted: bool
) -> str:
    first_name = "the header" if table.has_header else "the first line"
    fault = f"{path}: line {number} has {len(row)} fields, but {first_name} has {len(first)}"
    if not is_quoted:
        return (
            f"{fault}; only a quoted field may contain a line end or the delimiter; correct the line, or set "
            "data.quoting=double if the file quotes its fields"
        )
    return f"{fault}; put quotation marks around a field that contains the delimiter, or correct the line"


def read_parquet(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, list[Any]]]:
    """Yields (row number from 1, values of the given columns) of a Parquet file, with 1,024 rows in memory.

    Raises:
      ConfigError: if the file is damaged or a column is missing.
    """
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            for name in columns:
                if names.count(name) != 1:
                    shown = ", ".join(map(repr, names))
                    raise ConfigError(
                        f"{path}: has {names.count(name)} columns named {name!r}; its columns are {shown}; set "
                        "data.text_column and data.label_column"
                    )
            for batch in file.iter_batches(batch_size=1024, columns=list(columns)):
                for values in zip(*(batch.column(name).to_pylist() for name in columns), strict=True):
                    number += 1
                    yield number, list(values)
    except (pyarrow.ArrowException, OSError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise ConfigError(f"{path}: not readable as Parquet ({reason[:200]}); write the file again") from None
