"""TensorFlow Serving's REST API, by the requests and answers of its own documentation and tests.

Sources: http_rest_api_handler_test.cc, json_tensor_test.cc, get_model_status_impl_test.cc; the comments name the test.
"""

import json

import pytest

from tests.serving.conftest import error_of, serving

TWO, THREE, KINDS = "/v1/models/half_plus_two", "/v1/models/half_plus_three", "/v1/models/kinds"


@pytest.fixture(scope="module")
def client(small_models):
    with serving(small_models, {"half_plus_two": {"production": 123, "later": 124}}) as client:
        yield client


def post(client, path, text):
    return client.post(path, content=text)


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [  # UnsupportedApiCalls
        ("GET", "/v1/foo"), ("POST", "/v1/foo"), ("GET", "/v1/models/debug/model_name"), ("POST", "/v1/models"),
        ("GET", "/v1/models/foo:predict"), ("GET", "/v1/models/foo/version/50:predict"),
        ("POST", "/v1/models/foo/version/50:regress"), ("POST", "/v1/models/foo/versions/HELLO:regress"),
        ("POST", "/v1/models/foo/metadata"), ("POST", "/v1/models/foo/label/some_label:regress"),
        ("POST", "/v1/models/foo/versions/50/labels/some_label:regress"),
        ("POST", "/v1/models/foo/versions/some_label:regress"), ("PUT", "/v1/models/half_plus_two:predict"),
    ],
)  # fmt: skip
def test_other_paths_are_malformed(client, method, path):
    assert error_of(client.request(method, path)) == (400, f"Malformed request: {method} {path}")


def test_versions_beyond_64_bits_are_no_numbers(client):
    for number in (str(2**64 - 1), "9" * 5000):
        assert error_of(post(client, f"/v1/models/foo/versions/{number}:regress", "")) == (
            400, f"Failed to convert version: {number[:200]} to numeric.",
        )  # fmt: skip


def test_a_model_must_be_named(client):
    assert error_of(client.get("/v1/models")) == (400, "Missing model name in request.")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/models/half:predict", "Latest(half)"),
        ("/v1/models/half/versions/50:predict", "Specific(half, 50)"),
        (f"{TWO}/versions/99:predict", "Specific(half_plus_two, 99)"),
        ("/v1/models/..%2F..%2Fetc:predict", "Latest(../../etc)"),
        ("/v1/models/%2e%2e:predict", "Latest(..)"),
    ],
)
def test_models_that_are_not_served_are_not_found(client, path, name):
    assert error_of(post(client, path, '{"instances": [1]}')) == (404, f"Servable not found for request: {name}")


def test_paths_ignore_the_case_of_all_but_names(client):
    body = '{"instances": [1.0]}'
    assert post(client, "/V1/Models/half_plus_two/VERSIONS/123:PREDICT", body).json() == {"predictions": [2.5]}
    assert post(client, "/v1/models/Half_plus_two:predict", body).status_code == 404
    assert post(client, "/v1/models/half%5Fplus%5Ftwo:predict", body).json() == {"predictions": [2.5]}


def test_what_is_outside_of_the_api_is_not_found(client):
    assert error_of(client.get("/index")) == (404, "Not found")


