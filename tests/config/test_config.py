import subprocess
import sys
import time
import typing

import pytest
import yaml

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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.pooling=[]",
            "command line: model.pooling is [], but must name some of last, max, mean, attention, each once",
        ),
        ("data.source=csv", "command line: data.train is empty, but data.source csv reads files; set data.train=PATH"),
        ("seed=4294967296", "command line: seed is 4294967296, but must be less than 4294967296"),
        (
            "data.max_length=100000000000000000000",
            "command line: data.max_length is 100000000000000000000, but must be less than or equal to 2147483647",
        ),
        ("model.units=10000000", "command line: model.units is 10000000, but must be less than or equal to 65536"),
        (
            "training.pad_to_multiple_of=1000000",
            "command line: training.pad_to_multiple_of is 1000000, but must be less than or equal to 4096",
        ),
        ("name=" + "n" * 300, f"command line: name is {'n' * 80}..., but may have at most 200 bytes; shorten it"),
        (
            "runs_dir=a\0b",
            "command line: runs_dir is a\0b, which contains a NUL character, so it is not a path; give another one",
        ),
        (
            "tokenizer.vocabulary=" + "v" * 300,
            f"command line: tokenizer.vocabulary is {'v' * 80}..., but a path has at most 4,095 bytes and each name in "
            "it 255; give a shorter one",
        ),
        ("name=../x", "command line: name is '../x', but names a folder; use letters, digits, '.', '-' and '_'"),
        (
            "training.weight_decay=0.1",
            "command line: training.weight_decay is 0.1, but training.optimizer is adam; only the optimizer adamw "
            "decays weights",
        ),
        (
            "training.ema_ramp=true",
            "command line: training.ema_ramp is true, but training.ema_momentum is 0, so no average is kept; set "
            "training.ema_momentum=0.999, or use training.ema_ramp=false",
        ),
        (
            "tokenizer={level: char, splitter: treebank}",
            "command line: tokenizer.splitter is treebank, but applies only to tokenizer.level=word (it is char); "
            "use unicode",
        ),
        (
            "tokenizer={level: subword, oov_buckets: 3}",
            "command line: tokenizer.oov_buckets is 3, but applies only to tokenizer.level=word (it is subword); use 0",
        ),
        (
            "tokenizer.sampling=5.0",
            "command line: tokenizer.sampling is 5.0, but applies only to tokenizer.level=subword (it is word); use 0",
        ),
        (
            "tokenizer={level: char, case: markers}",
            "command line: tokenizer.case is markers, but applies only to tokenizer.level=word (it is char); "
            "use lower or keep",
        ),
        (
            "tokenizer={level: subword, vocab_size: 260}",
            "command line: tokenizer.vocab_size is 260, but special pieces and bytes alone are 260; use 1000 or more",
        ),
        (
            "tokenizer.oov_buckets=20000",
            "command line: tokenizer.vocab_size is 20000, which special pieces and hash buckets use up; raise it",
        ),
        *(
            (
                f"tokenizer.reserved=[{written}]",
                f"command line: tokenizer.reserved holds {symbol!r}; give symbols without white space, each once, "
                "other than the built-in ones",
            )
            for written, symbol in (
                ("a b", "a b"),
                ('""', ""),
                ("<pad>", "<pad>"),
                ("x, x", "x"),
                ('"\\U0010F800"', "\U0010f800"),
            )
        ),
        (
            "hardware.input_service=grpc://reader:5000",
            "command line: hardware.input_service is 'grpc://reader:5000', but must be HOST:PORT, such as "
            "reader.local:5000",
        ),
        ("hardware=3", "command line: hardware is 3, but must be a section of `key: value`"),
        ("training.learning_rate=.nan", "command line: training.learning_rate is nan, but must be a finite number"),
        (
            "data.weight_column=w",
            "command line: data.weight_column is w, but data.source is imdb, which has no columns; "
            "leave it empty, or use one of "
            "csv, tsv, jsonl, parquet",
        ),
        (
            "data.multi_label=true",
            "command line: data.multi_label is true, but data.source is imdb, which has one label per text; use one of "
            "csv, tsv, jsonl, parquet, text, records, or false",
        ),
        (
            "data={multi_label: true, source: csv, train: x}",
            "command line: data.multi_label is true, but nothing separates the labels of a row; "
            "set data.label_separator, such as "
            '"|", or data.label_columns',
        ),
        (
            "data={multi_label: true, source: text, train: x, label_separator: '|'}",
            "command line: data.label_separator is '|', but data.source is text; "
            "it applies only to csv, tsv, jsonl, parquet; "
            "leave it out",
        ),
        (
            "data={multi_label: true, source: csv, train: x, label_separator: '|', label_columns: [a]}",
            "command line: data.label_separator is '|', but data.label_columns names a column for each label; "
            "leave one of the two out",
        ),
        (
            "data={multi_label: true, source: csv, train: x, label_columns: [a, a]}",
            "command line: data.label_columns is ['a', 'a'], but must name each column once",
        ),
        (
            "data.label_columns=[a]",
            "command line: data.label_columns is ['a'], but data.multi_label is false, so a text has one label; set "
            "data.multi_label=true or leave it out",
        ),
        (
            "data={multi_label: true, source: text, train: x, labels_are: ordinal}",
            "command line: data.labels_are is ordinal, but data.multi_label is true; "
            "a text has one score or several labels; leave one "
            "of the two out",
        ),
        (
            "{data: {labels_are: ordinal}, model: {ngrams: 2}}",
            "command line: model.ngrams is 2, but data.labels_are is ordinal; the linear part applies only to classes; "
            "use 0",
        ),
        (
            "{data: {labels_are: ordinal}, training: {focal_gamma: 2}}",
            "command line: training.focal_gamma is 2.0, but data.labels_are is ordinal; the focal loss applies only to "
            "classes; use 0",
        ),
        *(
            (
                f"training.class_weights={written}",
                f"command line: training.class_weights is {shown}, but must be none, "
                "balanced or weights of 0 and more by label, each "
                "once and one above 0, such as {pos: 5, neg: 1}",
            )
            for written, shown in (
                ("even", "'even'"),
                ("{pos: -1}", "{'pos': -1}"),
                ("{pos: many}", "{'pos': 'many'}"),
                ("{pos: 0}", "{'pos': 0}"),
                ("[{pos: 1}, {pos: 2}]", "[..., ...]"),
                ("{pos: true}", "{'pos': True}"),
                ("[]", "[]"),
                ("3", "3"),
            )
        ),
    ],
)
def test_rules_between_settings(override, message):
    if override.startswith("{"):  # of several sections
        tree = yaml.safe_load(override)
        override = {f"{section}.{key}": value for section, settings in tree.items() for key, value in settings.items()}
    with pytest.raises(ConfigError) as caught:
        load_config(None, override if isinstance(override, dict) else [override])
    found = str(caught.value).split("\n")
    assert found[0].replace("defaults:", "command line:") == message


