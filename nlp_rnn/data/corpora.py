"""Known corpora of texts, each a function of the data settings that returns its splits."""

import functools
import importlib.metadata
import importlib.util
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from nlp_rnn.config.settings import DataConfig
from nlp_rnn.data.readers import SPLIT_NAMES, Example, Splits, line_examples, require_package
from nlp_rnn.data.tables import read_table
from nlp_rnn.data.tfds_features import check_features
from nlp_rnn.errors import ConfigError
from nlp_rnn.tensorflow_import import import_tensorflow


def load_imdb(data: DataConfig) -> Splits:
    """IMDB Large Movie Review Dataset (Maas et al. 2011) through TFDS; labels neg, pos, and "" in `unsupervised`."""
    rows = tfds_rows(data, "imdb_reviews/plain_text", "data.source=movie_reviews")
    names = {0: "neg", 1: "pos", -1: ""}

    def stream(split: str) -> Callable[[], Iterator[Example]]:
        return lambda: (Example(row["text"].decode("utf-8"), names[int(row["label"])]) for row in rows(split))

    if not data.use_unlabeled:
        return {name: stream(name) for name in ("train", "test")}
    return {"train": lambda: itertools.chain(stream("train")(), stream("unsupervised")()), "test": stream("test")}


def load_tiny_shakespeare(data: DataConfig) -> Splits:
    """40,000 lines of Shakespeare (Karpathy 2015, char-rnn) through TFDS, as one text.

    data.split=contiguous cuts it as TFDS does where data.validation_fraction and data.test_fraction are 0.05, and as nanoGPT
    does where they are 0.1 and 0.
    """
    rows = tfds_rows(data, "tiny_shakespeare", "data.source=documents with data.train=FILE")

    def read() -> Iterator[Example]:
        yield Example("".join(row["text"].decode("utf-8") for split in SPLIT_NAMES for row in rows(split)), "")

    return {"train": read}


def load_movie_reviews(data: DataConfig) -> Splits:
    """The 25,000 labelled IMDB training reviews in the package movie-reviews; labels neg, pos.

    Their order is made fit for data.split=blocks: reviews of one film stand near each other. In the file each of three
    runs follows the order of the films: negative reviews of films that have positive ones too, negative reviews of
    other films, positive reviews. They are merged in step here.
    """
    require_package("movie_reviews", "demo", "data.source is movie_reviews")
    # Importing the package would load it through pandas.
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


_MOVIE_REVIEWS_WITH_POSITIVE_ONES = 3875  # where the first run ends: seen from the names that reviews have in common


def load_wikitext2(data: DataConfig) -> Splits:
    """WikiText-2, word level (Merity et al. 2016), with its official splits; a line an example, empty ones too.

    Its words stand between spaces and `<unk>` for rare ones: tokenizer.splitter=whitespace, tokenizer.case=keep.
    """
    setting = data.dir or os.environ.get("NLP_RNN_DATA", "")
    folder = Path(setting) / "wikitext-2"
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


def tfds_rows(data: DataConfig, name: str, instead: str) -> Callable[[str], Iterable[dict[str, Any]]]:
    """A function split -> the records of a TFDS data set that is prepared below data.dir, or downloaded.

    Args:
      instead: settings that do without.
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
        raise ConfigError(
            f"{origin} is {setting}, but there is no such folder; give the folder of the prepared data sets"
        )
    return str(root if (root / name).is_dir() else root / "tfds")
