"""Verbs that all tasks have in common."""

import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from nlp_rnn.cli import main as cli
from nlp_rnn.config.loading import load_config
from nlp_rnn.config.settings import Config
from nlp_rnn.tensorflow_import import import_tensorflow


def prepare(config: Config) -> cli.Result:
    """Makes the run directory of a config with the token ids in it."""
    from nlp_rnn.training import setup

    run, inputs = setup.prepare(config)
    facts = {
        "run": str(run.path),
        "vocab_size": inputs.vocab_size,
        "train": len(inputs.train),
        "validation": len(inputs.validation),
    }
    counts = f"{facts['train']:,} to train on, {facts['validation']:,} to validate on, vocabulary {inputs.vocab_size:,}"
    return cli.Result(
        facts, f"token ids: {run.ids}: {counts}\nrun: {run.path}; train it by the verb train, with the same settings"
    )


def tune(options: Namespace, task: str) -> cli.Result:
    """Searches better settings for a task, in the folder runs_dir/NAME-tune."""
    from nlp_rnn import api

    config = load_config(options.config, options.settings, task=task)
    found = api.run_tuning(
        config, {setting.partition("=")[0] for setting in options.settings}, minutes=options.minutes,
        max_megabytes=options.max_megabytes, max_trials=options.max_trials,
    )  # fmt: skip
    monitor, counts = found.config.training.monitor, Counter(trial.state for trial in found.trials)
    facts = {
        "folder": str(found.path), "config": str(found.config_file), "picture": str(found.picture), "monitor": monitor,
        "best": asdict(found.best), "first": asdict(found.trials[0]), "trials": dict(counts),
    }  # fmt: skip
    own = "" if found.trials[0].value is None else f"; the config's own settings: {found.trials[0].value:.4f}"
    lines = [
        f"{monitor} {found.best.value:.4f} in trial {found.best.number}{own}",
        "settings: " + " ".join(f"{key}={value}" for key, value in found.best.settings.items()),
        "trials: " + ", ".join(f"{count} {state}" for state, count in counts.items()),
        f"picture: {found.picture}",
        f"config: {found.config_file}; train it: nlp-rnn {task} train --config {found.config_file}",
    ]
    return cli.Result(facts, "\n".join(lines))


def export(options: Namespace, task: str, *, format: str = "savedmodel") -> cli.Result:
    """Writes the best weights of the run, or of an ensemble of runs, that --run names."""
    import_tensorflow()
    from nlp_rnn.evaluation import run_model
    from nlp_rnn.training.run_directory import load_run

    paths = options.run if isinstance(options.run, list) else [options.run]
    found = run_model.export_runs([load_run(Path(path), task) for path in paths], Path(options.to), format=format)
    if format == "litert":
        sizes = ", ".join(f"{precision} {size / 1e6:.1f} MB" for precision, size in found.bytes.items())
        return cli.Result(
            {"model": str(found.path), "bytes": found.bytes}, f"{found.path}: LiteRT, {sizes}; see README.md there"
        )
    text = f"{found.path}: load it with tf.saved_model.load; signatures {', '.join(found.signatures)}"
    return cli.Result({"model": str(found.path)}, text)


def show_tokens(options: Namespace, task: str) -> Iterator[cli.Result]:
    """The pieces and ids of each text as the model reads them, and the text that the ids give back."""
    from nlp_rnn import api

    loaded = api.load(options.model, task).signatures
    from nlp_rnn.visualization import attributions

    for texts in cli.input_texts(options):
        yield from (
            cli.Result(*attributions.tokens_of(loaded, text, is_terminal=sys.stdout.isatty()), is_styled=True)
            for text in texts
        )
