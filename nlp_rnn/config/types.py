"""The types of settings: ranges of numbers, names in tables, and values with a form of their own."""

from collections.abc import Mapping
from os.path import expanduser
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from nlp_rnn.config.tables import CELLS, TASKS

_LARGEST = 2**31 - 1  # of TensorFlow's int32
_LARGEST_SIZE = 2**16  # of a side of a weight matrix: 16 GiB for a square one
PositiveInt = Annotated[int, Field(strict=True, gt=0, le=_LARGEST)]
NonNegativeInt = Annotated[int, Field(strict=True, ge=0, le=_LARGEST)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]  # what NumPy takes
Size = Annotated[int, Field(strict=True, gt=0, le=_LARGEST_SIZE)]
OptionalSize = Annotated[int, Field(strict=True, ge=0, le=_LARGEST_SIZE)]
NumLayers = Annotated[int, Field(strict=True, gt=0, le=100)]
BatchSize = Annotated[int, Field(strict=True, gt=0, le=2**20)]
PadMultiple = Annotated[int, Field(strict=True, ge=0, le=2**12)]
PositiveFloat = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(strict=True, ge=0, lt=1)]
OptionalFraction = Annotated[float | None, Field(strict=True, ge=0, lt=1)]
Switch = Annotated[bool, Field(strict=True)]
PathText = Annotated[str, AfterValidator(expanduser)]  # with ~ for the home directory


def _one_of(table: Mapping[str, Any]) -> AfterValidator:
    """Accepts the names that a table has at the time of the check, so that tables can grow after import."""

    def check(value: str) -> str:
        if value not in table:
            *others, last = map(repr, table)
            expected = f"{', '.join(others)} or {last}"
            raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})
        return value

    return AfterValidator(check)


def _as_class_weights(value: Any) -> Any:
    """A word, or (label, weight) pairs in order from a mapping {label: weight} or a list of mappings or pairs."""
    if isinstance(value, str) and value in ("none", "balanced"):
        return value
    rows: list[Any] = list(value.items()) if isinstance(value, Mapping) else []
    if isinstance(value, list | tuple):
        for entry in value:
            rows += list(entry.items()) if isinstance(entry, Mapping) else [entry]
    is_right = bool(rows) and all(
        isinstance(row, list | tuple)
        and len(row) == 2
        and isinstance(row[0], str | int | float)
        and isinstance(row[1], int | float)
        and not isinstance(row[1], bool)
        and 0 <= row[1] < float("inf")
        for row in rows
    )
    pairs = tuple((str(label), float(weight)) for label, weight in rows) if is_right else ()
    if len({label for label, _ in pairs}) != len(rows) or not any(weight for _, weight in pairs):
        expected = (
            "none, balanced or weights of 0 and more by label, each once and one above 0, such as {pos: 5, neg: 1}"
        )
        raise PydanticCustomError("class_weights", "Input should be {expected}", {"expected": expected})
    return pairs


TaskName = Annotated[str, _one_of(TASKS)]
SourceName = Literal[
    "imdb", "movie_reviews", "wikitext2", "tiny_shakespeare", "tatoeba_sentences", "csv", "tsv", "jsonl", "parquet",
    "folders", "text", "documents", "records", "multi30k", "tatoeba", "ted_hrlr", "cldr", "aligned", "tmx",
]  # fmt: skip
CellName = Annotated[str, _one_of(CELLS)]
PoolingName = Literal["last", "max", "mean", "attention"]
SoftmaxName = Literal["full", "sampled", "adaptive"]
AttentionName = Literal["dot", "general", "additive"]
MatmulPrecision = Literal["float32", "bfloat16"]
ClassWeights = Annotated[str | tuple[tuple[str, float], ...], BeforeValidator(_as_class_weights)]
Outputs = Literal["classes", "label_sets", "ordinal"]
