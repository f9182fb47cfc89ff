import dataclasses
import gzip
import os

import pytest

from nlp_rnn.config.loading import load_config
from nlp_rnn.config.settings import DataConfig
from nlp_rnn.data import pair_corpora
from nlp_rnn.data.corpus import Corpus, load_corpus
from nlp_rnn.data.languages import check_order
from nlp_rnn.data.sources import PAIR_SOURCES, SOURCES
from nlp_rnn.errors import ConfigError

DATA = os.environ.get("NLP_RNN_DATA", "")
real_data = [pytest.mark.real_data, pytest.mark.skipif(not DATA, reason="needs the prepared data sets (NLP_RNN_DATA)")]

TMX = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header/><body>
<tu><tuv xml:lang="en-GB"><seg>Good <bpt i="1">&lt;b&gt;</bpt><hi>morn</hi>ing<ept i="1">x</ept></seg></tuv>
<tuv xml:lang="de"><seg>Guten
 Morgen</seg></tuv></tu>
<tu><tuv xml:lang="en"><seg>Only English</seg></tuv></tu>
<tu><tuv xml:lang="EN"><seg>Thanks</seg></tuv><tuv xml:lang="DE"><seg>Danke</seg></tuv>
<tuv xml:lang="fr"><seg>Merci</seg></tuv></tu>
</body></tmx>
"""


def settings_of(*settings):
    return load_config(None, list(settings), task="translation").data


def pairs(split="train", *settings):
    data = settings_of(*settings)
    return [tuple(pair) for pair in PAIR_SOURCES[data.source](data)[split]()]


def write_lines(folder, **sides):
    for name, lines in sides.items():
        (folder / name.replace("_", ".")).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def test_aligned_files(tmp_path):
    write_lines(tmp_path, train_en=["a", "b"], train_de=["A", "B"], val_en=["c"], val_de=["C"])
    settings = ("data.source=aligned", f"data.train={tmp_path}/train", f"data.validation={tmp_path}/val")
    assert pairs("train", *settings) == [("a", "A"), ("b", "B")]
    assert pairs("validation", *settings) == [("c", "C")]
    assert pairs("train", *settings, "data.source_language=de", "data.target_language=en") == [("A", "a"), ("B", "b")]
    with pytest.raises(
        ConfigError, match=r"there is no file .*train.fr; give the path without the endings .en and .fr, or change"
    ):
        pairs("train", *settings, "data.target_language=fr")
    with pytest.raises(ConfigError, match=r"the path of aligned files is \., which names no file"):
        pairs("train", "data.source=aligned", "data.train=.")


@pytest.mark.parametrize(
    ("en", "de", "longer", "counts"), [(3, 5, "de", "5 lines, 2 more"), (4, 3, "en", "4 lines, 1 more")]
)
def test_files_of_different_length_are_refused(tmp_path, en, de, longer, counts):
    write_lines(tmp_path, train_en=["x"] * en, train_de=["y"] * de)
    shorter = "en" if longer == "de" else "de"
    together = "lines with the same number must belong together"
    message = rf"train: .*train\.{longer} has {counts} than .*train\.{shorter}; {together}"
    with pytest.raises(ConfigError, match=message):
        pairs("train", "data.source=aligned", f"data.train={tmp_path}/train")


def test_tmx(tmp_path):
    path = tmp_path / "memory.tmx"
    path.write_text(TMX, encoding="utf-8")
    settings = ("data.source=tmx", f"data.train={path}")
    assert pairs("train", *settings) == [("Good morning", "Guten Morgen"), ("Thanks", "Danke")]
    with pytest.raises(ConfigError, match=r"no unit has both en and it \(its languages: de, en, en-gb, fr\)"):
        pairs("train", *settings, "data.target_language=it")
    with gzip.open(tmp_path / "memory.tmx.gz", "wt", encoding="utf-8") as file:
        file.write(TMX.replace('<tmx version="1.4">', '<tmx version="1.4" xmlns="http://www.lisa.org/tmx14">'))
    assert pairs("train", "data.source=tmx", f"data.train={tmp_path}/memory.tmx.gz")[1] == ("Thanks", "Danke")
    path.write_text(TMX[:400], encoding="utf-8")
    with pytest.raises(ConfigError, match=r"memory.tmx: not readable as TMX"):
        pairs("train", *settings)


def test_cldr_writes_both_languages_the_same_each_time():
    settings = ("data.target_language=fr", "data.num_pairs=300")
    found = pairs("train", *settings)
    assert found == pairs("train", *settings)
    assert len({source for source, _ in found}) == 300
    assert ("Tuesday, December 13, 1994", "mardi 13 décembre 1994") in found
    assert ("eleven", "onze") in found
    assert all(text == " ".join(text.split()) for pair in found for text in pair)
    assert all(
        target
        for _, target in pairs("train", "data.target_language=ja", "data.source_language=pt-BR", "data.num_pairs=50")
    )
    with pytest.raises(
        ConfigError, match=r"data.target_language is 'klingon', which is not in CLDR; give a BCP 47 tag"
    ):
        pairs("train", "data.target_language=klingon")


@pytest.mark.parametrize(
    ("source", "target", "name", "first"),
    [
        ("pt", "en", "pt_to_en", "olá"),
        ("en", "pt", "pt_to_en", "hello"),
        ("az_tr", "en", "aztr_to_en", "salam"),
        ("pt", "ru", "ru_to_pt", "olá"),
    ],
)
def test_ted_hrlr_reads_the_record_of_the_pair(source, target, name, first, monkeypatch):
    words = {"pt": "olá", "en": "hello", "az_tr": "salam", "ru": "privet"}

    def rows_of(data, asked, instead):
        assert asked == f"ted_hrlr_translate/{name}"
        return lambda split: [{language: word.encode() for language, word in words.items()}]

    monkeypatch.setattr(pair_corpora, "tfds_rows", rows_of)
    ((text, label),) = pairs(
        "test", "data.source=ted_hrlr", f"data.source_language={source}", f"data.target_language={target}"
    )
    assert (text, label) == (first, words[target])
    with pytest.raises(
        ConfigError, match=r"ted_hrlr, which does not have fr and en; give one of the pairs az and en, "
    ):
        pairs("test", "data.source=ted_hrlr", "data.source_language=fr", "data.target_language=en")


def test_unfit_pairs_are_counted_and_left_out(tmp_path):
    rows = [(f"source {i}", f"target {i}") for i in range(40)] + [
        ("empty", ""),
        (" ", "empty"),
        ("short", "long " * 50),
    ]
    write_lines(
        tmp_path,
        train_en=[row[0] for row in rows],
        train_de=[row[1] for row in rows],
        val_en=["v", ""],
        val_de=["V", "W"],
    )
    data = settings_of("data.source=aligned", f"data.train={tmp_path}/train", f"data.validation={tmp_path}/val")
    corpus = load_corpus(data, 1, is_parallel=True)
    assert (corpus.facts["train"].num_examples, corpus.facts["validation"].num_examples) == (40, 1)
    assert corpus.facts["validation"].dropped == {"with an empty side": 1}
    assert corpus.facts["train"].dropped == {"with an empty side": 2, "of too different lengths": 1}
    assert "left out: 2 with an empty side, 1 of too different lengths" in corpus.facts["train"].describe()
    assert not corpus.facts["train"].labels


EN_DE = [
    ("the dog is not in the house", "der Hund ist nicht in dem Haus"),
    ("a man and the child", "ein Mann und das Kind"),
] * 20


@pytest.mark.parametrize(
    ("languages", "rows"),
    [
        (("en", "de"), EN_DE),
        (("en-GB", "ru"), [("the house", "этот дом"), ("dogs", "собаки")] * 20),
        (("ja", "zh"), [("これは本です", "这是一本书")] * 20),
        (("en", "fr"), [("Tuesday, May 3", "mardi 3 mai")] * 40),  # too little to tell
        (("de", "xx"), [(target, source) for source, target in EN_DE]),  # unknown to us
    ],
)
def test_pairs_in_the_right_order_pass(languages, rows):
    check_order(DataConfig(source_language=languages[0], target_language=languages[1]), rows)


@pytest.mark.parametrize("rows", [EN_DE, [("the house of the man", "этот дом этого человека")] * 10])
def test_pairs_in_the_wrong_order_are_refused(rows, tmp_path):
    other = "de" if rows is EN_DE else "ru"
    path = tmp_path / "pairs.tsv"
    path.write_text(
        "source\ttarget\n" + "".join(f"{i} {a}\t{i} {b}\n" for i, (a, b) in enumerate(rows)), encoding="utf-8"
    )
    settings = settings_of(
        "data.source=tsv", f"data.train={path}", f"data.source_language={other}", "data.target_language=en"
    )
    message = (
        f"data.source_language is {other} and data.target_language is en, "
        f"but the source sentences read like en and the targets like {other}"
    )
    with pytest.raises(ConfigError, match=message):
        load_corpus(settings, 1, is_parallel=True)


def test_pairs_without_targets_are_told(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"source": "a", "translation": "b"}\n' * 5, encoding="utf-8")
    with pytest.raises(
        ConfigError,
        match=r"5 with an empty side\); check data.text_column, data.label_column and the lang|target",
    ):
        load_corpus(settings_of("data.source=jsonl", f"data.train={path}"), 1, is_parallel=True)


def test_all_translations_of_a_sentence_fall_into_one_split(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text(
        "source\ttarget\n" + "".join(f"sentence {i // 3}\tsatz {i}\n" for i in range(900)), encoding="utf-8"
    )
    corpus = Corpus(
        settings_of("data.source=tsv", f"data.train={path}", "data.test_fraction=0.2"), 1, is_parallel=True
    ).survey()
    sides = [{pair.text for pair in corpus.examples(split)} for split in ("train", "validation", "test")]
    assert sum(map(len, sides)) == len(sides[0] | sides[1] | sides[2])
    assert sum(corpus.facts[split].num_examples for split in ("train", "validation", "test")) == 900


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["data.source=imdb"],
            "data.source is imdb, which has no pairs for the task translation; use one of multi30k, tatoeba",
        ),
        (
            ["data.target_language=en"],
            "data.target_language is en, the same as data.source_language; give two languages",
        ),
        (["data.split=contiguous"], "data.split is contiguous, which would cut sentences; use hash or blocks"),
        (
            ["model.units=30", "model.num_heads=4"],
            "model.units is 30, but must be a multiple of 8 (model.num_heads times the number of directions)",
        ),
        (
            ["model.softmax=sampled"],
            "training.label_smoothing is 0.1, which needs all words, but model.softmax is sampled; use 0, or",
        ),
        (
            ["model.cell=min_gru", "model.input_feeding=true"],
            "model.input_feeding is true, but model.cell min_gru computes all time steps",
        ),
        (["data.keep=both"], "data.keep is both, but translators read the start of a long sentence; use start"),
        (["data.label_column="], "data.label_column is empty, but must name the column of the translations; set it"),
        (
            ["data.source=tatoeba", "data.split=blocks"],
            "but tatoeba has several translations per sentence; use hash",
        ),
        (
            ["training.monitor=val_accuracy"],
            "training.monitor is val_accuracy, but translators need val_cross_entropy",
        ),
        (
            ["model.input_feeding=true", "model.recurrent_dropout=0.1"],
            "model.recurrent_dropout is 0.1, but model.input_feeding is true",
        ),
        (
            ["tokenizer.level=word", "tokenizer.oov_buckets=5"],
            "produce ids that cannot be decoded into text; use 0 and keep or lower",
        ),
        (["data.length_ratio=0.5"], "data.length_ratio is 0.5, but must be greater than or equal to 1"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ConfigError) as found:
        settings_of(*settings)
    assert message in str(found.value)


def test_other_tasks_refuse_pairs():
    with pytest.raises(
        ConfigError, match=r"data.source is cldr, which holds pairs for the task translation; use another source"
    ):
        load_config(None, ["data.source=cldr"], task="sentiment")


@pytest.mark.parametrize("source", ["multi30k", "tatoeba"])
def test_prepared_data_that_is_not_there_is_told(source, tmp_path):
    with pytest.raises(
        ConfigError, match=rf"data.source is {source}, but there is no folder .*{source}; set data.dir, or NLP_RNN_DATA"
    ):
        pairs("train", f"data.source={source}", f"data.dir={tmp_path}")


@pytest.mark.parametrize("source", [pytest.param("multi30k", marks=real_data)])
def test_multi30k(source):
    settings = (f"data.source={source}", f"data.dir={DATA}")
    counts = {split: len(pairs(split, *settings)) for split in ("train", "validation", "test")}
    assert counts == {"train": 29_000, "validation": 1_014, "test": 1_000}
    assert pairs("test", *settings)[0][0].startswith("A man in an orange hat")
    with pytest.raises(
        ConfigError, match=r"data.target_language is es, but data.source multi30k has en, de, fr; give one of them"
    ):
        pairs("train", *settings, "data.target_language=es")


@pytest.mark.parametrize("source", [pytest.param("tatoeba", marks=real_data)])
def test_tatoeba(source):
    settings = (f"data.source={source}", f"data.dir={DATA}")
    found = pairs("train", *settings, "data.target_language=es")
    assert (len(found), found[0]) == (118_964, ("Go.", "Ve."))
    assert pairs("train", *settings, "data.source_language=es", "data.target_language=en")[0] == ("Ve.", "Go.")
    with pytest.raises(
        ConfigError, match=r"data.source_language is es and data.target_language is de; give en and one of es, fr, de"
    ):
        pairs("train", *settings, "data.source_language=es")


def test_the_sentences_of_one_side_of_tatoeba_are_a_text(tmp_path):
    (tmp_path / "tatoeba").mkdir()
    lines = ["Go.\tVe.\tCC-BY", "Go.\tVete.\tCC-BY", "Leave.\tVete.\tCC-BY"]
    (tmp_path / "tatoeba" / "spa.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = load_config(
        None, ["task=next_word", "data.source=tatoeba_sentences", "data.target_language=es", f"data.dir={tmp_path}"]
    )
    assert list(SOURCES["tatoeba_sentences"](config.data)["train"]()) == [("Ve.", ""), ("Vete.", "")]
    data = dataclasses.replace(config.data, target_language="it")
    with pytest.raises(
        ConfigError, match=r"data.target_language is it, but data.source tatoeba_sentences has es, fr, de"
    ):
        SOURCES["tatoeba_sentences"](data)
    with pytest.raises(ConfigError, match=r"data.source is tatoeba_sentences, but there is no folder"):
        SOURCES["tatoeba_sentences"](dataclasses.replace(config.data, dir=str(tmp_path / "none")))
