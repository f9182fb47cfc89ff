"""Raw text -> train, validation and test examples.

A source is a function of the data settings that returns its splits, each a function that streams examples from
the start: nothing is held in memory, so that a corpus may be larger than RAM. What a source does not give, `corpus` adds.
"""

import contextlib
import csv
import fnmatch
import functools
import importlib.metadata
import importlib.util
import itertools
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nlp_rnn.config import ConfigError, DataConfig
from nlp_rnn.files import Part, decoded_lines, read_lines
from nlp_rnn.startup import import_tensorflow


class Example(NamedTuple):
    """A text and its label; the label is "" where the source has none."""

    text: str
    label: str


Splits = dict[str, Callable[[], Iterator[Example]]]
SPLIT_NAMES = ("train", "validation", "test")

csv.field_size_limit(2**31 - 1)


# --- sources -------------------------------------------------------------------------------------------------------


def _load_imdb(data: DataConfig) -> Splits:
    """IMDB Large Movie Review Dataset (Maas et al. 2011) through TFDS; labels neg, pos, and "" in `unsupervised`."""
    rows = tfds_rows(data, "imdb_reviews/plain_text", "data.source=movie_reviews")
    names = {0: "neg", 1: "pos", -1: ""}

    def stream(split: str) -> Callable[[], Iterator[Example]]:
        return lambda: (Example(row["text"].decode("utf-8"), names[int(row["label"])]) for row in rows(split))

    if not data.use_unlabeled:
        return {name: stream(name) for name in ("train", "test")}
    return {"train": lambda: itertools.chain(stream("train")(), stream("unsupervised")()), "test": stream("test")}


def _load_tiny_shakespeare(data: DataConfig) -> Splits:
    """40,000 lines of Shakespeare (Karpathy 2015, char-rnn) through TFDS, as one text.

    data.split=contiguous cuts it as TFDS does where data.validation_fraction and data.test_fraction are 0.05, and as nanoGPT
    does where they are 0.1 and 0.
    """
    rows = tfds_rows(data, "tiny_shakespeare", "data.source=documents with data.train=FILE")

    def read() -> Iterator[Example]:
        yield Example("".join(row["text"].decode("utf-8") for split in SPLIT_NAMES for row in rows(split)), "")

    return {"train": read}


