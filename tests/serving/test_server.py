"""Versions, limits, tokens, logs and figures of a server, and the command itself."""

import contextlib
import http.client
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest

from nlp_rnn.cli import serve
from nlp_rnn.errors import ConfigError
from nlp_rnn.serving.limits import Limits
from tests.conftest import ROOT, free_port
from tests.serving.conftest import error_of, serving, wait_until, write_half_plus, write_slow

TWO = "/v1/models/half_plus_two:predict"
ONE_ROW = '{"instances": [1.0]}'
MANY = 1_000_000  # steps of a model that takes a second or more


def add_version(folder, version, addend, **options):
    """Writes a version as an export does: it is there as a whole, or not at all."""
    write_slow(folder / f".{version}", addend, **options)
    os.rename(folder / f".{version}", folder / str(version))


# --- versions ---------------------------------------------------------------------------------------------------------


def state_of(client, version):
    states = client.get("/v1/models/m").json().get("model_version_status", [])
    return next((each["state"] for each in states if each["version"] == str(version)), None)


def test_versions_change_without_a_failed_or_wrong_answer(tmp_path, caplog):
    folder = tmp_path / "m"
    add_version(folder, 1, 1.0)
    answers, stopped = [], threading.Event()
    with serving(tmp_path) as client:

        def ask(x):
            while not stopped.is_set():
                answer = client.post("/v1/models/m:predict", json={"instances": [x]})
                answers.append((answer.status_code, answer.json().get("predictions", [0])[0] - x))

        threads = [threading.Thread(target=ask, args=(float(x),)) for x in range(3)]
        for thread in threads:
            thread.start()
        try:
            add_version(folder, 2, 2.0)
            wait_until(lambda: state_of(client, 2) == "AVAILABLE" and state_of(client, 1) == "END")
            (folder / "3").mkdir()
            (folder / "3" / "saved_model.pb").write_bytes(b"broken")
            wait_until(lambda: state_of(client, 3) == "END")
            add_version(folder, 4, 4.0)
            wait_until(lambda: state_of(client, 4) == "AVAILABLE")
            wait_until(lambda: answers[-1][1] == 4.0)
        finally:
            stopped.set()
            for thread in threads:
                thread.join()
        assert {status for status, _ in answers} == {200}
        assert list(dict.fromkeys(addend for _, addend in answers)) == [1.0, 2.0, 4.0]
        states = client.get("/v1/models/m").json()["model_version_status"]
        assert [each["version"] for each in states] == ["4", "3", "2", "1"]
        assert states[1]["status"] == {
            "error_code": "FAILED_PRECONDITION", "error_message": "the version does not load; see the log",
        }  # fmt: skip
    assert sum("m: version 3 is not served" in record.message for record in caplog.records) == 1


def test_a_broken_version_is_tried_again_when_it_changes(tmp_path):
    folder = tmp_path / "m"
    add_version(folder, 1, 1.0)
    write_slow(tmp_path / "other", 2.0)
    (folder / "2").mkdir()
    (folder / "2" / "saved_model.pb").write_bytes((tmp_path / "other" / "saved_model.pb").read_bytes()[:100])
    with serving(tmp_path) as client:
        assert client.post("/v1/models/m:predict", content=ONE_ROW).json() == {"predictions": [2.0]}
        assert state_of(client, 2) == "END"
        shutil.copytree(tmp_path / "other", folder / "2", dirs_exist_ok=True)
        wait_until(lambda: state_of(client, 2) == "AVAILABLE")
        assert client.post("/v1/models/m:predict", content=ONE_ROW).json() == {"predictions": [3.0]}
        shutil.rmtree(folder / "2")  # takes the version back
        wait_until(lambda: client.post("/v1/models/m:predict", content=ONE_ROW).json() == {"predictions": [2.0]})


