"""The search of settings, through the commands; each study is trained once."""

import csv
import importlib.util
import json
import statistics
import types

import filelock
import numpy as np
import pytest
import yaml

import nlp_rnn
from nlp_rnn.config.loading import load_config
from nlp_rnn.training import trial_callback
from nlp_rnn.training.run_callback import RunCallback
from nlp_rnn.training.search_space import search_space
from nlp_rnn.training.study import Record, TuningStudy
from tests.conftest import ask, refused, run_pipeline, told_to_stop

pytestmark = pytest.mark.further  # a minute of trainings

# Bytes that no reader takes: a search that read the test split would end with an error.
NOT_A_TABLE = b"\xff\xfe\x00 this file is never read"
DATA = ["data.source=csv", "data.train=reviews.csv", "data.test=test.csv", "data.max_length=20"]
SMALL = [
    *DATA, "model.fast=off", "model.cell=gru", "model.num_layers=1", "model.embedding_dim=8", "model.word_dropout=0",
    "model.embedding_dropout=0", "model.weight_dropout=0", "model.dropout=0", "tokenizer.vocab_size=100",
    "training.batch_size=16",
    "training.epochs=4", "training.patience=0",
]  # fmt: skip
# Searches training.learning_rate and model.units.
CONFIG = {"model": {"units": 24}, "training": {"learning_rate": 0.02}}


