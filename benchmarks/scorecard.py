"""Trains a task by its published config, scores it once on the official test split, and writes its row of RESULTS.md.

    python -m benchmarks.scorecard TASK [--seeds 1,2,3] [section.key=value ...]

TASK: sentiment, next_word, char_generation or translation. Trainings are resumed by the same command, and a run whose
metrics.json already has its figure on test is not scored again. With several seeds, the row has their mean and spread.
Needs NLP_RNN_DATA (tfds/imdb_reviews, wikitext-2, tfds/tiny_shakespeare, multi30k) and hours; see docs/results.md.
"""

import argparse
import math
import os
import platform
import re
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

import nlp_rnn
from nlp_rnn import files
from nlp_rnn.config.loading import load_config
from nlp_rnn.config.settings import Config
from nlp_rnn.errors import ConfigError
from nlp_rnn.training.checkpoints import load_arrays

_ROOT = Path(__file__).parent.parent
_RESULTS = _ROOT / "RESULTS.md"
_BEGIN, _END = "<!-- scorecard: written by python -m benchmarks.scorecard -->", "<!-- end of the scorecard -->"


class Card(NamedTuple):
    """A task's row.

    Attributes:
      data: the official test data and what is measured.
      configs: trained one after the other; the last one is scored. Where a config names the run of an earlier one, as
        runs/NAME, it gets that run of the same seed.
      metric: its name in metrics.json.
      format: of the figure.
      factor: between metrics.json and the figure.
      reference: the published figure to compare with, and its source.
      baseline: the figure of our own simple model on the same data (`evaluate --baseline`), which does not change.
    """

    data: str
    configs: tuple[str, ...]
    metric: str
    format: str
    factor: float
    reference: str
    baseline: str = "none"


CARDS = {
    "sentiment": Card(
        "IMDB, accuracy in %", ("sentiment_pretrained", "sentiment_student"), "accuracy", ".2f", 100,
        "92.8 (DistilBERT)", "91.43 (NBSVM)",
    ),
    "next_word": Card(
        "WikiText-2, perplexity", ("next_word",), "perplexity", ".2f", 1, "65.8 (AWD-LSTM)", "217.80 (Kneser-Ney)"
    ),
    "char_generation": Card(
        "tiny Shakespeare (TFDS), nats per character", ("char_generation",), "nats_per_character", ".4f", 1, "none"
    ),
    "translation": Card(
        "Multi30k English to German 2016, lower-cased BLEU", ("translation",), "lowercased_bleu", ".2f", 1,
        "41.02 (Transformer-tiny)",
    ),
}  # fmt: skip


def main() -> int:
    """Trains, scores and writes; the exit status is 2 for mistakes in settings or data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=CARDS)
    parser.add_argument("--seeds", type=_seeds, default=[1], metavar="1,2,3", help="(default: 1)")
    parser.add_argument("settings", nargs="*", metavar="section.key=value")
    options = parser.parse_intermixed_args()
    try:
        runs = [train(options.task, seed, options.settings) for seed in options.seeds]
        row = row_of(options.task, runs, options.seeds, options.settings)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    write(options.task, row)
    print(row)
    return 0


def _seeds(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def train(task: str, seed: int, settings: list[str]) -> list[nlp_rnn.Run]:
    """Trains one seed's runs, one for each config, and scores the last one, to which the settings apply."""
    card, paths = CARDS[task], dict[str, str]()
    runs: list[nlp_rnn.Run] = []
    for number, name in enumerate(card.configs):
        given = [f"name=scorecard_{name}_{seed}", f"seed={seed}"]
        given += settings if number == len(card.configs) - 1 else []
        file = _ROOT / "configs" / f"{name}.yaml"
        given += _earlier_runs(load_config(file), paths)
        runs.append(nlp_rnn.train(load_config(file, given)))
        paths[f"runs/{name}"] = str(runs[-1].path)
    if card.metric not in runs[-1].metrics.get("test", {}):
        runs[-1].evaluate("test")
    return runs


