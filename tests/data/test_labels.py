import numpy as np
import pytest

from nlp_rnn.config.loading import load_config
from nlp_rnn.data import datasets, labels
from nlp_rnn.data.corpus import Corpus
from nlp_rnn.data.label_names import label_names
from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.errors import ConfigError
from nlp_rnn.tokenization.tokenizer import Tokenizer


def read(path, source, *settings, text, split="train"):
    path.write_text(text, encoding="utf-8")
    config = load_config(None, [f"data.source={source}", f"data.train={path}", *settings])
    return Corpus(config.data, 1)._given[split]()


MULTI = "data.multi_label=true"


def test_labels_of_a_text_are_joined_in_order_each_once():
    assert labels.split(labels.join([" b ", "a", "b", ""])) == ["a", "b"]
    assert labels.split(labels.join([])) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("__label__a __label__b a text", (["a", "b"], "a text")),
        ("__label__b\t__label__a\ta text", (["a", "b"], "a text")),
        ("__label__a a __label__b text __label__c", (["a", "b", "c"], "a text")),
        ("a text without, x__label__a", ([], "a text without, x__label__a")),
        ("__label__größe,😀, text", (["größe,😀"], "text")),
    ],
)
def test_labels_in_fasttexts_format(tmp_path, line, expected):
    (example,) = read(tmp_path / "a.txt", "text", MULTI, text=f"{line}\n")
    assert (labels.split(example.label), example.text) == expected


def test_the_labels_of_a_public_case_leave_the_text(tmp_path):
    """Several labels a line: no __label__ is left in a text."""
    lines = "__label__billing question 0\n__label__delivery __label__login question 2\n"
    found = list(read(tmp_path / "a.txt", "text", MULTI, text=lines))
    assert [labels.split(each.label) for each in found] == [["billing"], ["delivery", "login"]]
    assert [each.text for each in found] == ["question 0", "question 2"]


def test_labels_of_tables_and_json(tmp_path):
    found = read(tmp_path / "a.csv", "csv", MULTI, "data.label_separator=|", text="text,label\nx,b | a\ny,\n")
    assert [labels.split(each.label) for each in found] == [["a", "b"], []]
    columns = "data.label_columns=[toxic, insult]"
    found = read(tmp_path / "b.tsv", "tsv", MULTI, columns, text="insult\ttext\ttoxic\n1\tx\t0\nTrue\ty\t1\n\tz\t0.0\n")
    assert [labels.split(each.label) for each in found] == [["insult"], ["insult", "toxic"], []]
    rows = '{"text": "x", "label": ["b", 1]}\n{"text": "y", "label": []}\n{"text": "z"}\n{"text": "w", "label": "a"}\n'
    found = read(tmp_path / "c.jsonl", "jsonl", MULTI, text=rows)
    assert [labels.split(each.label) for each in found] == [["1", "b"], [], [], ["a"]]
    found = read(
        tmp_path / "d.jsonl", "jsonl", MULTI, "data.label_columns=[a,b]", text='{"text": "x", "a": true, "b": 0}\n'
    )
    assert [labels.split(each.label) for each in found] == [["a"]]


def test_a_label_column_that_holds_names_is_told(tmp_path):
    path = tmp_path / "a.csv"
    with pytest.raises(ConfigError) as caught:
        list(read(path, "csv", MULTI, "data.label_columns=[kind]", text="text,kind\nx,billing\n"))
    assert str(caught.value) == (
        f"{path}: line 2: column 'kind' of data.label_columns holds 'billing', but must hold 1 or 0, true or false, "
        "or nothing; "
        "where a column names labels, use data.label_column and data.label_separator"
    )
    with pytest.raises(ConfigError, match=r"line 1: 'label' is \[\{\}\], but labels are strings or numbers"):
        list(read(tmp_path / "b.jsonl", "jsonl", MULTI, text='{"text": "x", "label": [{}]}\n'))


@pytest.mark.parametrize("cell", ["-1", "much", "nan", "inf", "", "1e999"])
def test_a_weight_is_a_number_of_0_or_more(tmp_path, cell):
    path = tmp_path / "a.csv"
    found = read(path, "csv", "data.weight_column=w", text=f"text,label,w\nx,a,{cell}\n")
    with pytest.raises(ConfigError) as caught:
        list(found)
    assert str(caught.value) == (
        f"{path}: line 2: data.weight_column 'w' holds {cell!r}, but a weight is a number of 0 or more; correct it"
    )


def survey(path, text, source="csv", *settings):
    path.write_text(text, encoding="utf-8")
    settings = (f"data.source={source}", f"data.train={path}", f"data.cache_dir={path.parent / 'cache'}", *settings)
    config = load_config(None, settings)
    return Corpus(config.data, 1).survey(), config.data


