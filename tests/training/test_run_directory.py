"""Two commands that create the same run directory at the same time."""

import pytest

from nlp_rnn.config.loading import load_config
from nlp_rnn.errors import ConfigError
from nlp_rnn.training import run_directory

FACTS = {"train": {"digest": "a", "examples": 3}}


def config(folder, *settings):
    return load_config(None, ["name=r", f"runs_dir={folder}", *settings], task="sentiment")


def create(mine, facts=FACTS, during=lambda: None):
    """Creates the run directory; `during` happens after this command has seen that there is none."""

    def save_tokenizer(folder):
        folder.mkdir()
        during()

    return run_directory.create_run(mine, ["neg", "pos"], facts, save_tokenizer)


def test_the_run_that_another_command_made_meanwhile_is_used(tmp_path):
    mine = config(tmp_path)
    run = create(mine, during=lambda: create(mine))
    assert (run.path, run.config) == (tmp_path / "r", mine)
    assert [path.name for path in tmp_path.iterdir()] == ["r"]  # nothing half-written is left


@pytest.mark.parametrize(
    ("settings", "facts", "message"),
    [
        (["seed=9"], FACTS, "holds a run of another config: seed"),
        ([], {"train": {"digest": "b", "examples": 4}}, "data.train "),
    ],
)
def test_a_run_of_other_settings_or_data_that_was_made_meanwhile_is_refused(tmp_path, settings, facts, message):
    with pytest.raises(ConfigError, match=message):
        create(config(tmp_path), during=lambda: create(config(tmp_path, *settings), facts))
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
