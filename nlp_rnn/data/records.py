"""Writes large corpora once as sharded record files with Apache Beam, for the source `records`.

It is a TFDS builder with given shards, so that the examples keep their order. The user chooses Beam's runner.
"""

import contextlib
import functools
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from nlp_rnn import extras
from nlp_rnn.config.settings import DataConfig
from nlp_rnn.data.readers import PART_READERS, SPLIT_NAMES, Example, Splits, can_be_cut
from nlp_rnn.data.record_source import RECORDS_VERSION, records_folder
from nlp_rnn.data.sources import PAIR_SOURCES, SOURCES
from nlp_rnn.errors import ConfigError
from nlp_rnn.files import disk_errors
from nlp_rnn.tensorflow_import import START_UP_NOISE, import_tensorflow, without_noise
from nlp_rnn.text_files import Part, parts_of

# Not Beam's DirectRunner, which may search for a server.
LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_BEAM_NOISE = re.compile(rb"^(INFO|WARNING)\b|" + START_UP_NOISE.pattern)


class Shard(NamedTuple):
    """A record file to write, with its examples."""

    split: str
    path: str
    examples: Callable[[], Iterator[Example]]


def write_records(
    data: DataConfig, folder: Path, *, num_shards: int, runner: str = LOCAL_RUNNER, flags: list[str] | None = None
) -> dict[str, int]:
    """Writes all splits of a source below `folder`, completely or not at all. Removes the remains of killed runs there.

    Args:
      data: the source and its files.
      folder: the records are written below it; it is created if needed.
      num_shards: record files per split; fewer if there are fewer lines.
      runner: name of a runner class of Apache Beam.
      flags: options of the runner, such as "--direct_num_workers=2".

    Returns:
      split -> number of examples.

    Raises:
      ConfigError: if the folder already holds records, another process is writing there, the source cannot be read, or
        the runner or one of its options is unknown.
    """
    extras.require("records", "nlp-rnn records")
    if data.source == "records":
        raise ConfigError("data.source is records, which are written already; give the source to write records from")
    if data.weight_column:
        raise ConfigError(
            f"data.weight_column is {data.weight_column}, but records hold only texts and labels; "
            "train from the files, "
            "or leave it out"
        )
    # Workers may have other current folders.
    data = replace(
        data, **{key: os.path.abspath(path) for key in ("dir", *SPLIT_NAMES) if (path := getattr(data, key))}
    )
    target = records_folder(folder.absolute())
    parts = _parts(data, _all_sources()[data.source](data), num_shards)
    with disk_errors(folder):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            held = FileLock(target.parent / ".lock", timeout=0).acquire()
        except Timeout:
            raise ConfigError(
                f"--to is {folder}, where another process is writing records; wait for it or give another folder"
            ) from None
        with held:
            if target.exists():
                raise ConfigError(
                    f"--to is {folder}, which already holds records ({target}); give another folder, or remove that one"
                )
            for leftover in target.parent.glob("*incomplete*"):
                shutil.rmtree(leftover)
            import_tensorflow()
            with without_noise(_BEAM_NOISE) if runner == LOCAL_RUNNER else contextlib.nullcontext():
                return _write(parts, folder.absolute(), runner, flags or [])


def _all_sources() -> dict[str, Callable[[DataConfig], Splits]]:
    return SOURCES | PAIR_SOURCES


def _parts(data: DataConfig, splits: Splits, num_shards: int) -> dict[str, list[Callable[[], Iterator[Example]]]]:
    """split -> one function per record file, which yields its examples."""
    if data.source not in PART_READERS:
        return {split: [functools.partial(_examples, data, split)] for split in splits}
    paths = {split: Path(getattr(data, split)) for split in splits}
    parts = {
        split: parts_of(path, num_shards) if can_be_cut(path, data) else [Part(path)] for split, path in paths.items()
    }
    return {
        split: [functools.partial(_examples, data, split, part) for part in split_parts]
        for split, split_parts in parts.items()
    }


def _examples(data: DataConfig, split: str, part: Part | None = None) -> Iterator[Example]:
    """Yields the examples of a part or of a whole split. Workers import this function by name."""
    return PART_READERS[data.source](part, data) if part else _all_sources()[data.source](data)[split]()