def test_labels_of_lines_are_not_read_without_a_column_of_labels(tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"__label__a __label__b text {n}\n" for n in range(60)))
    config = load_config(
        None, ["data.source=text", f"data.train={tmp_path / 'a.txt'}", "data.label_column="], task="next_word"
    )
    example = next(Corpus(config.data, config.seed).survey().examples("train"))
    assert (example.label, example.text[:5]) == ("", "text ")


def test_weights_are_kept_with_a_mean_of_1_and_change_the_digest(tmp_path):
    rows = "text,label,w\n" + "".join(f"text {number},{number % 2},{number % 3}\n" for number in range(60))
    corpus, data = survey(tmp_path / "a.csv", rows, "csv", "data.weight_column=w")
    tokenizer = Tokenizer("word")
    tokenizer.adapt(["text 1"], vocab_size=10)
    cache = datasets.prepare_split(corpus, "train", data, tokenizer, {"0": 0, "1": 1})
    given = np.array([each.weight for each in corpus.examples("train")])
    np.testing.assert_allclose(cache.weights, given / given.mean(), rtol=1e-6)
    assert TokenCache.load(cache.path).weights.tolist() == cache.weights.tolist()
    other, _ = survey(tmp_path / "a.csv", rows)
    assert other.facts["train"].digest != corpus.facts["train"].digest
    zeros, data = survey(
        tmp_path / "b.csv",
        "text,label,w\n" + "".join(f"t{n},{n % 2},0\n" for n in range(60)),
        "csv",
        "data.weight_column=w",
    )
    with pytest.raises(ConfigError, match=r"data\.weight_column holds zeros only"):
        datasets.prepare_split(zeros, "train", data, tokenizer, {"0": 0, "1": 1})


def test_weights_stay_with_the_parts_of_a_text_that_is_cut(tmp_path):
    rows = "text,label,w\n" + "".join(f"text {number},{number % 2},{number % 3}\n" for number in range(60))
    corpus, _ = survey(tmp_path / "a.csv", rows, "csv", "data.weight_column=w", "data.split=contiguous")
    assert {each.weight for each in corpus.examples("train")} == {0.0, 1.0, 2.0}


def test_label_sets_are_counted_and_become_rows_of_0_and_1(tmp_path):
    lines = "".join(f"__label__{'ab'[n % 2]} __label__c text {n}\n" for n in range(40)) + "none\n" * 3
    corpus, data = survey(tmp_path / "a.txt", lines, "text", MULTI)
    assert label_names(corpus) == ["a", "b", "c"]
    assert corpus.facts["train"].labels["c"] == corpus.facts["train"].labels["a"] + corpus.facts["train"].labels["b"]
    numbers = {"a": 0, "b": 1, "c": 2}
    assert datasets.label_targets(labels.join(["c", "a"]), data, numbers).tolist() == [1, 0, 1]
    assert datasets.label_targets("", data, numbers).tolist() == [0, 0, 0]
    tokenizer = Tokenizer("word")
    tokenizer.adapt(["text"], vocab_size=10)
    cache = datasets.prepare_split(corpus, "train", data, tokenizer, numbers)
    assert (cache.labels.dtype, cache.labels.shape) == (np.uint8, (corpus.facts["train"].num_examples, 3))
    assert cache.labels.sum(axis=0).tolist() == [corpus.facts["train"].labels[name] for name in "abc"]


def test_labels_that_do_not_fit_are_told(tmp_path):
    corpus, _ = survey(tmp_path / "a.txt", "".join(f"text {n}\n" for n in range(40)), "text", MULTI)
    with pytest.raises(ConfigError, match=r"data\.multi_label is true, but no text of data\.train has a label"):
        label_names(corpus)

    def scale(*names):
        rows = "".join(f"text {n},{names[n % len(names)]}\n" for n in range(60))
        return label_names(survey(tmp_path / "b.csv", f"text,label\n{rows}", "csv", "data.labels_are=ordinal")[0])

    assert scale("10", "9", "1") == ["1", "9", "10"]
    with pytest.raises(ConfigError, match="has the label 'good', which is no number; write the labels as numbers"):
        scale("1", "2", "good")
    with pytest.raises(ConfigError, match="the labels '1', '2'; a scale has three different numbers or more"):
        scale("1", "2")
    with pytest.raises(ConfigError, match=r"the labels '1', '1.0', '2', '3'; a scale"):
        scale("1", "1.0", "2", "3")


def test_class_weights_of_unknown_labels_are_told():
    config = load_config(None, ["training.class_weights={spam: 5}"])
    with pytest.raises(ConfigError) as caught:
        labels.check_class_weights(config, ["neg", "pos"])
    assert str(caught.value) == (
        "training.class_weights has a weight for 'spam', but the labels of data.train are 'neg', 'pos'; correct it"
    )
    config = load_config(None, ["training.class_weights={neg: 0, pos: 2}"])
    with pytest.raises(ConfigError, match="leaves less than two labels a weight above 0"):
        labels.check_class_weights(config, ["neg", "pos"])
