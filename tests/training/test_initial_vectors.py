"""An embedding that begins with that of a trained model (model.vectors)."""

import re

import numpy as np
import pytest

from nlp_rnn.tokenization.vocabulary_file import read_pieces
from nlp_rnn.training.checkpoints import load_arrays
from tests.conftest import ask, refused, run_pipeline

TEXTS = "".join(f"the cat likes a dog zzz {n},yes\na dog sees it {n},no\n" for n in range(60))
SETTINGS = [
    "data.source=csv", "data.train=texts.csv", "data.max_length=20", "model.cell=gru", "model.units=5",
    "model.embedding_dim=16", "training.batch_size=16", "training.epochs=1", "training.patience=0",
]  # fmt: skip


@pytest.fixture
def folder(next_word_trained, tmp_path):
    (tmp_path / "texts.csv").write_text(f"text,label\n{TEXTS}", encoding="utf-8")
    return tmp_path


def table_of(path):
    return next(values for name, values in load_arrays(path).items() if name.endswith("embedding/embeddings"))


def pieces_of(run):
    return read_pieces(run / "tokenizer")


@pytest.mark.parametrize("kind", ["run", "export"])
def test_words_of_both_models_begin_with_its_vectors(folder, next_word_trained, kind):
    model = next_word_trained / ("runs/small" if kind == "run" else "saved_models/next_word")
    command = ["train", "name=a", *SETTINGS, f"model.vectors={model}", "model.vectors_trainable=false"]
    done = run_pipeline(*command, cwd=folder)
    assert done.returncode == 0, done.stderr
    source, own = next_word_trained / "runs" / "small", folder / "runs" / "a"
    words, table = pieces_of(source), table_of(source / "checkpoints" / "best.npz")
    found = dict(zip(pieces_of(own), table_of(own / "checkpoints" / "best.npz"), strict=True))
    shared = set(found) & set(words) - {"<pad>"}
    assert {"the", "cat", "dog"} <= shared
    assert "zzz" in set(found) - shared
    for word in shared:
        np.testing.assert_allclose(found[word], table[words.index(word)], atol=1e-6, err_msg=word)
    num_words = len(shared - {"<unk>", "<s>", "</s>"})
    assert f"model.vectors: {num_words} of {len(found) - 4} vocabulary entries" in done.stderr
    # It goes on without that model.
    again = ["train", "name=a", *SETTINGS, "model.vectors=gone", "model.vectors_trainable=false"]
    assert "run of another config: model.vectors" in refused(*again, cwd=folder)
    ask(*command, cwd=folder)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("next_word", r"lacks [\d,]+ of the [\d,]+ pieces that the model predicts, such as .*; use the texts and"),
        ("translation", "which must be trained; set model.tie_embeddings=false"),
    ],
)
def test_a_frozen_output_has_no_random_vectors(folder, next_word_trained, task, message):
    settings = [*SETTINGS, "model.vectors_trainable=false", f"model.vectors={next_word_trained / 'runs' / 'small'}"]
    if task == "translation":
        settings += ["tokenizer.level=word", "model.units=6"]
        settings += ["data.text_column=text", "data.label_column=label"]
    assert re.search(message, refused("train", "name=b", *settings, cwd=folder, task=task))
    assert not (folder / "runs" / "b").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["model.embedding_dim=8"],
            "is 8, but the vectors of model.vectors, {model}, have 16 numbers",
        ),
        (["model.vectors={folder}"], "is {folder}, which is no run directory and no exported model"),
        (["model.vectors={characters}"], "a model of the task char_generation; give a classifier or a language model"),
        (["model.vectors={translator}"], "a model of the task translation; give a classifier or a language model"),
        (["tokenizer.level=char"], "tokenizer.level is char"),
    ],
)
def test_models_that_do_not_fit_are_refused(
    folder, next_word_trained, characters_trained, translation_trained, settings, message
):
    places = {
        "folder": folder, "model": next_word_trained / "runs" / "small",
        "characters": characters_trained / "runs" / "small", "translator": translation_trained / "runs" / "small",
    }  # fmt: skip
    given = [each.format(**places) for each in ["model.vectors={model}", *settings]]
    told = refused("train", *SETTINGS, *given, cwd=folder)
    assert message.format(**places) in told
