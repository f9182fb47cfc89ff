"""Ensembles of classifiers: evaluated, exported and explained as the mean of their members."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.errors import ConfigError
from nlp_rnn.evaluation.run_model import load_classifiers, load_module
from nlp_rnn.models.calibration import Calibration, calibration_of_ensemble
from nlp_rnn.training.checkpoints import checkpoint_arrays, save_checkpoint
from nlp_rnn.training.run_directory import load_run
from nlp_rnn.training.trained_models import load_classifier
from tests.conftest import ask

TEXTS = ["a lovely warm story", "the film was awful", "music"]


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    """A folder with runs/small, and runs/other: the same with other weights and another temperature."""
    folder = tmp_path_factory.mktemp("ensembles")
    for name in ("small", "other"):
        shutil.copytree(trained / "runs" / "small", folder / "runs" / name)
    other = load_run(folder / "runs" / "other")
    model, _ = load_classifier(other)
    generator = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(weight + 0.3 * generator.normal(size=weight.shape))
    save_checkpoint(other.best_checkpoint, checkpoint_arrays(model.weights))
    other.write_calibration(Calibration(1.7))
    return folder


def runs_of(folder):
    return [load_run(folder / "runs" / name) for name in ("small", "other")]


def test_an_ensemble_averages_calibrated_probabilities_and_attributions(folder):
    runs = runs_of(folder)
    first, second, both = (load_module(members) for members in ([runs[0]], [runs[1]], runs))
    expected = (first.classify(TEXTS)["probabilities"] + second.classify(TEXTS)["probabilities"]) / 2
    found = both.classify(TEXTS)
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-6)
    np.testing.assert_allclose(found["probability"], expected[:, 1], atol=1e-6)
    assert np.abs(first.classify(TEXTS)["probabilities"] - expected).max() > 0.01
    explained = [module.explain(TEXTS) for module in (first, second, both)]
    mean = (explained[0]["attributions"] + explained[1]["attributions"]) / 2
    np.testing.assert_allclose(explained[2]["attributions"], mean, atol=1e-5)
    np.testing.assert_array_equal(explained[2]["tokens"], explained[0]["tokens"])


@pytest.mark.further
def test_evaluate_and_the_export_agree_and_leave_the_runs_figures_alone(folder):
    figures = (folder / "runs" / "small" / "metrics.json").read_text()
    members = ["--run", "runs/small", "--run", "runs/other"]
    of_runs = json.loads(ask("evaluate", "--json", *members, cwd=folder))["metrics"]
    ask("export", *members, cwd=folder)
    of_export = json.loads(ask("evaluate", "--json", "--model", "saved_models/sentiment", cwd=folder))["metrics"]
    assert of_export["cross_entropy"] == pytest.approx(of_runs["cross_entropy"], rel=1e-5)
    assert of_export["confusion_matrix"] == of_runs["confusion_matrix"]
    assert (folder / "runs" / "small" / "metrics.json").read_text() == figures
    card = (folder / "saved_models" / "sentiment" / "1" / "assets.extra" / "MODEL_CARD.md").read_text()
    assert "an ensemble of 2 models" in card
    assert ", 1.7000, fitted on validation data" in card


def test_members_of_label_sets_average_each_label(folder):
    module = load_module(runs_of(folder))
    module._outputs, ids = "label_sets", tf.constant([[5, 6], [7, 8]])
    logits = [
        model(ids) / temperature for model, temperature in zip(module._models, (module._temperatures), strict=True)
    ]
    expected = np.mean([tf.sigmoid(each) for each in logits], axis=0)
    np.testing.assert_allclose(tf.sigmoid(module._logits(ids)), expected, atol=1e-6)
    thresholds = [Calibration(2.0, (0.2, 0.4)), Calibration(3.0, (0.6, 0.5))]
    assert calibration_of_ensemble(thresholds) == Calibration(1.0, (pytest.approx(0.4), pytest.approx(0.45)))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("labels.json", lambda text: text.replace("pos", "positive"), "has other labels than"),
        ("config.yaml", lambda text: text.replace("max_length: 20", "max_length: 21"),
         "data.max_length is 21, but 20 in"),
        ("tokenizer/vocabulary.txt", lambda text: text.replace("film", "filmx"), "has another vocabulary than"),
    ],
)  # fmt: skip
def test_members_that_do_not_fit_together_are_rejected(folder, tmp_path, file, change, message):
    shutil.copytree(folder / "runs" / "other", tmp_path / "third")
    path = tmp_path / "third" / file
    changed = change(path.read_text(encoding="utf-8"))
    assert changed != path.read_text(encoding="utf-8")
    path.write_text(changed, encoding="utf-8")
    (tmp_path / "third" / "manifest.json").unlink()
    with np.load(tmp_path / "third" / "checkpoints" / "best.npz") as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    save_checkpoint(tmp_path / "third" / "checkpoints" / "best.npz", kept)  # belongs to the changed files
    with pytest.raises(ConfigError) as caught:
        load_classifiers([runs_of(folder)[0], load_run(tmp_path / "third")])
    assert message in str(caught.value)
    assert str(tmp_path / "third") in str(caught.value)
