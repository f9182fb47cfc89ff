"""One device, several of one machine and several machines give the same results; clusters that fail say so."""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nlp_rnn.cli import launch
from nlp_rnn.config.settings import TrainingConfig
from nlp_rnn.distribution.cluster import Cluster, await_others, parse_cluster
from nlp_rnn.distribution.placement import Placement
from nlp_rnn.errors import ConfigError
from tests import train_all
from tests.conftest import (
    ROOT,
    SMALL,
    ask,
    differences,
    free_port,
    pipeline_environment,
    refused,
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


# --- clusters ------------------------------------------------------------------------------------------------------


def cluster_text(workers: object = ("a:1", "b:2"), kind: object = "worker", index: object = 0, **more: object) -> str:
    return json.dumps({"cluster": {"worker": workers, **more}, "task": {"type": kind, "index": index}})


def test_a_cluster_is_read_with_the_chief_first() -> None:
    assert parse_cluster(cluster_text(index=1)) == Cluster(("a:1", "b:2"), 1)
    assert parse_cluster(cluster_text(index=1, chief=["c:3"])) == Cluster(("c:3", "a:1", "b:2"), 2)
    assert parse_cluster(cluster_text(kind="chief", chief=["[::1]:3"])) == Cluster(("[::1]:3", "a:1", "b:2"), 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "lacks the object 'cluster' or 'task'"),
        (cluster_text(ps=["c:3"]), "names ps"),
        (cluster_text(workers="a:1"), "has no list of addresses under cluster.worker"),
        (cluster_text(kind="chief"), "has the task type 'chief'"),
        (cluster_text(index=2), "has the task index 2"),
        (cluster_text(index="0"), "has the task index '0'"),
        (cluster_text(index=True), "has the task index True"),
        (cluster_text(workers=["a:1", "a:1"]), "names a:1 twice"),
        (cluster_text(workers=["a"]), "has the address 'a'"),
        (cluster_text(chief=["c:3", "d:4"]), "names several chiefs"),
    ],
)
def test_a_malformed_cluster_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_cluster(text)


def test_a_batch_that_does_not_divide_is_refused() -> None:
    placement = Placement(num_replicas=3)
    placement.check(TrainingConfig(batch_size=96))
    with pytest.raises(
        ConfigError, match="batch_size is 64, but must be a multiple of 3, for 3 replicas; use 63 or 66"
    ):
        placement.check(TrainingConfig(batch_size=64))
    with pytest.raises(ConfigError, match="must be a multiple of 12, for 3 replicas of 4 parts each; use 12"):
        placement.check(TrainingConfig(batch_size=4, gradient_accumulation=4))


def test_devices_that_are_not_there_are_named(reviews: Path, tmp_path: Path) -> None:
    train = ["train", "name=a", *SMALL, "data.source=csv", f"data.train={reviews}"]
    assert "hardware.strategy is gpu, but TensorFlow finds no GPU" in refused(
        *train, "hardware.strategy=gpu", cwd=tmp_path
    )
    assert "hardware.strategy is mirrored, but TensorFlow finds no GPU" in refused(
        *train, "hardware.strategy=mirrored", cwd=tmp_path
    )
    assert "TF_CONFIG, which names the workers, is not set" in refused(
        *train, "hardware.strategy=multi_worker", cwd=tmp_path
    )
    assert "TF_CONFIG is 'nonsense'" in refused(*train, cwd=tmp_path, TF_CONFIG="nonsense")


@pytest.mark.parametrize(("devices", "is_refused"), [(("2 GPUs", "2 GPUs"), False), (("2 GPUs", ""), True)])
def test_workers_meet_and_must_have_the_same_devices(devices: tuple[str, str], is_refused: bool) -> None:
    ports = [free_port() for _ in range(2)]
    addresses = tuple(f"localhost:{port}" for port in ports)

    def meet(index: int) -> None:
        await_others(Cluster(addresses, index), 5, devices[index])
        with socket.create_server(("localhost", ports[index])):  # as TensorFlow's server, by then
            time.sleep(2)

    with ThreadPoolExecutor() as pool:
        meetings = [pool.submit(meet, index) for index in range(2)]
        found = [meeting.exception() for meeting in meetings]
    assert [isinstance(error, ConfigError) for error in found] == [is_refused] * 2
    if is_refused:
        assert f"{addresses[1]} has no GPU, but {addresses[0]} has 2 GPUs; all workers must" in str(found[0])
        assert f"{addresses[0]} has 2 GPUs, but {addresses[1]} has no GPU; all workers must" in str(found[1])