def _load_movie_reviews(data: DataConfig) -> Splits:
    """The 25,000 labelled IMDB training reviews in the package movie-reviews; labels neg, pos.

    Their order is made fit for data.split=blocks: reviews of one film stand near each other. In the file each of three
    runs follows the order of the films: negative reviews of films that have positive ones too, negative reviews of
    other films, positive reviews. They are merged in step here.
    """
    require_package("movie_reviews", "demo", "data.source is movie_reviews")
    # Importing the package would load it through pandas.
    path = Path(str(importlib.metadata.distribution("movie-reviews").locate_file("movie_reviews/data/combined_movie_reviews.csv")))

    def read() -> Iterator[Example]:
        rows = (row for _, row in _read_table(path, ",", ("text", "label", "source")) if row[2] == "imdb")
        examples = [Example(text, ("neg", "pos")[int(label)]) for text, label, _ in rows]
        runs = itertools.pairwise([0, _MOVIE_REVIEWS_WITH_POSITIVE_ONES, len(examples) // 2, len(examples)])
        places = [index / (end - start) for start, end in runs for index in range(end - start)]
        for row in sorted(range(len(examples)), key=places.__getitem__):
            yield examples[row]

    return {"train": read}


_MOVIE_REVIEWS_WITH_POSITIVE_ONES = 3875  # where the first run ends: seen from the names that reviews have in common


def _load_wikitext2(data: DataConfig) -> Splits:
    """WikiText-2, word level (Merity et al. 2016), with its official splits; a line an example, empty ones too.

    Its words stand between spaces and `<unk>` for rare ones: tokenizer.splitter=whitespace, tokenizer.case=keep.
    """
    setting = data.dir or os.environ.get("NLP_RNN_DATA", "")
    folder = Path(setting) / "wikitext-2"
    splits: Splits = {}
    for name, short in (("train", "train"), ("validation", "valid"), ("test", "test")):
        path = next((path for path in (folder / f"{short}.txt", folder / f"wiki.{short}.tokens") if path.is_file()), None)
        if path is None:
            raise ConfigError(
                f"data.source is wikitext2, but there is no {folder}/{short}.txt (nor wiki.{short}.tokens); "
                "set data.dir, or NLP_RNN_DATA, to the folder that holds wikitext-2"
            )
        splits[name] = functools.partial(_line_examples, path)
    return splits


def _load_csv(data: DataConfig) -> Splits:
    """Comma-separated files with a header line, quoted as RFC 4180 says."""
    return _load_files(data, lambda path: _table_examples(path, ",", data))


def _load_tsv(data: DataConfig) -> Splits:
    """Tab-separated files with a header line."""
    return _load_files(data, lambda path: PART_READERS["tsv"](path, data))


def _load_jsonl(data: DataConfig) -> Splits:
    """A JSON object a line."""
    return _load_files(data, lambda path: PART_READERS["jsonl"](path, data))


def _load_text(data: DataConfig) -> Splits:
    """A text a line; a line may begin with `__label__NAME ` (fastText's format)."""
    return _load_files(data, lambda path: PART_READERS["text"](path, data))


def _load_documents(data: DataConfig) -> Splits:
    """A text a file, its line ends and spaces kept: a file, or all files below a folder that data.patterns name, such as source code."""
    return _load_files(data, lambda path: _document_examples(path, data))


def _load_folders(data: DataConfig) -> Splits:
    """A folder per label, a text a file: TRAIN/LABEL/*.txt or *.txt.gz."""
    return _load_files(data, _folder_examples)


def _load_records(data: DataConfig) -> Splits:
    """What `nlp-rnn records` wrote into the folder data.dir: the examples of other sources, in their order."""
    require_package("tensorflow_datasets", "tfds", "data.source is records")
    folder = records_folder(Path(data.dir))
    if not data.dir or not folder.is_dir():
        raise ConfigError(f"data.source is records, but data.dir is {data.dir!r}, without {folder}; write it with nlp-rnn records")
    import_tensorflow()
    import tensorflow_datasets as tfds

    logging.getLogger("absl").setLevel(logging.WARNING)
    in_order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    with _telling_of_damage(folder):
        builder = tfds.builder_from_directory(folder)

    def read(split: str) -> Iterator[Example]:
        if not builder.info.splits[split].num_examples:
            return
        with _telling_of_damage(folder):
            rows = tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False, read_config=in_order))
            for row in rows:
                yield Example(row["text"].decode("utf-8"), row["label"].decode("utf-8"))

    return {split: functools.partial(read, split) for split in builder.info.splits}


@contextlib.contextmanager
def _telling_of_damage(folder: Path) -> Iterator[None]:
    """Raises ConfigError for what TFDS and TensorFlow say about files that are damaged or gone."""
    try:
        yield
    except Exception as error:  # they have no common class
        told = next((line for line in str(error).splitlines() if line.strip()), "")
        raise ConfigError(
            f"data.source is records, but those in {folder} are damaged ({type(error).__name__}: {told[:200]}); "
            "remove the folder and write it again with nlp-rnn records"
        ) from error


def records_folder(root: Path) -> Path:
    """Where below a folder `nlp-rnn records` writes."""
    return root / "records" / RECORDS_VERSION


RECORDS_VERSION = "1.0.0"


SOURCES: dict[str, Callable[[DataConfig], Splits]] = {
    "imdb": _load_imdb,
    "tiny_shakespeare": _load_tiny_shakespeare,
    "movie_reviews": _load_movie_reviews,
    "wikitext2": _load_wikitext2,
    "csv": _load_csv,
    "tsv": _load_tsv,
    "jsonl": _load_jsonl,
    "folders": _load_folders,
    "text": _load_text,
    "documents": _load_documents,
    "records": _load_records,
}


# --- reading files -------------------------------------------------------------------------------------------------


def _load_files(data: DataConfig, read: Callable[[Path], Iterator[Example]]) -> Splits:
    splits: Splits = {}
    for name in SPLIT_NAMES:
        setting = getattr(data, name)
        if setting:
            path = Path(setting)
            if not path.exists():
                raise ConfigError(f"data.{name} is {setting}, but there is no such file or folder; give the path of your data")
            if path.is_dir() != (data.source == "folders") and data.source != "documents":
                kind, wanted = ("folder", "file") if path.is_dir() else ("file", "folder with a folder per label")
                raise ConfigError(f"data.{name} is {setting}, a {kind}, but data.source {data.source} reads a {wanted}")
            splits[name] = functools.partial(read, path)
    return splits


