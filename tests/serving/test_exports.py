"""The exports of all tasks behind the server: answers, defaults, batches, streams."""

import contextlib
import http.client
import json
import math
import re
import shlex
import shutil
import threading
import time

import pytest

import nlp_rnn
from nlp_rnn.cli import serve
from nlp_rnn.serving.limits import Limits
from nlp_rnn.serving.model_store import ModelStore
from nlp_rnn.serving.served_model import load_served
from tests.conftest import ROOT
from tests.serving.conftest import error_of, listening, part_of, serving, wait_until

TEXTS = ["a good film", "the dull , boring story was awful and cold . " * 4, "", "lovely", "Ünbekannt 🎬"]


@pytest.fixture(scope="module")
def client(exports):
    with serving(exports, limits=Limits(max_generated=2000)) as client:
        yield client


@pytest.fixture(scope="module")
def models(exports):
    names = ("sentiment", "next_word", "char_generation", "translation_en_de")
    return {name: nlp_rnn.load(exports / name) for name in names}


def predict(client, model, rows, signature="serving_default"):
    answer = client.post(f"/v1/models/{model}:predict", json={"signature_name": signature, "instances": rows})
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


# --- answers ----------------------------------------------------------------------------------------------------------


def test_models_and_their_signatures_are_listed(client):
    found = {model["name"]: model for model in client.get("/models").json()["models"]}
    assert sorted(found) == ["char_generation", "next_word", "sentiment", "translation_en_de"]
    assert found["sentiment"] == {
        "name": "sentiment", "version": 1, "task": "sentiment", "labels": ["neg", "pos"],
        "has_label_sets": False,
        "signatures": ["explain", "serving_default", "tokenize"],
    }  # fmt: skip


def test_classification(client, models):
    for text, answer in zip(TEXTS, predict(client, "sentiment", TEXTS), strict=True):
        expected = models["sentiment"](text)
        assert answer["label"] == expected.label
        assert answer["probabilities"] == pytest.approx(list(expected.probabilities.values()), abs=1e-6)


def test_suggestions(client, models):
    expected = models["next_word"].suggest("The cat likes ", count=3)
    row = predict(client, "next_word", [{"text": "The cat likes ", "count": 3}], "suggest")[0]
    assert row["words"] == [each.word for each in expected]
    assert row["probabilities"] == pytest.approx([each.probability for each in expected], abs=1e-6)


def test_translations(client, models):
    text = "the old king sees the green garden today"
    expected = models["translation_en_de"].translate(text)
    row = predict(client, "translation_en_de", [text])[0]
    assert (row["translation"], row["score"]) == (expected.text, pytest.approx(expected.score, abs=1e-5))


# --- defaults ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "signature", "required"),
    [
        ("next_word", "suggest", {"text": "The cat "}),
        ("char_generation", "generate", {"prompt": "The "}),
        ("translation_en_de", "translate", {"text": "the young cook hears a song never"}),
        ("translation_en_de", "explain", {"text": "the young cook hears a song never"}),
    ],
)
def test_settings_may_be_left_out(client, models, exports, model, signature, required):
    rows = predict(client, model, [required, required], signature)
    columns = {name: [value, value] for name, value in required.items()}
    answer = client.post(f"/v1/models/{model}:predict", json={"signature_name": signature, "inputs": columns}).json()
    assert answer["outputs"] == {name: [row[name] for row in rows] for name in rows[0]}
    if signature == "generate":
        assert rows[0]["text"] == models[model].generate("The ").text
    if signature == "translate":
        assert rows[0]["translations"][0] == models[model].translate(required["text"]).text
    if signature == "suggest":
        assert rows[0]["words"] == [each.word for each in models[model].suggest("The cat ")]


@pytest.mark.parametrize(
    ("model", "signature", "required"),
    [
        ("next_word", "suggest", "text"),
        ("char_generation", "generate", "prompt"),
        ("translation_en_de", "translate", "text"),
    ],
)
def test_no_texts_have_no_answers(client, model, signature, required):
    request = {"signature_name": signature, "inputs": {required: []}}
    answer = client.post(f"/v1/models/{model}:predict", json=request)
    assert answer.status_code == 200, answer.text
    assert all(not column for column in answer.json()["outputs"].values())


@pytest.mark.further
def test_a_strict_server_fills_in_nothing(exports, tmp_path):
    with serving(part_of(exports, tmp_path, "next_word", "sentiment"), is_strict=True) as client:
        request = {"signature_name": "suggest", "instances": [{"text": "The cat "}]}
        assert error_of(client.post("/v1/models/next_word:predict", json=request)) == (
            400,
            "Failed to process element: 0 of 'instances' list. JSON object: "
            '{\n    "text": "The cat "\n} keys must be equal to: allow_profanity,count,text',
        )
        request = {"signature_name": "suggest", "inputs": {"text": ["The cat "]}}
        assert error_of(client.post("/v1/models/next_word:predict", json=request)) == (
            400, "Missing named input: allow_profanity in 'inputs' object.",
        )  # fmt: skip
        full = {"text": "The cat ", "count": 2, "allow_profanity": False}
        assert len(predict(client, "next_word", [full], "suggest")[0]["words"]) == 2
        assert len(predict(client, "sentiment", ["good"])) == 1  # the signature with one input needs no defaults


