"""Trainings that begin with an exported model."""

import shutil

import keras
import numpy as np
import pytest

from nlp_rnn.config.loading import load_config
from nlp_rnn.errors import ConfigError
from nlp_rnn.export import saved_model
from nlp_rnn.export.next_word import NextWordModule, language_extras
from nlp_rnn.models.build import build_language_model
from nlp_rnn.tokenization.tokenizer import Tokenizer
from nlp_rnn.training.checkpoints import checkpoint_arrays, load_arrays
from nlp_rnn.training.origin import find_origin
from tests.conftest import SMALL, ask, refused, run_pipeline, told_to_stop


@pytest.mark.parametrize("task", ["sentiment", "next_word", "translation_en_de"])
def test_an_export_has_the_weights_of_its_run(task, trained, next_word_trained, translation_trained):
    folder = {"sentiment": trained, "next_word": next_word_trained, "translation_en_de": translation_trained}[task]
    origin = find_origin("model.init_from", str(folder / "saved_models" / task))  # its newest version
    assert origin.path == folder / "saved_models" / task / "1"
    found, expected = origin.load(), load_arrays(folder / "runs" / "small" / "checkpoints" / "best.npz")
    assert [name.partition(":")[0] for name in found] == [name.partition(":")[0] for name in expected]
    for one, other in zip(found.values(), expected.values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_int8_weights_are_expanded(tmp_path):
    keras.utils.set_random_seed(2)
    config = load_config(None, ["model.units=48", "model.embedding_dim=40", "model.num_layers=2"], task="next_word")
    tokenizer = Tokenizer(whole_emoji=True, vocabulary=[f"word{number}" for number in range(200)])
    model = build_language_model(config.model, vocab_size=tokenizer.vocab_size)
    module = NextWordModule(model, tokenizer, config)
    extras = language_extras(module, config, {})
    signatures = {"tokenize": module.tokenize, "step": module.step}
    saved_model.export_module(module, tmp_path / "next_word", signatures, extras, weights="int8")
    found, expected = find_origin("x", str(tmp_path / "next_word")).load(), checkpoint_arrays(model.kept_weights)
    assert list(map(len, found.values())) == list(map(len, expected.values()))
    is_rounded = []
    for one, other in zip(found.values(), expected.values(), strict=True):
        np.testing.assert_allclose(one, other, atol=np.abs(other).max() / 127 + 1e-7)
        is_rounded.append(not np.array_equal(one, other))
    assert any(is_rounded)
    assert not all(is_rounded)  # biases


def test_a_classifier_goes_on_from_an_export(trained, reviews, tmp_path):
    settings = [*SMALL, "data.source=csv", f"data.train={reviews}", "training.epochs=1", "training.learning_rate=1e-9"]
    start = f"training.start_from={trained / 'saved_models' / 'sentiment'}"
    done = run_pipeline("train", "name=on", *settings, start, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = tmp_path / "runs" / "on", trained / "runs" / "small"
    one, other = (load_arrays(run / "checkpoints" / "best.npz") for run in runs)
    for found, expected in zip(one.values(), other.values(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert len({(run / "tokenizer" / "vocabulary.txt").read_bytes() for run in runs}) == 1


def test_a_training_that_has_begun_resumes_without_its_origin(trained, reviews, tmp_path):
    origin = shutil.copytree(trained / "runs" / "small", tmp_path / "origin")
    command = ["train", "name=on", *SMALL, "data.source=csv", f"data.train={reviews}", "training.epochs=1"]
    command.append(f"training.start_from={origin}")
    with told_to_stop(lambda callback: callback.progress.step == 2):
        assert run_pipeline(*command, cwd=tmp_path).returncode == 130
    shutil.rmtree(origin)
    again = run_pipeline(*command, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "resuming after epoch 0" in again.stderr
    assert "origin, which is no run directory" in refused(*command, "name=other", cwd=tmp_path)


def test_a_prepared_training_needs_its_origin_until_it_has_begun(trained, reviews, tmp_path):
    origin = shutil.copytree(trained / "runs" / "small", tmp_path / "origin")
    settings = ["name=on", *SMALL, "data.source=csv", f"data.train={reviews}", "training.epochs=1"]
    settings.append(f"training.start_from={origin}")
    for command in ("prepare", "train", "prepare"):
        ask(command, *settings, cwd=tmp_path)
    shutil.rmtree(origin)
    ask("prepare", *settings, cwd=tmp_path)
    shutil.rmtree(tmp_path / "runs" / "on" / "checkpoints")
    assert "origin, which is no run directory" in refused("train", *settings, cwd=tmp_path)


def test_what_does_not_fit_is_one_line(trained, characters_trained, tmp_path):
    exported = characters_trained / "saved_models" / "char_generation"
    with pytest.raises(ConfigError, match=r"whose export does not hold the layers of one model; give a run directory"):
        find_origin("model.init_from", str(exported)).load()
    earlier = shutil.copytree(trained / "saved_models" / "sentiment" / "1", tmp_path / "earlier")
    (earlier / "assets.extra" / "tokenizer.json").unlink()
    told = refused("train", *SMALL, "name=x", f"training.start_from={earlier}", cwd=tmp_path)
    assert "an earlier version exported, without its tokenizer; export it again, or give its run directory" in told
    told = refused("train", *SMALL, "name=x", "training.start_from=nothing", cwd=tmp_path)
    assert "nothing, which is no run directory and no exported model" in told
