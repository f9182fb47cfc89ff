"""One device, several of one machine and several machines give the same results, also after interruptions."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nlp_rnn.cli import launch
from tests import train_all
from tests.conftest import (
    ROOT,
    SMALL,
    ask,
    differences,
    pipeline_environment,
    run_pipeline,
    told_to_stop,
)

MIRRORED = ["hardware.strategy=mirrored", "hardware.num_replicas=2"]


# --- the same results on any devices -------------------------------------------------------------------------------

PARTS = [
    "training.gradient_accumulation=2", "training.ema_momentum=0.9", "training.clip_norm=0.1",
    "training.optimizer=adam",
    "training.learning_rate=0.02",
]  # fmt: skip
DEVICES = {"2 devices": (1, MIRRORED), "2 workers": (2, [])}
MORE_DEVICES = {"4 devices": (1, [*MIRRORED, "hardware.num_replicas=4"]), "4 workers": (4, [])}


def trained(corpora: Path, name: str, num_workers: int, settings: list[str]) -> Path:
    """The folder with the four runs of `train_all` on some devices."""
    folder = corpora / name.replace(" ", "_")
    folder.mkdir()
    for file in corpora.glob("*.csv"):
        (folder / file.name).symlink_to(file)
    program = [sys.executable, str(ROOT / "tests" / "train_all.py"), str(folder), "train", *settings]
    starter = (
        f"import sys; from nlp_rnn.cli.launch import run_workers; sys.exit(run_workers({program!r}, {num_workers}))"
    )
    command = [sys.executable, "-c", starter] if num_workers > 1 else program
    done = subprocess.run(
        command, env=pipeline_environment(corpora), capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "runs"


def check_equal(
    corpora: Path, devices: dict[str, tuple[int, list[str]]], title: str, settings: list[str], bound: float
) -> None:
    """Trains all tasks on one device and on others, prints a table of the differences, and holds them below `bound`."""
    reference = trained(corpora, f"{title} one", 1, ["hardware.strategy=cpu", *settings])
    rows = []
    for name, (num_workers, more) in devices.items():
        runs = trained(corpora, f"{title} {name}", num_workers, [*more, *settings])
        rows += [(task, name, *differences(reference / task, runs / task)) for task in train_all.TASKS]
    print(f"\n{title}\n{'task':<16}{'devices':<12}{'figures':>10}{'weights':>10}")
    for task, name, figures, weights in rows:
        print(f"{task:<16}{name:<12}{figures:>10.1e}{weights:>10.1e}")
    assert all(max(figures, weights) < bound for *_, figures, weights in rows)


@pytest.mark.further
def test_two_workers_train_a_language_model_as_one(corpora: Path, tmp_path: Path) -> None:
    settings = train_all.settings_of("next_word")
    (tmp_path / "reviews.csv").symlink_to(corpora / "reviews.csv")
    ask("train", "name=one", *settings, cwd=tmp_path, task="next_word")
    launched = [
        sys.executable,
        "-m",
        "pipelines",
        "launch",
        "--workers",
        "2",
        "next_word",
        "train",
        "name=two",
        *settings,
    ]
    done = subprocess.run(
        launched,
        cwd=tmp_path,
        env=pipeline_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "validation perplexity" in done.stdout
    assert max(differences(tmp_path / "runs" / "one", tmp_path / "runs" / "two")) < 1e-4


@pytest.mark.slow
def test_two_devices_or_workers_train_as_one(corpora: Path) -> None:
    check_equal(corpora, DEVICES, "plain", [], 1e-4)


@pytest.mark.slow
def test_four_devices_or_workers_train_as_one(corpora: Path) -> None:
    check_equal(corpora, MORE_DEVICES, "four", [], 1e-4)


@pytest.mark.slow
def test_parts_and_averages_and_half_precision_do_not_depend_on_the_devices(corpora: Path) -> None:
    check_equal(corpora, DEVICES, "parts", PARTS, 1e-4)
    # Half precision rounds gradients at 5e-4 of their size; Adam would make steps of equal size of what rounding leaves
    # of small ones.
    half = [*PARTS, "hardware.mixed_precision=float16", "training.optimizer=sgd", "training.learning_rate=0.5"]
    check_equal(corpora, DEVICES, "half", half, 1e-3)


@pytest.mark.slow
def test_two_passes_do_not_depend_on_the_devices(corpora: Path) -> None:
    # A rate that drops next to nothing: replicas draw other masks than one device does.
    check_equal(corpora, DEVICES, "two passes", [*PARTS, "training.r_drop=2", "model.dropout=1e-6"], 1e-4)


# char_generation has next_word's loss and windows.
@pytest.mark.parametrize(
    "task",
    [
        "sentiment",
        pytest.param("next_word", marks=pytest.mark.further),
        pytest.param("translation", marks=pytest.mark.further),
        pytest.param("char_generation", marks=pytest.mark.slow),
    ],
)
def test_parts_of_a_batch_give_the_same_as_the_whole(corpora: Path, tmp_path: Path, task: str) -> None:
    for file in corpora.glob("*.csv"):
        (tmp_path / file.name).symlink_to(file)
    for number in (1, 4):
        more = [f"name={number}", f"training.gradient_accumulation={number}", "model.fast=off", "training.epochs=1"]
        ask("train", *train_all.settings_of(task), *more, cwd=tmp_path, task=task)
    assert max(differences(tmp_path / "runs" / "1", tmp_path / "runs" / "4")) < 1e-4


# --- interruptions -------------------------------------------------------------------------------------------------


class Launched:
    """A training of two workers in a process of its own."""

    def __init__(self, folder: Path, reviews: Path, name: str) -> None:
        settings = [
            *SMALL,
            "training.epochs=16",
            "training.checkpoint_seconds=1",
            "data.source=csv",
            f"data.train={reviews}",
        ]
        command = [
            sys.executable,
            "-m",
            "pipelines",
            "launch",
            "--workers",
            "2",
            "sentiment",
            "train",
            f"name={name}",
            *settings,
        ]
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=pipeline_environment(folder),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self.limit = threading.Timer(300, self.process.kill)
        self.limit.daemon = True
        self.limit.start()

    def lines(self) -> Iterator[str]:
        """What it says, as it says it; it can be gone on with."""
        assert self.process.stderr is not None
        return iter(self.process.stderr.readline, "")

    def end(self) -> tuple[int, str]:
        """Its exit status, and what it still says, once it has ended."""
        rest = "".join(self.lines())
        status = self.process.wait()
        self.limit.cancel()
        return status, rest

    def workers(self) -> list[int]:
        """Process ids."""
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=True
        )
        return sorted(int(line) for line in found.stdout.split())


@pytest.mark.slow
def test_killed_workers_resume_to_the_same_figures(reviews: Path, tmp_path: Path) -> None:
    assert Launched(tmp_path, reviews, "undisturbed").end()[0] == 0
    generator = random.Random(4)
    for _ in range(3):
        disturbed = Launched(tmp_path, reviews, "disturbed")
        lines_left = generator.randint(1, 5)  # 1: before the first checkpoint
        for line in disturbed.lines():
            lines_left -= line.startswith(("[0] training on", "[0] epoch"))
            if not lines_left:
                break
        time.sleep(0.2 * generator.random())
        assert disturbed.process.poll() is None, "the training was over before it was killed"
        os.kill(generator.choice(disturbed.workers()), signal.SIGKILL)
        status, rest = disturbed.end()
        assert status == 128 + signal.SIGKILL
        assert "was ended by SIGKILL" in rest
        assert "another worker has ended" in rest
    status, said = Launched(tmp_path, reviews, "disturbed").end()
    assert status == 0
    assert "resuming after epoch" in said
    assert differences(tmp_path / "runs" / "undisturbed", tmp_path / "runs" / "disturbed") == (0, 0)


@pytest.mark.slow
def test_a_training_goes_on_with_another_number_of_workers(reviews: Path, tmp_path: Path) -> None:
    settings = [*SMALL, "model.dropout=0", "data.source=csv", f"data.train={reviews}"]
    ask("train", "name=whole", *settings, cwd=tmp_path)
    with told_to_stop(lambda callback: (callback.progress.epoch, callback.progress.step) == (1, 3)):
        assert run_pipeline("train", "name=moved", *settings, cwd=tmp_path).returncode == 130
    launched = [
        sys.executable,
        "-m",
        "pipelines",
        "launch",
        "--workers",
        "2",
        "sentiment",
        "train",
        "name=moved",
        *settings,
    ]
    done = subprocess.run(
        launched,
        cwd=tmp_path,
        env=pipeline_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "resuming after epoch 1, step 4" in done.stderr
    assert max(differences(tmp_path / "runs" / "whole", tmp_path / "runs" / "moved")) < 1e-4


@pytest.mark.slow
def test_keras_alone_still_fails_on_several_workers(capfd: pytest.CaptureFixture[str]) -> None:
    script = """
import keras, numpy as np, tensorflow as tf
with tf.distribute.MultiWorkerMirroredStrategy().scope():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
model.fit(tf.data.Dataset.from_tensor_slices((np.ones((8, 4), "f"), np.ones((8, 1), "f"))).batch(4), verbose=0)
"""
    # When it no longer does, `train_step` need not mend it.
    assert launch.run_workers([sys.executable, "-c", script], 2) == 1
    said = "".join(capfd.readouterr())
    assert "Attempt to convert a value (PerReplica:" in said, said[-2000:]


@pytest.mark.slow
def test_a_stopped_worker_makes_all_save_and_end(reviews: Path, tmp_path: Path) -> None:
    stopped = Launched(tmp_path, reviews, "stopped")
    for line in stopped.lines():
        if line.startswith("[0] epoch 2"):
            os.kill(stopped.workers()[1], signal.SIGTERM)  # as a machine that is taken away
            break
    else:
        pytest.fail("the training was over before it was stopped")
    status, rest = stopped.end()
    assert status == 130
    assert rest.count("everything is saved") == 2
    status, said = Launched(tmp_path, reviews, "stopped").end()
    assert status == 0
    assert "resuming after epoch" in said
