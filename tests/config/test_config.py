import subprocess
import sys
import time
import typing

import pytest

from nlp_rnn.config import settings as config_module
from nlp_rnn.config.loading import ALL_SETTINGS, differences, load_config, load_saved_config, to_yaml
from nlp_rnn.config.settings import HardwareConfig
from nlp_rnn.config.tables import TASKS
from nlp_rnn.data.sources import PAIR_SOURCES, SOURCES
from nlp_rnn.errors import ConfigError


def mistakes(path, overrides=(), **options):
    with pytest.raises(ConfigError) as caught:
        load_config(path, list(overrides), **options)
    return str(caught.value).split("\n")


def test_resolved_config_reads_back_equal(tmp_path):
    config = load_config(
        None,
        [
            "model.pooling=[max, attention]",
            "training.learning_rate=3e-4",
            "name=2024",
            "data.train=x",
            "data.source=csv",
        ],
    )
    assert (config.training.learning_rate, config.model.pooling, config.name) == (3e-4, ("max", "attention"), "2024")
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "c.yaml") == config


def test_command_line_beats_file_beats_default(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("model:\n  units: 7\n  num_layers: 2\n")
    config = load_config(path, ["model.units=9"])
    assert (config.model.units, config.model.num_layers, config.model.cell, config.name) == (9, 2, "lstm", "mine")


def test_all_mistakes_are_reported_at_once_with_suggestions(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "model:\n  unit: 3\n  cell: lstmm\ntraining:\n  epochs: true\n  clip_norm: no\n  schedule: cosin\nmodl:\n  "
        "units: 3\n"
    )
    assert sorted(mistakes(path, ["training.batch_size=-3", "units=5", "nonsense"])) == sorted(
        [
            "command line: 'nonsense' is not of the form section.key=value, such as training.epochs=5",
            f"{path}: model.unit is not a setting; did you mean model.units?",
            f"{path}: model.cell is 'lstmm', but must be one of 'simple_rnn', 'lstm', 'gru', 'min_gru' or 'min_lstm'; "
            f"did you mean lstm?",
            f"{path}: training.epochs is True, but must be a valid integer",
            f"{path}: training.clip_norm is 'no', but must be a valid number",
            f"{path}: training.schedule is 'cosin', but must be one of 'constant', 'cosine', 'one_cycle' or "
            f"'flat_cosine'; did you mean cosine?",
            "command line: training.batch_size is -3, but must be greater than 0",
            "command line: units is not a setting; did you mean model.units?",
            f"{path}: modl is not a setting; did you mean model?",
        ]
    )


def test_unreadable_files_are_one_line_each(tmp_path):
    missing = tmp_path / "sentimet.yaml"
    (tmp_path / "sentiment.yaml").write_text("")
    assert mistakes(missing) == [
        f"--config is {missing}, but there is no such file; did you mean {tmp_path / 'sentiment.yaml'}?"
    ]
    broken = tmp_path / "broken.yaml"
    broken.write_text("model:\n  units: [3\n")
    assert mistakes(broken) == [
        f"{broken}: line 3, column 1: not readable as YAML (expected ',' or ']', but got '<stream end>'); fix that line"
    ]
    broken.write_text("- 3\n")
    assert mistakes(broken) == [
        f"{broken}: holds a list, but a config is sections of `key: value`; see configs/sentiment.yaml"
    ]
    broken.write_bytes(b"name: caf\xe9\n")
    assert mistakes(broken) == [f"{broken}: byte 9 is not UTF-8; save the file as UTF-8"]


def test_differences_name_settings_but_not_places():
    elsewhere = ["data.dir=/elsewhere", "runs_dir=x", "hardware.input_service=reader:5000"]
    first, second = load_config(None), load_config(None, ["model.units=3", *elsewhere])
    assert differences(first, second) == ["model.units is 3 and was 128"]


def test_sources_equal_their_literal():
    assert set(typing.get_args(config_module.SourceName)) == {*SOURCES, *PAIR_SOURCES}


def test_shipped_configs_are_valid():
    from tests.conftest import ROOT

    for task in TASKS:
        names = {load_config(path, task=task).name for path in (ROOT / "configs").glob(f"{task}*.yaml")}
        assert {task, f"{task}_demo", f"{task}_smoke"} <= names


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["train", "model.unit=3"]])
def test_help_and_config_errors_do_not_import_tensorflow(arguments):
    code = f"""
import sys
import time
import pipelines.sentiment
from nlp_rnn.cli import main as cli
cli.main(pipelines.sentiment, {arguments!r})
sys.exit(any(name in sys.modules for name in ("tensorflow", "keras", "numpy", "matplotlib")))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_a_task_has_defaults_between_the_dataclasses_and_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("task: next_word\nmodel: {units: 7}\n")
    found = load_config(path, ["data.split=hash"], task="next_word")
    assert (found.model.units, found.model.is_bidirectional, found.data.split, found.data.label_column) == (
        7,
        False,
        "hash",
        "",
    )
    assert load_config(None, [], task="next_word").task == "next_word"
    assert load_config(None, [], task="sentiment").model.is_bidirectional
    path.write_text(to_yaml(found))
    assert load_config(path, task="next_word") == found


def test_files_of_earlier_versions_are_read_by_their_settings_present_names(tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text("task: next_word\nmodel: {units: 7, sampled_precision: bfloat16}\n")
    found = load_config(path, task="next_word")
    assert (found.model.units, found.hardware.matmul_precision) == (7, "bfloat16")
    path.write_text("model: {sampled_precision: bfloat16}\nhardware: {matmul_precision: float32, strategy: cpu}\n")
    assert load_config(path).hardware == HardwareConfig(strategy="cpu")


def test_the_rate_before_the_output_is_that_between_layers_unless_given():
    found = load_config(None, ["model.dropout=0.4", "model.output_dropout=0.1"]).model
    assert (found.dropout, found.final_dropout) == (0.4, 0.1)
    assert load_config(None, ["model.dropout=0.4", "model.output_dropout="]).model.final_dropout == 0.4


def test_the_last_layer_has_units_of_its_own():
    found = load_config(None, ["model.num_layers=3", "model.units=8", "model.last_units=5"]).model
    assert [found.units_of(number, default=7) for number in range(3)] == [8, 8, 5]
    found = load_config(None, ["model.num_layers=2", "model.units=8"]).model
    assert [found.units_of(number, default=7) for number in range(2)] == [8, 7]
    assert found.units_of(1) == 8


def test_only_models_of_imdb_that_need_no_labels_read_unlabeled_texts():
    setting = "data.use_unlabeled=true"
    assert load_config(None, ["data.source=imdb", setting], task="next_word").data.use_unlabeled
    for allows in ("training.teacher=[runs/a]", "training.virtual_adversarial=5"):
        assert load_config(None, ["data.source=imdb", setting, allows], task="sentiment").data.use_unlabeled
    for task, source in (("sentiment", "imdb"), ("next_word", "wikitext2")):
        with pytest.raises(
            ConfigError, match="unlabeled texts are in the source imdb only, for language models and for classifiers"
        ):
            load_config(None, [f"data.source={source}", "data.use_unlabeled=true"], task=task)


def test_every_tasks_defaults_are_settings():
    for task, record in TASKS.items():
        for section, settings in record.defaults.items():
            for key in settings:
                assert f"{section}.{key}" in ALL_SETTINGS, task


def test_a_bare_name_is_a_config_that_comes_with_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("sentiment_demo", task="sentiment").name == "sentiment_demo"
    (tmp_path / "sentiment_demo").write_text("model: {units: 7}\n")  # the user's own file comes first
    assert load_config("sentiment_demo").model.units == 7
    assert mistakes("sentiment_demos") == [
        "--config is sentiment_demos, but there is no such file; give the path of a YAML file, such as "
        "configs/sentiment.yaml"
    ]


def test_thousands_of_brackets_are_refused_at_once(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("seed: " + "[" * 20_000, encoding="utf-8")
    begun = time.process_time()
    with pytest.raises(ConfigError, match=r"config.yaml: nested too deeply; a config is sections of `key: value`"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"command line: seed is .{a: \[{a"):
        load_config(None, ["seed=" + "{a: [" * 20_000])
    assert time.process_time() - begun < 1


def test_a_key_that_stands_twice_is_told(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("training: {epochs: 3}\nmodel: {units: 8}\ntraining: {batch_size: 4}\n")
    assert mistakes(path) == [
        f"{path}: line 3, column 1: not readable as YAML ('training' stands also in line 1); fix that line"
    ]
    path.write_text("training:\n  epochs: 3\n  epochs: 4\n")
    assert "line 3, column 3: not readable as YAML ('epochs' stands also in line 2)" in mistakes(path)[0]


def test_a_saved_config_keeps_what_a_later_rule_rejects_and_its_overrides_are_checked(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("task: sentiment\nname: old\ntraining: {window: 70}\ndata: {source: csv, train: a.csv}\n")
    assert load_saved_config(path, "sentiment", ["data.test=b.csv"]).data.test == "b.csv"
    with pytest.raises(ConfigError) as caught:
        load_saved_config(path, "sentiment", ["data.encoding=utf-99", "data.train="])
    assert str(caught.value).splitlines() == [
        "command line: data.train is empty, but data.source csv reads files; set data.train=PATH",
        "command line: data.encoding is 'utf-99', but must be an encoding of Python, such as utf-8, cp1252 or utf-16",
    ]
    with pytest.raises(ConfigError, match=r"command line: data\.max_length is -1"):
        load_saved_config(path, "sentiment", ["data.max_length=-1"])


def test_paths_may_begin_with_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    config = load_config(None, {"runs_dir": "~/runs", "data.dir": "~/data"})
    assert (config.runs_dir, config.data.dir) == ("/home/me/runs", "/home/me/data")
