"""Small, repeated and missing data: sensible splits, or the reason."""

import itertools
import os
from collections import Counter

import pytest

from nlp_rnn.config.loading import load_config
from nlp_rnn.data.corpus import Corpus, corpus_with
from nlp_rnn.errors import ConfigError
from tests.conftest import write_csv


def config_of(path, *settings, task="sentiment"):
    source = [] if any(each.startswith("data.source=") for each in settings) else ["data.source=csv"]
    return load_config(None, [*source, f"data.train={path}", *settings], task=task)


def sizes_of(path, *settings):
    config = config_of(path, *settings)
    corpus = Corpus(config.data, config.seed).survey()
    texts = [{example.text for example in corpus.examples(name)} for name in ("train", "validation", "test")]
    assert not texts[0] & texts[1]
    assert not texts[2] & (texts[0] | texts[1])
    return [corpus.facts[name].num_examples for name in ("train", "validation", "test")]


def error_of(path, *settings):
    config = config_of(path, *settings)
    with pytest.raises(ConfigError) as caught:
        Corpus(config.data, config.seed).survey()
    return str(caught.value)


@pytest.mark.parametrize("split", ["hash", "blocks"])
@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_few_texts_give_each_split_one_or_more(tmp_path, split, count):
    path = write_csv(tmp_path / "a.csv", [(f"text {n}", str(n % 2)) for n in range(count)])
    train, validation, _ = sizes_of(path, f"data.split={split}")
    assert validation >= 1
    assert train + validation == count
    if count > 2:
        assert min(sizes_of(path, f"data.split={split}", "data.test_fraction=0.1")) >= 1


@pytest.mark.parametrize(
    ("count", "settings", "validation", "test"),
    [
        (60, ["data.split=hash"], [10, 14, 25, 37, 39], [5, 9, 15, 19, 26, 38, 41, 43, 50, 52, 58]),
        (60, ["data.split=blocks", "data.block_size=4"], [20, 21, 22, 23], [0, 1, 2, 3, 52, 53, 54, 55]),
        (7, ["data.split=hash"], [2], [5]),
        (30, ["data.split=blocks", "data.block_size=50"], [5, 18, 26], [0, 13, 21]),
    ],
    ids=["hash", "blocks", "few texts", "few blocks"],
)
def test_a_seed_draws_these_texts_in_every_version(tmp_path, count, settings, validation, test):
    path = write_csv(tmp_path / "a.csv", [(f"text {n}", "ab"[n % 2]) for n in range(count)])
    shares = ["data.test_fraction=0.1", "data.validation_fraction=0.1", "seed=3"]
    config = config_of(path, *shares, *settings)
    corpus = Corpus(config.data, config.seed).survey()
    found = {split: [int(example.text.split()[1]) for example in corpus.examples(split)] for split in corpus.facts}
    assert (found["validation"], found["test"]) == (validation, test)
    assert sorted(itertools.chain(*found.values())) == list(range(count))


def test_evaluation_finds_the_same_few_texts_as_training(tmp_path):
    path = write_csv(tmp_path / "a.csv", [(f"text {n}", str(n % 2)) for n in range(6)])
    config = config_of(path, "data.test_fraction=0.1")
    whole = Corpus(config.data, config.seed).survey()
    alone = corpus_with(config, "test")
    assert list(alone.examples("test")) == list(whole.examples("test"))


def test_one_text_cannot_be_split_by_texts(tmp_path):
    path = write_csv(tmp_path / "a.csv", [("the only text", "x")])
    assert error_of(path).endswith(
        "data.train has 1 text, to be drawn into 2 splits; "
        "give more texts, or data.validation (and data.test), or cut one long "
        "text with data.split=contiguous"
    )
    path = write_csv(tmp_path / "a.csv", [("the same text", "x")] * 40)
    assert "data.train has 40 texts, but 1 different ones, to be drawn into 2 splits" in error_of(path)


def test_empty_files_say_what_they_hold(tmp_path):
    (tmp_path / "a.txt").write_text("")
    assert error_of(tmp_path / "a.txt", "data.source=text") == (
        f"data.train has no examples: {tmp_path}/a.txt is empty (0 bytes); give a file with texts"
    )
    (tmp_path / "a.txt").write_text("\n\n\n")
    assert "has 3 bytes, but no row or line with a text" in error_of(
        tmp_path / "a.txt", "data.source=documents", "data.split=contiguous"
    )
    assert "has 3 bytes, but no row or line with a text" in error_of(tmp_path / "a.txt", "data.source=text")


