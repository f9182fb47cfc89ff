"""Pretrained word vectors: files made by hand, read into a vocabulary and into a training."""

import gzip
import re
import tracemalloc

import numpy as np
import pytest

from nlp_rnn.errors import ConfigError
from nlp_rnn.training import word_vectors
from nlp_rnn.training.checkpoints import load_arrays
from nlp_rnn.training.word_vectors import read_vectors
from tests.conftest import ask, make_pairs, refused, run_pipeline, told_to_stop

PIECES = ["<pad>", "<unk>", "<s>", "</s>", "the", "film", "Paris", "élan"]
GLOVE = "the 0.5 -1 2e-1\nfilm 1 2 3\nother 9 9 9\nélan 4 5 6\n"


def read(folder, content, dimension=3, name="vectors.txt"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_vectors(path, PIECES, dimension)


def rows(match):
    return {PIECES[row]: values.tolist() for row, values in zip(match.rows, match.vectors, strict=True)}


FOUND = {"the": [0.5, -1, pytest.approx(0.2)], "film": [1, 2, 3], "élan": [4, 5, 6]}


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (GLOVE, "glove.txt"),
        (f"4 3\n{GLOVE}", "word2vec.txt"),
        (f"4 3\n{GLOVE}".replace("\n", " \n").replace("4 3 ", "4 3"), "fasttext.vec"),  # spaces end each line
        (GLOVE.replace("\n", "\r\n"), "windows.txt"),
        (GLOVE.replace(" ", "\t"), "tabs.tsv"),
        (gzip.compress(GLOVE.encode(), mtime=0), "glove.txt.gz"),
        (gzip.compress(f"4 3\n{GLOVE}".encode(), mtime=0), "fasttext.vec.gz"),
    ],
)
def test_each_format_gives_the_vocabularys_rows(tmp_path, content, name):
    match = read(tmp_path, content, name=name)
    assert rows(match) == FOUND
    assert (match.num_by_case, match.left_out, match.vectors.dtype) == (0, {}, np.float32)


def test_unknown_words_and_ends_of_texts_have_vectors_where_the_file_does(tmp_path):
    assert rows(read(tmp_path, "</s> 1 1 1\n<unk> 2 2 2\n<pad> 3 3 3\n")) == {"</s>": [1, 1, 1], "<unk>": [2, 2, 2]}


def test_a_word_in_other_case_stands_in_until_the_word_itself_comes(tmp_path):
    match = read(tmp_path, "The 1 1 1\nTHE 2 2 2\nparis 3 3 3\nFILM 4 4 4\nfilm 5 5 5\n")
    assert rows(match) == {"the": [1, 1, 1], "Paris": [3, 3, 3], "film": [5, 5, 5]}
    assert match.num_by_case == 2


