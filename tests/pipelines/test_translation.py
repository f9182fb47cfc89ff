"""Translation commands as a user runs them: from pairs of sentences to translations."""

import csv
import functools
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn import manifest
from nlp_rnn.config.loading import load_config
from nlp_rnn.data.bucketing import pair_batch, pair_reader, pair_stream
from nlp_rnn.data.datasets import Resampling, write_cache
from nlp_rnn.data.token_cache import PairCache, TokenCache
from nlp_rnn.decoding.settings import SearchSettings
from nlp_rnn.evaluation.run_model import load_module
from nlp_rnn.evaluation.translation_metrics import corpus_scores
from nlp_rnn.export.translation import search_tensors
from nlp_rnn.special_ids import EOS_ID
from nlp_rnn.tokenization.tokenizer import Tokenizer
from nlp_rnn.training.run_directory import load_run
from tests import conftest

ask, refused = (functools.partial(command, task="translation") for command in (conftest.ask, conftest.refused))
SAVED = ("--model", "saved_models/translation_en_de")
BAD = ("train", "name=bad", "data.source=aligned")
SENTENCES = ["the old king sees an green garden today", "an young child hears the long song never", "the"]


@pytest.fixture(scope="module")
def loaded(translation_trained):
    return tf.saved_model.load(str(translation_trained / "saved_models" / "translation_en_de" / "1"))


def translate(loaded, sentences, beam_size=4, length_penalty=0.0, **settings):
    search = SearchSettings(beam_size=beam_size, length_penalty=length_penalty, **settings)
    found = loaded.translate(tf.constant(sentences), **search_tensors(search, len(sentences)))
    return {name: value.numpy() for name, value in found.items()}