def test_a_test_file_that_is_the_training_file_is_told(tmp_path):
    path = write_csv(tmp_path / "a.csv", [(f"text {n}", str(n % 2)) for n in range(40)])
    other = write_csv(tmp_path / "b.csv", [(f"other {n}", str(n % 2)) for n in range(9)])
    assert error_of(path, f"data.test={path}", f"data.validation={other}") == (
        "data.train has no examples: all of its 40 texts are repeated (40 also in test); give other texts, or set "
        "data.remove_repeated=false"
    )


def test_a_file_alone_can_be_evaluated_without_the_training_file(tmp_path):
    test = write_csv(tmp_path / "test.csv", [(f"text {n}", str(n % 2)) for n in range(9)])
    for train in (test, tmp_path / "gone.csv"):
        corpus = corpus_with(config_of(train, f"data.test={test}"), "test")
        assert corpus.facts["test"].num_examples == 9
    with pytest.raises(ConfigError, match=r"gone.csv, but there is no such file"):
        corpus_with(config_of(tmp_path / "gone.csv", f"data.test={test}"), "test", also=("train",))


def test_a_corpus_from_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    config = config_of(tmp_path / "pipe", "data.source=text")
    with pytest.raises(
        ConfigError, match=r"a pipe or device, but data are read more than once; write them to a file first"
    ):
        Corpus(config.data, config.seed)


def test_documents_of_one_file_can_be_cut(tmp_path):
    (tmp_path / "a.txt").write_text("one line only, but a long one " * 20)
    config = config_of(tmp_path / "a.txt", "data.source=documents", task="char_generation")
    corpus = Corpus(config.data, config.seed).survey()
    assert corpus.has("train")
    assert corpus.has("validation")


def test_fewer_examples_keep_the_share_of_each_label_and_are_drawn_by_the_seed(tmp_path):
    rows = [(f"text {n}", "rare" if n % 5 == 0 else "frequent") for n in range(500)]
    path = write_csv(tmp_path / "a.csv", [*rows, *rows[:50]])
    texts = {}
    for seed in (1, 2):
        config = config_of(path, "data.max_examples=101", f"seed={seed}")
        corpus = Corpus(config.data, config.seed).survey()
        whole = Corpus(config_of(path).data, config.seed).survey()
        examples = list(corpus.examples("train"))
        texts[seed] = {example.text for example in examples}
        assert len(examples) == len(texts[seed]) == corpus.facts["train"].num_examples == 101
        assert 18 <= sum(example.label == "rare" for example in examples) <= 22
        assert list(corpus.examples("validation")) == list(whole.examples("validation"))
        assert "beyond data.max_examples" in corpus.facts["train"].describe()
    assert texts[1] != texts[2]


def test_fewer_examples_are_as_many_as_asked_for_where_texts_repeat(tmp_path):
    rows = [(f"good {n % 10}", "pos") for n in range(100)] + [(f"bad {n}", "neg") for n in range(100)]
    config = config_of(write_csv(tmp_path / "a.csv", rows), "data.max_examples=60", "data.remove_repeated=false")
    examples = list(Corpus(config.data, config.seed).survey().examples("train"))
    texts = Counter(example.text for example in examples)
    assert len(examples) == 60
    assert 20 <= sum(example.label == "pos" for example in examples) <= 40
    good = {
        example.text for example in Corpus(config_of(tmp_path / "a.csv").data, config.seed).survey().examples("train")
    }
    assert {text for text in texts if text.startswith("good")} == {text for text in good if text.startswith("good")}


@pytest.mark.parametrize("seed", range(1, 7))
def test_fewer_examples_of_a_small_file_are_drawn_from_its_last_train_split(tmp_path, seed):
    path = write_csv(tmp_path / "a.csv", [(f"text {n}", str(n % 2)) for n in range(6)])
    config = config_of(path, "data.max_examples=2", f"seed={seed}")
    corpus = Corpus(config.data, config.seed).survey()
    assert len(list(corpus.examples("train"))) == corpus.facts["train"].num_examples == 2