@pytest.mark.parametrize(
    "given",
    [
        "training.class_weights={b: 5, 1: 2}",
        "training.class_weights=[{b: 5}, {1: 2}]",
        "training.class_weights=[[b, 5], [1, 2]]",
    ],
)
def test_class_weights_are_a_mapping_or_a_list_and_read_back_equal(tmp_path, given):
    config = load_config(None, [given, "name=x", "data.source=text", "data.train=x"])
    assert config.training.class_weights == (("b", 5.0), ("1", 2.0))
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "c.yaml") == config
    assert load_config(None, ["training.class_weights=balanced"]).training.class_weights == "balanced"
    other = load_config(None, ["training.class_weights=none", "name=x", "data.source=text", "data.train=x"])
    assert differences(other, config) == ["training.class_weights is (('b', 5.0), ('1', 2.0)) and was 'none'"]


@pytest.mark.parametrize(
    ("task", "setting", "kinds", "usual"),
    [
        ("next_word", "data.multi_label=true", "classifiers", "false"),
        ("next_word", "data.labels_are=ordinal", "classifiers", "classes"),
        ("next_word", "data.weight_column=w", "classifiers", "''"),
        ("next_word", "training.class_weights=balanced", "classifiers", "none"),
        ("next_word", "training.focal_gamma=2", "classifiers", "0"),
        ("char_generation", "model.pooling=[mean]", "classifiers", "['last', 'max', 'mean']"),
        ("translation", "training.unfreeze=[1]", "classifiers", "[]"),
        ("sentiment", "training.window=70", "language models", "35"),
        ("translation", "training.state_reset=0.1", "language models", "0"),
        ("sentiment", "training.label_smoothing=0.1", "translators", "0"),
        ("next_word", "model.num_heads=2", "translators", "1"),
        ("next_word", "training.pad_to_multiple_of=8", "classifiers and translators", "0"),
        ("sentiment", "model.softmax=sampled", "language models and translators", "full"),
        ("sentiment", "model.tie_embeddings=false", "language models and translators", "true"),
    ],
)
def test_settings_of_other_kinds_of_model_are_rejected(task, setting, kinds, usual):
    key = setting.partition("=")[0]
    source = ["data.source=csv", "data.train=x"]
    with pytest.raises(ConfigError) as caught:
        load_config(None, [setting, *source], task=task)
    message = f"but applies only to {kinds} (the task is {task}); use {usual} or leave it out"
    assert any(line.endswith(message) and f"{key} is " in line for line in str(caught.value).splitlines())


def test_a_task_s_own_defaults_can_be_written_out():
    load_config(None, ["model.tie_embeddings=false", "data.keep=both"], task="char_generation")


def test_only_language_models_with_whole_epochs_are_shuffled_partially():
    load_config(None, ["training.partial_shuffle=true"], task="next_word")
    for task, more, message in (
        ("sentiment", [], "applies only to language models (the task is sentiment); use false or leave it out"),
        ("next_word", ["training.max_steps_per_epoch=9"],
         "but training.max_steps_per_epoch is 9, so that epochs are parts of one pass over the text; "
         "use training.max_steps_per_epoch=0, or training.partial_shuffle=false"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            load_config(None, ["training.partial_shuffle=true", *more], task=task)
        assert message in str(caught.value)


def test_a_language_model_needs_no_input_service():
    with pytest.raises(
        ConfigError, match="language models read one long text, which a service cannot speed up; leave it empty"
    ):
        load_config(None, ["hardware.input_service=reader:5000", "data.source=wikitext2"], task="next_word")


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
    with_teacher = ["data.source=imdb", setting, "training.teacher=[runs/a]"]
    assert load_config(None, with_teacher, task="sentiment").data.use_unlabeled
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
