import csv
import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.config.loading import load_config
from nlp_rnn.data.token_cache import TokenCache, write_ids
from nlp_rnn.errors import ConfigError
from nlp_rnn.models.classifier import build_classifier
from nlp_rnn.training import fit
from nlp_rnn.training.checkpoints import Progress, checkpoint_arrays, load_checkpoint, load_progress, save_checkpoint
from nlp_rnn.training.optimizers import WarmUpSchedule, build_optimizer
from nlp_rnn.training.run_callback import RunCallback
from tests.conftest import (
    SMALL,
    outcome,
    pipeline_environment,
    refused,
    run_pipeline,
    spawn_pipeline,
    told_to_stop,
    write_csv,
)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("cosine", [0.5, 1.0, 1.0, (1 + np.cos(np.pi / 4)) / 2, 0.5]),
        ("flat_cosine", [0.55, 1.0, 1.0, 1.0, 0.1 + 0.9 * 0.75]),
        (
            "one_cycle",
            [1 - (1 - 1 / 25) * 0.5, 1.0, 1.0, 1e-4 + (1 - 1e-4) * (1 + np.cos(np.pi / 4)) / 2, 1e-4 + (1 - 1e-4) / 2],
        ),
    ],
)
def test_schedules_worked_out_by_hand(shape, expected):
    schedule = WarmUpSchedule(shape, 1.0, num_steps=10, warmup_fraction=0.2)
    np.testing.assert_allclose([float(schedule(step)) for step in (0, 1, 2, 4, 6)], expected, rtol=1e-5)


def test_a_flat_schedule_ends_with_a_fall_to_nothing():
    schedule = WarmUpSchedule("flat_cosine", 2.0, num_steps=100, warmup_fraction=0.1)
    rates = [float(schedule(step)) for step in (49, 50, 70, 90, 95, 99)]
    np.testing.assert_allclose(rates, [2.0, 2.0, 1.1, 0.2, 0.1, 0.02], rtol=1e-5)


@pytest.mark.parametrize("shape", ["constant", "cosine", "one_cycle", "flat_cosine"])
def test_schedules_survive_a_config_round_trip(shape):
    schedule = WarmUpSchedule(shape, 0.1, num_steps=10, warmup_fraction=0.2)
    assert WarmUpSchedule.from_config(schedule.get_config()).get_config() == schedule.get_config()


def test_gradients_are_clipped_to_the_global_norm():
    config = load_config(
        None,
        [
            "training.optimizer=sgd",
            "training.schedule=constant",
            "training.learning_rate=1.0",
            "training.clip_norm=5.0",
        ],
    )
    optimizer = build_optimizer(config.training, num_steps=1)
    weights = [keras.Variable([0.0]), keras.Variable([0.0])]
    optimizer.apply([np.array([30.0]), np.array([40.0])], weights)  # norm 50: a tenth stays
    np.testing.assert_allclose([float(weight.value[0]) for weight in weights], [-3, -4], rtol=1e-5)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_the_norm_of_a_sparse_gradient_is_that_of_its_sums(name):
    """A word that occurs four times has one gradient, four times as long."""
    settings = [f"training.optimizer={name}", "training.clip_norm=1.0"]
    optimizer = build_optimizer(load_config(None, settings).training, num_steps=1)
    rows = tf.IndexedSlices(tf.fill([4, 1], 3.0), tf.zeros([4], tf.int32), tf.constant([2, 1]))
    (clipped,) = optimizer._clip_gradients([rows])
    np.testing.assert_allclose(tf.convert_to_tensor(clipped), [[1], [0]], rtol=1e-6)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_the_ramp_of_the_average_worked_out_by_hand(name):
    settings = [f"training.optimizer={name}", "training.ema_momentum=0.5", "training.ema_ramp=true"]
    optimizer = build_optimizer(load_config(None, settings).training, num_steps=30)
    weight = keras.Variable([100.0])  # the initial weights, which the average must forget
    optimizer.build([weight])
    apply = tf.function(optimizer.apply)
    expected = 0.0
    for step in range(15):
        weight.assign([float(step * step)])
        apply([tf.constant([0.0])])
        momentum = [0.0, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, *[0.5] * 7][step]
        expected = momentum * expected + (1 - momentum) * step * step
        assert float(optimizer._model_variables_moving_average[0].value[0]) == pytest.approx(expected, rel=1e-5)
    assert optimizer.get_config()["ema_momentum"] == 0.5