def test_what_is_left_out_is_counted(tmp_path):
    lines = b"the 1 2 3\nthe 4 5 6\n. . . 1 1 1\nat name@domain.com 1 1 1\n 1 2 3\n" + b"caf\xe9 1 2 3\nfilm 7 8 9\n\n"
    match = read(tmp_path, lines)
    assert rows(match) == {"the": [1, 2, 3], "film": [7, 8, 9]}
    assert match.left_out == {"repeated": 1, "with a space in the word": 3, "not UTF-8": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("the 1 2 3\nfilm 1 2\n", "whose line 2 has 2 numbers instead of 3; correct or remove that line"),
        ("the 1 2 3\nfilm 1 2 3 4\n", "whose line 2 has 4 numbers instead of 3; correct or remove that line"),
        ("2 3\nthe 1 2 3\nfilm 1 2 3 4\n", "whose line 3 has 4 numbers instead of 3"),
        ("film\nthe 1 2 3\n", "whose first line is not a word and its numbers"),
        ("", "whose first line is not a word and its numbers"),
        ("the 1 x 3\n", "whose line 1 contains 'x', which is not a finite number; correct or remove that line"),
        ("other 1 2 3\nthe 1 nan 3\n", "whose line 2 contains 'nan', which is not a finite number"),
        ("the 1 -Infinity 3\n", "whose line 1 contains '-Infinity', which is not a finite number"),
        ("the 1 1e999 3\n", "whose line 1 contains '1e999', which is not a finite number"),
        ("the 1 1_0 3\n", "whose line 1 contains '1_0', which is not a finite number"),
        ("the 1  3\n", "whose line 1 contains '', which is not a finite number"),
        ("9 3\nthe 1 2 3\n", "whose first line says 9 words, but the file has 1; download or write it again"),
        (b"2 3\nthe \x00\x00\x80?\n", "which is not text; give a text file of GloVe, word2vec or fastText (.vec)"),
        (b"PK\x03\x04\x00\x00", "not a readable zip archive"),
        (b"the " + b"1" * 2**21, "which is not text"),
        (
            "the 1 2\n",
            "model.embedding_dim is 3, but the vectors of model.vectors, {path}, have 2 numbers; "
            "set model.embedding_dim=2",
        ),
        ("2 300\nthe 1 2 3\n", "model.embedding_dim is 3, but the vectors of model.vectors, {path}, have 300 numbers"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(tmp_path, content, message):
    with pytest.raises(ConfigError) as error:
        read(tmp_path, content)
    assert message.format(path=tmp_path / "vectors.txt") in str(error.value)
    assert str(tmp_path / "vectors.txt") in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_half_a_gzip_file_is_one_line(tmp_path):
    packed = gzip.compress("".join(f"w{number} {number} 2 3\n" for number in range(5000)).encode(), mtime=0)
    with pytest.raises(ConfigError, match="not a whole gzip file"):
        read(tmp_path, packed[: len(packed) // 2], name="vectors.txt.gz")


def test_only_the_vocabularys_vectors_are_held_in_memory(tmp_path):
    path = tmp_path / "large.txt"
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"word{number} {' '.join(['0.125'] * 100)}\n" for number in range(20000))
        file.write(f"the {' '.join(['1'] * 100)}\n")
    tracemalloc.start()
    match = read_vectors(path, PIECES, 100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows(match) == {"the": [1.0] * 100}
    assert path.stat().st_size > 12e6
    assert peak < 2e6


# --- in trainings
# ------------------------------------------------------------------------------------------------------

SMALL = [
    "data.source=csv", "data.train=reviews.csv", "data.max_length=20", "model.units=6",
    "model.embedding_dim=4", "training.batch_size=16",
    "training.epochs=2", "training.patience=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(reviews, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors")
    (folder / "reviews.csv").write_bytes(reviews.read_bytes())
    (folder / "vectors.vec").write_text("3 4\nGood 1 2 3 4\nbad 5 6 7 8\nelsewhere 0 0 0 0\n", encoding="utf-8")
    return folder


def embedding_of(run, name="embedding/embeddings"):
    arrays = load_arrays(run / "checkpoints" / "best.npz")
    pieces = (run / "tokenizer" / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    table = next(values for path, values in arrays.items() if path.endswith(name))
    return dict(zip((piece.split("\t")[0] for piece in pieces), table, strict=True))


@pytest.mark.further
def test_frozen_vectors_stay_and_the_coverage_is_told(folder):
    done = run_pipeline("train", "name=frozen", "model.vectors=vectors.vec", "model.vectors_trainable=false", *SMALL,
                        cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = embedding_of(folder / "runs" / "frozen")
    assert (table["good"].tolist(), table["bad"].tolist()) == ([1, 2, 3, 4], [5, 6, 7, 8])
    assert 0 < np.abs(table["dull"]).max() <= 0.05  # Keras's first values, as usual
    told = re.search(
        r"model.vectors: 2 of (\d+) vocabulary entries \((.*) %\), (.*) % of training tokens; 1 of them by", done.stderr
    )
    texts = [line.rpartition(",")[0] for line in (folder / "reviews.csv").read_text().splitlines()[1:]]
    words = " ".join(texts).replace('"', "").split()
    # Of all reviews, of which the training split is nine tenths.
    assert float(told[3]) == pytest.approx(100 * sum(word in ("good", "bad") for word in words) / len(words), abs=0.7)
    assert int(told[1]) == len(table) - 4
    assert float(told[2]) == pytest.approx(200 / int(told[1]), abs=0.05)
    ask("export", "--run", "runs/frozen", cwd=folder)
    assert ask("predict", "--model", "saved_models/sentiment", "a good film", cwd=folder)


def test_trained_vectors_move_and_resuming_does_not_read_the_file(folder, monkeypatch):
    settings = ["name=moving", "model.vectors=gone.vec", *SMALL]
    (folder / "gone.vec").write_bytes((folder / "vectors.vec").read_bytes())
    with told_to_stop(lambda callback: callback.progress.step == 3):
        assert run_pipeline("train", *settings, cwd=folder).returncode == 130
    (folder / "gone.vec").unlink()
    monkeypatch.setattr(word_vectors, "read_vectors", None)
    done = run_pipeline("train", *settings, cwd=folder)
    assert done.returncode == 0, done.stderr
    vector = embedding_of(folder / "runs" / "moving")["good"]
    assert 0 < np.abs(vector - [1, 2, 3, 4]).max() < 0.1


@pytest.mark.further
def test_an_interrupted_run_ends_as_an_uninterrupted_one(folder):
    settings = ["model.vectors=vectors.vec", *SMALL]
    ask("train", "name=whole", *settings, cwd=folder)
    with told_to_stop(lambda callback: callback.progress.step == 3):
        assert run_pipeline("train", "name=parts", *settings, cwd=folder).returncode == 130
    ask("train", "name=parts", *settings, cwd=folder)
    one, other = (load_arrays(folder / "runs" / name / "checkpoints" / "best.npz") for name in ("whole", "parts"))
    assert all(np.array_equal(values, other[name]) for name, values in one.items())


@pytest.mark.parametrize("is_tied", [True, pytest.param(False, marks=pytest.mark.further)])
def test_a_language_model_begins_with_vectors(folder, is_tied):
    settings = [
        "data.source=csv", "data.train=reviews.csv", "model.units=6", "model.embedding_dim=4", "training.batch_size=8",
        "training.window=10",
        "training.epochs=1", f"model.tie_embeddings={str(is_tied).lower()}",
        f"model.vectors_trainable={str(is_tied).lower()}",
    ]  # fmt: skip
    name = f"words_{is_tied}"
    ask("train", f"name={name}", "model.vectors=vectors.vec", *settings, cwd=folder, task="next_word")
    moved = np.abs(embedding_of(folder / "runs" / name)["good"] - [1, 2, 3, 4]).max()
    assert (0 < moved < 0.2) if is_tied else moved == 0


@pytest.mark.further
def test_both_tables_of_a_translator_begin_with_vectors(folder):
    lines = [f"{one},{other}\n" for one, other in make_pairs(60, 1)]
    (folder / "pairs.csv").write_text("source,target\n" + "".join(lines), encoding="utf-8")
    settings = [
        "data.source=csv", "data.train=pairs.csv", "tokenizer.level=word", "tokenizer.vocab_size=50", "model.units=8",
        "model.embedding_dim=4",
        "training.batch_size=8", "training.epochs=1", "model.tie_embeddings=false", "model.vectors_trainable=false",
    ]  # fmt: skip
    (folder / "both.txt").write_text("garden 1 2 3 4\ngarten 4 3 2 1\n", encoding="utf-8")
    ask("train", "name=pairs", "model.vectors=both.txt", *settings, cwd=folder, task="translation")
    for name in (":embedding/embeddings", ":target_embedding/embeddings"):
        table = embedding_of(folder / "runs" / "pairs", name)
        assert table["Garten"].tolist() == [4, 3, 2, 1]
        assert table["garden"].tolist() == [1, 2, 3, 4]


def test_subwords_are_looked_up_as_they_stand_in_the_vocabulary(folder):
    (folder / "pieces.txt").write_text("\u2581good 1 2 3 4\ngood 5 6 7 8\n", encoding="utf-8")
    settings = ["tokenizer.level=subword", "tokenizer.vocab_size=300", "model.vectors_trainable=false", *SMALL]
    ask("train", "name=pieces", "model.vectors=pieces.txt", *settings, cwd=folder)
    assert embedding_of(folder / "runs" / "pieces")["\u2581good"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.vectors=none.vec"], "model.vectors is none.vec, but there is no such file"),
        (
            ["model.vectors=vectors.vec", "model.embedding_dim=5"],
            "is 5, but the vectors of model.vectors, vectors.vec, have 4",
        ),
        (
            ["model.vectors=vectors.vec", "model.init_from=runs/lm"],
            "but model.init_from is runs/lm, which also provides an embedding",
        ),
        (
            ["model.vectors=vectors.vec", "training.start_from=runs/x"],
            "but training.start_from is runs/x, which also provides an embedding",
        ),
        (
            ["model.vectors=vectors.vec", "tokenizer.level=char"],
            "but tokenizer.level is char, and these vectors are of words or subwords",
        ),
        (["model.vectors_trainable=false"], "model.vectors_trainable is false, but model.vectors is empty"),
        (["model.vectors=strange.vec"], "model.vectors is strange.vec, which contains none of the "),
        (["model.vectors=broken.vec"], "model.vectors is broken.vec, whose line 2 has 3 numbers instead of 4"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line_and_leaves_no_run(folder, settings, message):
    (folder / "strange.vec").write_text("zzzz 1 2 3 4\n", encoding="utf-8")
    (folder / "broken.vec").write_text("good 1 2 3 4\nbad 1 2 3\n", encoding="utf-8")
    told = refused("train", "name=new", *SMALL, *settings, cwd=folder)
    assert message in told.splitlines()[-1]


def test_a_language_model_shares_the_frozen_table_of_another(folder):
    small = ["data.source=csv", "data.train=reviews.csv", "model.units=6", "model.embedding_dim=4", "training.epochs=1",
             "training.batch_size=8", "training.window=10"]  # fmt: skip
    ask("train", "name=forward", *small, cwd=folder, task="next_word")
    shared = ["model.vectors=runs/forward", "model.vectors_trainable=false", "model.is_reversed=true"]
    ask("train", "name=backward", *small, *shared, cwd=folder, task="next_word")
    one, other = (load_arrays(folder / "runs" / name / "checkpoints" / "best.npz") for name in ("forward", "backward"))
    assert list(one) == list(other)
    same = {name.partition(":")[2] for name in one if np.array_equal(one[name][1:], other[name][1:])}
    assert same == {"embedding/embeddings"}


def test_a_frozen_table_is_no_output(folder):
    told = refused(
        "train", "name=new", *SMALL, "model.vectors=vectors.vec", "model.vectors_trainable=false", cwd=folder,
        task="next_word",
    )  # fmt: skip
    assert "model.tie_embeddings uses the embedding as the output's table, which must be trained" in told