def _read_table(path: Path | Part, delimiter: str, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
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
                raise ConfigError(f"{path}: line {number} has {len(row)} fields, but the header has {len(header)}; quote or mend it")
            yield number, [row[place] for place in places]
    except csv.Error as error:
        number = lines_before + reader.line_num
        raise ConfigError(f"{path}: line {number}: not readable as data.source says ({error}); check the quotes") from None


def _table_examples(path: Path | Part, delimiter: str, data: DataConfig) -> Iterator[Example]:
    columns = (data.text_column, data.label_column) if data.label_column else (data.text_column,)
    for _, (text, *labels) in _read_table(path, delimiter, columns):
        yield Example(text, labels[0].strip() if labels else "")


def _line_examples(path: Path) -> Iterator[Example]:
    return (Example(line, "") for _, line in read_lines(path))


def _json_examples(path: Path | Part, data: DataConfig) -> Iterator[Example]:
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path}: line {number}, column {error.colno}: not JSON ({error.msg}); write one object a line") from None
        if not isinstance(row, dict) or not isinstance(row.get(data.text_column), str):
            raise ConfigError(f"{path}: line {number} has no string {data.text_column!r}; set data.text_column to the name of the text")
        label = row.get(data.label_column, "")
        if isinstance(label, (dict, list)) or label is None:
            raise ConfigError(f"{path}: line {number}: {data.label_column!r} is {label!r}, but a label is a string, number or boolean")
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
    files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if _is_document(file, path, data.patterns)]
    if not files:
        raise ConfigError(
            f"data.patterns is {list(data.patterns)}, but no file below {path} has such a name (hidden ones are left out); "
            'give patterns such as ["*.txt"], or another folder'
        )
    for file in files:
        text = "".join(line for _, line in decoded_lines(file))
        if "\0" in text:
            raise ConfigError(
                f"{file}: holds NUL bytes, so it is no text; take it out, or name the files to read, as data.patterns=[*.txt]"
            )
        if text:
            yield Example(text, "")


def _is_document(file: Path, folder: Path, patterns: tuple[str, ...]) -> bool:
    is_hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.is_file() and not is_hidden and any(fnmatch.fnmatch(file.name, pattern) for pattern in patterns)


def tfds_rows(data: DataConfig, name: str, instead: str) -> Callable[[str], Iterable[dict[str, Any]]]:
    """A function split -> the records of a TFDS data set that is prepared below data.dir, or downloaded.

    Args:
      instead: settings that do without.
    """
    require_package("tensorflow_datasets", "tfds", f"data.source is {data.source}")
    import_tensorflow()
    import tensorflow_datasets as tfds

    logging.getLogger("absl").setLevel(logging.WARNING)
    folder = name.partition("/")[0]
    root = _tfds_dir(data, folder)
    builder = tfds.builder(name, data_dir=root)
    if not builder.data_path.exists():
        try:
            builder.download_and_prepare()
        except Exception as error:  # network, disk and checksum errors have no common class in TFDS
            raise ConfigError(
                f"data.source is {data.source}, which is not prepared under {root or '~/tensorflow_datasets'} (data.dir, or NLP_RNN_DATA) "
                f"and could not be downloaded ({type(error).__name__}); set data.dir to a folder that holds tfds/{folder}, "
                f"or use {instead}"
            ) from error
    return lambda split: tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False))


def _tfds_dir(data: DataConfig, name: str) -> str | None:
    """The TFDS folder under the setting data.dir; None for TFDS's own default."""
    setting = data.dir or os.environ.get("NLP_RNN_DATA", "")
    if not setting:
        return None
    root = Path(setting)
    if not root.is_dir():
        origin = "data.dir" if data.dir else "the environment's NLP_RNN_DATA"
        raise ConfigError(f"{origin} is {setting}, but there is no such folder; give the folder of the prepared data sets")
    return str(root if (root / name).is_dir() else root / "tfds")


def require_package(module: str, extra: str, why: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f"{why}, which needs the package {module}; install it: pip install 'nlp-rnn[{extra}]'")