def test_checkpoints_give_back_values_and_progress(tmp_path):
    variables = [keras.Variable([1.0, 2.0]), keras.Variable(3, dtype="int32")]
    progress = Progress(epoch=2, step=5, history=[{"epoch": 1, "loss": 0.5}], best=0.5, wait=1)
    save_checkpoint(tmp_path / "a.npz", checkpoint_arrays(variables), progress)
    for variable in variables:
        variable.assign(variable.value * 0)
    load_checkpoint(tmp_path / "a.npz", variables)
    assert [variable.numpy().tolist() for variable in variables] == [[1.0, 2.0], 3]
    assert load_progress(tmp_path / "a.npz") == progress
    with pytest.raises(ConfigError, match="written by another model"):
        load_checkpoint(tmp_path / "a.npz", [keras.Variable([1.0])])
    with pytest.raises(ConfigError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "b.npz", variables)
    assert load_progress(tmp_path / "b.npz") == Progress()


RANDOM = [
    "model.dropout=0.3",
    "model.weight_dropout=0.2",
    "model.word_dropout=0.1",
    "training.ema_momentum=0.9",
    "training.ema_ramp=true",
]
SETTINGS = [
    *SMALL,
    *RANDOM,
    "data.source=csv",
    "data.split=blocks",
    "data.block_size=10",
    "training.batch_size=1",
    "training.epochs=2",
    "training.checkpoint_seconds=1",
    "training.learning_rate=0.002",
]


