"""Clusters: how they are described, how their workers meet, and what is said where they fail."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from nlp_rnn import manifest
from nlp_rnn.cli import launch
from nlp_rnn.config.settings import TrainingConfig
from nlp_rnn.distribution.cluster import Cluster, await_others, parse_cluster
from nlp_rnn.distribution.placement import Placement, _place
from nlp_rnn.errors import ConfigError
from tests import train_all
from tests.conftest import (
    SMALL,
    ask,
    free_port,
    pipeline_environment,
    refused,
)


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
        (cluster_text(workers=["a:0"]), "has the address 'a:0', but ports are 1 to 65535"),
        (cluster_text(workers=["a:1", "b:65536"]), "has the address 'b:65536', but ports are 1 to 65535"),
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


@pytest.mark.slow
def test_a_mistake_that_one_worker_meets_ends_all(reviews: Path, tmp_path: Path) -> None:
    settings = [*SMALL, "training.epochs=1", "data.source=csv", f"data.train={reviews}"]
    ask("train", "name=alone", *settings, f"data.cache_dir={tmp_path / 'whole'}", cwd=tmp_path)
    shutil.copytree(tmp_path / "whole", tmp_path / "damaged")
    train_ids = max((tmp_path / "damaged").glob("ids-*/ids.bin"), key=lambda path: path.stat().st_size)
    os.truncate(train_ids, train_ids.stat().st_size // 2)
    manifest.write(train_ids.parent)  # so that the damage is met while training; otherwise the ids are computed again
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


def test_an_error_that_looks_like_a_lost_worker_is_reported_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    reported = []
    monkeypatch.setattr(
        type(context.context()), "report_error_to_cluster", lambda _, code, message: reported.append(message)
    )
    own = tf.errors.FailedPreconditionError(None, None, "the table is not initialised\nand more")
    with pytest.raises(ConfigError) as caught, Placement(num_workers=2, worker=1).joined():
        raise own
    assert "or this one failed (the table is not initialised); fix the error" in str(caught.value)
    with pytest.raises(ValueError, match="of its own"), Placement(num_workers=2).joined():
        raise ValueError("of its own")
    assert [message.split(":")[0] for message in reported] == ["worker 1", "worker 0"]


def test_devices_cannot_be_set_up_once_tensorflow_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_too_late(*_: object) -> None:
        raise RuntimeError("Virtual devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "set_logical_device_configuration", is_too_late)
    with pytest.raises(ConfigError, match="TensorFlow is already in use in this process"):
        _place.__wrapped__("mirrored", None, 99, 1)
    monkeypatch.setattr(tf.config, "set_visible_devices", is_too_late)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["GPU"])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda *_: None)
    with pytest.raises(ConfigError, match="TensorFlow already uses a GPU in this process"):
        _place.__wrapped__("cpu", None, 0, 1)
