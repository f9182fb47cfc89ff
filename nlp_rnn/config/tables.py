"""The closed tables of tasks and cells: one record per thing that can be added. Nothing here imports Keras.

`tests/config/test_tables.py` holds each record complete, and adds a cell and a task from outside.
"""

import importlib
from dataclasses import dataclass, field
from typing import Any, Literal

Answers = Literal["labels", "words", "characters", "translations"]
Kind = Literal["classifier", "language_model", "translator"]


@dataclass(frozen=True)
class Task:
    """What is trained, and what the exported model answers.

    Attributes:
      answers: "labels": a classifier of texts. "words", "characters": a language model that suggests words or continues a text.
        "translations": a translator.
      defaults: section -> setting -> value, where these differ from the dataclasses' defaults.
    """

    answers: Answers
    defaults: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """The kind of model."""
        return (
            "classifier"
            if self.answers == "labels"
            else "translator"
            if self.answers == "translations"
            else "language_model"
        )


TASKS: dict[str, Task] = {
    "sentiment": Task("labels"),
    "next_word": Task("words", {"data": {"split": "blocks", "label_column": ""}, "model": {"is_bidirectional": False}}),
    "char_generation": Task(
        "characters",
        {
            "data": {"source": "tiny_shakespeare", "split": "contiguous", "label_column": ""},
            "tokenizer": {"level": "char", "case": "keep"},
            "model": {"is_bidirectional": False, "tie_embeddings": False},
        },
    ),
    "translation": Task(
        "translations",
        {
            "data": {
                "source": "cldr",
                "text_column": "source",
                "label_column": "target",
                "max_length": 100,
                "keep": "start",
            },
            "tokenizer": {"level": "subword", "case": "keep", "html_breaks": False, "vocab_size": 8000},
            "model": {"cell": "lstm", "units": 256},
            "training": {"label_smoothing": 0.1},
        },
    ),
}


@dataclass(frozen=True)
class Cell:
    """A recurrent layer that a config can name. Classes and functions are given as "module:name", so that this table imports none.

    Attributes:
      layer: a Keras recurrent layer with a `cell`: units, return_sequences, return_state, go_backwards; initial_state and mask.
      fast_layer: a subclass that is faster on CPUs and equal; "": there is none.
      fast_from_units: units from which fast_layer is faster: in one direction, and in both.
      reads_state: whether the gates look at the state, so that recurrent dropout and weight drop are possible.
      step: one step of generation, gate by gate; see `decoding.stepper`. "": the layer's own cell makes it.
    """

    layer: str
    fast_layer: str = ""
    fast_from_units: tuple[int, int] = (1, 1)
    reads_state: bool = True
    step: str = ""


_LAYERS, _FAST, _STEPPER = "nlp_rnn.layers.cells", "nlp_rnn.layers.fast.recurrent", "nlp_rnn.decoding.stepper"
# From which units on the fast layers are faster was measured: in both directions Keras's two loops use both cores too (docs/results.md).
CELLS: dict[str, Cell] = {
    "simple_rnn": Cell("keras.layers:SimpleRNN", step=f"{_STEPPER}:simple_rnn_step"),
    "lstm": Cell("keras.layers:LSTM", f"{_FAST}:FastLSTM", (1, 64), step=f"{_STEPPER}:lstm_step"),
    "gru": Cell("keras.layers:GRU", f"{_FAST}:FastGRU", (1, 64), step=f"{_STEPPER}:gru_step"),
    "min_gru": Cell(f"{_LAYERS}:MinGRU", f"{_FAST}:FastMinGRU", reads_state=False, step=f"{_STEPPER}:min_gru_step"),
    "min_lstm": Cell(f"{_LAYERS}:MinLSTM", f"{_FAST}:FastMinLSTM", reads_state=False, step=f"{_STEPPER}:min_lstm_step"),
}


def resolve(reference: str) -> Any:
    """The class or function that "module:name" names; imports its module."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)
