"""The settings that are searched, for each task."""

import pytest

from nlp_rnn.config.loading import load_config
from nlp_rnn.config.rules import broken_rules
from nlp_rnn.config.tables import TASKS
from nlp_rnn.training.search_space import (
    SEARCH_SPACES,
    Choice,
    Range,
    Steps,
    own_parameters,
    search_space,
    suggest,
    value_of,
    with_values,
)


class Draws:
    """Stands for an Optuna trial; draws the low or the high end of everything."""

    def __init__(self, is_high):
        self.is_high = is_high

    def suggest_float(self, key, low, high, *, log):
        assert not log or low > 0
        return high if self.is_high else low

    def suggest_int(self, key, low, high):
        return high if self.is_high else low

    def suggest_categorical(self, key, values):
        return values[-1 if self.is_high else 0]


def keys(config, **options):
    return [each.key for each in search_space(config, **options)]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("is_high", [False, True])
def test_the_ends_of_every_space_are_configs(task, is_high):
    config = load_config(None, ["training.optimizer=adamw"], task=task)
    space = search_space(config)
    dropped = {each.key for each in SEARCH_SPACES[TASKS[task].answers]} - {each.key for each in space}
    assert dropped == set()
    values = suggest(Draws(is_high), space)
    assert values.keys() == {each.key for each in space}
    changed = with_values(config, values)
    assert not broken_rules(changed, task)
    assert {key: value_of(changed, key) for key in values} == values
    assert all(type(value) is type(value_of(config, key)) for key, value in values.items())


@pytest.mark.parametrize("task", TASKS)
def test_the_configs_own_settings_can_be_drawn(task):
    settings = ["model.units=100", "training.learning_rate=0.1", "model.dropout=0.9"]
    config = load_config(None, settings, task=task)
    space = search_space(config)
    own = own_parameters(config, space)
    by_key = {each.key: each for each in space}
    assert 100 in by_key["model.units"].values
    assert by_key["model.units"].values[own["model.units"]] == 100
    assert by_key["training.learning_rate"] == Range(
        "training.learning_rate", by_key["training.learning_rate"].low, 0.1, True
    )
    assert by_key["model.dropout"] == Range("model.dropout", 0.0, 0.9)
    assert own["model.dropout"] == 0.9
    assert own["model.cell"] == "lstm"


def test_what_is_given_or_not_allowed_is_not_searched():
    config = load_config(None, [], task="sentiment")
    assert "training.weight_decay" not in keys(config)  # the optimizer is adam
    assert "model.units" in keys(config)
    assert "model.units" not in keys(config, fixed={"model.units"})
    vectors = load_config(None, ["model.vectors=x.vec"], task="sentiment")
    assert "model.embedding_dim" not in keys(vectors)
    begun = load_config(None, ["model.init_from=runs/lm"], task="next_word")
    assert not {"model.units", "model.embedding_dim", "model.num_layers", "model.cell"} & set(keys(begun))
    assert "training.learning_rate" in keys(begun)
    vocabulary = load_config(None, ["tokenizer.vocabulary=words.txt"], task="sentiment")
    assert "tokenizer.vocab_size" not in keys(vocabulary)
    taught = load_config(None, ["training.teacher=[runs/a]"], task="sentiment")
    assert "tokenizer.vocab_size" not in keys(taught)
    no_state = load_config(None, ["model.cell=min_gru"], task="sentiment")
    assert "model.weight_dropout" not in keys(no_state)


def test_values_that_break_a_rule_are_left_out():
    config = load_config(None, ["model.num_heads=64"], task="translation")
    assert Steps("model.units", (128, 256, 512)) in search_space(config)
    heads = load_config(None, ["model.num_heads=12", "model.units=192"], task="translation")
    assert "model.units" not in keys(heads)  # no other value is a multiple of 24


def test_the_cells_begin_with_the_configs():
    config = load_config(None, ["model.cell=gru"], task="sentiment")
    assert Choice("model.cell", ("gru", "lstm")) in search_space(config)
