"""Corpora too large to read again and again: written once as sharded record files, by Apache Beam, and read as the source `records`.

It is a TFDS builder whose shards are given, so that the examples keep their order; Beam's runner is the user's choice.
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

from nlp_rnn.config.settings import DataConfig
from nlp_rnn.data.readers import PART_READERS, SPLIT_NAMES, Example, Splits, can_be_cut, require_package
from nlp_rnn.data.record_source import RECORDS_VERSION, records_folder
from nlp_rnn.data.sources import PAIR_SOURCES, SOURCES
from nlp_rnn.errors import ConfigError
from nlp_rnn.files import disk_errors
from nlp_rnn.tensorflow_import import START_UP_NOISE, import_tensorflow, without_noise
from nlp_rnn.text_files import Part, parts_of

LOCAL_RUNNER = (
    "apache_beam.runners.portability.fn_api_runner.FnApiRunner"  # Beam's DirectRunner may look for a server of its own
)
_BEAM_NOISE = re.compile(rb"^(INFO|WARNING)\b|" + START_UP_NOISE.pattern)


class Shard(NamedTuple):
    """A record file to write, and what to write into it."""

    split: str
    path: str
    examples: Callable[[], Iterator[Example]]


def write_records(
    data: DataConfig, folder: Path, *, num_shards: int, runner: str = LOCAL_RUNNER, flags: list[str] | None = None
) -> dict[str, int]:
    """Writes all splits of a source below `folder`, whole or not at all; what a killed run has left there is removed.

    Args:
      data: which source, and where it lies.
      num_shards: record files a split, or fewer where there are fewer lines.
      runner: a class of Apache Beam, by its name. flags: its options, such as "--direct_num_workers=2".

    Returns:
      the number of examples of each split.

    Raises:
      ConfigError: if the folder holds records already or another process writes there, the source cannot be read, or the runner
        or its options are not known.
    """
    for module in ("apache_beam", "tensorflow_datasets"):
        require_package(module, "records", "nlp-rnn records")
    if data.source == "records":
        raise ConfigError(
            "data.source is records, which is written already; give the source that they are to be made from"
        )
    if data.weight_column:
        raise ConfigError(
            f"data.weight_column is {data.weight_column}, but records hold texts and labels only; train from the files, or leave it out"
        )
    # Workers may stand in other folders.
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
                    f"--to is {folder}, which holds records already ({target}); give another folder, or remove that one"
                )
            for leftover in target.parent.glob("*incomplete*"):
                shutil.rmtree(leftover)
            import_tensorflow()
            with without_noise(_BEAM_NOISE) if runner == LOCAL_RUNNER else contextlib.nullcontext():
                return _write(parts, folder.absolute(), runner, flags or [])


def _all_sources() -> dict[str, Callable[[DataConfig], Splits]]:
    return SOURCES | PAIR_SOURCES


def _parts(data: DataConfig, splits: Splits, num_shards: int) -> dict[str, list[Callable[[], Iterator[Example]]]]:
    """Of each split, a function for each of its record files."""
    if data.source not in PART_READERS:
        return {split: [functools.partial(_examples, data, split)] for split in splits}
    paths = {split: Path(getattr(data, split)) for split in splits}
    parts = {
        split: parts_of(path, num_shards) if can_be_cut(path, data) else [Part(path)] for split, path in paths.items()
    }
    return {
        split: [functools.partial(_examples, data, split, part) for part in found] for split, found in parts.items()
    }


def _examples(data: DataConfig, split: str, part: Part | None = None) -> Iterator[Example]:
    """Streams a part's examples, or a whole split's; workers find it by its name."""
    return PART_READERS[data.source](part, data) if part else _all_sources()[data.source](data)[split]()


def _write(
    parts: dict[str, list[Callable[[], Iterator[Example]]]], folder: Path, runner: str, flags: list[str]
) -> dict[str, int]:
    import tensorflow_datasets as tfds

    options = _beam_options(flags)
    _check_runner(runner)
    tfds.disable_progress_bar()
    try:
        # Nothing is downloaded, though TFDS says so and wants a folder for it.
        with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as unused:
            builder = _builder_class()(data_dir=folder, parts=parts)
            how = tfds.download.DownloadConfig(beam_runner=runner, beam_options=options)
            builder.download_and_prepare(download_dir=unused, download_config=how)
    except Exception as error:  # a runner raises what its workers raised in classes of its own
        told = f"{type(error).__name__}: {error}"
        if found := re.search(r"ConfigError: (.+?)(?: \[while running|\\n|\n|$)", told):
            raise ConfigError(found[1]) from error
        if "KeyboardInterrupt" in told:
            raise KeyboardInterrupt from error
        raise
    return {split: builder.info.splits[split].num_examples for split in parts}


def _beam_options(flags: list[str]) -> Any:
    from apache_beam.options.pipeline_options import PipelineOptions

    try:
        with contextlib.redirect_stderr(io.StringIO()) as said:
            options = PipelineOptions(flags)
            known = options.get_all_options()
    except SystemExit:
        raise ConfigError(f"nlp-rnn records: {said.getvalue().strip().splitlines()[-1]}") from None
    for flag in flags:
        if flag.startswith("--") and flag[2:].partition("=")[0] not in known:
            raise ConfigError(
                f"nlp-rnn records: {flag} is no option of Apache Beam; leave it out, or see its documentation"
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
    """The builder; a function, since TFDS is not imported where it is not needed."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_builder, splits

    class Records(dataset_builder.FileReaderBuilder):
        """A corpus of nlp-rnn, each example a text and its label, or its translation."""

        # Not TFDS's ShardBasedBuilder: by its source (4.9) it runs Beam anew for each split with all splits before it, holds each
        # shard in memory until it is counted, and sorts the numbers of the shards' lengths as texts, so that ten comes before two.

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
    """Writes the shards, each by one of the runner's workers; how many examples each has.

    Args:
      place: a file for the workers to leave the counts in.
    """
    import apache_beam as beam

    with beam.Pipeline(runner=how.beam_runner, options=how.beam_options) as pipeline:
        numbers = pipeline | beam.Create(range(len(shards))) | beam.Reshuffle()
        counts = numbers | beam.Map(_write_shard, shards, info.features, info.file_format) | beam.combiners.ToList()
        counts | beam.Map(lambda found: place.write_text(json.dumps(sorted(found)), encoding="utf-8"))
    found = json.loads(place.read_text(encoding="utf-8"))
    place.unlink()
    return [count for _, count in found]


def _write_shard(number: int, shards: list[Shard], features: Any, file_format: Any) -> tuple[int, int]:
    """(number, examples written), with one example in memory."""
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
