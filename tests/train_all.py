"""Trains the four tasks in one process: `python train_all.py FOLDER COMMAND [section.key=value ...]`.

Not a test: tests run it on several kinds of devices. FOLDER holds reviews.csv and pairs.csv; runs go below it. COMMAND
is train or prepare; "{task}" in a setting is the task.
"""

import importlib
import os
import sys

from nlp_rnn.cli import main as cli

COMMON = [
    # Plain SGD: Adam, or a clipped norm, would make up for gradients that are a multiple of what they should be.
    "model.units=8", "model.embedding_dim=8", "model.dropout=0", "training.batch_size=16", "training.epochs=2",
    "training.optimizer=sgd", "training.learning_rate=0.5", "training.patience=0", "training.clip_norm=0",
    "data.validation_fraction=0.2",
]  # fmt: skip
TASKS = {
    "sentiment": ["data.source=csv", "data.train=reviews.csv", "data.max_length=20", "model.fast=on"],
    "next_word": [
        "data.source=csv",
        "data.train=reviews.csv",
        "data.block_size=10",
        "model.cell=min_lstm",
        "training.window=10",
        "training.temporal_regularization=1",
    ],
    "char_generation": [
        "data.source=text",
        "data.train=reviews.csv",
        "model.cell=gru",
        "model.num_layers=2",
        "training.window=20",
        "training.max_steps_per_epoch=12",
    ],
    "translation": ["data.source=csv", "data.train=pairs.csv", "tokenizer.level=word", "model.attention=additive"],
}


def settings_of(task: str) -> list[str]:
    """Of a small training."""
    return [*COMMON, *TASKS[task]]


def main() -> int:
    """Returns the first exit status that is not 0."""
    folder, command, *more = sys.argv[1:]
    os.chdir(folder)
    for task in TASKS:
        more_of_task = [each.format(task=task) for each in more]
        status = cli.main(
            importlib.import_module(f"pipelines.{task}"), [command, f"name={task}", *settings_of(task), *more_of_task]
        )
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
