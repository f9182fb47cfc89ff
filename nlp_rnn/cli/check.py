"""The command `nlp-rnn check`: reads the data of a config and reports its content, without training."""

from typing import Any

from nlp_rnn.cli.main import Result
from nlp_rnn.cli.options import Parser
from nlp_rnn.config.loading import load_config
from nlp_rnn.config.settings import TFDS_SOURCES, Config
from nlp_rnn.data import label_checks
from nlp_rnn.data.corpus import Corpus, load_corpus
from nlp_rnn.data.label_names import label_names
from nlp_rnn.data.readers import SPLIT_NAMES
from nlp_rnn.tensorflow_import import import_tensorflow
from nlp_rnn.training import initial_vectors
from nlp_rnn.training.origin import check_origins

USAGE = """usage: nlp-rnn check [--task TASK] [--config FILE] [--json] section.key=value ...

Reads the data that train would use with these settings. Prints the number of examples, the labels, the lengths, the
share of unknown words, and warnings. It does not train and creates no run directory. It keeps the vocabulary and the
token ids in the cache, where train reuses them.

  --task TASK    sentiment (the default), next_word, char_generation or translation
  --config FILE  YAML file, or a name such as sentiment_demo
  --json         print the result as JSON
"""


def main(arguments: list[str], tasks: tuple[str, ...]) -> Result | None:
    """Runs `nlp-rnn check ...`; returns None after printing the help.

    Raises:
      ConfigError: if a setting is wrong, or a model cannot be trained on the data.
    """
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE, end="")
        return None
    parser = Parser(prog="nlp-rnn check", allow_abbrev=False, add_help=False)
    parser.add_argument("--task", choices=tasks)
    parser.add_argument("--config")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("settings", nargs="*")
    options = parser.parse_intermixed_args(arguments)
    task = options.task or (None if options.config else "sentiment")
    config = load_config(options.config, options.settings, task=task)
    facts = check_data(config)
    return Result(facts, describe(facts))


def check_data(config: Config) -> dict[str, Any]:
    """Reads the data of a config and counts what is in it.

    Returns:
      source: data.source.
      splits: split name -> examples, read and empty (numbers of texts), dropped (reason -> number of texts), labels
        (label -> number of texts), unlabelled (number of texts; 0 unless it is a classifier), first (the first text, at
        most 200 characters), and for train and validation tokens: median and largest length in tokens and the share of
        unknown tokens (0-1); pairs have these per side.
      vocab_size: number of token ids.
      warnings: one line per suspicious property of the labels.

    Raises:
      ConfigError: if a model cannot be trained on the data.
    """
    if config.data.source in TFDS_SOURCES:
        import_tensorflow()
    check_origins(config)
    initial_vectors.check(config)
    corpus = load_corpus(
        config.data, config.seed, is_parallel=config.kind == "translator",
        trains_on_unlabelled=config.trains_on_unlabelled,
    )  # fmt: skip
    splits = {name: _split_facts(corpus, name, config) for name in SPLIT_NAMES if corpus.has(name)}
    if config.kind == "classifier":
        label_names(corpus, allows_unlabelled=config.trains_on_unlabelled)
    import_tensorflow()
    from nlp_rnn.data import datasets

    inputs, _ = datasets.prepare_inputs(corpus, config)
    for name, cache in (("train", inputs.train), ("validation", inputs.validation)):
        splits[name]["tokens"] = cache.facts()
    labels = {name: facts.labels for name, facts in corpus.facts.items()}
    return {
        "source": config.data.source,
        "splits": splits,
        "vocab_size": inputs.vocab_size,
        "warnings": list(label_checks.warnings(labels)) if config.kind == "classifier" else [],
    }


def _split_facts(corpus: Corpus, name: str, config: Config) -> dict[str, Any]:
    facts = corpus.facts[name]
    return {
        "examples": facts.num_examples,
        "read": facts.num_read,
        "dropped": dict(facts.dropped),
        "empty": facts.num_empty,
        "labels": {label: count for label, count in facts.labels.most_common() if label},
        "unlabelled": facts.num_unlabelled if config.kind == "classifier" else 0,
        "first": facts.first.text[:200] if facts.first else "",
    }


def describe(facts: dict[str, Any]) -> str:
    """Formats the result of `check_data` as a table."""
    splits = facts["splits"]
    rows: dict[str, list[str]] = {"": list(splits)}
    rows["examples"] = [f"{split['examples']:,}" for split in splits.values()]
    rows["read"] = [f"{split['read']:,}" for split in splits.values()]
    for reason in dict.fromkeys(reason for split in splits.values() for reason in split["dropped"]):
        rows[f"left out: {reason}"] = [f"{split['dropped'].get(reason, 0):,}" for split in splits.values()]
    if any(split["empty"] for split in splits.values()):
        rows["empty texts"] = [f"{split['empty']:,}" for split in splits.values()]
    for label in list(dict.fromkeys(label for split in splits.values() for label in split["labels"]))[:_MAX_LABELS]:
        rows[f"label {label!r}"] = [f"{split['labels'].get(label, 0):,}" for split in splits.values()]
    if any(split["unlabelled"] for split in splits.values()):
        rows["without a label"] = [f"{split['unlabelled']:,}" for split in splits.values()]
    for side in next(iter(splits.values())).get("tokens", {}):
        for key, write in (("median", _number), ("largest", _number), ("unknown", _percent)):
            cells = [write(split["tokens"][side][key]) if "tokens" in split else "" for split in splits.values()]
            rows[f"{side}, {'unknown' if key == 'unknown' else f'{key} length'}"] = cells
    widths = [
        max(len(name) for name in rows),
        *(max(len(cells[n]) for cells in rows.values()) for n in range(len(splits))),
    ]
    lines = [
        "  ".join([name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))])
        for name, cells in rows.items()
    ]
    lines += [f"first of {name}: {' '.join(split['first'].split())[:90]}" for name, split in splits.items()]
    lines.append(f"vocabulary: {facts['vocab_size']:,}")
    return "\n".join([*lines, *(f"look at this: {warning}" for warning in facts["warnings"])])


_MAX_LABELS = 30


def _number(value: int) -> str:
    return f"{value:,}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
