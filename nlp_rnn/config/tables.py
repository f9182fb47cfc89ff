"""The tables of tasks and cells. A new task or cell is one record here. Nothing here imports Keras.

`tests/config/test_tables.py` checks that each record is complete, and adds a cell and a task from outside the package.
"""

import importlib
from dataclasses import dataclass, field
from typing import Any, Literal

Answers = Literal["labels", "words", "characters", "translations"]
Kind = Literal["classifier", "language_model", "translator"]


@dataclass(frozen=True)
class Task:
    """A task and the output of its models.

    Attributes:
      answers: the model's output. "labels": a text classifier. "words": a language model that suggests words.
        "characters": a language model that continues a text. "translations": a translator.
      defaults: section -> setting -> value, for the defaults that differ from those of the dataclasses.
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
    """A recurrent layer for `model.cell`. "module:name" texts name its classes and functions, so nothing is imported.

    Attributes:
      layer: a Keras recurrent layer with a `cell` and the arguments units, return_sequences, return_state and
        go_backwards; its call takes initial_state and mask.
      fast_layer: a subclass with equal results that is faster on CPUs; "": none.
      fast_from_units: smallest number of units for which fast_layer is faster: (one direction, both directions).
      jax_layer: a subclass with equal results that is faster on Keras's backend JAX; "": none.
      reads_state: whether the gates read the state, so that recurrent dropout and weight dropout are possible.
      step: function of one generation step, see `decoding.stepper`; "": generation calls the layer's own cell.
    """

    layer: str
    fast_layer: str = ""
    fast_from_units: tuple[int, int] = (1, 1)
    jax_layer: str = ""
    reads_state: bool = True
    step: str = ""


_LAYERS, _FAST, _STEPPER = "nlp_rnn.layers.cells", "nlp_rnn.layers.fast.recurrent", "nlp_rnn.decoding.stepper"
_JAX = "nlp_rnn.layers.fast.jax_recurrent"
# fast_from_units was measured (docs/results.md): with both directions, Keras's two loops also use both cores.
CELLS: dict[str, Cell] = {
    "simple_rnn": Cell("keras.layers:SimpleRNN", step=f"{_STEPPER}:simple_rnn_step"),
    "lstm": Cell("keras.layers:LSTM", f"{_FAST}:FastLSTM", (1, 64), f"{_JAX}:JaxLSTM", step=f"{_STEPPER}:lstm_step"),
    "gru": Cell("keras.layers:GRU", f"{_FAST}:FastGRU", (1, 64), f"{_JAX}:JaxGRU", step=f"{_STEPPER}:gru_step"),
    "min_gru": Cell(f"{_LAYERS}:MinGRU", f"{_FAST}:FastMinGRU", reads_state=False, step=f"{_STEPPER}:min_gru_step"),
    "min_lstm": Cell(f"{_LAYERS}:MinLSTM", f"{_FAST}:FastMinLSTM", reads_state=False, step=f"{_STEPPER}:min_lstm_step"),
}


def resolve(reference: str) -> Any:
    """Imports the class or function of a "module:name" text."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)