def test_a_version_whose_files_are_exchanged_is_loaded_again(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    folder = tmp_path / "m"
    add_version(folder, 1, 1.0)
    write_slow(tmp_path / ".other", 2.0)
    with serving(tmp_path) as client:
        assert client.post("/v1/models/m:predict", content=ONE_ROW).json() == {"predictions": [2.0]}
        shutil.rmtree(folder / "1")  # the folder has no version now
        wait_until(lambda: any("m: has no versions" in record.message for record in caplog.records))
        shutil.move(tmp_path / ".other", folder / "1")
        wait_until(lambda: client.post("/v1/models/m:predict", content=ONE_ROW).json() == {"predictions": [3.0]})
        wait_until(lambda: any("m: version 1 is unloaded" in record.message for record in caplog.records))
        assert state_of(client, 1) == "AVAILABLE"
        (folder / "1" / "saved_model.pb").write_bytes(b"broken")
        wait_until(lambda: any("stays served as before" in record.message for record in caplog.records))
        assert client.post("/v1/models/m:predict", content=ONE_ROW).json() == {"predictions": [3.0]}
        assert state_of(client, 1) == "AVAILABLE"


def test_labelled_versions_stay_served(tmp_path):
    for version in (1, 2, 3):
        add_version(tmp_path / "m", version, float(version))
    with serving(tmp_path, {"m": {"stable": 1}}) as client:
        paths = ("", "/labels/stable", "/versions/1", "/versions/3")
        answers = [client.post(f"/v1/models/m{path}:predict", content=ONE_ROW).json() for path in paths]
        assert answers == [{"predictions": [value]} for value in (4.0, 2.0, 2.0, 4.0)]
        assert error_of(client.post("/v1/models/m/versions/2:predict", content=ONE_ROW)) == (
            404, "Servable not found for request: Specific(m, 2)",
        )  # fmt: skip


def test_other_folders_are_no_models(small_models, tmp_path):
    shutil.copytree(small_models / "half_plus_two", tmp_path / "m")
    (tmp_path / "m" / "notes").mkdir()
    (tmp_path / "next_word_litert" / "1").mkdir(parents=True)
    shutil.copytree(small_models / "half_plus_two", tmp_path / ".hidden")
    with serving(tmp_path) as client:
        assert [(model["name"], model["version"]) for model in client.get("/models").json()["models"]] == [("m", 123)]


def test_until_models_are_loaded_the_server_is_not_ready(tmp_path, caplog):
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "saved_model.pb").write_bytes(b"broken")
    from starlette.testclient import TestClient

    from nlp_rnn.serving.app import make_app
    from nlp_rnn.serving.engine import ServerSettings
    from nlp_rnn.serving.model_store import ModelStore
    from nlp_rnn.serving.served_model import load_served

    store = ModelStore(tmp_path, load_served)
    with TestClient(make_app(store, ServerSettings(poll_seconds=1000))) as client:
        wait_until(lambda: state_of(client, 1) == "END")
        assert client.get("/models").json() == {"models": []}
        assert (client.get("/healthz").status_code, client.get("/readyz").status_code) == (200, 503)
        wait_until(lambda: client.post("/v1/models/m:predict", content=ONE_ROW).status_code == 404)


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def limited(small_models):
    limits = Limits(max_body_bytes=1000, max_text_bytes=10, max_rows=3, max_beam=4, max_generated=5)
    with serving(small_models, limits=limits) as client:
        yield client


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"instances": [1, 2, 3, 4]}, "the request has 4 rows, but this server allows at most 3 rows per request"),
        ({"instances": [1], "more": "a" * 971},
         "the request has 1001 bytes, but this server allows at most 1000 bytes per request"),
    ],
)  # fmt: skip
def test_requests_over_a_limit_are_too_large(limited, request_, message):
    assert error_of(limited.post(TWO, content=json.dumps(request_))) == (413, message)


def test_long_texts_are_too_large(limited):
    body = {"signature_name": "copy", "instances": ["a", "äöüäöü"]}
    assert error_of(limited.post("/v1/models/kinds:predict", json=body)) == (
        413, "text has a text of 12 bytes, but this server allows at most 10 bytes per text",
    )  # fmt: skip


def test_large_settings_are_too_large(limited):
    row = {"text": [], "number": [], "count": 6, "flag": True}
    body = {"signature_name": "echo", "instances": [row]}
    assert error_of(limited.post("/v1/models/kinds:predict", json=body)) == (
        413, "count is 6, but this server allows at most 5",
    )  # fmt: skip


def test_a_body_without_a_length_is_limited_too(limited):
    pieces = (b"a" * 100 for _ in range(20))
    assert error_of(limited.post(TWO, content=pieces)) == (
        413, "the request is too long, but this server allows at most 1000 bytes per request",
    )  # fmt: skip


def test_requests_take_limited_time_and_their_number_is_limited(tmp_path):
    add_version(tmp_path / "m", 1, 1.0, steps=MANY)
    limits = Limits(timeout_seconds=0.4, max_requests=2)
    with serving(tmp_path, limits=limits) as client:
        answers = []

        def ask():
            answers.append(error_of(client.post("/v1/models/m:predict", content=ONE_ROW)))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        slow = (504, "the answer takes longer than this server's 0.4 seconds")
        many = (429, "this server answers 2 requests at a time; try again later")
        assert sorted(answers) == [many, many, slow, slow]
        assert client.get("/healthz").status_code == 200


# --- tokens, origins, logs --------------------------------------------------------------------------------------------