def make_folder(folder, reviews):
    (folder / "reviews.csv").write_bytes(reviews.read_bytes())
    (folder / "test.csv").write_bytes(NOT_A_TABLE)
    (folder / "small.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def searched(reviews, tmp_path_factory):
    """A folder with a study of 6 trials, runs/small-tune, and what the command answered and told."""
    folder = make_folder(tmp_path_factory.mktemp("searched"), reviews)
    done = run_pipeline(
        "tune", "--config", "small.yaml", "--minutes", 9, "--max-trials", 6, "--json", *SMALL, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done.stderr


def histories(study, monitor="val_cross_entropy"):
    """The monitored values of each trial, by epoch."""
    found = {}
    for path in sorted((study / "trials").glob("*/history.csv")):
        with open(path, encoding="utf-8", newline="") as file:
            found[int(path.parent.name[-3:])] = [float(row[monitor]) for row in csv.DictReader(file)]
    return found


def test_the_first_trial_is_the_config_and_the_best_one_is_told(searched):
    folder, facts, told = searched
    values = histories(folder / "runs" / "small-tune")
    assert facts["first"]["settings"] == {"training.learning_rate": 0.02, "model.units": 24}
    assert facts["monitor"] == "val_cross_entropy"
    best = min(values, key=lambda number: min(values[number]))
    assert facts["best"]["number"] == best
    assert facts["best"]["value"] == pytest.approx(min(values[best]))
    assert sum(facts["trials"].values()) == 6
    assert "trial 0: the config's own settings: training.learning_rate=0.02 model.units=24\n" in told
    assert len(values) == 6


def test_trials_are_pruned_that_are_worse_than_the_median(searched):
    folder, facts, _ = searched
    values = histories(folder / "runs" / "small-tune")
    pruned = [number for number, found in values.items() if len(found) < 4]
    assert len(pruned) == facts["trials"]["pruned"] >= 1
    for number in pruned:
        epoch = len(values[number])
        others = [found[epoch - 1] for other, found in values.items() if other < number and other not in pruned]
        assert min(values[number]) >= statistics.median(others)
        assert number >= 3  # three are trained to their end first


def test_trials_leave_no_models(searched):
    folder, _, _ = searched
    kept = {path.name for path in (folder / "runs" / "small-tune" / "trials").glob("*/*")}
    assert kept == {"config.yaml", "history.csv", "log.txt", ".lock"} - ({".lock"} - kept)


def test_the_test_split_is_never_read(searched):
    folder, _, told = searched
    assert "\ntrain: 265 examples; labels" in told
    assert "\nvalidation: 35 examples; labels" in told
    assert "\ntest:" not in told
    # The same file ends a training, which does read it.
    assert "test.csv" in refused("train", "name=reads_it", *SMALL, cwd=folder)


def test_the_config_file_trains_to_the_value_found(searched):
    folder, facts, _ = searched
    assert facts["config"] == "runs/small-tune/best.yaml"
    config = load_config(folder / facts["config"])
    assert (config.name, config.runs_dir, config.data.test) == ("small-tuned", "runs", "test.csv")
    assert config.training.learning_rate == facts["best"]["settings"]["training.learning_rate"]
    answer = json.loads(ask("train", "--json", "--config", facts["config"], "data.test=", cwd=folder))
    assert answer["validation"]["cross_entropy"] == pytest.approx(facts["best"]["value"], abs=1e-6)
    # The size is that of the export.
    ask("export", "--run", "runs/small-tuned", cwd=folder)
    variables = sum(path.stat().st_size for path in (folder / "saved_models" / "sentiment").glob("*/variables/*"))
    assert facts["best"]["megabytes"] == pytest.approx(variables / 1e6, rel=0.5)
    assert facts["best"]["megabytes"] * 1e6 == 4 * answer["parameters"]


def test_the_picture_is_a_png(searched):
    from matplotlib.image import imread

    folder, facts, _ = searched
    picture = imread(folder / facts["picture"])
    assert picture.shape[0] > 500
    # Both colours are there: trials in blue, the best so far in orange.
    for color in ("1f5fa8", "d9601a"):
        near = (
            np.abs(picture[:, :, :3] - np.array([int(color[n : n + 2], 16) / 255 for n in (0, 2, 4)])).max(axis=2)
            < 0.02
        )
        assert near.sum() > 100


def test_the_same_call_goes_on_and_python_gives_types(searched, monkeypatch):
    folder, facts, _ = searched
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NLP_RNN_CACHE", str(folder / "cache"))
    settings = dict(setting.split("=") for setting in SMALL)
    values = {key: yaml.safe_load(value) for key, value in settings.items()} | {"model.fast": "off"}
    before = histories(folder / "runs" / "small-tune")
    found = nlp_rnn.tune("small.yaml", values, minutes=5, max_trials=7)
    assert isinstance(found, nlp_rnn.Tuning)
    assert [trial.number for trial in found.trials] == list(range(7))
    after = histories(folder / "runs" / "small-tune")
    assert {number: after[number] for number in before} == before
    assert all(isinstance(trial, nlp_rnn.Trial) and trial.megabytes > 0 for trial in found.trials)
    assert found.best.value <= facts["best"]["value"]
    # A resumed study does not draw its first trials again.
    drawn = [tuple(trial.settings.values()) for trial in found.trials]
    assert len(set(drawn)) == 7
    with pytest.raises(nlp_rnn.ConfigError, match="minutes is 0, but must be more than 0"):
        nlp_rnn.tune("small.yaml", values, minutes=0)


@pytest.fixture
def folder(reviews, tmp_path):
    return make_folder(tmp_path, reviews)


TUNE = ["tune", "--config", "small.yaml", "--minutes", 9]
UNITS = [*SMALL, "training.learning_rate=0.02", "training.epochs=2"]  # searches model.units


@pytest.mark.further
def test_a_stopped_search_goes_on_with_its_trial(folder):
    with told_to_stop(
        lambda callback: (
            (callback.run.path.name, callback.progress.epoch, callback.progress.step) == ("trial-001", 1, 4)
        )
    ):
        done = run_pipeline(*TUNE, "--max-trials", 2, *UNITS, cwd=folder)
    assert done.returncode == 130
    assert done.stderr.endswith(
        "\nstopped; best so far: runs/small-tune/best.yaml; everything is saved: rerun the same command to resume\n"
    )
    first = histories(folder / "runs" / "small-tune")
    assert [len(values) for values in first.values()] == [2, 1]
    done = run_pipeline(*TUNE, "--max-trials", 2, *UNITS, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "trial 1: model.units=" in done.stderr
    assert "resuming after epoch 1, step 5\n" in done.stderr
    assert "trials: 2 complete\n" in done.stdout
    last = histories(folder / "runs" / "small-tune")
    assert [len(values) for values in last.values()] == [2, 2]
    assert last[1][0] == first[1][0]


@pytest.mark.slow
def test_the_time_ends_a_trial_which_goes_on_later(folder, monkeypatch):
    calls = []

    def monotonic():
        calls.append(1)
        return 1.0 if len(calls) < 26 else 1e18  # an epoch of 17 steps and 3 batches of validation, and 5 steps

    monkeypatch.setattr(trial_callback, "time", types.SimpleNamespace(monotonic=monotonic))
    done = run_pipeline(*TUNE, "--max-trials", 1, *UNITS, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "trial 0: stopped since the time is over; the next command continues it\n" in done.stderr
    assert "trials: 1 stopped\n" in done.stdout
    monkeypatch.undo()
    done = run_pipeline(*TUNE, "--max-trials", 1, *UNITS, cwd=folder)
    assert "resuming after epoch 1, step " in done.stderr
    assert "trials: 1 complete\n" in done.stdout


def test_no_trial_begins_after_the_time(folder):
    done = run_pipeline("tune", "--config", "small.yaml", "--minutes", "1e-9", *UNITS, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("no trial reached its first validation in the given time; rerun the")
    assert "training on" not in done.stderr


@pytest.mark.further
def test_models_above_the_limit_are_not_trained(folder):
    settings = [setting for setting in UNITS if not setting.startswith("model.embedding_dim")]
    small = {"model": {"units": 8, "embedding_dim": 8}}
    (folder / "small.yaml").write_text(yaml.safe_dump(small), encoding="utf-8")
    limit = 0.02  # 5,000 weights
    done = run_pipeline(*TUNE, "--max-trials", 6, "--max-megabytes", limit, "--json", *settings, cwd=folder)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["trials"]["too large"] >= 1
    assert facts["best"]["megabytes"] <= limit
    trained = histories(folder / "runs" / "small-tune")
    assert 1 <= len(trained) == 6 - facts["trials"]["too large"]
    ask("train", "--config", "runs/small-tune/best.yaml", "data.test=", cwd=folder)
    with np.load(folder / "runs" / "small-tuned" / "checkpoints" / "best.npz") as arrays:
        assert sum(arrays[name].nbytes for name in arrays.files if "seed" not in name) <= limit * 1e6
    done = run_pipeline(*TUNE, "--max-trials", 6, "--max-megabytes", 0.001, *settings, cwd=folder)
    assert (done.returncode, done.stderr.splitlines()[-1][:47]) == (
        2,
        "--max-megabytes is 0.001, but the smallest of 6",
    )


def test_the_picture_shows_what_can_be_the_best_only(tmp_path, monkeypatch):
    config = load_config(None, [*UNITS, "model.units=24"], task="sentiment")
    study = TuningStudy(tmp_path, config, search_space(config))
    records = [
        Record(0, "complete", {}, 0.5, megabytes=1.0), Record(1, "failed", {}, 0.3, megabytes=1.0),
        Record(2, "complete", {}, 0.2, megabytes=9.0), Record(3, "stopped", {}, 0.45, megabytes=1.0),
    ]  # fmt: skip
    monkeypatch.setattr(study, "records", lambda: records)
    shown = [(each.value, each.state) for each in study.candidates(max_megabytes=2.0)]
    assert shown == [(0.5, "complete"), (None, "failed"), (None, "too large"), (0.45, "stopped")]
    assert study.best(2.0).number == 3


@pytest.mark.slow
def test_a_trial_that_fails_is_said_and_the_search_goes_on(folder, monkeypatch):
    usual = RunCallback.on_train_batch_end

    def diverge(callback, batch, logs=None):
        usual(callback, batch, logs | {"loss": float("nan")} if callback.run.path.name == "trial-001" else logs)

    monkeypatch.setattr(RunCallback, "on_train_batch_end", diverge)
    done = run_pipeline(*TUNE, "--max-trials", 3, *UNITS, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "trial 1: failed: the training loss became nan in epoch 1, step 1: lower " in done.stderr
    assert "trials: 2 complete, 1 failed\n" in done.stdout


@pytest.mark.slow
def test_a_search_of_which_all_trials_fail_ends(folder, monkeypatch):
    usual = RunCallback.on_train_batch_end
    monkeypatch.setattr(
        RunCallback, "on_train_batch_end",
        lambda callback, batch, logs=None: usual(callback, batch, {**logs, "loss": float("inf")}),
    )  # fmt: skip
    done = run_pipeline(*TUNE, *UNITS, cwd=folder)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "5 trials in a row failed, the last one with: the training loss became inf"
    )


@pytest.mark.slow
def test_a_process_that_was_killed_does_not_repeat_its_trial_for_ever(folder, monkeypatch):
    from nlp_rnn.training import study

    class Killed(BaseException):
        pass

    def kill(self, batch, logs=None):
        raise Killed

    monkeypatch.setattr(RunCallback, "on_train_batch_end", kill)
    for _ in range(study._MAX_STARTS):
        with pytest.raises(Killed):
            run_pipeline(*TUNE, "--max-trials", 2, *UNITS, cwd=folder)
    monkeypatch.undo()
    facts = json.loads(ask(*TUNE, "--max-trials", 2, "--json", *UNITS, cwd=folder))
    assert facts["trials"] == {"failed": 1, "complete": 1}
    assert facts["first"]["reason"] == "the process was killed during it"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.epochs=3"], "holds the study of other settings: training.epochs is 3 and was 4"),
        (["model.units=24"], "holds the study of other settings: model.units is given and was not"),
    ],
)
def test_another_config_is_one_line(searched, settings, message):
    folder, _, _ = searched
    told = refused(*TUNE, *SMALL, *settings, cwd=folder)
    assert f"name is small, but runs/small-tune {message}" in told
    assert len(told.splitlines()) == 1


def test_mistakes_are_one_line_and_leave_no_folder(folder, monkeypatch):
    for settings, message in (
        (["data.train=none.csv"], "none.csv"),
        (["data.label_column=stars"], "stars"),
        (["model.unit=3"], "model.unit is not a setting; did you mean model.units?"),
        (["model.init_from=runs/none"], "model.init_from is runs/none, which is no run directory"),
    ):
        assert message in refused(*TUNE, *SMALL, *settings, cwd=folder).splitlines()[-1]
    assert "--minutes: is '0', but must be a number above 0" in refused("tune", "--minutes", 0, cwd=folder)
    assert "--minutes" in refused("tune", cwd=folder)
    everything = ["training.learning_rate=0.01", "model.units=8"]
    assert "tune has no setting to search" in refused(*TUNE, *SMALL, *everything, cwd=folder)
    usual = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "optuna" else usual(name, *rest)
    )
    told = refused(*TUNE, *SMALL, cwd=folder)
    assert told == ("tune searches settings, which needs the package optuna; install it: pip install 'nlp-rnn[tune]'")


def test_other_data_a_second_process_and_a_damaged_study_are_one_line(folder):
    ask(*TUNE, "--max-trials", 1, *UNITS, cwd=folder)
    study = folder / "runs" / "small-tune"
    with filelock.FileLock(study / ".lock"):
        assert "another process is searching there" in refused(*TUNE, *UNITS, cwd=folder)
    whole = (folder / "reviews.csv").read_bytes()
    (folder / "reviews.csv").write_bytes(whole + b"a good new film,pos\n")
    told = refused(*TUNE, *UNITS, cwd=folder)
    assert "are not those with which the study in runs/small-tune began" in told.splitlines()[-1]
    (folder / "reviews.csv").write_bytes(whole)
    (study / "study.sqlite").write_bytes(b"no database " * 1000)
    told = refused(*TUNE, *UNITS, cwd=folder)
    assert "study.sqlite: the study cannot be read or written (file is not a database)" in told.splitlines()[-1]


@pytest.mark.further
@pytest.mark.parametrize(
    ("task", "source", "settings"),
    [
        ("next_word", "next_word_trained",
         ["data.source=text", "data.train=train.txt", "data.split=hash", "training.window=10"]),
        ("char_generation", "characters_trained",
         ["data.source=documents", "data.train=lines.txt", "training.window=20"]),
        ("translation", "translation_trained", ["data.source=aligned", "data.train=train", "tokenizer.level=word"]),
    ],
)  # fmt: skip
def test_every_task_is_searched(task, source, settings, request):
    folder = request.getfixturevalue(source)
    units = [
        "model.units=8", "model.embedding_dim=8", "model.num_layers=1", "model.fast=off", "training.epochs=1",
        "training.max_steps_per_epoch=5",
    ]  # fmt: skip
    done = run_pipeline(
        "tune", "--minutes", 9, "--max-trials", 2, "--json", f"name={task}", *settings, *units, cwd=folder, task=task
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["trials"] == {"complete": 2}
    config = load_config(folder / facts["config"], task=task)
    assert (config.name, config.model.units) == (f"{task}-tuned", 8)
    assert config.training.learning_rate == facts["best"]["settings"]["training.learning_rate"]
    ask("train", "--config", facts["config"], cwd=folder, task=task)


def test_the_linear_part_counts_but_is_not_trained(folder):
    done = run_pipeline(*TUNE, "--max-trials", 1, "--json", *UNITS, "model.ngrams=2", cwd=folder)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert 2**20 / 1e6 < facts["best"]["megabytes"] < 2**20 / 1e6 + 0.1
    assert load_config(folder / facts["config"]).model.ngrams == 2


def test_trials_that_tie_have_no_importances(tmp_path):
    config = load_config(None, ["training.monitor=val_accuracy"], task="sentiment")
    study = TuningStudy(tmp_path, config, search_space(config))
    for number in range(5):
        assert study.importances() == {}
        trial, _ = study.next_trial()
        study.report(trial, 1.0 if number < 4 else 0.5, 0)
        study.finish(trial, 1.0 if number < 4 else 0.5)
    assert sum(study.importances().values()) == pytest.approx(1)