def test_evaluate_scores_unseen_sentences(translation_trained):
    found = json.loads(ask("evaluate", "--json", "--run", "runs/small", "--split", "test", cwd=translation_trained))
    metrics = found["metrics"]
    assert metrics["num_sentences"] == 40
    assert metrics["bleu"] > 90
    assert metrics["exact_match"] > 0.8
    assert metrics["accuracy"] > 0.95
    assert metrics["bleu_signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert [row["words"] for row in found["by_length"]] == ["6-10"]
    lines = (translation_trained / "runs" / "small" / "translations_test.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 40
    assert json.loads((translation_trained / "runs" / "small" / "metrics.json").read_text())["test"] == metrics
    text = ask("evaluate", "--run", "runs/small", "--beam-size", "1", cwd=translation_trained)
    assert re.search(r"validation: 40 sentences \(digest [0-9a-f]{32}\); beam 1, length penalty 1", text)
    assert metrics["digest"] not in text  # that of another split


@pytest.fixture(scope="module")
def other_run(translation_trained):
    """A second run on the same data, runs/other, with another model."""
    settings = ["seed=2", "model.num_layers=2", "model.fast=off", *conftest.TRANSLATION_SETTINGS]
    told = json.loads(ask("train", "--json", "name=other", *settings, cwd=translation_trained))
    with open(translation_trained / "runs" / "other" / "history.csv", encoding="utf-8", newline="") as file:
        lowest = min(float(row["val_cross_entropy"]) for row in csv.DictReader(file))
    assert told["validation"] == {"perplexity": pytest.approx(math.exp(lowest), rel=1e-5)}
    return translation_trained / "runs" / "other"


@pytest.mark.further
@pytest.mark.usefixtures("other_run")
def test_several_runs_vote(translation_trained):
    runs = ("--run", "runs/small", "--run", "runs/other")
    options = ("--split", "test", "--beam-size", "1")
    found = json.loads(ask("evaluate", "--json", *runs, *options, cwd=translation_trained))["metrics"]
    assert found["bleu"] > 90
    ask("export", *runs, "--to", "both", cwd=translation_trained)
    assert ask("predict", "--model", "both/translation_en_de", SENTENCES[0], cwd=translation_trained).strip()


@pytest.mark.further  # a process of its own
def test_an_export_needs_tensorflow_alone(translation_trained):
    code = r"""
import sys, tensorflow as tf
assert not any(name.split(".")[0] == "nlp_rnn" for name in sys.modules)
model = tf.saved_model.load("saved_models/translation_en_de/1")
assert {"serving_default", "translate", "explain", "tokenize"} == set(model.signatures)
texts = ["the old king sees an green garden today", "", b"\xff", "x " * 10_000]
answer = model.signatures["serving_default"](text=tf.constant(texts))
print(*(each.decode() for each in answer["translation"].numpy()[:2]), answer["score"].shape, sep="|")
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=translation_trained, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "heute der alte König sieht ein grüne Garten||(4,)"


def test_log_probabilities_are_those_of_the_sentence_read_again(loaded):
    for settings in ({}, {"beam_size": 1}, {"length_penalty": 1.0, "coverage_penalty": 0.3}):
        found = translate(loaded, SENTENCES, **settings)
        for row, sentence in enumerate(SENTENCES):
            for place, text in enumerate(found["translations"][row]):
                if found["scores"][row, place] > -1e9 and text and "\ufffd" not in text.decode():
                    again = (
                        loaded.explain(tf.constant([sentence]), tf.constant([text]))["log_probabilities"].numpy().sum()
                    )
                    assert again == pytest.approx(found["log_probabilities"][row, place], abs=1e-4)


def test_a_sentence_does_not_depend_on_its_batch(loaded):
    together = translate(loaded, [*SENTENCES, "the old " * 40], length_penalty=1.0)
    for row, sentence in enumerate(SENTENCES):
        alone = translate(loaded, [sentence], length_penalty=1.0)
        assert list(alone["translations"][0]) == list(together["translations"][row])
        np.testing.assert_allclose(alone["scores"][0], together["scores"][row], atol=1e-4)


def test_words_that_nobody_knows_are_copied_from_where_the_decoder_looked(translation_trained):
    module = load_module([load_run(translation_trained / "runs" / "small", "translation")])
    text, source = tf.constant(["the zaphod sees a dentrassi", ""]), tf.ragged.constant([[5, 1, 6, 7, 1, 3], [3]])
    looked_at = np.zeros((4, 3, 6), np.float32)
    looked_at[0, (0, 1, 2), (4, 5, 0)] = 1  # dentrassi, the end (where no word is), the
    looked_at[1, :, 1] = 1
    module._score = lambda source_ids, ids: (None, tf.constant(looked_at)[:, : ids.shape[1], : source_ids.shape[1]])
    known = module._tokenizer.tokenize(["König"]).numpy()[0][0]
    ids = tf.constant([[1, known, 1], [known, 1, 0], [1, known, 0], [0, 0, 0]])
    found = [each.decode() for each in module._texts(text, source, ids).numpy()]
    assert found == ["dentrassi König the", "König zaphod", "\ufffd König", ""]


def test_lengths_are_limited_by_number_and_by_the_source(loaded):
    sentence = SENTENCES[0]  # of eight words, as its translation

    def lengths(**settings):
        return {
            len(text.split())
            for text in translate(loaded, [sentence], beam_size=3, **settings)["translations"][0]
            if text
        }

    assert lengths(max_length=3) <= {1, 2, 3}
    assert lengths(max_ratio=0.5) <= {1, 2, 3, 4}
    assert lengths(max_ratio=0.5, max_length=2) <= {1, 2}
    assert lengths(min_ratio=1.5) <= set(range(12, 27))
    assert lengths(min_length=12, max_length=5) == {5}


def test_an_empty_sentence_has_an_empty_translation(loaded):
    found = translate(loaded, ["", "  ", SENTENCES[0]], beam_size=2, max_length=30)
    assert [row[0] for row in found["translations"][:2]] == [b"", b""]
    assert found["translations"][2][0] != b""
    assert loaded.translate_best(tf.zeros([0], tf.string))["translation"].shape == (0,)


@pytest.mark.further
def test_a_long_sentence_is_cut_and_explained_with_its_end(translation_trained):
    module = load_module([load_run(translation_trained / "runs" / "small", "translation")])
    found = module.explain(tf.constant(["the " * 500]), tf.constant(["der"]))
    assert found["source_tokens"].numpy()[0].tolist() == [b"the"] * 100 + [b"</s>"]
    assert found["attention"].shape == (1, 2, 101)


@pytest.mark.further
def test_a_vote_is_the_mean_of_the_probabilities(translation_trained, other_run):
    run, other = (load_run(path, "translation") for path in (translation_trained / "runs" / "small", other_run))
    source, target = tf.constant([[5, 6, 7, 3], [8, 3, 0, 0]]), tf.constant([[9, 10, 3], [3, 0, 0]])
    first, second, both = (module._score(source, target) for module in map(load_module, ([run], [other], [run, other])))
    np.testing.assert_allclose(np.exp(both[0]), (np.exp(first[0]) + np.exp(second[0])) / 2, atol=1e-5)
    np.testing.assert_allclose(both[1], (first[1] + second[1]) / 2, atol=1e-5)


@pytest.mark.further  # loads the export anew
def test_predict_reads_files(translation_trained, tmp_path):
    (tmp_path / "sentences").write_text(f"{SENTENCES[0]}\r\n\n{SENTENCES[2]}", encoding="utf-8")
    given = ask("predict", *SAVED, "--beam-size", "1", SENTENCES[0], "", SENTENCES[2], cwd=translation_trained)
    assert (
        ask("predict", *SAVED, "--beam-size", "1", "--file", tmp_path / "sentences", cwd=translation_trained) == given
    )
    for more, message in (
        (("--file", "none"), "--file is none: cannot be read (No such file or directory)"),
        (("--file", str(tmp_path)), ": cannot be read (Is a directory)"),
        (("--file", "none", "the"), "--file is none, but texts are given too; give one of the two"),
    ):
        assert message in refused("predict", *SAVED, *more, cwd=translation_trained)


def test_predict_answers_arguments_and_pipes(translation_trained):
    assert (
        ask("predict", *SAVED, SENTENCES[0], cwd=translation_trained) == "heute der alte König sieht ein grüne Garten\n"
    )
    lines = ask(
        "predict", "--json", *SAVED, "--n-best", "3", cwd=translation_trained, text=f"{SENTENCES[1]}\n\n"
    ).splitlines()
    found = [json.loads(line) for line in lines]
    assert [each["text"] for each in found] == [SENTENCES[1], ""]
    assert found[1]["translations"][0]["text"] == ""
    assert found[0]["translations"][0]["text"] == "nie ein junge Kind hört der lange Lied"
    scores = [each["score"] for each in found[0]["translations"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 3
    shown = ask(
        "predict",
        *SAVED,
        "--prefix",
        "oft",
        "--max-length",
        "4",
        "--min-length",
        "4",
        SENTENCES[0],
        cwd=translation_trained,
    )
    assert shown.startswith("oft ")
    assert len(shown.split()) == 4


def test_sentences_longer_than_the_model_reads_are_named(translation_trained):
    done = conftest.run_pipeline(
        "predict", *SAVED, "the old king " * 40, SENTENCES[0], cwd=translation_trained, task="translation"
    )
    assert done.returncode == 0
    assert "has 120 pieces, of which the first 100 are translated (data.max_length)" in done.stderr
    assert done.stderr.count("pieces") == 1


def test_explain_shows_what_was_looked_at(translation_trained, tmp_path):
    pictures = ("--html", tmp_path / "a.html", "--png", tmp_path / "a.png")
    found = json.loads(ask("explain", "--json", *SAVED, SENTENCES[0], *pictures, cwd=translation_trained))
    assert found["source_tokens"] == [*SENTENCES[0].split(), "</s>"]
    assert found["target_tokens"] == [*["heute", "der", "alte", "König", "sieht", "ein", "grüne", "Garten"], "</s>"]
    np.testing.assert_allclose(np.sum(found["attention"], axis=1), 1, atol=1e-4)
    assert "König" in (tmp_path / "a.html").read_text(encoding="utf-8")
    assert (tmp_path / "a.png").stat().st_size > 5000
    plain = ask("explain", *SAVED, SENTENCES[0], "--translation", "oft der König", cwd=translation_trained).splitlines()
    assert [line.split("\t")[0] for line in plain] == ["oft", "der", "König", "</s>"]
    shown = json.loads(ask("tokenizer", "--json", *SAVED, "the Zaphod", cwd=translation_trained))
    assert shown["ids"][1] == 1


# --- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", *SAVED, "text", "--beam-size", "0"), "--beam-size is 0, but must be greater than or equal to 1"),
        (
            ("predict", *SAVED, "text", "--length-penalty", "-1"),
            "--length-penalty is -1.0, but must be greater than or equal to 0",
        ),
        (
            ("predict", "--model", "saved_models/none", "text"),
            "the model is saved_models/none, but there is no such folder",
        ),
        ((*BAD, "data.train=uneven"), "lines with the same number must belong together"),
        (
            (
                "train",
                "name=bad",
                "data.source=aligned",
                "data.train=train",
                "data.max_length=1",
                "tokenizer.level=word",
            ),
            "every pair of data.train is longer",
        ),
        (("evaluate", "--run", "runs/small", "--run", "runs/none"), "runs/none is not a run directory"),
        (("evaluate", "--run", "runs/small", "data.test=missing", "--split", "test"), "there is no file missing.en"),
    ],
)
def test_mistakes_are_one_line(translation_trained, arguments, message):
    (translation_trained / "uneven.en").write_text("a\nb\n", encoding="utf-8")
    (translation_trained / "uneven.de").write_text("a\n", encoding="utf-8")
    assert message in refused(*arguments, cwd=translation_trained).splitlines()[-1]


def test_models_of_other_tasks_and_runs_that_cannot_vote_are_refused(translation_trained, trained):
    assert "this command is translation" in refused(
        "predict", "--model", trained / "saved_models" / "sentiment", "x", cwd=trained
    )
    back = shutil.copytree(translation_trained / "runs" / "small", translation_trained / "runs" / "back")
    text = (back / "config.yaml").read_text()
    for setting in ("source_language: en", "target_language: de"):
        assert setting in text
        other = {"en": "de", "de": "en"}[setting[-2:]]
        text = text.replace(setting, f"{setting[:-2]}{other}")
    (back / "config.yaml").write_text(text)
    manifest.write(back)
    found = refused("export", "--run", "runs/small", "--run", "runs/back", cwd=translation_trained)
    assert (
        found.splitlines()[-1] == "--run runs/back is from de to en; the runs of an ensemble must share their languages"
    )
    text = (translation_trained / "runs" / "small" / "config.yaml").read_text()
    (back / "config.yaml").write_text(text.replace("seed: 1", "seed: 2"))
    manifest.write(back)
    drawn = ("--run", "runs/small", "--run", "runs/back", "data.validation=")
    assert "the runs have the seeds 1, 2, which draw different splits" in refused(
        "evaluate", *drawn, cwd=translation_trained
    )


# --- parts ---------------------------------------------------------------------------------------------------------


def test_batches_begin_and_end_sentences():
    source, target = np.array([[5, 3, 0]]), np.array([[6, 7, 3, 0]])
    (same, inputs), outputs, weights = pair_batch(source, target)
    np.testing.assert_array_equal(same, source)
    np.testing.assert_array_equal(inputs, [[2, 6, 7, 0]])
    np.testing.assert_array_equal(outputs, target)
    np.testing.assert_array_equal(weights, [[1, 1, 1, 0]])


def test_bleu_is_nltks():
    from nltk.translate.bleu_score import corpus_bleu
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    generator, words = (
        random.Random(0),
        ["the", "cat", ",", "a", "dog", ".", "runs", "(far)", "away", '"now"', "it's", "3.5"],
    )
    references = [" ".join(generator.choices(words, k=generator.randint(8, 20))) for _ in range(60)]
    hypotheses = [" ".join(word for word in text.split() if generator.random() < 0.9) for text in references]
    found = corpus_scores(hypotheses, references)
    split = Tokenizer13a()
    expected = corpus_bleu([[split(text).split()] for text in references], [split(text).split() for text in hypotheses])
    assert found["bleu"] == pytest.approx(100 * expected, abs=1e-6)
    assert corpus_scores(references, references)["exact_match"] == 1


@pytest.mark.further
def test_a_training_that_draws_its_pieces_goes_on_where_it_was_stopped(corpora, tmp_path):
    settings = [
        *conftest.SMALL,
        "data.source=csv",
        f"data.train={corpora / 'pairs.csv'}",
        "data.max_length=100",
        "model.units=8",
        "tokenizer.level=subword",
        "tokenizer.vocab_size=290",
        "tokenizer.sampling=3",
        "model.cell=gru",
        "training.ema_momentum=0.5",
    ]
    ask("train", "name=whole", *settings, cwd=tmp_path)
    with conftest.told_to_stop(lambda callback: (callback.progress.epoch, callback.progress.step) == (1, 3)):
        assert (
            conftest.run_pipeline("train", "name=stopped", *settings, cwd=tmp_path, task="translation").returncode
            == 130
        )
    ask("train", "name=stopped", *settings, cwd=tmp_path)
    assert conftest.differences(tmp_path / "runs" / "whole", tmp_path / "runs" / "stopped") == (0, 0)


def test_resampled_batches_keep_their_sentences(tmp_path):
    training = load_config(None, ["training.batch_size=3"], task="translation").training
    texts = {"source": ["the old cat sat", ""], "target": ["", "an extraordinary performance"]}
    tokenizer = Tokenizer("subword")
    tokenizer.adapt([*texts["source"], *texts["target"], *SENTENCES] * 5, vocab_size=295)
    sides = []
    for side, each in texts.items():
        (tmp_path / side).mkdir()
        write_cache(
            tmp_path / side,
            ((text, 0) for text in each),
            lambda batch: tf.concat([tokenizer.tokenize(batch), [[EOS_ID]] * 2], axis=1),
        )
        sides.append(TokenCache.load(tmp_path / side))
    cache = PairCache(*sides, np.arange(2))
    reader = pair_reader(cache, slice(0, 3), resample=Resampling(tokenizer, 5.0, 1))
    stream, drawn = pair_stream(cache, reader, training, 1), set()
    for epoch in range(4):
        stream.start_at(epoch, 0)
        (((source, inputs), outputs, weights),) = list(stream())
        for ids in (source, outputs[:2]):
            assert all(row[row != 0][-1] == EOS_ID and (row == EOS_ID).sum() == 1 for row in ids)
        found = [tokenizer.detokenize(tf.constant(ids)).numpy().tolist() for ids in (source, outputs)]
        assert sorted(zip(*found, strict=True)) == [
            (b"", b""),
            (b"", b"an extraordinary performance"),
            (b"the old cat sat", b""),
        ]
        assert not outputs[2].any()  # no pair is there
        np.testing.assert_array_equal(weights, outputs != 0)
        assert (inputs[:, 0] == 2).all()
        drawn.add(str((source, outputs)))
    assert len(drawn) > 1
