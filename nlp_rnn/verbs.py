"""Verbs that all tasks have in common."""

import sys
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from nlp_rnn import cli
from nlp_rnn.startup import import_tensorflow


def exported_model(options: Namespace, task: str) -> Any:
    """The signatures of the model that --model names, as functions."""
    import_tensorflow()
    from nlp_rnn import export

    return export.load_model(options.model, task).loaded


def show_tokens(options: Namespace, task: str) -> Iterator[cli.Result]:
    """The pieces and ids of each text as the model reads them, and the text that the ids give back."""
    loaded = exported_model(options, task)
    from nlp_rnn import explain

    for texts in cli.input_texts(options.text):
        yield from (cli.Result(*explain.tokens_of(loaded, text, is_terminal=sys.stdout.isatty())) for text in texts)
