"""Verbs that all tasks have in common."""

import sys
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from nlp_rnn.cli import main as cli
from nlp_rnn.config.settings import Config
from nlp_rnn.tensorflow_import import import_tensorflow


def prepare(config: Config) -> cli.Result:
    """Makes the run directory of a config with the token ids in it."""
    from nlp_rnn.training import setup

    run, inputs = setup.prepare(config)
    facts = {"run": str(run.path), "vocab_size": inputs.vocab_size, "train": len(inputs.train), "validation": len(inputs.validation)}
    counts = f"{facts['train']:,} to train on, {facts['validation']:,} to validate on, vocabulary {inputs.vocab_size:,}"
    return cli.Result(facts, f"token ids: {run.ids}: {counts}\nrun: {run.path}; train it by the verb train, with the same settings")


def exported_model(options: Namespace, task: str) -> Any:
    """The signatures of the model that --model names, as functions."""
    import_tensorflow()
    from nlp_rnn.export import saved_model

    return saved_model.load_model(options.model, task).loaded


def show_tokens(options: Namespace, task: str) -> Iterator[cli.Result]:
    """The pieces and ids of each text as the model reads them, and the text that the ids give back."""
    loaded = exported_model(options, task)
    from nlp_rnn.visualization import attributions

    for texts in cli.input_texts(options):
        yield from (cli.Result(*attributions.tokens_of(loaded, text, is_terminal=sys.stdout.isatty())) for text in texts)
