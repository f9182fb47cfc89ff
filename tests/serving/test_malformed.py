"""Whatever a client sends, the server tells the client's mistake, and goes on."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_rnn.serving import json_tensors
from nlp_rnn.serving.request_errors import RequestError
from tests.serving.conftest import serving

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "number", "count", "flag", "b64", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)
REQUESTS = st.dictionaries(
    st.sampled_from(["instances", "inputs", "examples", "context", "prompt", "max_length"]),
    VALUES,
    min_size=1,
    max_size=2,
)
SIGNATURES = st.sampled_from(
    ["echo", "uneven", "copy", "scalars", "checked", "classify_x_to_y", "regress_x_to_y", None]
)
TARGETS = st.sampled_from(
    [f"{m}:{v}" for m in ("kinds", "half_plus_two") for v in ("predict", "classify", "regress", "stream")]
)


@pytest.fixture(scope="module")
def client(small_models):
    with serving(small_models) as client:
        yield client


@pytest.mark.parametrize(
    ("body", "python_3_11", "python_3_13", "told"),
    [
        ('{"a": 1, }', ("Expecting property name enclosed in double quotes", 9),
         ("Illegal trailing comma before end of object", 7), "Missing a name for object member. at offset: 9"),
        ("[1 ,\n]", ("Expecting value", 5),
         ("Illegal trailing comma before end of array", 3), "Invalid value. at offset: 5"),
    ],
)  # fmt: skip
def test_a_trailing_comma_is_told_alike_by_all_versions_of_python(monkeypatch, body, python_3_11, python_3_13, told):
    for text, place in (python_3_11, python_3_13):

        def fail(_, document, start, text=text, place=place):
            raise json.JSONDecodeError(text, document, place)

        monkeypatch.setattr(json.JSONDecoder, "raw_decode", fail)
        with pytest.raises(RequestError, match=re.escape(f"JSON Parse error: {told}")):
            json_tensors.parse_body(body.encode())


def check(client, target, body):
    answer = client.post(f"/v1/models/{target}", content=body)
    assert answer.status_code in (200, 400, 501), (body, answer.text)
    if answer.status_code != 200:
        assert list(answer.json()) == ["error"]
        assert "Traceback" not in answer.text


@settings(max_examples=300)
@given(target=TARGETS, request=REQUESTS, signature=SIGNATURES)
def test_json_of_all_kinds(client, target, request, signature):
    named = {} if signature is None else {"signature_name": signature}
    check(client, target, json.dumps(request | named))


@settings(max_examples=200)
@given(target=TARGETS, start=st.integers(0, 60), middle=st.binary(max_size=8), end=st.integers(0, 60))
def test_damaged_bodies(client, target, start, middle, end):
    row = b'{"text": ["a\\u00e9"], "number": [1.5e3], "count": 1, "flag": true}'
    body = b'{"signature_name": "echo", "instances": [' + row + b"]}"
    check(client, target, body[:start] + middle + body[end:])


@settings(max_examples=200)
@given(path=st.text(st.characters(codec="latin-1"), max_size=12), method=st.sampled_from(["GET", "POST"]))
def test_paths_of_all_kinds(client, path, method):
    raw = path.encode("latin-1").hex()
    quoted = "".join(f"%{raw[n : n + 2]}" for n in range(0, len(raw), 2))
    for url in (
        f"/v1/models/{quoted}:predict",
        f"/v1/models/{quoted}",
        f"/{quoted}",
        f"/v1/models/kinds/labels/{quoted}",
    ):
        assert client.request(method, url, content="{}").status_code in (200, 400, 404)


BODIES = [
    b"\xef\xbb\xbf{}", b"{", b"}", b'{"instances": [1e999]}', b'{"instances": [' + b"9" * 6000 + b"]}",
    b'{"instances": ["\\ud800"]}', b'{"instances": [1.0,]}', b'{"instances": [01]}', b"{'instances': [1]}",
    b'{"instances": [1]}{"instances": [1]}', b"\x00", b'{"instances": ["\x00"]}', b'{"a": ' * 5000, b"[" * 200_000,
    b'{"signature_name": "copy", "instances": ["\\udc80"]}', b'{"signature_name": "", "instances": [1]}',
    b'{"instances": [1], "instances": [2]}', b"nan", b"-", b'"', b"\xff\xfe{\x00}\x00",
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_a_corpus_of_bodies(client, body):
    for target in ("half_plus_two:predict", "kinds:predict", "half_plus_two:classify", "kinds:stream"):
        check(client, target, body)
