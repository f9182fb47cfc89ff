"""Small SavedModels, TensorFlow Serving's own test models among them, and servers of them."""

import contextlib
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import uvicorn
from starlette.testclient import TestClient

from nlp_rnn.serving.app import make_app
from nlp_rnn.serving.engine import ServerSettings
from nlp_rnn.serving.model_store import ModelStore
from nlp_rnn.serving.served_model import load_served

TWO = "/v1/models/half_plus_two:predict"
ONE_ROW = '{"instances": [1.0]}'
MANY = 1_000_000  # steps of a model that takes a second or more


def write_half_plus(folder: Path, addend: float) -> None:
    """TensorFlow Serving's test model: y = x / 2 + addend. Source: saved_model_half_plus_two.py there."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        examples = v1.placeholder(tf.string, [None], name="tf_example")
        parsed = tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([1], tf.float32)})
        x = tf.identity(parsed["x"], name="x")
        numbers = v1.placeholder(tf.float32, None, name="numbers")
        y = tf.add(x * 0.5, addend, name="y")
        info, definition = v1.saved_model.build_tensor_info, v1.saved_model.build_signature_def
        signatures = {
            "serving_default": definition(
                {"x": info(numbers)}, {"y": info(numbers * 0.5 + addend)}, "tensorflow/serving/predict"
            ),
            "regress_x_to_y": definition(
                {"inputs": info(examples)}, {"outputs": info(y)}, "tensorflow/serving/regress"
            ),
            "classify_x_to_y": definition(
                {"inputs": info(examples)}, {"scores": info(y)}, "tensorflow/serving/classify"
            ),
        }
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()


class Kinds(tf.Module):
    """Returns its inputs, of all kinds."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.string, name="text"),
            tf.TensorSpec([None, None], tf.float32, name="number"),
            tf.TensorSpec([None], tf.int32, name="count"),
            tf.TensorSpec([None], tf.bool, name="flag"),
        ]
    )
    def echo(self, text: Any, number: Any, count: Any, flag: Any) -> dict[str, Any]:
        return {"text": text, "text_bytes": text, "number": number, "count": count, "flag": flag}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def uneven(self, x: Any) -> dict[str, Any]:
        return {"all": x, "first": x[:1]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def copy(self, text: Any) -> dict[str, Any]:
        return {"copy": text}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def scalars(self, text: Any) -> dict[str, Any]:
        return {"joined": tf.strings.reduce_join(text), "count": tf.size(text)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def checked(self, x: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.debugging.assert_non_negative(x, "secret of the graph")]):
            return {"root": tf.sqrt(x)}


def write_kinds(folder: Path) -> None:
    module = Kinds()
    signatures = {name: getattr(module, name) for name in ("echo", "uneven", "copy", "scalars", "checked")}
    tf.saved_model.save(module, str(folder), signatures=signatures)


class Slow(tf.Module):
    """Adds a number, after a time; if `is_endless`, after hours for inputs of 1 and more."""

    def __init__(self, addend: float, steps: int, *, is_endless: bool = False) -> None:
        super().__init__()
        self._addend, self._steps, self._is_endless = addend, steps, is_endless

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def add(self, x: Any) -> dict[str, Any]:
        steps = tf.cast(x[0], tf.int32) * 1_000_000_000 if self._is_endless else self._steps
        turned = tf.while_loop(lambda n, _: n < steps, lambda n, y: (n + 1, -y), (0, x), parallel_iterations=1)[1]
        return {"y": tf.abs(turned) + self._addend}


def write_slow(folder: Path, addend: float = 1.0, steps: int = 2, *, is_endless: bool = False) -> None:
    module = Slow(addend, steps, is_endless=is_endless)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.add})


def add_version(folder: Path, version: int, addend: float, **options: Any) -> None:
    """Writes a version as an export does: it is there as a whole, or not at all."""
    write_slow(folder / f".{version}", addend, **options)
    os.rename(folder / f".{version}", folder / str(version))


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with half_plus_two/123, half_plus_three/123 and kinds/1."""
    folder = tmp_path_factory.mktemp("small_models")
    write_half_plus(folder / "half_plus_two" / "123", 2.0)
    write_half_plus(folder / "half_plus_three" / "123", 3.0)
    write_kinds(folder / "kinds" / "1")
    return folder


@contextlib.contextmanager
def serving(
    folder: Path, labels: dict[str, dict[str, int]] | None = None, grpc_address: str = "", **settings: Any
) -> Iterator[TestClient]:
    """A client of a server whose models are loaded."""
    store = ModelStore(folder, load_served, labels)
    app = make_app(store, ServerSettings(**{"poll_seconds": 0.05, **settings}), grpc_address=grpc_address)
    with TestClient(app) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        yield client


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def error_of(answer: Any) -> tuple[int, str]:
    """Status and message of an answer that must be an error, as TensorFlow Serving writes it."""
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    return answer.status_code, answer.json()["error"]


@contextlib.contextmanager
def listening(folder: Path, **settings: Any) -> Iterator[int]:
    """The port of a server that really listens, in a thread."""
    store = ModelStore(folder, load_served)
    app = make_app(store, ServerSettings(**{"poll_seconds": 0.05, **settings}))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until(lambda: store.is_ready)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def part_of(exports: Path, folder: Path, *names: str) -> Path:
    """A folder with some of the models only, which load faster than all."""
    for name in names:
        (folder / name).symlink_to(exports / name)
    return folder


@pytest.fixture(scope="session")
def exports(
    trained: Path,
    next_word_trained: Path,
    characters_trained: Path,
    translation_trained: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with an export of each task: sentiment, next_word, char_generation, translation_en_de."""
    folder = tmp_path_factory.mktemp("exports")
    for source in (trained, next_word_trained, characters_trained, translation_trained):
        shutil.copytree(source / "saved_models", folder, dirs_exist_ok=True)
    return folder