def _earlier_runs(config: Config, paths: dict[str, str]) -> list[str]:
    """Settings that name the runs of `paths` in place of those that the config names."""
    model, training = config.model, config.training
    return [
        *([f"model.init_from={paths[model.init_from]}"] if model.init_from in paths else []),
        *([f"training.start_from={paths[training.start_from]}"] if training.start_from in paths else []),
        *(
            [f"training.teacher=[{','.join(paths.get(each, each) for each in training.teacher)}]"]
            if set(training.teacher) & set(paths)
            else []
        ),
    ]


def row_of(task: str, runs: list[list[nlp_rnn.Run]], seeds: list[int], settings: list[str]) -> str:
    """The row as Markdown. Compute and minutes are those of all runs of a seed, not of shipped models."""
    card = CARDS[task]
    figures = [card.factor * run.metrics["test"][card.metric] for *_, run in runs]
    ours = format(statistics.mean(figures), card.format)
    if len(figures) > 1:
        ours += f" ± {statistics.stdev(figures):{card.format}}"
    compute = [sum(map(num_operations, each)) / 1e15 for each in runs]
    minutes = statistics.mean(sum(run.metrics["training"]["seconds"] for run in each) for each in runs) / 60
    parameters = runs[0][-1].metrics["training"]["parameters"]
    cores = f"{os.cpu_count()} cores, {platform.machine()}"
    shown = ",".join(map(str, seeds))
    told = f"{statistics.mean(compute):.2g} PFLOP, {minutes:.0f} minutes, {cores}; seed {shown}"
    words = ["python -m benchmarks.scorecard", task, *([f"--seeds {shown}"] if seeds != [1] else []), *settings]
    command = " ".join(words)
    return (
        f"| {task} | {card.data} | **{ours}** | {card.reference} | {card.baseline} | {parameters:,} | "
        f"{told} | `{command}` |"
    )


def num_operations(run: nlp_rnn.Run) -> float:
    """Floating-point operations of the training, estimated: 6 for each weight of a matrix and token.

    Embeddings count only where they are also the output; a sampled softmax counts its samples.
    """
    total, settings = 0, run.config.model
    for name, values in load_arrays(run.path / "checkpoints" / "best.npz").items():
        if values.ndim < 2 or "ngrams" in name:
            continue
        if not re.search("embedding", name):
            total += math.prod(values.shape)
        elif run.config.kind != "classifier" and settings.tie_embeddings:
            rows = settings.num_sampled if settings.softmax == "sampled" else values.shape[0]
            total += min(rows, values.shape[0]) * values.shape[1]
    facts = run.metrics["training"]
    training = run.config.training
    num_passes = 1 + bool(training.adversarial) + 2 * bool(training.virtual_adversarial)
    num_passes *= 2 if training.r_drop else 1
    return 6.0 * total * facts["tokens"] * _share_read(run) * facts["epochs"] * num_passes


def _share_read(run: nlp_rnn.Run) -> float:
    """The share of the train split that an epoch reads, 0-1; less than 1 where training.max_steps_per_epoch ends it."""
    training = run.config.training
    if not training.max_steps_per_epoch:
        return 1.0
    if run.config.kind == "language_model":
        whole, step = run.metrics["training"]["tokens"], training.batch_size * training.window
    else:
        data = files.read_json(run.path / "data.json", dict, "train the run again")
        whole, step = data["train"]["examples"], training.batch_size
    return min(1.0, training.max_steps_per_epoch * step / whole)


def write(task: str, row: str) -> None:
    """Puts the row in the place of the task's former one, or adds it."""
    text = _RESULTS.read_text(encoding="utf-8")
    before, rest = text.split(_BEGIN)
    table, after = rest.split(_END)
    lines = table.strip().splitlines()
    kept = [line for line in lines if not line.startswith(f"| {task} |")]
    order = [f"| {name} |" for name in CARDS]
    rows = sorted([*kept[2:], row], key=lambda line: next(i for i, start in enumerate(order) if line.startswith(start)))
    with files.atomic_file(_RESULTS) as path:
        path.write_text("\n".join([before + _BEGIN, *kept[:2], *rows, _END + after]), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
