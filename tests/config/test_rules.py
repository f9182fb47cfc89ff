"""Rules between settings: what cannot be together is told in one line."""

import pytest
import yaml

from nlp_rnn.config.loading import differences, load_config, to_yaml
from nlp_rnn.errors import ConfigError


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
            "training={schedule: flat_cosine, warmup_fraction: 0.7}",
            "command line: training.warmup_fraction is 0.7, but training.schedule is flat_cosine, which falls from the "
            "middle on; use 0.5 at most",
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


def test_an_output_that_is_tied_reads_as_many_features_as_the_embedding_has():
    tied = ["model.embedding_dim=8", "model.tie_embeddings=true"]
    for units in (0, 8):
        load_config(None, [*tied, f"model.last_units={units}", "data.source=wikitext2"], task="next_word")
    with pytest.raises(ConfigError) as caught:
        load_config(None, [*tied, "model.last_units=5", "data.source=wikitext2"], task="next_word")
    assert str(caught.value) == (
        "command line: model.last_units is 5, but with model.tie_embeddings the output reads as many features as the "
        "embedding has (8); use model.last_units=0, or model.tie_embeddings=false"
    )
