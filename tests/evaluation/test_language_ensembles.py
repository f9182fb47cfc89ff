"""Ensembles of language models: evaluated and exported as the mean of their members' probabilities."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.config.settings import ModelConfig
from nlp_rnn.decoding.stepper import make_stepper
from nlp_rnn.evaluation.run_model import load_module
from nlp_rnn.models.build import build_language_model
from nlp_rnn.models.language_ensemble import LanguageEnsemble
from nlp_rnn.training.checkpoints import checkpoint_arrays, save_checkpoint
from nlp_rnn.training.run_directory import load_run
from nlp_rnn.training.trained_models import load_language_model
from tests.conftest import ask, refused

WORDS = 12
IDS = np.random.default_rng(0).integers(4, WORDS, (3, 7), np.int32)


@pytest.fixture(scope="module")
def models():
    """Two models of unlike cells and sizes."""
    configs = [
        ModelConfig(cell="gru", units=5, embedding_dim=4, num_layers=1, tie_embeddings=False),
        ModelConfig(cell="lstm", units=6, embedding_dim=3, num_layers=2),
    ]
    return [build_language_model(config, vocab_size=WORDS) for config in configs]


def probabilities_of(model, ids):
    return np.exp(model.head(model.run(ids, model.zero_states(len(ids)))[0]))


def test_its_probabilities_are_the_mean_of_those_of_its_members(models):
    ensemble = LanguageEnsemble(models)
    expected = (probabilities_of(models[0], IDS) + probabilities_of(models[1], IDS)) / 2
    np.testing.assert_allclose(probabilities_of(ensemble, IDS), expected, atol=1e-6)
    assert ensemble.features == 5 + 3
    assert ensemble.state_sizes == [5, 6, 6, 3, 3]
    assert ensemble.count_params() == sum(model.count_params() for model in models)


def test_single_steps_and_packed_states_give_the_same(models):
    ensemble = LanguageEnsemble(models)
    stepper = make_stepper(ensemble)
    expected = np.log(probabilities_of(ensemble, IDS))
    states, other = ensemble.zero_states(3), stepper.zero_states(3)
    for time in range(IDS.shape[1]):
        hidden, states = ensemble.advance(IDS[:, time], states)
        states = ensemble.unpack_states(ensemble.pack_states(states))
        np.testing.assert_allclose(ensemble.head(hidden), expected[:, time], atol=1e-5)
        hidden, other = stepper.step(tf.constant(IDS[:, time]), other)
        np.testing.assert_allclose(stepper.predict(hidden), expected[:, time], atol=1e-5)


def test_a_stepper_never_writes_special_ids_but_scores_them(models):
    stepper = make_stepper(LanguageEnsemble(models), never=[0, 1])
    hidden, _ = stepper.step(tf.constant([5]), stepper.zero_states(1))
    assert np.exp(stepper.predict(hidden))[0, :2].max() < 1e-12
    assert np.exp(stepper.predict(hidden, with_all=True))[0, :2].min() > 0.01


def other_run(folder, task):
    """Adds runs/other: runs/small with other weights."""
    shutil.copytree(folder / "runs" / "small", folder / "runs" / "other")
    run = load_run(folder / "runs" / "other", task)
    model, _ = load_language_model(run)
    generator = np.random.default_rng(0)
    for weight in model.kept_weights:
        weight.assign(weight + 0.2 * generator.normal(size=weight.shape))
    save_checkpoint(run.best_checkpoint, checkpoint_arrays(model.kept_weights))


MEMBERS = ["--run", "runs/small", "--run", "runs/other"]


@pytest.mark.parametrize("task", ["next_word", pytest.param("char_generation", marks=pytest.mark.further)])
def test_evaluate_and_the_export_agree_and_leave_the_runs_figures_alone(
    task, next_word_trained, characters_trained, tmp_path
):
    trained = {"next_word": next_word_trained, "char_generation": characters_trained}[task]
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    other_run(tmp_path, task)
    figures = (tmp_path / "runs" / "small" / "metrics.json").read_text()

    def cost(*runs):
        found = ask("evaluate", "--json", *runs, cwd=tmp_path, task=task)
        return json.loads(found)["metrics"]["cross_entropy"]

    both = cost(*MEMBERS)
    assert (tmp_path / "runs" / "small" / "metrics.json").read_text() == figures
    alone = [cost(*MEMBERS[:2]), cost(*MEMBERS[2:])]
    assert both < sum(alone) / 2 - 0.01  # the logarithm of a mean is above the mean of logarithms
    ask("export", *MEMBERS, "--to", "both", cwd=tmp_path, task=task)
    (version,) = (tmp_path / "both").glob("*/1")
    assert ", an ensemble of 2 models," in (version / "assets.extra" / "MODEL_CARD.md").read_text(encoding="utf-8")
    exported = tf.saved_model.load(str(version))
    texts = tf.constant(["the old king sees", "a young cook"])
    modules = [
        load_module([load_run(tmp_path / "runs" / name, task) for name in names])
        for names in (["small"], ["other"], ["small", "other"])
    ]
    scores = [module.score(texts)["log_probabilities"].numpy() for module in modules]
    found = exported.signatures["score"](text=texts)["log_probabilities"].numpy()
    np.testing.assert_allclose(found, scores[2], atol=1e-4)
    first = [each[:, 0] for each in scores]  # of the same beginning, so that means can be compared
    np.testing.assert_allclose(np.exp(first[2]), (np.exp(first[0]) + np.exp(first[1])) / 2, rtol=1e-4)


def test_what_an_ensemble_cannot_do_is_said(next_word_trained, tmp_path):
    shutil.copytree(next_word_trained, tmp_path, dirs_exist_ok=True)
    other_run(tmp_path, "next_word")
    told = refused("evaluate", *MEMBERS, "--adapt", "dynamic", cwd=tmp_path, task="next_word")
    assert told == "--adapt is dynamic, but there are 2 runs; adapt one, or use --adapt cache"
    told = refused("export", *MEMBERS, "--format", "litert", cwd=tmp_path, task="next_word")
    assert told == "format is 'litert', but there are 2 runs; export an ensemble as savedmodel"
