"""The command `nlp-rnn records`: writes a corpus as record files."""

import json
from pathlib import Path

from nlp_rnn.cli.options import Parser
from nlp_rnn.config.loading import load_config
from nlp_rnn.config.settings import PAIR_SOURCES
from nlp_rnn.data.records import LOCAL_RUNNER, write_records
from nlp_rnn.errors import ConfigError

USAGE = """usage: nlp-rnn records --to DIR [--shards N] [--workers N] [--json] data.source=NAME data.train=FILE ...
       nlp-rnn records --to DIR [--shards N] --runner NAME data.source=NAME data.train=FILE ... -- OPTION ...

Writes a corpus once as record files. Then train on it with data.source=records data.dir=DIR. Text, jsonl and tsv files
are read in parallel parts; every other source and every .gz file is one part. For a translator's tsv, csv and jsonl
files also set data.text_column=source data.label_column=target. For texts without labels set data.label_column=

  --to DIR       folder of the records; they appear there only when all are written
  --shards N     number of files per split (default: 16)
  --workers N    number of processes on this machine (default: 1)
  --runner NAME  Apache Beam runner, such as FlinkRunner or SparkRunner; its options follow --. The data files and DIR
                 must be on a disk that all its workers mount, and nlp-rnn[records] must be installed on the workers
  --json         print the result as JSON
"""
# Settings that select examples after reading. Records hold the whole source.
_OF_TRAINING = (
    "split", "block_size", "validation_fraction", "test_fraction", "remove_repeated", "max_examples", "length_ratio",
    "max_length", "keep", "cache_dir",
)  # fmt: skip


def main(arguments: list[str]) -> None:
    """Runs `nlp-rnn records ...`.

    Raises:
      ConfigError: if an option is wrong; see also `write_records`.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    flags = arguments[end + 1 :]
    if not arguments or {"-h", "--help"} & set(arguments[:end]):
        print(USAGE, end="")
        return
    parser = Parser(prog="nlp-rnn records", allow_abbrev=False, add_help=False)
    parser.add_argument("--to", metavar="DIR", required=True)
    for name, default in (("shards", 16), ("workers", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--runner", default="")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("settings", nargs="*")
    options = parser.parse_intermixed_args(arguments[:end])
    for name in ("shards", "workers"):
        if getattr(options, name) < 1:
            raise ConfigError(
                f"nlp-rnn records: --{name} is {getattr(options, name)}, but must be a whole number of 1 or more"
            )
    for setting in options.settings:
        if not setting.startswith("data."):
            raise ConfigError(
                f"nlp-rnn records: {setting!r}: only data.* settings determine the records; set the others in training"
            )
        key = setting[len("data.") :].partition("=")[0]
        if key in _OF_TRAINING:
            raise ConfigError(
                f"nlp-rnn records: {setting!r} does not change the records, which hold the whole source; "
                "set it in training"
            )
    if options.workers > 1:
        if options.runner:
            raise ConfigError(
                f"--workers is {options.workers}, but applies to this machine only; set the workers of --runner "
                f"{options.runner} with its own options after --"
            )
        flags += [f"--direct_num_workers={options.workers}", "--direct_running_mode=multi_processing"]
    if "://" in options.to:
        raise ConfigError(f"--to is {options.to}, but must be a folder on a disk that this machine mounts")
    is_parallel = any(setting == f"data.source={name}" for setting in options.settings for name in PAIR_SOURCES)
    config = load_config(None, options.settings, task="translation" if is_parallel else "sentiment")
    counts = write_records(
        config.data, Path(options.to), num_shards=options.shards, runner=options.runner or LOCAL_RUNNER, flags=flags
    )
    text = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    print(
        json.dumps(counts)
        if options.json
        else f"{text} examples; read them with data.source=records data.dir={options.to}"
    )
