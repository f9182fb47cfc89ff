"""The settings and values that `tune` searches, per task, as data."""

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from nlp_rnn.config.rules import broken_rules
from nlp_rnn.config.settings import Config
from nlp_rnn.config.tables import TASKS, Answers


@dataclass(frozen=True)
class Range:
    """Any number between two bounds.

    Attributes:
      key: section.name of the setting.
      low, high: the bounds, inclusive.
      is_logarithmic: whether numbers are drawn uniformly on a logarithmic scale.
    """

    key: str
    low: float
    high: float
    is_logarithmic: bool = False


@dataclass(frozen=True)
class Steps:
    """One of a few values in increasing order; neighbouring values are expected to give similar results."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Choice:
    """One of a few values without an order."""

    key: str
    values: tuple[Any, ...]


Dimension = Range | Steps | Choice

_CELL = Choice("model.cell", ("lstm", "gru"))

# Not searched: settings that change the unit of the validation metric. The cross-entropy of a token depends on the
# vocabulary, and that of pairs on data.max_length. training.label_smoothing makes cross-entropy worse and BLEU better.
# training.epochs: trials are compared at the same epoch. model.ngrams: the linear part is fitted separately and does
# not change the recurrent part.
SEARCH_SPACES: dict[Answers, tuple[Dimension, ...]] = {
    "labels": (
        Range("training.learning_rate", 3e-4, 1e-2, is_logarithmic=True),
        Steps("model.units", (16, 32, 64, 128, 256)),
        Steps("model.embedding_dim", (16, 32, 64, 128, 256)),
        Steps("model.num_layers", (1, 2)),
        _CELL,
        Range("model.dropout", 0.0, 0.6),
        Range("model.embedding_dropout", 0.0, 0.6),
        Range("model.word_dropout", 0.0, 0.5),
        Range("model.weight_dropout", 0.0, 0.5),
        Range("training.weight_decay", 0.0, 0.5),
        Steps("training.batch_size", (32, 64, 128)),
        Steps("tokenizer.vocab_size", (5000, 10000, 20000)),
        Steps("data.max_length", (128, 256, 512)),
    ),
    "words": (
        Range("training.learning_rate", 5e-4, 1e-2, is_logarithmic=True),
        Steps("model.units", (64, 128, 256, 512)),
        Steps("model.embedding_dim", (64, 128, 256, 400)),
        Steps("model.num_layers", (1, 2, 3)),
        _CELL,
        Range("model.dropout", 0.0, 0.6),
        Range("model.embedding_dropout", 0.0, 0.5),
        Range("model.word_dropout", 0.0, 0.3),
        Range("model.weight_dropout", 0.0, 0.6),
        Steps("training.activation_regularization", (0.0, 1.0, 2.0)),
        Steps("training.batch_size", (20, 40, 64)),
        Steps("training.window", (20, 35, 70)),
    ),
    "characters": (
        Range("training.learning_rate", 1e-3, 1e-2, is_logarithmic=True),
        Steps("model.units", (64, 128, 256, 512)),
        Steps("model.embedding_dim", (16, 32, 64, 128)),
        Steps("model.num_layers", (1, 2, 3)),
        _CELL,
        Range("model.dropout", 0.0, 0.6),
        Range("model.embedding_dropout", 0.0, 0.3),
        Range("model.weight_dropout", 0.0, 0.6),
        Steps("training.batch_size", (16, 32, 64)),
        Steps("training.window", (50, 100, 150)),
    ),
    "translations": (
        Range("training.learning_rate", 5e-4, 1e-2, is_logarithmic=True),
        Steps("model.units", (64, 128, 256, 512)),
        Steps("model.embedding_dim", (64, 128, 256, 512)),
        Steps("model.num_layers", (1, 2)),
        _CELL,
        Range("model.dropout", 0.0, 0.6),
        Range("model.embedding_dropout", 0.0, 0.4),
        Range("model.weight_dropout", 0.0, 0.5),
        Choice("model.attention", ("dot", "general", "additive")),
        Steps("training.batch_size", (32, 64, 128)),
    ),
}

# Settings that determine shapes of weights or ids of words. They are not searched if another run provides these.
_OF_SHAPES = {
    "model.units", "model.embedding_dim", "model.num_layers", "model.cell", "model.attention", "tokenizer.vocab_size",
}  # fmt: skip


def search_space(config: Config, fixed: Collection[str] = ()) -> list[Dimension]:
    """The settings that are searched for a config. Each dimension contains the config's own value.

    A setting is left out if the config's other settings allow only one value.

    Args:
      config: the config of the first trial.
      fixed: keys of settings that keep the config's value.
    """
    kept = set(fixed)
    if config.model.init_from or config.training.start_from:
        kept |= _OF_SHAPES
    if config.model.vectors:
        kept.add("model.embedding_dim")
    if config.tokenizer.vocabulary or config.vocabulary_from:
        kept.add("tokenizer.vocab_size")
    spaces = (_around(each, config) for each in SEARCH_SPACES[TASKS[config.task].answers] if each.key not in kept)
    return [each for each in spaces if each is not None]


def _around(dimension: Dimension, config: Config) -> Dimension | None:
    """The dimension with the config's value and without values that break a rule; None if no other value is left."""
    own = value_of(config, dimension.key)

    def is_allowed(value: Any) -> bool:
        return not broken_rules(with_values(config, {dimension.key: value}), None)

    if isinstance(dimension, Range):
        low, high = min(dimension.low, own), max(dimension.high, own)
        is_logarithmic = dimension.is_logarithmic and low > 0
        return Range(dimension.key, low, high, is_logarithmic) if is_allowed(low) and is_allowed(high) else None
    others = [value for value in dimension.values if value != own and is_allowed(value)]
    if not others:
        return None
    if isinstance(dimension, Choice):
        return Choice(dimension.key, (own, *others))
    return Steps(dimension.key, tuple(sorted([own, *others])))


def value_of(config: Config, key: str) -> Any:
    """The value of a setting, given as section.name."""
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def with_values(config: Config, values: dict[str, Any]) -> Config:
    """A copy of the config with other values; `values`: section.name -> value."""
    for key, value in values.items():
        section, name = key.split(".")
        changed = dataclasses.replace(getattr(config, section), **{name: value})
        config = dataclasses.replace(config, **{section: changed})
    return config


def suggest(trial: Any, space: list[Dimension]) -> dict[str, Any]:
    """Draws the values of an Optuna trial; section.name -> value. Numbers of a Range have three significant digits."""
    values: dict[str, Any] = {}
    for each in space:
        if isinstance(each, Range):
            drawn = trial.suggest_float(each.key, each.low, each.high, log=each.is_logarithmic)
            values[each.key] = min(max(float(f"{drawn:.3g}"), each.low), each.high)
        elif isinstance(each, Steps):  # by index, so that Optuna uses their order
            values[each.key] = each.values[trial.suggest_int(each.key, 0, len(each.values) - 1)]
        else:
            values[each.key] = trial.suggest_categorical(each.key, each.values)
    return values


def own_parameters(config: Config, space: list[Dimension]) -> dict[str, Any]:
    """The config's own values as Optuna parameters, for the first trial."""
    own = {each.key: value_of(config, each.key) for each in space}
    return own | {each.key: each.values.index(own[each.key]) for each in space if isinstance(each, Steps)}