def test_a_token_is_wanted_everywhere_but_by_probes(small_models):
    with serving(small_models, token="geheim ü") as client:
        for path in ("/v1/models/half_plus_two", "/metrics", "/models", "/index"):
            for wrong in ({}, {"Authorization": "Bearer geheim"}, {"Authorization": "Basic geheim"}):
                answer = client.get(path, headers=wrong)
                assert error_of(answer) == (401, "send the header Authorization: Bearer TOKEN")
                assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/healthz").text == "ok\n"
        right = {"Authorization": "bearer geheim ü".encode()}
        assert client.post(TWO, content=ONE_ROW, headers=right).json() == {"predictions": [2.5]}


def test_web_pages_may_not_call_unless_they_are_named(small_models):
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    with serving(small_models) as client:
        assert "access-control-allow-origin" not in client.post(TWO, content=ONE_ROW, headers=headers).headers
        assert client.options(TWO, headers=headers).status_code == 400
    with serving(small_models, allowed_origins=("https://a.example",), token="t") as client:
        allowed = client.options(TWO, headers=headers)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "https://a.example")
        assert client.options(TWO, headers={**headers, "Origin": "https://b.example"}).status_code == 400
        answer = client.post(TWO, content=ONE_ROW, headers={**headers, "Authorization": "Bearer t"})
        assert answer.headers["access-control-allow-origin"] == "https://a.example"


@pytest.mark.parametrize("logs_text", [False, True])
def test_the_log_names_requests_and_no_text(small_models, caplog, logs_text):
    caplog.set_level(logging.INFO)
    body = {"signature_name": "copy", "instances": ["private words"]}
    with serving(small_models, logs_text=logs_text) as client:
        answer = client.post("/v1/models/kinds:predict", json=body, headers={"X-Request-Id": "my-id.1"})
        assert answer.headers["x-request-id"] == "my-id.1"
        strange = client.get("/v1/models/a%0Ab", headers={"X-Request-Id": b"a b\xff"}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", strange)
        client.post(TWO, content='{"instances": ["private words"]}')
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("nlp_rnn")]
    assert any(re.fullmatch(r"my-id\.1 POST /v1/models/kinds:predict 200 [\d.]+ ms", line) for line in lines)
    assert any(line.startswith(f"{strange} GET /v1/models/a\\nb 404") for line in lines)
    assert any("private words" in line for line in lines) == logs_text


# --- figures ----------------------------------------------------------------------------------------------------------


def test_figures(small_models):
    with serving(small_models) as client:
        for _ in range(3):
            client.post(TWO, content='{"instances": [1.0, 2.0]}')
        client.post(TWO, content="")
        client.get("/v1/models/half_plus_two")
        client.get("/v1/models/none")
        answer = client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = answer.text.splitlines()
        assert client.get("/monitoring/prometheus/metrics").status_code == 200
    for line in (
        'nlp_rnn_requests_total{model="half_plus_two",method="predict",code="200"} 3',
        'nlp_rnn_requests_total{model="",method="predict",code="400"} 1',
        'nlp_rnn_requests_total{model="",method="status",code="404"} 1',
        'nlp_rnn_request_seconds_count{model="half_plus_two",method="predict"} 3',
        'nlp_rnn_request_seconds_bucket{model="half_plus_two",method="predict",le="+Inf"} 3',
        'nlp_rnn_batch_rows_bucket{model="half_plus_two",signature="serving_default",le="1"} 0',
        'nlp_rnn_batch_rows_bucket{model="half_plus_two",signature="serving_default",le="2"} 3',
        'nlp_rnn_batch_rows_sum{model="half_plus_two",signature="serving_default"} 6',
        'nlp_rnn_queued_requests{model="half_plus_two"} 0',
        "nlp_rnn_running_requests 1",
        'nlp_rnn_served_version{model="half_plus_two",version="123"} 1',
    ):
        assert line in lines
    assert all(re.fullmatch(r"# (HELP|TYPE) .+|[a-z_]+(\{[^{}]*\})? [\d.e+-]+", line) for line in lines)


def test_a_client_that_breaks_off_its_request_is_no_mistake_of_the_server(small_models, caplog):
    messages = [{"type": "http.disconnect"}, {"type": "http.request", "body": b"{", "more_body": True}]

    async def receive():
        return messages.pop()

    async def send(_):
        pass

    with serving(small_models) as client:
        scope = {"type": "http", "method": "POST", "path": TWO, "headers": [], "query_string": b""}
        client.portal.call(client.app, scope, receive, send)
        assert 'nlp_rnn_requests_total{model="",method="predict",code="499"} 1' in client.get("/metrics").text
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# --- the command ------------------------------------------------------------------------------------------------------


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