def test_a_worker_that_does_not_answer_is_named(reviews: Path, tmp_path: Path) -> None:
    addresses = [f"localhost:{free_port()}" for _ in range(2)]
    settings = [*SMALL, "data.source=csv", f"data.train={reviews}", "hardware.connect_seconds=2"]
    told = refused("train", *settings, cwd=tmp_path, TF_CONFIG=cluster_text(addresses))
    assert f"no answer within 2 seconds from {addresses[1]}" in told


def test_a_launch_says_what_a_platform_cannot_do(monkeypatch):
    arguments = ["--workers", "2", "--bind", "sentiment", "train"]
    with monkeypatch.context() as without_cores:
        without_cores.delattr(os, "sched_setaffinity")
        with pytest.raises(ConfigError, match="--bind is given, but linux cannot bind to cores; leave it out"):
            launch.main(arguments, tuple(train_all.TASKS))
    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(ConfigError, match="does not run on Windows"):
        launch.main(arguments, tuple(train_all.TASKS))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: --workers"),
        (["--workers", "0", "sentiment", "train"], "--workers is 0"),
        (["--workers", "2", "sentiment", "predict"], "not by 'sentiment predict'"),
        (["--workers", "2"], "not by 'nothing'"),
    ],
)
def test_a_launch_that_is_not_understood_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        launch.main(arguments or ["sentiment"], tuple(train_all.TASKS))


def test_a_failing_worker_ends_the_others() -> None:
    script = (
        "import os, sys, time; n = eval(os.environ['TF_CONFIG'])['task']['index']; "
        "sys.exit(3) if n else time.sleep(100)"
    )
    start, grace = time.monotonic(), launch._GRACE
    launch._GRACE = 0.5
    try:
        assert launch.run_workers([sys.executable, "-c", script], 2) == 3
    finally:
        launch._GRACE = grace
    assert time.monotonic() - start < 30


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
def test_a_mistake_that_one_worker_meets_ends_all(reviews: Path, tmp_path: Path) -> None:
    settings = [*SMALL, "training.epochs=1", "data.source=csv", f"data.train={reviews}"]
    ask("train", "name=alone", *settings, f"data.cache_dir={tmp_path / 'whole'}", cwd=tmp_path)
    shutil.copytree(tmp_path / "whole", tmp_path / "damaged")
    train_ids = max((tmp_path / "damaged").glob("ids-*/ids.bin"), key=lambda path: path.stat().st_size)
    os.truncate(train_ids, train_ids.stat().st_size // 2)
    addresses = [f"localhost:{free_port()}" for _ in range(2)]
    workers = []
    for index, cache in enumerate(("whole", "damaged")):
        more = {"TF_CONFIG": cluster_text(addresses, index=index), "NLP_RNN_CACHE": str(tmp_path / cache)}
        command = [sys.executable, "-m", "pipelines.sentiment", "train", "name=both", *settings]
        workers.append(
            subprocess.Popen(
                command, cwd=tmp_path, env=pipeline_environment(tmp_path) | more, stderr=subprocess.PIPE, text=True
            )
        )
    said = [worker.communicate(timeout=300)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [2, 2], said
    assert "is damaged: ids.bin ends before its last text" in said[1]
    assert "another worker has ended" in said[0]


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
def test_keras_alone_still_fails_on_several_workers() -> None:
    script = """
import keras, numpy as np, tensorflow as tf
with tf.distribute.MultiWorkerMirroredStrategy().scope():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
model.fit(tf.data.Dataset.from_tensor_slices((np.ones((8, 4), "f"), np.ones((8, 1), "f"))).batch(4), verbose=0)
"""
    # When it no longer does, `train_step` need not mend it.
    assert launch.run_workers([sys.executable, "-c", script], 2) == 1


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
