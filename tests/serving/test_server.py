"""Versions, limits, tokens, logs and figures of a server."""

import json
import logging
import re
import shutil
import threading

import pytest

from nlp_rnn.serving.limits import Limits
from tests.serving.conftest import MANY, ONE_ROW, TWO, add_version, error_of, serving, wait_until, write_slow

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