# --- predict ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        (f"{THREE}:predict", '{"instances": [1.0,2.0,5.0]}', '{"predictions": [3.5, 4.0, 5.5]}'),  # the tutorial
        (f"{TWO}:predict", '{"instances": [[1.0, 2.0], [3.0, 4.0]]}', '{"predictions": [[2.5, 3.0], [3.5, 4.0]]}'),
        (f"{TWO}/versions/123:predict", '{"instances": [1.0, 2.0]}', '{"predictions": [2.5, 3.0]}'),
        (f"{TWO}/labels/production:predict", '{"instances": [1.0, 2.0]}', '{"predictions": [2.5, 3.0]}'),
        (f"{TWO}:predict", '{"signature_name": "serving_default", "instances": [3.0, 4.0]}',
         '{"predictions": [3.5, 4.0]}'),
        (f"{TWO}:predict", '{"signature_name": "serving_default", "inputs": [3.0, 4.0]}', '{"outputs": [3.5, 4.0]}'),
        (f"{TWO}:predict", '{"inputs": {"x": [3, 4], "extra": 1}}', '{"outputs": [3.5, 4.0]}'),
        (f"{TWO}:predict", '{"inputs": {"x": 3}}', '{"outputs": 3.5}'),
        (f"{TWO}:predict", '{"instances": [{"x": 3.0}, {"x": 4.0}]}', '{"predictions": [3.5, 4.0]}'),
        (f"{TWO}:predict", '{"instances": [NaN, Infinity, -Infinity]}', '{"predictions": [NaN, Infinity, -Infinity]}'),
        (f"{TWO}:predict", '{"instances": [1e300, -1e300]}', '{"predictions": [Infinity, -Infinity]}'),
        (f"{TWO}:predict", '{"instances": [1.0]} and what follows', '{"predictions": [2.5]}'),
        (f"{TWO}:predict", '{"inputs": []}', '{"outputs": []}'),
    ],
)  # fmt: skip
def test_predictions(client, path, body, answer):
    done = post(client, path, body)
    assert (done.status_code, done.headers["content-type"], done.text) == (200, "application/json", answer)


def test_whole_floats_and_long_ones(client):  # FromJsonSingleFloatTensorSixDigitPrecision
    row = {
        "text": [],
        "number": [9000000, 999999, 0.5, 0.0003, 0.00003, 555557.5, 0.1234567, -0.0],
        "count": 1,
        "flag": True,
    }
    body = json.dumps({"signature_name": "echo", "instances": [row]})
    assert (
        '"number": [9e+06, 999999.0, 0.5, 0.0003, 3e-05, 555557.5, 0.123456702, -0.0]'
        in post(client, f"{KINDS}:predict", body).text
    )


ECHO = {"text": ["hello", {"b64": "d29ybGQ="}], "number": [1, 2.5], "count": 3, "flag": True}


def test_values_of_all_kinds_in_rows(client):  # FromJsonMultipleNamedTensors
    body = json.dumps({"signature_name": "echo", "instances": [ECHO, {**ECHO, "count": -4, "flag": False}]})
    row = {
        "count": 3, "flag": True, "number": [1.0, 2.5], "text": ["hello", "world"],
        "text_bytes": [{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}],
    }  # fmt: skip
    assert post(client, f"{KINDS}:predict", body).json() == {"predictions": [row, {**row, "count": -4, "flag": False}]}


def test_values_of_all_kinds_in_columns(client):
    columns = {name: [value, value] for name, value in ECHO.items()}
    answer = post(client, f"{KINDS}:predict", json.dumps({"signature_name": "echo", "inputs": columns}))
    assert answer.json() == {
        "outputs": {
            "count": [3, 3], "flag": [True, True], "number": [[1.0, 2.5]] * 2, "text": [["hello", "world"]] * 2,
            "text_bytes": [[{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}]] * 2,
        }
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "é", "漢字 🎬", "שלום", '"quoted" \\ \n\t', "\u2028", "\x7f"], ids=ascii)
def test_texts_come_back_unchanged(client, text):
    body = json.dumps({"signature_name": "copy", "instances": [text]})
    assert post(client, f"{KINDS}:predict", body).json() == {"predictions": [text]}
    raw = json.dumps({"signature_name": "copy", "instances": [text]}, ensure_ascii=False).encode()
    assert post(client, f"{KINDS}:predict", raw).json() == {"predictions": [text]}


def test_a_single_input_can_be_base64(client):  # SingleUnnamedTensorBase64Scalars
    body = '{"signature_name": "copy", "instances": [{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}]}'
    assert post(client, f"{KINDS}:predict", body).json() == {"predictions": ["hello", "world"]}


