"""Planted faults, and what `nlp-rnn doctor` says about them."""

import json
import random
import shutil

import numpy as np
import pytest

from nlp_rnn import manifest
from nlp_rnn.cli import doctor, findings
from tests.conftest import BAD, GOOD, SMALL, make_review, write_csv


def diagnose(*arguments, cwd, monkeypatch):
    monkeypatch.chdir(cwd)
    monkeypatch.setenv("NLP_RNN_CACHE", str(cwd / "cache"))
    found = doctor.main([str(argument) for argument in arguments])
    return [(each["severity"], each["what"]) for each in found.facts["findings"]], found.status


def reviews(count=120, seed=0):
    generator = random.Random(seed)
    return [(make_review(generator, GOOD if n % 2 else BAD), "pos" if n % 2 else "neg") for n in range(count)]


@pytest.fixture
def run(trained, tmp_path):
    """A copy of a run, to damage."""
    return shutil.copytree(trained / "runs" / "small", tmp_path / "run")


def write_history(run, rows):
    lines = ["epoch,loss,val_loss", *(f"{n},{loss},{val}" for n, (loss, val) in enumerate(rows, start=1))]
    (run / "history.csv").write_text("\n".join(lines) + "\n")


# --- what is sound ----------------------------------------------------------------------------------------------------


def test_a_sound_run_and_model_have_no_warnings(trained, monkeypatch):
    found, status = diagnose(
        "--run", "runs/small", "--model", "saved_models/sentiment", cwd=trained, monkeypatch=monkeypatch
    )
    assert status == 0, found
    assert ("note", "saved_models/sentiment/1: has no figures on the test split.") in found


def test_the_result_is_text_and_json(trained, monkeypatch):
    monkeypatch.chdir(trained)
    found = doctor.main(["--model", "saved_models/sentiment"])
    assert "note: saved_models/sentiment/1: has no figures on the test split. Nobody knows" in found.text
    assert json.loads(json.dumps(found.facts)) == found.facts


# --- data -------------------------------------------------------------------------------------------------------------


def rare(rows):
    return [*rows, *((f"{text} other", "mixed") for text, _ in rows[:3])]


def empty(rows):
    return [("  ", label) if number % 10 == 0 else (text, label) for number, (text, label) in enumerate(rows)]


def misspelt(rows):
    return [(text, "Pos " if number == 1 else label) for number, (text, label) in enumerate(rows)]


def garbled(rows):
    return [(text.replace("a", "\ufffd"), label) for text, label in rows]


def repeated(rows):
    return [*rows[:40], *rows[:40], *rows[:40]]


@pytest.mark.parametrize(
    ("change", "settings", "severity", "message"),
    [
        (rare, [], "note", "The label 'mixed' has "),
        (empty, [], "warning", " texts are empty."),
        (misspelt, [], "warning", "labels that differ only by case, spaces"),
        (garbled, [], "warning", "holds replacement characters."),
        (None, ["training.batch_size=1000"], "warning", "fewer than a batch."),
        (None, ["data.max_length=5"], "warning", "half of the texts are longer than 5 tokens."),
        (None, ["tokenizer.vocab_size=12", "tokenizer.max_unknown=1"], "warning", "of the tokens are unknown."),
        (None, ["data.label_column=stars"], "error", "has no column 'stars'"),
        (None, ["model.units=-1"], "error", "model.units is -1"),
    ],
)
def test_data_and_settings(tmp_path, monkeypatch, change, settings, severity, message):
    rows = reviews()
    path = write_csv(tmp_path / "reviews.csv", rows if change is None else change(rows))
    given = ["data.source=csv", f"data.train={path}", *SMALL, *settings]
    found, status = diagnose(*given, cwd=tmp_path, monkeypatch=monkeypatch)
    assert any(each == severity and message in what for each, what in found), found
    assert status >= {"note": 0, "warning": 1, "error": 2}[severity]


# --- runs and models --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "severity", "message"),
    [
        ([(0.7, 0.6), (0.9, 0.8), (3.0, 5.0)], "error", "rose from 0.600 to 5.000"),
        ([(0.7, 0.6), ("nan", "nan")], "error", "the loss is not finite"),
        ([(0.7, 0.6), (0.5, 0.5), (0.4, 0.52), (0.3, 0.54), (0.2, 0.57)], "warning", "was best in epoch 2 of 5"),
        ([(0.9, 0.9), (0.8, 0.8), (0.7, 0.7)], "note", "still improved by more than 2 %"),
        ([(0.7, 0.693), (0.7, 0.693), (0.7, 0.693)], "warning", "stayed at 0.693"),
    ],
)
def test_loss_curves(run, monkeypatch, rows, severity, message):
    write_history(run, rows)
    found, _ = diagnose("--run", run, cwd=run.parent, monkeypatch=monkeypatch)
    assert any(each == severity and message in what for each, what in found), found


def change_weights(run, change):
    path = run / "checkpoints" / "best.npz"
    with np.load(path) as arrays:
        values = {name: arrays[name] for name in arrays.files}
    name = next(name for name in values if values[name].ndim == 2 and values[name].size > 16)
    values[name] = change(values[name])
    np.savez(path, **values)