@pytest.mark.parametrize("weighted", [False, True])
def test_with_a_teacher_the_other_texts_lose_their_labels_only(tmp_path, weighted):
    rows = [(f"text {n}", ("", "good", "bad")[n % 3], n + 1) for n in range(300)]
    lines = [f"{text},{label},{weight}" for text, label, weight in rows]
    (tmp_path / "a.csv").write_text("\n".join(["text,label,weight", *lines]), encoding="utf-8")
    settings = ["data.max_examples=40", *(["data.weight_column=weight"] if weighted else [])]
    config = config_of(tmp_path / "a.csv", *settings)
    fewer = list(Corpus(config.data, config.seed, trains_on_unlabelled=True).survey().examples("train"))
    config = config_of(tmp_path / "a.csv", *settings[1:])
    whole = list(Corpus(config.data, config.seed, trains_on_unlabelled=True).survey().examples("train"))
    assert [example.text for example in fewer] == [example.text for example in whole]
    assert Counter(example.label for example in fewer) == {"": len(whole) - 40, "good": 20, "bad": 20}
    labels = {example.text: example.label for example in whole}
    assert all(example.label in ("", labels[example.text]) for example in fewer)
    if weighted:
        assert [example.weight for example in fewer] == [example.weight for example in whole]


@pytest.mark.parametrize("first", ["", "good"])
def test_an_unlabelled_copy_does_not_take_the_place_of_a_labelled_one(tmp_path, first):
    other = "good" if not first else ""
    rows = [(f"text {n}", label) for n in range(100) for label in (first, other)]
    config = config_of(write_csv(tmp_path / "a.csv", rows), "data.max_examples=40", "data.remove_repeated=false")
    examples = list(Corpus(config.data, config.seed, trains_on_unlabelled=True).survey().examples("train"))
    assert sum(example.label == "good" for example in examples) == 40


@pytest.mark.parametrize("split", ["hash", "contiguous"])
def test_texts_without_a_label_are_for_training_only(tmp_path, split):
    rows = [(f"text {n}", ("", "good", "bad")[n % 3]) for n in range(300)]
    config = config_of(write_csv(tmp_path / "a.csv", rows), f"data.split={split}", "data.validation_fraction=0.3")
    corpus = Corpus(config.data, config.seed, trains_on_unlabelled=True).survey()
    labels = {name: Counter(example.label for example in corpus.examples(name)) for name in ("train", "validation")}
    assert labels["train"][""] == 100
    assert labels["validation"]["good"] > 10
    assert labels["validation"][""] == 0


def test_texts_without_a_label_may_all_stand_at_the_end_of_a_file_that_is_cut(tmp_path):
    rows = [(f"text {n}", ("good", "bad")[n % 2] if n < 60 else "") for n in range(200)]
    config = config_of(write_csv(tmp_path / "a.csv", rows), "data.split=contiguous")
    corpus = Corpus(config.data, config.seed, trains_on_unlabelled=True).survey()
    assert corpus.facts["validation"].num_examples >= 5
    assert corpus.facts["train"].num_unlabelled == 140


def test_pairs_can_be_fewer_too(tmp_path):
    for language in ("en", "de"):
        (tmp_path / f"a.{language}").write_text("".join(f"{language} {n}\n" for n in range(200)))
    config = config_of(tmp_path / "a", "data.source=aligned", "data.max_examples=50", task="translation")
    corpus = Corpus(config.data, config.seed, is_parallel=True).survey()
    assert len(list(corpus.examples("train"))) == 50


def test_texts_with_several_labels_can_be_fewer_too(tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"__label__a __label__b{n % 3} text {n}\n" for n in range(100)))
    config = config_of(tmp_path / "a.txt", "data.source=text", "data.multi_label=true", "data.max_examples=20")
    corpus = Corpus(config.data, config.seed).survey()
    assert corpus.facts["train"].num_examples == 20


def test_a_given_validation_file_is_evaluated_where_test_is_drawn_from_train(tmp_path):
    path = write_csv(tmp_path / "a.csv", [(f"text {n}", str(n % 2)) for n in range(60)])
    validation = write_csv(tmp_path / "b.csv", [(f"text {n}", str(n % 2)) for n in range(50, 90)])
    config = config_of(path, f"data.validation={validation}", "data.test_fraction=0.2")
    whole = Corpus(config.data, config.seed).survey()
    assert list(corpus_with(config, "validation").examples("validation")) == list(whole.examples("validation"))