def test_what_has_no_default_must_be_given(client):
    request = {"signature_name": "suggest", "instances": [{"count": 2}]}
    status, message = error_of(client.post("/v1/models/next_word:predict", json=request))
    assert status == 400
    assert message.endswith("keys must be equal to: allow_profanity,count,text")


def test_beams_and_lengths_have_limits(client):
    for model, signature, row, message in (
        ("translation_en_de", "translate", {"text": "a", "beam_size": 33},
         "beam_size is 33, but this server allows at most 32"),
        ("char_generation", "generate", {"prompt": "a", "max_length": 2001},
         "max_length is 2001, but this server allows at most 2000"),
    ):  # fmt: skip
        request = {"signature_name": signature, "instances": [row]}
        assert error_of(client.post(f"/v1/models/{model}:predict", json=request)) == (413, message)


@pytest.mark.parametrize(
    ("model", "signature", "row", "message"),
    [
        ("char_generation", "generate", {"prompt": "a", "temperature": math.nan},
         "temperature is nan, but must be a finite number"),
        ("char_generation", "generate", {"prompt": "a", "top_p": -2.0},
         "top_p is -2.0, but must be greater than 0"),
        ("char_generation", "generate", {"prompt": "a", "max_length": -5},
         "max_length is -5, but must be greater than or equal to 1"),
        ("translation_en_de", "translate", {"text": "a", "beam_size": 0},
         "beam_size is 0, but must be greater than or equal to 1"),
        ("next_word", "suggest", {"text": "a", "count": -1}, "count is -1, but must be 1 or more"),
    ],
)  # fmt: skip
def test_settings_out_of_their_range_are_told_as_by_python(client, model, signature, row, message):
    body = json.dumps({"signature_name": signature, "instances": [row]})
    assert error_of(client.post(f"/v1/models/{model}:predict", content=body)) == (400, message)


# --- batches ----------------------------------------------------------------------------------------------------------

REQUESTS = [
    *(("sentiment", "serving_default", [text]) for text in TEXTS),
    *(("sentiment", signature, [text]) for signature in ("explain", "tokenize") for text in TEXTS[:2]),
    ("sentiment", "serving_default", TEXTS),
    *(("next_word", "serving_default", [text]) for text in ("The cat ", "A do", "", "The old king remembers the ")),
    *((model, "score", [text]) for model in ("next_word", "char_generation") for text in TEXTS[:2]),
    *(("next_word", "suggest", [{"text": "A dog ", "count": count}]) for count in (1, 2, 7, 7)),
    *(("char_generation", "generate", [{"prompt": "The ", "max_length": 30, "seed": seed}]) for seed in (1, 2, 3)),
    ("char_generation", "generate", [{"prompt": "A dog", "max_length": 9, "stop": [" ", "."]}]),
    *(("translation_en_de", "translate", [{"text": text, "beam_size": beam}])
      for text in ("the old king sees the long river often", "a song") for beam in (1, 3, 3)),
]  # fmt: skip


def test_answers_do_not_depend_on_what_is_computed_together(client):
    alone = [predict(client, model, rows, signature) for model, signature, rows in REQUESTS]
    before = batches(client)
    together: dict[int, list] = {}

    def ask(number):
        model, signature, rows = REQUESTS[number % len(REQUESTS)]
        together[number] = predict(client, model, rows, signature)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4 * len(REQUESTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(together) == len(threads)
    for number, answer in together.items():
        assert_alike(answer, alone[number % len(REQUESTS)])
    after = batches(client)
    assert after[0] - before[0] < len(threads)  # some were together
    assert after[1] - before[1] == 4 * sum(len(rows) for _, _, rows in REQUESTS)


def batches(client):
    """(number of batches, their rows), of all models."""
    lines = client.get("/metrics").text.splitlines()
    return [
        sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"nlp_rnn_batch_rows_{part}{{"))
        for part in ("count", "sum")
    ]


