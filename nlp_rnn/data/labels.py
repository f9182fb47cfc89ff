"""Reads the labels and the weight of an example. Several labels of one text are one string, joined by `JOINT`."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from nlp_rnn.config.settings import Config, DataConfig
from nlp_rnn.errors import ConfigError

JOINT = "\x1f"  # ASCII's unit separator, which stands in no label
_YES, _NO = ("1", "1.0", "true"), ("0", "0.0", "false", "")


def clean_label(value: Any) -> str:
    """A label as text, without white space around it. Numbers and booleans are written as in JSON, and 1.0 as 1."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        value = int(value)
    return "" if value is None else without_surrogates(str(value)).strip()


def without_surrogates(text: str) -> str:
    """Replaces unpaired surrogates, which JSON can contain and UTF-8 cannot."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def join(labels: Iterable[str]) -> str:
    """Joins the distinct, non-empty labels in alphabetical order, without spaces around them."""
    return JOINT.join(sorted({label.replace(JOINT, " ").strip() for label in labels} - {""}))


def split(joined: str) -> list[str]:
    """Splits the result of `join` into labels."""
    return joined.split(JOINT) if joined else []


def columns_of(data: DataConfig) -> tuple[str, ...]:
    """The columns of a table that are read; the text is first."""
    labels = data.label_columns or ((data.label_column,) if data.label_column else ())
    return tuple(dict.fromkeys([data.text_column, *labels, *([data.weight_column] if data.weight_column else [])]))


def label_of(row: Mapping[str, Any], data: DataConfig, place: str) -> str:
    """The label of a row of a table, or its labels, joined.

    Args:
      row: column -> cell: a string, or of JSON any value.
      place: the file and the line.

    Raises:
      ConfigError: if a column of data.label_columns holds anything but 0 and 1, true and false, or nothing.
    """
    if not data.multi_label:
        return clean_label(row.get(data.label_column)) if data.label_column else ""
    if data.label_columns:
        return join(name for name in data.label_columns if _has(row.get(name), name, place))
    return join(_parts(row.get(data.label_column), data, place))


def weight_of(row: Mapping[str, Any], data: DataConfig, place: str) -> float:
    """The weight of a row of a table with data.weight_column.

    Raises:
      ConfigError: if the cell holds no number of 0 or more.
    """
    cell = row.get(data.weight_column)
    try:
        weight = math.nan if isinstance(cell, bool | dict | list) or cell is None else float(cell)
    except (ValueError, OverflowError):
        weight = math.nan
    if not 0 <= weight < math.inf:
        shown = repr(cell)[:60]
        raise ConfigError(
            f"{place}: data.weight_column {data.weight_column!r} holds {shown}, but a weight is a number of 0 or more; "
            "correct it"
        )
    return weight


def check_class_weights(config: Config, names: list[str]) -> None:
    """Raises ConfigError where training.class_weights names a label that training does not have."""
    chosen = config.training.class_weights
    if isinstance(chosen, str):
        return
    unknown = [label for label, _ in chosen if label not in names]
    if unknown:
        shown = ", ".join(map(repr, names[:10])) + (", ..." if len(names) > 10 else "")
        raise ConfigError(
            f"training.class_weights has a weight for {unknown[0]!r}, but the labels of data.train are {shown}; "
            "correct it"
        )
    if len(chosen) == len(names) and not config.data.multi_label and sum(weight > 0 for _, weight in chosen) < 2:
        raise ConfigError("training.class_weights leaves less than two labels a weight above 0; raise another one")


def _has(cell: Any, name: str, place: str) -> bool:
    text = "" if cell is None else str(cell).strip().lower()
    if text not in (*_YES, *_NO):
        raise ConfigError(
            f"{place}: column {name!r} of data.label_columns holds {str(cell)[:60]!r}, but must hold 1 or 0, true or "
            "false, or nothing; where a column names labels, use data.label_column and data.label_separator"
        )
    return text in _YES


def _parts(cell: Any, data: DataConfig, place: str) -> list[str]:
    if cell is None:
        return []
    cells = cell if isinstance(cell, list) else [cell]
    if any(isinstance(each, dict | list) or each is None for each in cells):
        raise ConfigError(
            f"{place}: {data.label_column!r} is {str(cell)[:60]}, but labels are strings or numbers, alone or in a list"
        )
    texts = [clean_label(each) for each in cells]
    return [part for text in texts for part in (text.split(data.label_separator) if data.label_separator else [text])]
