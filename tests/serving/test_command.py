"""The command `nlp-rnn serve`, in a process of its own: what it serves, how it stops, which mistakes it tells."""

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

from nlp_rnn.cli import serve
from nlp_rnn.errors import ConfigError
from tests.conftest import ROOT, free_port
from tests.serving.conftest import MANY, ONE_ROW, TWO, add_version, wait_until, write_half_plus


@contextlib.contextmanager
def served(*arguments, cwd, **environment):
    """A server in a process of its own: (process, port)."""
    command = [sys.executable, "-m", "pipelines", "serve", "--port", "0", *arguments]
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    process = subprocess.Popen(
        command, cwd=cwd, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"listening at http://127\.0\.0\.1:(\d+)\n", line)
        assert found, (line, process.stderr.read())
        yield process, int(found[1])
    finally:
        process.kill()
        process.communicate()


def fetch(port, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_the_command_serves_and_finishes_requests_at_sigterm(tmp_path):
    write_half_plus(tmp_path / "saved_models" / "half_plus_two" / "1", 2.0)
    add_version(tmp_path / "saved_models" / "m", 1, 1.0, steps=MANY)
    with served("--shutdown-seconds", "60", cwd=tmp_path, NLP_RNN_TOKEN="t") as (process, port):
        bearer = {"Authorization": "Bearer t"}
        wait_until(lambda: fetch(port, "GET", "/readyz")[0] == 200)
        assert fetch(port, "POST", TWO, ONE_ROW)[0] == 401
        assert fetch(port, "POST", TWO, ONE_ROW, bearer) == (200, '{"predictions": [2.5]}')
        answers = []
        slow = threading.Thread(
            target=lambda: answers.append(fetch(port, "POST", "/v1/models/m:predict", ONE_ROW, bearer))
        )
        slow.start()
        wait_until(lambda: "nlp_rnn_running_requests 2" in fetch(port, "GET", "/metrics", headers=bearer)[1] or answers)
        assert not answers  # it takes seconds
        process.send_signal(signal.SIGTERM)
        slow.join()
        errors = process.communicate(timeout=120)[1]
        assert answers == [(200, '{"predictions": [2.0]}')]
        assert process.returncode == 0
    assert "Traceback" not in errors
    assert "INFO stopped" in errors


def ask_in_a_thread(port, model):
    """Sends a request: (thread, the list that gets its answer)."""
    answers = []

    def ask():
        with contextlib.suppress(OSError, http.client.HTTPException):  # the server is killed at the end of a test
            answers.append(fetch(port, "POST", f"/v1/models/{model}:predict", ONE_ROW))

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, answers


def test_what_takes_longer_than_the_time_for_shutdown_gets_503_and_the_process_ends(tmp_path):
    add_version(tmp_path / "saved_models" / "m", 1, 1.0, is_endless=True)
    with served("--shutdown-seconds", "1", cwd=tmp_path) as (process, port):
        wait_until(lambda: fetch(port, "GET", "/readyz")[0] == 200)
        thread, answers = ask_in_a_thread(port, "m")
        wait_until(lambda: "nlp_rnn_running_requests 2" in fetch(port, "GET", "/metrics")[1])
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=60)[1]
        thread.join()
        assert answers == [(503, '{"error": "this server stops before the answer is computed; try again"}')]
        assert process.returncode == 0
    assert "Traceback" not in errors
    assert "INFO stopped" in errors


def test_at_sigterm_grpc_accepts_no_more_requests_either(tmp_path):
    grpc = pytest.importorskip("grpc")
    from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
    from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub

    add_version(tmp_path / "saved_models" / "m", 1, 1.0, is_endless=True)
    request = GetModelStatusRequest()
    request.model_spec.name = "m"
    with served("--grpc-port", "0", "--shutdown-seconds", "30", cwd=tmp_path) as (process, port):
        address = re.fullmatch(r"listening at (.*) \(gRPC\)\n", process.stdout.readline())[1]
        wait_until(lambda: fetch(port, "GET", "/readyz")[0] == 200)
        with grpc.insecure_channel(address) as channel:
            stub = ModelServiceStub(channel)
            assert stub.GetModelStatus(request).model_version_status[0].version == 1
            ask_in_a_thread(port, "m")
            wait_until(lambda: "nlp_rnn_running_requests 2" in fetch(port, "GET", "/metrics")[1])
            process.send_signal(signal.SIGTERM)

            def is_refused():
                try:
                    stub.GetModelStatus(request)
                except grpc.RpcError as error:
                    return error.code() == grpc.StatusCode.UNAVAILABLE
                return False

            wait_until(is_refused, seconds=20)
        assert process.poll() is None  # the request over HTTP still has its time


def test_long_computations_of_some_models_do_not_stop_the_others(tmp_path):
    write_half_plus(tmp_path / "saved_models" / "half_plus_two" / "1", 2.0)
    for name in ("m", "n"):
        add_version(tmp_path / "saved_models" / name, 1, 1.0, is_endless=True)
    # On two processors, TensorFlow by itself would have two threads between operations.
    with served(cwd=tmp_path) as (_, port):
        wait_until(lambda: fetch(port, "GET", "/readyz")[0] == 200)
        for name in ("m", "n"):
            ask_in_a_thread(port, name)
        wait_until(lambda: "nlp_rnn_running_requests 3" in fetch(port, "GET", "/metrics")[1])
        assert fetch(port, "POST", TWO, ONE_ROW) == (200, '{"predictions": [2.5]}')


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "none"], "--models is none, but there is no such folder; export a model, or give another folder"),
        (["--models", "."],
         "--models is ., but holds no exported model (NAME/VERSION/saved_model.pb); export one first"),
        (["--label", "a=1"], "--label is 'a=1', but must be MODEL/LABEL=VERSION, such as sentiment/stable=3"),
        (["--models", ".", "--port", "9000", "--grpc-port", "9000"],
         "--grpc-port is 9000, as --port; give two different ports"),
        (["--models", ".", "--host", "a..b"],
         "nlp-rnn serve: --host a..b --port 0: not the name of a machine; choose another address or port"),
        (["--token-file", "empty"], "--token-file is empty, but the file is empty; write a token into it"),
        (["--port", "70000"],
         "nlp-rnn serve: argument --port: is '70000', but must be a number from 0 to 65535; see nlp-rnn serve --help"),
        (["--max-rows", "0"], "--max-rows is 0, but must be greater than or equal to 1"),
    ],
)  # fmt: skip
def test_mistakes_are_told(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").touch()
    port = [] if "--port" in arguments else ["--port", "0"]
    with pytest.raises(ConfigError) as caught:
        serve.main([*arguments, *port])
    assert message in str(caught.value)


def test_a_label_of_what_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "saved_model.pb").touch()
    for label in ("m/stable=2", "n/stable=1"):
        with pytest.raises(ConfigError) as caught:
            serve.main(["--models", ".", "--port", "0", "--label", label])
        assert str(caught.value) == f"--label is {label}, but there is no such model and version; there are m 1"


def test_answers_are_sent_at_once():
    # Without the protocol, asyncio leaves Nagle's algorithm on: each answer took 48 ms instead of 2.
    with serve._listener("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_a_port_that_is_taken_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    port = free_port()
    with serve._listener("127.0.0.1", port), pytest.raises(ConfigError) as caught:
        serve.main(["--models", ".", "--port", str(port)])
    assert str(caught.value) == (
        f"nlp-rnn serve: --host 127.0.0.1 --port {port}: Address already in use; choose another address or port"
    )
