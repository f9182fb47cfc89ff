"""Published corpora of texts. Each function takes the data settings and returns the splits."""

import functools
import importlib.metadata
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from nlp_rnn import extras
from nlp_rnn.config.settings import DataConfig
from nlp_rnn.data.readers import SPLIT_NAMES, Example, Splits, line_examples
from nlp_rnn.data.tables import read_table
from nlp_rnn.data.tfds_features import check_features
from nlp_rnn.errors import ConfigError
from nlp_rnn.tensorflow_import import import_tensorflow


def load_imdb(data: DataConfig) -> Splits:
    """IMDB Large Movie Review Dataset (Maas et al. 2011) through TFDS; labels neg and pos, "" for unlabelled ones."""
    rows = tfds_rows(data, "imdb_reviews/plain_text", "data.source=movie_reviews")
    names = {0: "neg", 1: "pos", -1: ""}

    def stream(split: str) -> Callable[[], Iterator[Example]]:
        return lambda: (Example(row["text"].decode("utf-8"), names[int(row["label"])]) for row in rows(split))

    if not data.use_unlabeled:
        return {name: stream(name) for name in ("train", "test")}
    return {"train": lambda: itertools.chain(stream("train")(), stream("unsupervised")()), "test": stream("test")}


def load_tiny_shakespeare(data: DataConfig) -> Splits:
    """40,000 lines of Shakespeare (Karpathy 2015, char-rnn) through TFDS, as one text.

    With data.split=contiguous, it has the splits of TFDS if data.validation_fraction and data.test_fraction are 0.05,
    and those of nanoGPT if they are 0.1 and 0.
    """
    rows = tfds_rows(data, "tiny_shakespeare", "data.source=documents with data.train=FILE")

    def read() -> Iterator[Example]:
        yield Example("".join(row["text"].decode("utf-8") for split in SPLIT_NAMES for row in rows(split)), "")

    return {"train": read}


def load_movie_reviews(data: DataConfig) -> Splits:
    """The 25,000 labelled IMDB training reviews in the package movie-reviews; labels neg, pos.

    They are reordered for data.split=blocks, so that reviews of one film are near each other. The file has three runs,
    each in the order of the films: negative reviews of films that also have positive reviews, negative reviews of other
    films, and positive reviews. The three runs are merged in step.
    """
    extras.require("demo", "data.source is movie_reviews")
    # Importing the package would read the file with pandas.
    path = Path(
        str(
            importlib.metadata.distribution("movie-reviews").locate_file(
                "movie_reviews/data/combined_movie_reviews.csv"
            )
        )
    )

    def read() -> Iterator[Example]:
        rows = (row for _, row in read_table(path, ("text", "label", "source")) if row[2] == "imdb")
        examples = [Example(text, ("neg", "pos")[int(label)]) for text, label, _ in rows]
        runs = itertools.pairwise([0, _MOVIE_REVIEWS_WITH_POSITIVE_ONES, len(examples) // 2, len(examples)])
        places = [index / (end - start) for start, end in runs for index in range(end - start)]
        for row in sorted(range(len(examples)), key=places.__getitem__):
            yield examples[row]

    return {"train": read}


_MOVIE_REVIEWS_WITH_POSITIVE_ONES = 3875  # end of the first run, found from the names in the reviews


def load_wikitext2(data: DataConfig) -> Splits:
    """WikiText-2, word level (Merity et al. 2016), with its official splits. Each line is an example, even if empty.

    Words are separated by spaces; `<unk>` replaces rare words. Use tokenizer.splitter=whitespace and
    tokenizer.case=keep.

    Raises:
      ConfigError: if a file is missing.
    """
    folder = Path(data_folder(data)) / "wikitext-2"
    splits: Splits = {}
    for name, short in (("train", "train"), ("validation", "valid"), ("test", "test")):
        path = next(
            (path for path in (folder / f"{short}.txt", folder / f"wiki.{short}.tokens") if path.is_file()), None
        )
        if path is None:
            raise ConfigError(
                f"data.source is wikitext2, but there is no {folder}/{short}.txt (nor wiki.{short}.tokens); "
                "set data.dir, or NLP_RNN_DATA, to the folder that holds wikitext-2"
            )
        splits[name] = functools.partial(line_examples, path)
    return splits


def data_folder(data: DataConfig) -> str:
    """The folder of prepared data sets: the setting data.dir, else the environment's NLP_RNN_DATA, else ""."""
    return data.dir or os.environ.get("NLP_RNN_DATA", "")


def tfds_rows(data: DataConfig, name: str, instead: str) -> Callable[[str], Iterable[dict[str, Any]]]:
    """Opens a TFDS data set that is prepared below data.dir; downloads it otherwise.

    Args:
      data: with source and dir.
      name: TFDS name of the data set.
      instead: settings that need no TFDS data, for the message.

    Returns:
      a function from a split's name to its records.

    Raises:
      ConfigError: if the data set is not prepared and cannot be downloaded.
    """
    import_tensorflow()
    import tensorflow_datasets as tfds

    logging.getLogger("absl").setLevel(logging.WARNING)
    folder = name.partition("/")[0]
    root = _tfds_dir(data, folder)
    if root is not None:
        check_features(Path(root) / folder)
    builder = tfds.builder(name, data_dir=root)
    if not builder.data_path.exists():
        try:
            builder.download_and_prepare()
        except Exception as error:  # network, disk and checksum errors have no common class in TFDS
            raise ConfigError(
                f"data.source is {data.source}, which is not prepared under {root or '~/tensorflow_datasets'} "
                "(data.dir, or "
                f"NLP_RNN_DATA) and could not be downloaded ({type(error).__name__}); "
                "set data.dir to a folder that holds "
                f"tfds/{folder}, or use {instead}"
            ) from error
    return lambda split: tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False))


def _tfds_dir(data: DataConfig, name: str) -> str | None:
    """The TFDS folder under the setting data.dir; None for TFDS's own default."""
    setting = data_folder(data)
    if not setting:
        return None
    root = Path(setting)
    if not root.is_dir():
        origin = "data.dir" if data.dir else "the environment's NLP_RNN_DATA"
        raise ConfigError(
            f"{origin} is {setting}, but there is no such folder; give the folder of the prepared data sets"
        )
    return str(root if (root / name).is_dir() else root / "tfds")