def test_text_that_is_not_utf_8_reaches_the_model(client):
    body = b'{"signature_name": "copy", "instances": ["a\xff"]}'
    assert post(client, f"{KINDS}:predict", body).json() == {"predictions": ["a\ufffd"]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "JSON Parse error: The document is empty"),
        (" \n", "JSON Parse error: The document is empty"),
        ("instances = [1, 2]", "JSON Parse error: Invalid value. at offset: 0"),
        ('{"instances": [1 2]}', "JSON Parse error: Missing a comma or ] after an array element. at offset: 17"),
        ('{"instances": [1] "a": 2}', "JSON Parse error: Missing a comma or } after an object member. at offset: 18"),
        ('{"instances" [1]}', "JSON Parse error: Missing a colon after a name of object member. at offset: 13"),
        ('{instances: [1]}', "JSON Parse error: Missing a name for object member. at offset: 1"),
        ('{"instances": ["a', "JSON Parse error: Missing a closing quotation mark in string. at offset: 15"),
        ("[1]", "JSON Value: [1] Is not object"),
        ("null", "JSON Value: null Is not object"),
        ('{"signature_name": 100}',
         'JSON Value: {\n    "signature_name": 100\n} not formatted correctly. '
         "'signature_name' key must be a string value."),
        ('{"signature_name": "none", "instances": [1]}',
         'Serving signature name: "none" not found in signature def'),
        ("{}", "Missing 'inputs' or 'instances' key"),
        ('{"instances": [1], "inputs": [1]}',
         'JSON Value: {\n    "instances": [1],\n    "inputs": [1]\n} Not formatted correctly expecting only one of '
         "'inputs' or 'instances' keys to exist "),
        ('{"instances": 1}', 'JSON Value: {\n    "instances": 1\n} Expecting \'instances\' to be an list/array'),
        ('{"instances": []}', 'JSON Value: {\n    "instances": []\n} No values in \'instances\' array'),
        ('{"instances": ["x"]}',
         "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
         'JSON Value: "x" Type: String is not of expected type: float'),
        ('{"instances": [true]}',
         "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
         "JSON Value: true Type: True is not of expected type: float"),
        ('{"instances": [null]}',
         "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
         "JSON Value: null Type: Null is not of expected type: float"),
        ('{"instances": [[1,2],[3,4],[5,6,7]]}',
         "Failed to process element: 2 of 'instances' list. Error: INVALID_ARGUMENT: "
         "Expecting tensor size: 2 but got: 3"),
        ('{"instances": [[1,2],[3,4],[[5,6]]]}',
         "Failed to process element: 2 of 'instances' list. Error: INVALID_ARGUMENT: "
         "Expecting shape [2] but got: [1,2]"),
        ('{"instances": [1, [1]]}',
         "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting shape [] but got: [1]"),
        ('{"instances": [[1, [2]]]}',
         "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
         "Encountered list at unexpected level: 1 expected < 1"),
        ('{"instances": [[[1], 2]]}',
         "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
         "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ('{"inputs": {"y": [1]}}', "Missing named input: x in 'inputs' object."),
        ('{"instances": [{"z": 1}]}',
         "Failed to process element: 0 key: z of 'instances' list. Error: INVALID_ARGUMENT: "
         "JSON object: does not have named input: z"),
        ('{"instances": [{"x": 1}, 2]}', "Expecting object but got list at item 1 of input list"),
        ('{"instances": [1, {"x": 1}]}', "Expecting value/list but got object at item 1 of input list"),
    ],
)  # fmt: skip
def test_errors_of_predictions(client, body, message):
    assert error_of(post(client, f"{TWO}:predict", body)) == (400, message)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"instances": [1]},
         "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
         "tensorinfo_map"),
        ({"inputs": [1]},
         "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
         "tensorinfo_map"),
        ({"instances": [{"count": 1, "flag": True}]},
         "Failed to process element: 0 of 'instances' list. JSON object: "
         '{\n    "count": 1,\n    "flag": true\n} keys must be equal to: count,flag,number,text'),
        ({"instances": [{"count": 1.0}]},
         "Failed to process element: 0 key: count of 'instances' list. Error: INVALID_ARGUMENT: "
         "JSON Value: 1.0 Type: Number is not of expected type: int32"),
        ({"instances": [{"count": 2**31}]},
         "Failed to process element: 0 key: count of 'instances' list. Error: INVALID_ARGUMENT: "
         "JSON Value: 2147483648 Type: Number is not of expected type: int32"),
        ({"instances": [{"text": {"b64": "a", "c": 1}}]},
         "Failed to process element: 0 key: text of 'instances' list. Error: INVALID_ARGUMENT: "
         'JSON Value: {\n    "b64": "a",\n    "c": 1\n} not formatted correctly for base64 data'),
        ({"instances": [{"text": {"b64": "*"}}]},
         "Failed to process element: 0 key: text of 'instances' list. Error: INVALID_ARGUMENT: "
         "Unable to base64 decode"),
        ({"instances": [{"b64": "aGVsbG8="}]},
         "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
         'JSON Value: {\n    "b64": "aGVsbG8="\n} Type: Object is not of expected type: int32'),
        ({"inputs": {"text": [["a"]], "number": [1], "count": [1], "flag": [True]}},
         "input number has the shape [1], but the signature takes [?,?]"),
    ],
)  # fmt: skip
def test_errors_of_several_inputs(client, request_, message):
    answer = post(client, f"{KINDS}:predict", json.dumps({"signature_name": "echo", **request_}))
    assert error_of(answer) == (400, message)


