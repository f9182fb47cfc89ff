"""Classifiers, language models and translators that begin with the weights of a language model."""

import keras
import numpy as np
import pytest

from nlp_rnn.config.settings import ModelConfig
from nlp_rnn.layers.recurrent import ReverseTexts
from nlp_rnn.models.classifier import build_classifier
from nlp_rnn.training.checkpoints import load_arrays
from nlp_rnn.training.optimizers import scale_rates
from tests.conftest import ask, make_pairs, refused, run_pipeline, told_to_stop

LANGUAGE_MODEL = [
    "data.source=csv", "data.train=reviews.csv", "tokenizer.vocab_size=60", "model.units=8", "model.embedding_dim=6",
    "model.num_layers=2",
    "model.weight_dropout=0.1", "training.batch_size=8", "training.window=10", "training.epochs=1",
]  # fmt: skip
CLASSIFIER = [
    "data.source=csv", "data.train=reviews.csv", "tokenizer.vocab_size=60", "model.units=8", "model.embedding_dim=6",
    "model.num_layers=2",
    "model.is_bidirectional=false", "model.last_units=6", "training.batch_size=16", "training.epochs=2",
    "training.patience=0",
    "data.max_length=20",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(reviews, tmp_path_factory):
    """Holds reviews.csv and the runs lm, of its words, and reversed_lm."""
    folder = tmp_path_factory.mktemp("transfer")
    (folder / "reviews.csv").write_bytes(reviews.read_bytes())
    ask("train", "name=lm", *LANGUAGE_MODEL, cwd=folder, task="next_word")
    ask("train", "name=reversed_lm", "model.is_reversed=true", *LANGUAGE_MODEL, cwd=folder, task="next_word")
    return folder


def weights_of(run):
    return {name.partition(":")[2]: values for name, values in load_arrays(run / "checkpoints" / "best.npz").items()}


def test_a_classifier_begins_with_the_language_models_layers(folder):
    # A rate so small that the weights stay what they were.
    settings = [*CLASSIFIER, "training.learning_rate=1e-12", "training.epochs=1", "model.init_from=runs/lm"]
    done = run_pipeline("train", "name=frozen", *settings, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "model.init_from runs/lm: took embedding, lstm_0, lstm_1\n" in done.stderr
    source, target = weights_of(folder / "runs" / "lm"), weights_of(folder / "runs" / "frozen")
    pairs = {"embedding/embeddings": "embedding/embeddings"}
    for number in (0, 1):
        for name in ("kernel", "recurrent_kernel", "bias"):
            pairs[f"lstm_{number}/lstm_cell/{name}"] = f"lstm_{number}_weight_drop/lstm_{number}/lstm_cell/{name}"
    for one, other in pairs.items():
        np.testing.assert_allclose(target[one], source[other], atol=1e-6)
    assert (folder / "runs" / "frozen" / "tokenizer" / "vocabulary.txt").read_bytes() == (
        folder / "runs" / "lm" / "tokenizer" / "vocabulary.txt"
    ).read_bytes()


@pytest.mark.further
def test_a_classifier_that_reads_backwards_begins_with_a_model_that_does(folder):
    settings = [
        *CLASSIFIER,
        "model.is_reversed=true",
        "training.learning_rate=0.02",
        "training.epochs=8",
        "name=reversed",
    ]
    done = run_pipeline("train", *settings, "model.init_from=runs/reversed_lm", cwd=folder)
    assert done.returncode == 0, done.stderr
    ask("export", "--run", "runs/reversed", cwd=folder)
    answers = ask(
        "predict",
        "--model",
        "saved_models/sentiment",
        "a great film and lovely music",
        "a dull and awful story",
        cwd=folder,
    )
    assert [line.split("\t")[0] for line in answers.splitlines()] == ["pos", "neg"]


def test_a_model_that_reads_backwards_equals_one_that_reads_reversed_texts():
    ids = np.array([[3, 4, 5, 0], [6, 7, 8, 9]])
    config = ModelConfig(units=5, embedding_dim=4, is_bidirectional=False, pooling=("last", "mean"))
    forward = build_classifier(config, vocab_size=10, num_classes=2)
    backward = build_classifier(ModelConfig(**(vars(config) | {"is_reversed": True})), vocab_size=10, num_classes=2)
    backward.set_weights(forward.get_weights())
    np.testing.assert_allclose(backward(ids), forward(np.array([[5, 4, 3, 0], [9, 8, 7, 6]])), atol=1e-6)


def test_texts_are_reversed_and_their_padding_stays():
    sequences = np.arange(8.0).reshape(2, 4, 1)
    mask = np.array([[True, True, True, False], [True, False, False, False]])
    assert np.array(ReverseTexts()(sequences, mask))[:, :, 0].tolist() == [[2, 1, 0, 3], [4, 5, 6, 7]]


def test_a_language_model_begins_with_another(folder):
    done = run_pipeline("train", "name=again", "model.init_from=runs/lm", *LANGUAGE_MODEL, cwd=folder, task="next_word")
    assert done.returncode == 0, done.stderr
    assert "took embedding, lstm_0_weight_drop, lstm_1_weight_drop, softmax\n" in done.stderr


@pytest.mark.further
def test_a_translator_takes_what_fits_and_says_what_does_not(folder):
    rows = make_pairs(60, 1)
    (folder / "pairs.csv").write_text(
        "source,target\n" + "".join(f"{one},{other}\n" for one, other in rows), encoding="utf-8"
    )
    (folder / "lines.txt").write_text("".join(f"{one}\n{other}\n" for one, other in rows), encoding="utf-8")
    tokenizer = [
        "tokenizer.level=word",
        "tokenizer.case=keep",
        "tokenizer.html_breaks=false",
        "tokenizer.vocab_size=50",
    ]
    model = ["model.units=8", "model.embedding_dim=8", "training.batch_size=4", "training.epochs=1"]
    text = ["data.source=text", "data.train=lines.txt", "data.split=hash", "training.window=5"]
    ask("train", "name=words", *text, *tokenizer, *model, cwd=folder, task="next_word")
    settings = [
        "name=pairs",
        "data.source=csv",
        "data.train=pairs.csv",
        "model.init_from=runs/words",
        *tokenizer,
        *model,
    ]
    done = run_pipeline("train", *settings, cwd=folder, task="translation")
    assert done.returncode == 0, done.stderr
    assert "took embedding, decoder_0; random, since it has no such weights: encoder_0_forward\n" in done.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.init_from=runs/none"], "model.init_from is runs/none, which is no run directory"),
        (
            ["model.init_from=runs/lm", "tokenizer.vocab_size=70"],
            "whose vocabulary is taken, but tokenizer.vocab_size is 70 and was 60",
        ),
        (
            ["model.init_from=runs/lm", "model.cell=gru"],
            "model.cell is gru, but the language model of model.init_from, runs/lm, has",
        ),
        (
            ["model.init_from=runs/lm", "model.is_bidirectional=true"],
            "has other values; set model.is_bidirectional=false",
        ),
        (["model.init_from=runs/reversed_lm"], "model.is_reversed is false, but"),
        (["model.init_from=runs/lm", "model.last_units=0"], "set model.last_units=6"),
        (["model.init_from=runs/lm", "model.layer_norm=true"], "set model.layer_norm=false"),
        (["model.init_from=runs/lm", "training.start_from=runs/lm"], "a model starts from one of the two"),
        (
            ["training.unfreeze=[1,1]"],
            "training.unfreeze is [1, 1], 2 epochs, but training.epochs is 2; at least one epoch must train all",
        ),
        (["training.unfreeze=[1,1,1,1]", "training.epochs=9"], "has 4 phases, but there are 2 recurrent layers"),
        (
            ["training.layer_decay=2.0", "training.optimizer=adamw", "training.weight_decay=0.1"],
            "would change frozen layers too",
        ),
        (["model.is_reversed=true", "model.is_bidirectional=true"], "use one of the two"),
    ],
)
def test_what_does_not_fit_is_one_line(folder, settings, message):
    told = refused("train", "name=new", *CLASSIFIER, *settings, cwd=folder)
    assert message in told
    assert len(told.splitlines()) == 1