@pytest.fixture(scope="module")
def uninterrupted(reviews, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = spawn_pipeline("train", "name=a", *SETTINGS, f"data.train={reviews}", cwd=folder)
    assert done.returncode == 0, done.stderr
    return outcome(folder / "runs" / "a")


def stop(command, folder, number, after):
    """Sends a signal to a training that is past the step `after`; its progress then, exit status and standard error."""
    process = subprocess.Popen(command, cwd=folder, env=pipeline_environment(folder), stderr=subprocess.PIPE, text=True)
    checkpoint = folder / "runs" / "a" / "checkpoints" / "last.npz"
    deadline = time.monotonic() + 120
    while place_of(checkpoint) <= after and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return load_progress(checkpoint), process.returncode, errors


def place_of(checkpoint):
    """(epochs, steps) done; (0, 0) as long as there is no checkpoint, or one of an epoch's end."""
    progress = load_progress(checkpoint)
    return (progress.epoch, progress.step) if progress.step else (0, 0)


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param([signal.SIGINT, signal.SIGKILL], id="Ctrl-C, then kill -9", marks=pytest.mark.further),
        # The handler of Ctrl-C; the tests of next_word send it.
        pytest.param([signal.SIGTERM], id="SIGTERM", marks=pytest.mark.slow),
    ],
)
def test_a_run_stopped_in_mid_epoch_ends_as_an_uninterrupted_one(reviews, tmp_path, uninterrupted, numbers):
    command = [sys.executable, "-m", "pipelines.sentiment", "train", "name=a", *SETTINGS, f"data.train={reviews}"]
    place = (0, 0)
    for number in numbers:
        stopped, status, errors = stop(command, tmp_path, number, place)
        assert stopped.step > 0  # in mid-epoch
        assert not stopped.is_finished
        if number != signal.SIGKILL:
            assert status == 130
            assert f"stopped in epoch {stopped.epoch + 1} after step {stopped.step} of" in errors
            assert errors.rstrip().endswith("everything is saved: rerun the same command to resume")
        place = (stopped.epoch, stopped.step)
    done = run_pipeline(*command[3:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"resuming after epoch {stopped.epoch}, step {stopped.step}" in done.stderr
    assert outcome(tmp_path / "runs" / "a") == uninterrupted


@pytest.mark.slow  # what it adds to the above: no checkpoint within an epoch
def test_a_run_killed_between_epochs_ends_as_an_uninterrupted_one(reviews, tmp_path, uninterrupted):
    # Saved at the ends of epochs only.
    arguments = ["train", "name=a", *SETTINGS, f"data.train={reviews}", "training.checkpoint_seconds=1000000"]
    command = [sys.executable, "-m", "pipelines.sentiment", *arguments]
    process = subprocess.Popen(command, cwd=tmp_path, env=pipeline_environment(tmp_path), stderr=subprocess.PIPE)
    checkpoint = tmp_path / "runs" / "a" / "checkpoints" / "last.npz"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert (load_progress(checkpoint).epoch, load_progress(checkpoint).step) == (1, 0)
    done = run_pipeline(*arguments, cwd=tmp_path)
    assert "resuming after epoch 1, step 0" in done.stderr
    assert outcome(tmp_path / "runs" / "a") == uninterrupted


@pytest.fixture(scope="module")
def plain(reviews, tmp_path_factory):
    """(arguments, folder, what the command said) of a training that nothing stops: runs/a in the folder."""
    folder = tmp_path_factory.mktemp("plain")
    arguments = [*SMALL, *RANDOM, "data.source=csv", f"data.train={reviews}"]
    done = run_pipeline("train", "name=a", *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    return arguments, folder, done.stdout


@pytest.mark.further
def test_a_run_stopped_at_the_last_step_of_an_epoch_ends_as_an_uninterrupted_one(plain, tmp_path):
    arguments, folder, _ = plain
    with told_to_stop(lambda callback: callback.progress.step == callback.stream.steps_per_epoch - 1):
        stopped = run_pipeline("train", "name=a", *arguments, cwd=tmp_path)
    assert stopped.returncode == 130
    assert "stopped after epoch 1; everything is saved: rerun the same command to resume" in stopped.stderr
    done = run_pipeline("train", "name=a", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resuming after epoch 1, step 0" in done.stderr
    assert outcome(tmp_path / "runs" / "a") == outcome(folder / "runs" / "a")


@pytest.mark.further
def test_the_same_seed_gives_the_same_run_and_another_does_not(plain, tmp_path):
    arguments, folder, _ = plain
    for settings in (["name=a"], ["name=b", "seed=2"]):
        assert run_pipeline("train", *arguments, *settings, cwd=tmp_path).returncode == 0
    assert outcome(tmp_path / "runs" / "a") == outcome(folder / "runs" / "a")
    assert outcome(tmp_path / "runs" / "b")[0] != outcome(folder / "runs" / "a")[0]


def test_a_finished_run_is_not_trained_again(plain):
    arguments, folder, said = plain
    before = os.stat(folder / "runs" / "a" / "checkpoints" / "last.npz").st_mtime_ns
    history = folder / "runs" / "a" / "history.csv"
    whole = history.read_text()
    history.write_text(whole.splitlines(keepends=True)[0])  # as after a kill between checkpoint and history
    again = run_pipeline("train", "name=a", *arguments, cwd=folder)
    assert (again.returncode, again.stdout) == (0, said)
    assert os.stat(folder / "runs" / "a" / "checkpoints" / "last.npz").st_mtime_ns == before
    assert history.read_text() == whole


def test_a_run_starts_from_another_ones_weights_and_vocabulary(trained, reviews, tmp_path):
    start = trained / "runs" / "small"
    arguments = [*SMALL, "data.source=csv", f"data.train={reviews}", "training.epochs=1", "training.learning_rate=1e-9"]
    done = run_pipeline("train", "name=a", *arguments, f"training.start_from={start}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"starting from the best weights of {start}" in done.stderr
    for file in ("tokenizer/vocabulary.txt", "labels.json"):
        assert (tmp_path / "runs" / "a" / file).read_text() == (start / file).read_text()
    with (
        np.load(start / "checkpoints" / "best.npz") as before,
        np.load(tmp_path / "runs" / "a" / "checkpoints" / "best.npz") as after,
    ):
        for name in before.files:
            np.testing.assert_allclose(after[name], before[name], atol=1e-6)
    for setting, message in [
        ("training.start_from=nowhere", "nowhere, which is no run directory and no exported model"),
        (
            "tokenizer.case=keep",
            f"training.start_from is {start}, whose vocabulary is taken, but tokenizer.case is 'keep' and was 'lower'",
        ),
    ]:
        found = refused("train", "name=b", *arguments, f"training.start_from={start}", setting, cwd=tmp_path)
        assert message in found
    for key, value in (("model.units", "7"), ("model.pooling", "[max,last]")):
        found = refused("train", "name=c", *arguments, f"training.start_from={start}", f"{key}={value}", cwd=tmp_path)
        told = f"{key} is {value}, but the model of training.start_from, {start}, has other values; set {key}="
        assert told in found
    with open(reviews, encoding="utf-8", newline="") as file:
        rows = [(row["text"], "abc"[number % 3]) for number, row in enumerate(csv.DictReader(file))]
    three = write_csv(tmp_path / "three.csv", rows)
    found = refused("train", "name=c", *arguments, f"training.start_from={start}", f"data.train={three}", cwd=tmp_path)
    assert "which has 2 labels ('neg', 'pos'), but data.train has 3 ('a', 'b', 'c'); use texts with its labels" in found
    assert not (tmp_path / "runs" / "c").exists()


def test_an_infinite_loss_stops_with_one_line_and_saves_no_bad_checkpoint(reviews, tmp_path):
    settings = [
        *SMALL,
        "training.optimizer=sgd",
        "training.schedule=constant",
        "training.clip_norm=0",
        "training.epochs=4",
    ]
    settings += [
        "training.warmup_fraction=0.9",
        "training.learning_rate=1e38",
        "data.source=csv",
        f"data.train={reviews}",
        "name=a",
    ]
    done = run_pipeline("train", *settings, cwd=tmp_path)
    assert done.returncode == 2
    last_line = done.stderr.rstrip().split("\n")[-1]
    assert last_line.startswith(("the training loss became ", "the weights became infinite"))
    assert "lower training.learning_rate (1e+38) or set training.clip_norm=1, and train under" in last_line
    for path in (tmp_path / "runs" / "a" / "checkpoints").glob("*.npz"):
        with np.load(path) as arrays:
            assert all(np.isfinite(arrays[name]).all() for name in arrays.files)


@pytest.mark.parametrize("monitor", ["val_cross_entropy", "val_accuracy"])
def test_a_validation_loss_that_is_no_number_stops_the_training(reviews, tmp_path, monkeypatch, monitor):
    usual = RunCallback.on_epoch_end
    monkeypatch.setattr(
        RunCallback, "on_epoch_end",
        lambda callback, epoch, logs: usual(callback, epoch, {**logs, "val_cross_entropy": math.nan}),
    )  # fmt: skip
    settings = [*SMALL, f"training.monitor={monitor}", "data.source=csv", f"data.train={reviews}", "name=a"]
    done = run_pipeline("train", *settings, cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(
        r"^val_cross_entropy became nan in epoch 1, step \d+: lower training", done.stderr.splitlines()[-1]
    )
    assert not (tmp_path / "runs" / "a" / "checkpoints" / "best.npz").exists()


def test_early_stopping_keeps_the_best_epoch(reviews, tmp_path):
    settings = [
        *SMALL,
        "training.epochs=30",
        "training.patience=2",
        "training.schedule=constant",
        "data.source=csv",
        f"data.train={reviews}",
    ]
    done = run_pipeline("train", "--json", "name=a", *settings, cwd=tmp_path)
    facts = json.loads(done.stdout)
    assert facts["epochs"] < 30
    assert facts["epochs"] == facts["best_epoch"] + 2
    history = (tmp_path / "runs" / "a" / "history.csv").read_text().splitlines()
    rows = [dict(zip(history[0].split(","), map(float, row.split(",")), strict=True)) for row in history[1:]]
    best = int(np.argmin([row["val_cross_entropy"] for row in rows]))
    assert facts["best_epoch"] == best + 1
    assert facts["validation"]["accuracy"] == pytest.approx(rows[best]["val_accuracy"], rel=1e-6)
    assert facts["validation"]["cross_entropy"] <= rows[best]["val_cross_entropy"] + 1e-6  # calibrated


def test_averaged_weights_are_what_is_validated_and_kept(reviews, tmp_path):
    settings = [*SMALL, "training.ema_momentum=0.9", "data.source=csv", f"data.train={reviews}"]
    done = run_pipeline("train", "--json", "name=a", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    history = (tmp_path / "runs" / "a" / "history.csv").read_text().splitlines()
    losses = [
        float(dict(zip(history[0].split(","), row.split(","), strict=True))["val_cross_entropy"]) for row in history[1:]
    ]
    assert json.loads(done.stdout)["validation"]["cross_entropy"] == pytest.approx(min(losses), rel=1e-4)
    with (
        np.load(tmp_path / "runs" / "a" / "checkpoints" / "best.npz") as best,
        np.load(tmp_path / "runs" / "a" / "checkpoints" / "last.npz") as last,
    ):
        assert not np.array_equal(best[best.files[0]], last[last.files[0]])


def test_predictions_are_not_padded_to_the_multiple_of_training(monkeypatch, tmp_path):
    write_ids(tmp_path, [np.arange(4, 4 + length) for length in (3, 5, 2, 7)])
    cache = TokenCache.load(tmp_path)
    model = build_classifier(load_config(None, SMALL, task="sentiment").model, vocab_size=20, num_classes=2)
    config = load_config(None, ["training.batch_size=2", "training.pad_to_multiple_of=16"], task="sentiment").training
    lengths = []

    def read(batches, placement):
        lengths.extend(batch[0].shape[1] for batch in batches.read())
        return usual(batches, placement)

    usual = fit._fed
    monkeypatch.setattr(fit, "_fed", read)
    padded = fit.predict_logits(model, cache, config)
    assert lengths == [3, 7]
    np.testing.assert_array_equal(
        padded, fit.predict_logits(model, cache, dataclasses.replace(config, pad_to_multiple_of=0))
    )