def test_outputs_of_rows_have_one_size(client):  # FromJsonMultipleNamedTensorsErrors
    body = '{"signature_name": "uneven", "%s": [1, 2]}'
    assert error_of(post(client, f"{KINDS}:predict", body % "instances")) == (
        400, "Tensor name: first has inconsistent batch size: 1 expecting: 2",
    )  # fmt: skip
    assert post(client, f"{KINDS}:predict", body % "inputs").json()["outputs"]["first"] == [1.0]


def test_outputs_without_rows(client):
    body = '{"signature_name": "scalars", "%s": ["a", "b"]}'
    assert post(client, f"{KINDS}:predict", body % "inputs").json() == {"outputs": {"count": 2, "joined": "ab"}}
    assert error_of(post(client, f"{KINDS}:predict", body % "instances")) == (
        400, "Tensor name: count has no shape information ",
    )  # fmt: skip


def test_an_error_of_the_graph_shows_nothing_of_it(client):
    body = '{"signature_name": "checked", "instances": [4, -1]}'
    assert error_of(post(client, f"{KINDS}:predict", body)) == (
        400, "the model cannot compute these inputs (InvalidArgumentError)",
    )  # fmt: skip


@pytest.mark.parametrize("opening", ['{"a":', "[", '{"signature_name":[', '{"instances":[['])
def test_deep_nesting_is_a_mistake_of_the_client(client, opening):  # DeeplyNestedMalformed
    status, message = error_of(post(client, f"{TWO}:predict", opening * 100_000))
    assert (status, message) == (400, "JSON Parse error: The document is nested too deeply")
    closing = {"[": "]", "{": "}"}[opening[-1] if opening[-1] in "[{" else "{"]
    assert post(client, f"{TWO}:predict", '{"instances": ' + "[" * 200 + "]" * 200 + closing).status_code == 400


