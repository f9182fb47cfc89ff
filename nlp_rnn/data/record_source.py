"""The source `records`: reads what `nlp-rnn records` wrote."""

import contextlib
import functools
import logging
from collections.abc import Iterator
from pathlib import Path

from nlp_rnn.config.settings import DataConfig
from nlp_rnn.data.readers import Example, Splits
from nlp_rnn.data.tfds_features import check_features
from nlp_rnn.errors import ConfigError
from nlp_rnn.tensorflow_import import import_tensorflow


def load_records(data: DataConfig) -> Splits:
    """Reads the records in the folder data.dir: the examples of another source, in their order.

    Raises:
      ConfigError: if there are no records, or they are damaged.
    """
    folder = records_folder(Path(data.dir))
    if not data.dir or not folder.is_dir():
        raise ConfigError(
            f"data.source is records, but data.dir is {data.dir!r}, without {folder}; write it with nlp-rnn records"
        )
    check_features(folder, "remove the folder and write it again with nlp-rnn records")
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
    """Turns errors of TFDS and TensorFlow about damaged or missing files into ConfigErrors."""
    try:
        yield
    except Exception as error:  # these errors have no common class
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        raise ConfigError(
            f"data.source is records, but the records in {folder} are damaged ({type(error).__name__}: "
            f"{reason[:200]}); "
            "remove the folder and write it again with nlp-rnn records"
        ) from error


def records_folder(root: Path) -> Path:
    """The folder of the records below the folder that is given to `nlp-rnn records`."""
    return root / "records" / RECORDS_VERSION


RECORDS_VERSION = "1.0.0"
