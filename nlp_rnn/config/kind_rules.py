"""Which settings belong to some kinds of model only, as one table; `rules` calls it."""

from collections.abc import Callable
from typing import Any

from nlp_rnn.config.settings import Config
from nlp_rnn.config.tables import TASKS, Kind

_NAMES: dict[Kind, str] = {
    "classifier": "classifiers", "language_model": "language models", "translator": "translators",
}  # fmt: skip
_SETTINGS: dict[tuple[Kind, ...], tuple[str, ...]] = {
    ("classifier",): (
        "data.multi_label", "data.labels_are", "data.weight_column", "model.pooling", "model.chunk_length",
        "model.standardize", "model.ngrams", "training.layer_decay", "training.unfreeze", "training.class_weights",
        "training.focal_gamma", "training.excerpts", "training.adversarial", "training.virtual_adversarial",
    ),
    ("language_model",): (
        "model.cutoffs", "training.window", "training.random_window", "training.partial_shuffle",
        "training.state_reset", "training.activation_regularization", "training.temporal_regularization",
        "training.fit_temperature",
    ),
    ("translator",): (
        "data.length_ratio", "model.attention", "model.num_heads", "model.input_feeding", "training.label_smoothing",
        "training.scheduled_sampling",
    ),
    ("classifier", "language_model"): ("model.last_units",),
    ("classifier", "translator"): ("data.keep", "tokenizer.sampling", "training.pad_to_multiple_of"),
    ("language_model", "translator"): ("model.softmax", "model.num_sampled", "model.tie_embeddings"),
}  # fmt: skip


def check_kind(config: Config, report: Callable[[str, str], None]) -> None:
    """Reports the settings that differ from their defaults and that the task's kind of model does not have."""
    default, of_task = Config(), TASKS[config.task].defaults
    for kinds, keys in _SETTINGS.items():
        if config.kind in kinds:
            continue
        for key in keys:
            section, name = key.split(".")
            value, usual = (getattr(getattr(each, section), name) for each in (config, default))
            if value not in (usual, of_task.get(section, {}).get(name, usual)):
                report(
                    key,
                    f"{key} is {_shown(value)}, but applies only to {' and '.join(_NAMES[kind] for kind in kinds)} "
                    f"(the task is {config.task}); use {_shown(usual)} or leave it out",
                )


def _shown(value: Any) -> str:
    """A value as in YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    if value == "":
        return "''"
    return str(list(value)) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else f"{value!s}"