def test_damaged_files_are_findings(run, monkeypatch):
    (run / "history.csv").write_text("epoch,loss,val_loss\n1,0.7,0.6\n2,0.x,0.5\n")
    best = run / "checkpoints" / "best.npz"
    best.write_bytes(best.read_bytes()[:1000])
    found, status = diagnose("--run", run, cwd=run.parent, monkeypatch=monkeypatch)
    assert status == 2
    assert any(each == "warning" and "history.csv is damaged" in what for each, what in found), found
    assert any(each == "error" and "best.npz" in what for each, what in found), found


@pytest.mark.parametrize(
    ("change", "message"),
    [(lambda values: values * np.nan, "not finite"), (lambda values: values * 0, "is zero everywhere")],
)
def test_weights(run, monkeypatch, change, message):
    change_weights(run, change)
    found, status = diagnose("--run", run, cwd=run.parent, monkeypatch=monkeypatch)
    assert any(message in what for _, what in found), found
    assert status > 0


def test_damaged_and_unfinished_runs(run, monkeypatch, tmp_path):
    (run / "checkpoints" / "best.npz").unlink()
    assert diagnose("--run", run, cwd=tmp_path, monkeypatch=monkeypatch)[0][0] == (
        "error",
        f"{run} has no weights yet.",
    )
    (run / "labels.json").write_text("[]")
    found, status = diagnose("--run", run, cwd=tmp_path, monkeypatch=monkeypatch)
    assert status == 2
    assert "labels.json" in found[0][1]


def test_a_model_of_another_run_and_a_badly_calibrated_one(trained, run, tmp_path, monkeypatch):
    model = shutil.copytree(trained / "saved_models" / "sentiment" / "1", tmp_path / "model")
    metrics = json.loads((model / "assets.extra" / "metrics.json").read_text())
    metrics["validation"]["expected_calibration_error"] = 0.3
    (model / "assets.extra" / "metrics.json").write_text(json.dumps(metrics))
    manifest.write(model)
    vocabulary = run / "tokenizer" / "vocabulary.txt"
    vocabulary.write_text(vocabulary.read_text().replace("\nfilm\n", "\nmovie\n"))
    manifest.write(run)
    found, status = diagnose("--run", run, "--model", model, cwd=tmp_path, monkeypatch=monkeypatch)
    assert status == 2
    assert ("error", f"{model} has another vocabulary than {run}.") in found
    assert ("warning", f"{model}: probabilities are off by 0.30 on validation.") in found
    (model / "saved_model.pb").write_bytes(b"")
    found, _ = diagnose("--model", model, cwd=tmp_path, monkeypatch=monkeypatch)
    assert found[0][0] == "error"


# --- installation and hardware ----------------------------------------------------------------------------------------


def test_installation_and_hardware(tmp_path, monkeypatch):
    versions = {"tensorflow": "2.15.0", "keras": "3.15.1"}
    monkeypatch.setattr(findings.importlib.metadata, "version", versions.__getitem__)
    monkeypatch.setattr(findings.importlib.util, "find_spec", lambda name: None if name == "optuna" else name)
    found = list(findings.installation())
    assert [(each.severity, each.what) for each in found] == [
        ("error", "tensorflow is 2.15.0."), ("note", "optuna is not installed."),
    ]  # fmt: skip
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(findings.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(findings, "_processor_flags", lambda: {"sse2"})
    monkeypatch.setattr(findings.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 10**8))
    whats = [each.what for each in findings.hardware(tmp_path / "runs")]
    assert whats[0] == "The processor has no AVX2."
    assert whats[1] == "OMP_NUM_THREADS is 1, but there are 4 processors."
    assert whats[2] == f"{tmp_path} has 0.1 GB left."


def test_a_litert_export_is_examined_file_by_file(next_word_trained, tmp_path, monkeypatch):
    exported = shutil.copytree(next_word_trained / "saved_models" / "next_word_litert", tmp_path / "next_word_litert")
    assert diagnose("--model", exported, cwd=tmp_path, monkeypatch=monkeypatch) == ([], 0)
    monkeypatch.setenv("NLP_RNN_MODELS", str(tmp_path))
    assert diagnose("--model", "next_word_litert", cwd=tmp_path, monkeypatch=monkeypatch) == ([], 0)
    found, status = diagnose("--model", "nowhere", cwd=tmp_path, monkeypatch=monkeypatch)
    assert status == 2
    assert f"the model is nowhere, but there is no such folder, nor one in {tmp_path}" in found[0][1]
    assert "models there: " in found[0][1]
    file = exported / "1" / "model_int8.tflite"
    file.write_bytes(file.read_bytes()[:-1000])
    found, status = diagnose("--model", exported, cwd=tmp_path, monkeypatch=monkeypatch)
    assert status == 2
    assert found[0][0] == "error"
    assert "model_int8.tflite" in found[0][1]
    file.unlink()
    found, status = diagnose("--model", exported, cwd=tmp_path, monkeypatch=monkeypatch)
    assert (status, found[0][0]) == (2, "error")
    assert "model_int8.tflite" in found[0][1]