def test_a_classifier_is_no_language_model_to_begin_with(folder, trained):
    told = refused("train", "name=new", *CLASSIFIER, f"model.init_from={trained}/runs/small", cwd=folder)
    assert "runs/small, a model of the task sentiment; give a language model (next_word or char_generation)" in told


def test_a_model_that_reads_backwards_predicts_no_next_word(folder):
    assert "so it cannot predict next words" in refused(
        "export", "--run", "runs/reversed_lm", cwd=folder, task="next_word"
    )


@pytest.mark.further
def test_layers_unfreeze_from_the_output_down(folder):
    settings = [*CLASSIFIER, "name=thaw", "model.init_from=runs/lm", "training.unfreeze=[1,1]", "training.epochs=3"]
    paths = {
        "embedding": "embedding/embeddings",
        "lstm_0": "lstm_0/lstm_cell/kernel",
        "lstm_1": "lstm_1/lstm_cell/kernel",
    }
    source = weights_of(folder / "runs" / "lm")
    first = {
        name: source[path if name == "embedding" else f"{name}_weight_drop/{path}"] for name, path in paths.items()
    }
    expected = {0: set(), 1: {"lstm_1"}, 2: {"lstm_1", "lstm_0", "embedding"}}  # those that have moved, by epoch
    moved = {}

    def look(callback):
        """Notes what has moved; true in the second epoch, so that the third one is of a run that was resumed."""
        progress = callback.progress
        if progress.step == 5:
            now = {weight.path: weight.numpy() for weight in callback.model.weights}
            moved[progress.epoch] = {name for name, path in paths.items() if not np.array_equal(now[path], first[name])}
        return (progress.epoch, progress.step) == (1, 5)

    with told_to_stop(look):
        assert run_pipeline("train", *settings, cwd=folder).returncode == 130
        assert moved == {0: expected[0], 1: expected[1]}
        assert run_pipeline("train", *settings, cwd=folder).returncode == 0
    assert moved == expected


def test_rates_fall_by_group_and_frozen_groups_stay():
    optimizer = keras.optimizers.SGD(1.0)
    weights = [keras.Variable([0.0]) for _ in range(3)]
    optimizer.build(weights)
    scale_rates(optimizer, [[weights[0]], [weights[1]], [weights[2]]], decay=2.0, starts=[0, 1, 2])
    seen = []
    for _ in range(3):
        optimizer.apply([np.array([-1.0])] * 3, weights)
        seen.append([float(weight.numpy()[0]) for weight in weights])
    assert seen == [[1.0, 0.0, 0.0], [2.0, 0.5, 0.0], [3.0, 1.0, 0.25]]