# --- classify and regress ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "body", "answer"),
    [
        (":regress", '{"signature_name": "regress_x_to_y", "examples": [{"x": 80.0}]}', '{"results": [42.0]}'),
        ("/versions/123:regress", '{"signature_name": "regress_x_to_y", "examples": [{"x": [80.0]}]}',
         '{"results": [42.0]}'),
        ("/labels/production:regress",
         '{"signature_name": "regress_x_to_y", "context": {"x": 80.0}, "examples": [{}, {"x": 2.0}]}',
         '{"results": [42.0, 3.0]}'),
        (":classify", '{"signature_name": "classify_x_to_y", "examples": [{"x": 20.0}]}',
         '{"results": [[["", 12.0]]]}'),
        ("/labels/production:classify", '{"signature_name": "classify_x_to_y", "examples": [{"x": 10.0}]}',
         '{"results": [[["", 7.0]]]}'),
    ],
)  # fmt: skip
def test_classify_and_regress(client, method, body, answer):
    assert post(client, TWO + method, body).text == answer


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"examples": [{"x": 1.0}]}',
         "Expected classification signature method_name to be tensorflow/serving/classify. "
         "Was: tensorflow/serving/predict"),
        ('{"signature_name": "no", "examples": [{"x": 1.0}]}', "No signature was found with the name: no"),
        ('{"signature_name": "classify_x_to_y"}',
         'JSON Value: {\n    "signature_name": "classify_x_to_y"\n} When method is classify, key \'examples\' is '
         "expected and was not found"),
        ('{"signature_name": "classify_x_to_y", "examples": []}',
         'JSON Value: {\n    "signature_name": "classify_x_to_y",\n    "examples": []\n} '
         "'examples' value is an empty array"),
        ('{"signature_name": "classify_x_to_y", "examples": [1]}', "Example must be JSON object but got JSON Number"),
        ('{"signature_name": "classify_x_to_y", "examples": [{"x": null}]}',
         "Feature: x has element with unexpected JSON type: Null"),
        ('{"signature_name": "classify_x_to_y", "examples": [{"x": [1.0, "a"]}]}',
         "Unexpected element type in feature: x expecting type: float"),
        ('{"signature_name": "classify_x_to_y", "examples": [{"x": 18446744073709551615}]}',
         "Feature: x has uint64_t element. Only int64_t is supported."),
        ('{"signature_name": "classify_x_to_y", "examples": [{"x": "\\ud800"}]}',
         "JSON Parse error: The surrogate pair in string is invalid."),
        ('{"signature_name": "classify_x_to_y", "examples": [{"\\ud800": 1}]}',
         "the name of a feature is not valid Unicode"),
    ],
)  # fmt: skip
def test_errors_of_classify(client, body, message):
    assert error_of(post(client, f"{TWO}:classify", body)) == (400, message)


# --- status and metadata ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [TWO, f"{TWO}/versions/123", f"{TWO}/labels/production"])
def test_status(client, path):  # GetStatus
    assert client.get(path).json() == {
        "model_version_status": [
            {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }


def test_status_of_what_is_not_there(client):
    assert error_of(client.get("/v1/models/half")) == (404, "Could not find any versions of model half")
    assert error_of(client.get(f"{TWO}/versions/9")) == (404, "Could not find version 9 of model half_plus_two")


def test_labels_name_loaded_versions_only(client):
    body = '{"instances": [1]}'
    for label in ("none", "later"):
        assert error_of(post(client, f"{TWO}/labels/{label}:predict", body)) == (
            400, f"Unrecognized servable version label: {label}",
        )  # fmt: skip


def test_metadata(client):  # GetModelMetadata
    answer = client.get(f"{TWO}/metadata").json()
    assert answer["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "123"}
    assert list(answer["metadata"]) == list(answer["metadata"]["signature_def"]) == ["signature_def"]
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert list(signatures) == ["classify_x_to_y", "regress_x_to_y", "serving_default"]
    assert signatures["regress_x_to_y"] == {
        "inputs": {
            "inputs": {
                "name": "tf_example:0", "dtype": "DT_STRING",
                "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
            }
        },
        "outputs": {
            "outputs": {
                "name": "y:0", "dtype": "DT_FLOAT",
                "tensor_shape": {
                    "dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}], "unknown_rank": False,
                },
            }
        },
        "method_name": "tensorflow/serving/regress",
        "defaults": {},
    }  # fmt: skip
    assert client.get(f"{TWO}/versions/123/metadata").json() == answer
    assert error_of(client.get("/v1/models/half/metadata")) == (404, "Servable not found for request: Latest(half)")