def _write(
    parts: dict[str, list[Callable[[], Iterator[Example]]]], folder: Path, runner: str, flags: list[str]
) -> dict[str, int]:
    import tensorflow_datasets as tfds

    options = _beam_options(flags)
    _check_runner(runner)
    tfds.disable_progress_bar()
    try:
        # Nothing is downloaded, although TFDS prints so and requires a folder for it.
        with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as unused:
            builder = _builder_class()(data_dir=folder, parts=parts)
            how = tfds.download.DownloadConfig(beam_runner=runner, beam_options=options)
            builder.download_and_prepare(download_dir=unused, download_config=how)
    except Exception as error:  # a runner raises its workers' errors as its own classes
        message = f"{type(error).__name__}: {error}"
        if match := re.search(r"ConfigError: (.+?)(?: \[while running|\\n|\n|$)", message):
            raise ConfigError(match[1]) from error
        if "KeyboardInterrupt" in message:
            raise KeyboardInterrupt from error
        raise
    return {split: builder.info.splits[split].num_examples for split in parts}


def _beam_options(flags: list[str]) -> Any:
    from apache_beam.options.pipeline_options import PipelineOptions

    try:
        with contextlib.redirect_stderr(io.StringIO()) as written:
            options = PipelineOptions(flags)
            known = options.get_all_options()
    except SystemExit:
        raise ConfigError(f"nlp-rnn records: {written.getvalue().strip().splitlines()[-1]}") from None
    for flag in flags:
        if flag.startswith("--") and flag[2:].partition("=")[0] not in known:
            raise ConfigError(
                f"nlp-rnn records: {flag} is not an option of Apache Beam; leave it out, or see Beam's documentation"
            )
    return options


def _check_runner(runner: str) -> None:
    from apache_beam.runners.runner import create_runner

    try:
        create_runner(runner)
    except (ValueError, ImportError, AttributeError) as error:
        raise ConfigError(f"--runner is {runner}: {str(error).splitlines()[0]}") from None


# --- TFDS and Beam -------------------------------------------------------------------------------------------------


@functools.cache
def _builder_class() -> Any:
    """The builder class. It is defined in a function, so that TFDS is imported only when needed."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_builder, splits

    class Records(dataset_builder.FileReaderBuilder):
        """A corpus of nlp-rnn. Each example is a text with its label or its translation."""

        # Not TFDS's ShardBasedBuilder. Its source (4.9) runs Beam again for each split with all splits before it, holds
        # each shard in memory until it is counted, and sorts the numbers of the shards as texts, so that 10 is before
        # 2.

        VERSION = tfds.core.Version(RECORDS_VERSION)

        def __init__(self, *, parts: dict[str, list[Callable[[], Iterator[Example]]]], **options: Any) -> None:
            self._parts = parts
            super().__init__(**options)

        def _info(self) -> Any:
            features = tfds.features.FeaturesDict({"text": tfds.features.Text(), "label": tfds.features.Text()})
            return tfds.core.DatasetInfo(builder=self, description=self.__doc__, features=features)

        def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
            names = {split: self._get_filename_template(split_name=split) for split in self._parts}
            shards = [
                Shard(split, str(names[split].sharded_filepath(shard_index=number, num_shards=len(parts))), examples)
                for split, parts in self._parts.items()
                for number, examples in enumerate(parts)
            ]
            counts = _run_beam(shards, self.info, download_config, Path(self.data_path) / "counts.json")
            infos = []
            for split, name in names.items():
                own = [(shard, count) for shard, count in zip(shards, counts, strict=True) if shard.split == split]
                size = sum(os.path.getsize(shard.path) for shard, _ in own)
                lengths = [count for _, count in own]
                infos.append(
                    tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=name)
                )
            self.info.set_splits(splits.SplitDict(infos))

    return Records


def _run_beam(shards: list[Shard], info: Any, how: Any, place: Path) -> list[int]:
    """Writes the shards, each with one of the runner's workers.

    Args:
      place: temporary file for the counts.

    Returns:
      the number of examples of each shard.
    """
    import apache_beam as beam

    with beam.Pipeline(runner=how.beam_runner, options=how.beam_options) as pipeline:
        numbers = pipeline | beam.Create(range(len(shards))) | beam.Reshuffle()
        counts = numbers | beam.Map(_write_shard, shards, info.features, info.file_format) | beam.combiners.ToList()
        counts | beam.Map(lambda pairs: place.write_text(json.dumps(sorted(pairs)), encoding="utf-8"))
    pairs = json.loads(place.read_text(encoding="utf-8"))
    place.unlink()
    return [count for _, count in pairs]


def _write_shard(number: int, shards: list[Shard], features: Any, file_format: Any) -> tuple[int, int]:
    """Writes a shard with one example in memory; returns (number of the shard, number of examples)."""
    from tensorflow_datasets.core import example_serializer, writer

    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    count = 0

    def rows() -> Iterator[tuple[int, bytes]]:
        nonlocal count
        for text, label in shards[number].examples():
            yield count, serializer.serialize_example(features.encode_example({"text": text, "label": label}))
            count += 1

    writer.ExampleWriter(file_format).write(shards[number].path, rows())
    return number, count