def assert_alike(one, other):
    """Equal texts and shapes, and numbers that are equal up to rounding."""
    if isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for name in one:
            assert_alike(one[name], other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_alike(left, right)
    else:
        assert one == other


# --- documentation ----------------------------------------------------------------------------------------------------


def test_the_commands_of_the_documentation(client):
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    lines = [
        shlex.split(line)
        for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    counts = dict.fromkeys(("nlp-rnn", "curl"), 0)
    for program, *words in lines:
        if program == "nlp-rnn" and words[0] == "serve":
            serve._parser().parse_args(words[1:])
            counts[program] += 1
        if program == "curl":
            path = next(word for word in words if word.startswith("localhost:8501")).removeprefix("localhost:8501")
            body = words[words.index("-d") + 1] if "-d" in words else None
            answer = client.request("POST" if body else "GET", path, content=body)
            assert answer.status_code == 200, (path, answer.text)
            counts[program] += 1
    assert min(counts.values()) > 0, counts


# --- versions ---------------------------------------------------------------------------------------------------------


def test_a_damaged_export_is_refused(exports, tmp_path, caplog):
    shutil.copytree(exports / "sentiment", tmp_path / "sentiment")
    shutil.copytree(exports / "sentiment" / "1", tmp_path / "sentiment" / "2")
    vocabulary = tmp_path / "sentiment" / "2" / "assets.extra" / "vocabulary"
    vocabulary.write_bytes(vocabulary.read_bytes().replace(b"film", b"flim"))
    store = ModelStore(tmp_path, load_served)
    store.update()
    assert store.find("sentiment").version == 1
    assert store.states("sentiment")[2].state == "END"
    assert any("vocabulary: was changed or damaged" in record.getMessage() for record in caplog.records)


# --- streams ----------------------------------------------------------------------------------------------------------


def events(text):
    """(kind, data) of server-sent events."""
    found = []
    for block in text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields.get("event", "message"), json.loads(fields["data"])))
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_length": 90, "seed": 4, "temperature": 0.5, "top_k": 5},
        {"max_length": 60, "stop": ["garden", "river"], "min_length": 2},
    ],
)
def test_a_stream_is_the_generated_text_in_pieces(client, models, settings):
    answer = client.post("/v1/models/char_generation:stream", json={"prompt": "The old king ", **settings})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *pieces, (kind, end) = events(answer.text)
    text = "".join(data["text"] for _, data in pieces)
    assert text == models["char_generation"].generate("The old king ", **settings).text
    assert (kind, end) == ("end", {"length": len(text)})
    assert len(pieces) > 1 or len(text) < 40


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "prompt is missing; give a text"),
        ({"prompt": 1}, 400, "prompt must be a text"),
        ({"prompt": "a", "top_p": 2}, 400, "top_p is 2, but must be less than or equal to 1"),
        ({"prompt": "a", "max_length": 5000}, 413, "max_length is 5000, but this server allows at most 2000"),
        (
            {"prompt": "a" * 100_001},
            413,
            "prompt has 100001 bytes, but this server allows at most 100000 bytes per text",
        ),
    ],
)
def test_mistakes_of_streams(client, body, status, message):
    assert error_of(client.post("/v1/models/char_generation:stream", json=body)) == (status, message)


def test_unknown_settings_of_streams(client):
    for name in ("temprature", "cls"):
        answer = client.post("/v1/models/char_generation:stream", json={"prompt": "a", name: 1})
        assert error_of(answer)[0] == 400
        assert name in error_of(answer)[1]


def test_only_generation_streams(client):
    assert error_of(client.post("/v1/models/sentiment:stream", json={"prompt": "a"})) == (
        501, "sentiment does not generate text; models of char_generation do",
    )  # fmt: skip
    assert error_of(client.post("/v1/models/none:stream", json={"prompt": "a"})) == (
        404, "Servable not found for request: Latest(none)",
    )  # fmt: skip


@contextlib.contextmanager
def stream(port, **settings):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/v1/models/char_generation:stream", json.dumps({"prompt": "The ", **settings}))
        yield connection.getresponse()
    finally:
        connection.close()


@pytest.mark.further
def test_pieces_come_while_the_text_is_generated(exports, tmp_path):
    with listening(part_of(exports, tmp_path, "char_generation")) as port:
        with stream(port, max_length=10_000) as answer:
            start = time.monotonic()
            first = answer.readline() and time.monotonic() - start
            rest = answer.read()
            whole = time.monotonic() - start
        assert b"event: end" in rest
        assert first < whole / 5
        # A client that goes away ends its stream: the request is over long before the text would be.
        with stream(port, max_length=10_000) as answer:
            answer.readline()
        gone = time.monotonic()

        def is_over():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
            connection.close()
            return "nlp_rnn_running_requests 1\n" in text

        wait_until(is_over)
        assert time.monotonic() - gone < whole / 2


@pytest.mark.further
def test_a_stream_ends_at_the_limit_of_time(exports, tmp_path):
    with serving(part_of(exports, tmp_path, "char_generation"), limits=Limits(timeout_seconds=0.2)) as client:
        answer = client.post("/v1/models/char_generation:stream", json={"prompt": "The ", "max_length": 10_000})
    assert events(answer.text)[-1] == ("error", {"error": "the text takes longer than this server allows"})
