"""Commands that all tasks share."""

import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_rnn.cli import main as cli
from nlp_rnn.cli.texts import input_texts
from nlp_rnn.config.loading import load_config
from nlp_rnn.config.settings import Config
from nlp_rnn.errors import ConfigError
from nlp_rnn.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from nlp_rnn.training.recipes import Trained
    from nlp_rnn.training.run_directory import Run


def train(config: Config, metric: str, unit: str, figure_of: "Callable[[Trained], float]") -> cli.Result:
    """Trains a model that predicts tokens, or resumes the run.

    Args:
      metric: the validation figure, as in metrics.json.
      unit: how it is told, with a place for the figure.
      figure_of: from the finished training, whose best validation loss is in nats per token, to the figure.
    """
    from nlp_rnn import api

    trained = api.run_training(config)
    run, figure = trained.run, figure_of(trained)
    best = f"validation {unit.format(figure)} (best of {trained.summary['epochs']} epochs)"
    facts = {"run": str(run.path), **trained.summary, "validation": {metric: figure}}
    return cli.Result(facts, f"{best}\nrun: {run.path}\ncurves: {run.path}/curves.png")


def prepare(config: Config) -> cli.Result:
    """Creates the run directory of a config and writes the token ids into it."""
    from nlp_rnn.training import setup

    run, inputs = setup.prepare(config)
    facts = {
        "run": str(run.path),
        "vocab_size": inputs.vocab_size,
        "train": len(inputs.train),
        "validation": len(inputs.validation),
    }
    counts = f"{facts['train']:,} training examples, {facts['validation']:,} validation examples"
    counts += f", vocabulary {inputs.vocab_size:,}"
    return cli.Result(
        facts, f"token ids: {run.ids}: {counts}\nrun: {run.path}; to train it, run train with the same settings"
    )


def tune(options: Namespace, task: str) -> cli.Result:
    """Searches for better settings of a task; writes to the folder runs_dir/NAME-tune."""
    from nlp_rnn import api

    config = load_config(options.config, options.settings, task=task)
    tuning = api.run_tuning(
        config, {setting.partition("=")[0] for setting in options.settings}, minutes=options.minutes,
        max_megabytes=options.max_megabytes, max_trials=options.max_trials,
    )  # fmt: skip
    monitor, counts = tuning.config.training.monitor, Counter(trial.state for trial in tuning.trials)
    facts = {
        "folder": str(tuning.path), "config": str(tuning.config_file), "picture": str(tuning.picture),
        "monitor": monitor, "best": asdict(tuning.best), "first": asdict(tuning.trials[0]), "trials": dict(counts),
    }  # fmt: skip
    own = "" if tuning.trials[0].value is None else f"; the config's own settings: {tuning.trials[0].value:.4f}"
    lines = [
        f"{monitor} {tuning.best.value:.4f} in trial {tuning.best.number}{own}",
        "settings: " + " ".join(f"{key}={value}" for key, value in tuning.best.settings.items()),
        "trials: " + ", ".join(f"{count} {state}" for state, count in counts.items()),
        f"picture: {tuning.picture}",
        f"config: {tuning.config_file}; train it: nlp-rnn {task} train --config {tuning.config_file}",
    ]
    return cli.Result(facts, "\n".join(lines))


def runs_of(options: Namespace, task: str) -> "list[Run]":
    """The runs named by --run. The settings of the command line apply to the first one."""
    from nlp_rnn.training.run_directory import Run, load_run

    run, *others = [load_run(Path(path), task) for path in options.run]
    config = cli.config_of(run.config, run.path / "config.yaml", options.settings)
    return [Run(run.path, config), *others]


def export(options: Namespace, task: str) -> cli.Result:
    """Exports the best weights of the run given by --run, or an ensemble if --run names several runs."""
    import_tensorflow()
    from nlp_rnn.evaluation import run_model
    from nlp_rnn.training.run_directory import load_run

    format, settings = getattr(options, "format", "savedmodel"), getattr(options, "settings", [])
    if settings and format != "litert":
        raise ConfigError(f"command line: {settings[0]!r}: only --format litert reads data; leave it out")
    runs = [load_run(Path(path), task) for path in options.run]
    data = cli.config_of(runs[0].config, runs[0].path / "config.yaml", settings).data
    exported = run_model.export_runs(
        runs, Path(options.to), format=format, weights=options.weights, data=data,
        ngram_megabytes=getattr(options, "ngrams", 0.0),
    )  # fmt: skip
    if format == "litert":
        sizes = ", ".join(f"{precision} {size / 1e6:.1f} MB" for precision, size in exported.bytes.items())
        return cli.Result(
            {"model": str(exported.path), **exported.checked},
            f"{exported.path}: LiteRT, {sizes}; {_what_was_checked(exported.checked)}; see README.md there",
        )
    text = f"{exported.path}: load it with tf.saved_model.load; signatures {', '.join(exported.signatures)}"
    return cli.Result({"model": str(exported.path)}, text)


def _what_was_checked(checked: dict[str, Any]) -> str:
    if "same_answers" in checked:
        same = ", ".join(f"{precision} {share:.1%}" for precision, share in checked["same_answers"].items())
        return f"the model's answers on {checked['texts']} validation texts: {same}"
    means = ", ".join(f"{precision} {nats:.4f}" for precision, nats in checked["mean_difference"].items())
    return f"difference on {checked['tokens']} validation tokens, in nats per token: {means}"


def show_tokens(options: Namespace, task: str) -> Iterator[cli.Result]:
    """Yields the pieces and ids of each text as the model reads it, and the decoded ids."""
    from nlp_rnn import api

    loaded = api.load(options.model, task).signatures
    from nlp_rnn.visualization import attributions

    for texts in input_texts(options):
        yield from (
            cli.Result(*attributions.tokens_of(loaded, text, is_terminal=sys.stdout.isatty()), is_styled=True)
            for text in texts
        )
