"""TensorFlow Serving's own stubs talk to the server."""

import contextlib
import re

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from nlp_rnn.serving import grpc_api
from nlp_rnn.serving.limits import Limits
from nlp_rnn.serving.request_errors import RequestError
from nlp_rnn.serving.signatures import Signature, Tensor
from tests.conftest import free_port
from tests.serving.conftest import part_of, serving

PREDICT, CLASSIFY = predict_pb2.PredictRequest, classification_pb2.ClassificationRequest


@contextlib.contextmanager
def connected(folder, **settings):
    """The stubs of both services of a server, and its HTTP client."""
    address = f"127.0.0.1:{free_port()}"
    with serving(folder, grpc_address=address, **settings) as client, grpc.insecure_channel(address) as channel:
        yield (
            prediction_service_pb2_grpc.PredictionServiceStub(channel),
            model_service_pb2_grpc.ModelServiceStub(channel),
            client,
        )


@pytest.fixture(scope="module")
def small(small_models):
    limits = Limits(max_body_bytes=20_000, max_rows=100)
    with connected(small_models, limits=limits, labels={"half_plus_two": {"stable": 123}}) as found:
        yield found


def request(kind, name, signature="", **inputs):
    made = kind()
    made.model_spec.name, made.model_spec.signature_name = name, signature
    for key, value in inputs.items():
        made.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return made


def refused(call, content, **options):
    with pytest.raises(grpc.RpcError) as caught:
        call(content, **options)
    return caught.value.code().name, caught.value.details()


def examples(*values):
    found = input_pb2.Input()
    for value in values:
        found.example_list.examples.add().features.feature["x"].float_list.value.append(value)
    return found


# --- PredictionService ------------------------------------------------------------------------------------------------


def test_predict(small):
    answer = small[0].Predict(request(PREDICT, "half_plus_two", x=np.float32([1, 2, 5])))
    assert tf.make_ndarray(answer.outputs["y"]).tolist() == [2.5, 3.0, 4.5]
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("half_plus_two", 123)
    assert answer.model_spec.signature_name == "serving_default"


@pytest.mark.parametrize("choice", ["version", "label"])
def test_a_version_is_chosen_by_number_or_label(small, choice):
    made = request(PREDICT, "half_plus_two", x=np.float32([1]))
    if choice == "version":
        made.model_spec.version.value = 123
    else:
        made.model_spec.version_label = "stable"
    assert tf.make_ndarray(small[0].Predict(made).outputs["y"]).tolist() == [2.5]


def test_classify_and_regress(small):
    made = CLASSIFY(input=examples(2.0, 20.0))
    made.model_spec.name, made.model_spec.signature_name = "half_plus_two", "classify_x_to_y"
    found = small[0].Classify(made).result.classifications
    assert [[(each.label, each.score) for each in row.classes] for row in found] == [[("", 3.0)], [("", 12.0)]]
    made = regression_pb2.RegressionRequest(input=examples(80.0))
    made.model_spec.name, made.model_spec.signature_name = "half_plus_two", "regress_x_to_y"
    assert [each.value for each in small[0].Regress(made).result.regressions] == [42.0]


def test_the_context_of_examples_belongs_to_each(small):
    made = CLASSIFY()
    made.model_spec.name, made.model_spec.signature_name = "half_plus_two", "classify_x_to_y"
    made.input.example_list_with_context.context.features.feature["x"].float_list.value.append(2.0)
    made.input.example_list_with_context.examples.add()
    assert small[0].Classify(made).result.classifications[0].classes[0].score == 3.0


def test_metadata(small):
    made = request(get_model_metadata_pb2.GetModelMetadataRequest, "half_plus_two")
    made.metadata_field.append("signature_def")
    found = get_model_metadata_pb2.SignatureDefMap()
    assert small[0].GetModelMetadata(made).metadata["signature_def"].Unpack(found)
    assert found.signature_def["serving_default"].inputs["x"].dtype == tf.float32.as_datatype_enum
    assert found.signature_def["regress_x_to_y"].method_name == "tensorflow/serving/regress"


@pytest.mark.parametrize(
    ("made", "code", "message"),
    [
        (PREDICT(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (request(PREDICT, "none", x=1.0), "NOT_FOUND", "Servable not found for request: Latest(none)"),
        (request(PREDICT, "half_plus_two", "more", x=1.0), "INVALID_ARGUMENT",
         'Serving signature name: "more" not found in signature def'),
        (request(PREDICT, "half_plus_two", a=1.0, b=1.0), "INVALID_ARGUMENT",
         "input size does not match signature: 2!=1 len({a,b}) != len({x}). Sent extra: {a,b}. "
         "Missing but required: {x}."),
        (request(PREDICT, "half_plus_two", x="text"), "INVALID_ARGUMENT",
         "input x is of type DT_STRING, but the signature takes DT_FLOAT"),
        (request(PREDICT, "half_plus_two", x=np.zeros(101, np.float32)), "RESOURCE_EXHAUSTED",
         "the request has 101 rows, but this server allows at most 100 rows per request"),
    ],
)  # fmt: skip
def test_mistakes(small, made, code, message):
    assert refused(small[0].Predict, made) == (code, message)


def test_a_misspelt_setting_is_told():
    text, count = Tensor("DT_STRING", (None,)), Tensor("DT_INT32", (None,))
    signature = Signature("suggest", {"text": text, "count": count}, {}, "", defaults={"count": 5})
    sent = request(PREDICT, "next_word", "suggest", text=["The "], cuont=np.int32([2])).inputs
    with pytest.raises(RequestError, match=re.escape("Sent extra: {cuont}. Missing but required: {}.")):
        grpc_api._arrays(sent, signature, is_strict=False, most=100)


def test_a_short_message_for_a_large_tensor_is_refused(small):
    made = request(PREDICT, "half_plus_two", x=1.0)
    made.inputs["x"].tensor_shape.dim.add().size = 10**9
    assert refused(small[0].Predict, made) == ("INVALID_ARGUMENT", "input x has no shape that this server takes")
    made.inputs["x"].tensor_shape.dim[0].size = 2
    del made.inputs["x"].float_val[:]
    made.inputs["x"].tensor_content = b"abc"
    assert refused(small[0].Predict, made) == (
        "INVALID_ARGUMENT", "input x does not hold as many values as its shape says",
    )  # fmt: skip


def test_long_messages_are_refused(small):
    made = request(PREDICT, "kinds", "copy", text=["a" * 30_000])
    assert refused(small[0].Predict, made)[0] == "RESOURCE_EXHAUSTED"


def test_outputs_are_filtered(small):
    made = request(PREDICT, "half_plus_two", x=np.float32([1]))
    made.output_filter.append("z")
    assert refused(small[0].Predict, made) == (
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: z Outputs expected to be in the set {y}.",
    )
    del made.output_filter[:]
    made.output_filter.extend(["y", "y"])
    assert refused(small[0].Predict, made) == ("INVALID_ARGUMENT", "duplicate output tensor alias: y")


def test_what_is_not_there_is_said(small):
    assert refused(small[0].MultiInference, inference_pb2.MultiInferenceRequest())[0] == "UNIMPLEMENTED"
    made = request(get_model_metadata_pb2.GetModelMetadataRequest, "half_plus_two")
    assert refused(small[0].GetModelMetadata, made)[1].endswith("must specify at least one metadata_field")
    made.metadata_field.append("weights")
    assert refused(small[0].GetModelMetadata, made)[1] == "Metadata field weights is not supported"
    made = CLASSIFY(input=examples(1.0))
    made.model_spec.name = "half_plus_two"
    assert "Expected classification signature method_name" in refused(small[0].Classify, made)[1]
    made.model_spec.signature_name = "classify_x_to_y"
    made.input.Clear()
    assert refused(small[0].Classify, made) == ("INVALID_ARGUMENT", "Input is empty")


# --- ModelService -----------------------------------------------------------------------------------------------------


def test_states(small):
    made = request(get_model_status_pb2.GetModelStatusRequest, "half_plus_two")
    (found,) = small[1].GetModelStatus(made).model_version_status
    assert (found.version, found.state, found.status.error_code) == (123, found.AVAILABLE, 0)
    made.model_spec.name = "none"
    assert refused(small[1].GetModelStatus, made) == ("NOT_FOUND", "Could not find any versions of model none")


def test_labels_are_set_by_a_config(small, small_models):
    made = model_management_pb2.ReloadConfigRequest()
    config = made.config.model_config_list.config.add(
        name="half_plus_three", base_path=str(small_models / "half_plus_three")
    )
    config.version_labels["canary"] = 123
    assert small[1].HandleReloadConfigRequest(made).status.error_code == 0
    assert small[2].get("/v1/models/half_plus_three/labels/canary").status_code == 200
    config.version_labels["canary"] = 7
    assert refused(small[1].HandleReloadConfigRequest, made) == (
        "FAILED_PRECONDITION", "label canary names version 7 of model half_plus_three, which is not served",
    )  # fmt: skip
    config.base_path = "/etc"
    assert refused(small[1].HandleReloadConfigRequest, made)[0] == "INVALID_ARGUMENT"
    assert refused(small[1].HandleReloadConfigRequest, model_management_pb2.ReloadConfigRequest())[0] == (
        "INVALID_ARGUMENT"
    )


# --- our exports, tokens, limits --------------------------------------------------------------------------------------


@pytest.mark.further
def test_exports_answer_as_over_http(exports, tmp_path):
    folder = part_of(exports, tmp_path, "next_word", "translation_en_de")
    with connected(folder) as (predictions, _, client):
        answer = predictions.Predict(request(PREDICT, "next_word", "suggest", text=["The cat "], count=np.int32([3])))
        body = {"signature_name": "suggest", "instances": [{"text": "The cat ", "count": 3}]}
        expected = client.post("/v1/models/next_word:predict", json=body).json()["predictions"][0]
        words = [word.decode() for word in tf.make_ndarray(answer.outputs["words"])[0]]
        assert words == expected["words"]
        answer = predictions.Predict(request(PREDICT, "translation_en_de", "translate", text=["the old king sees"]))
        body = {"signature_name": "translate", "instances": [{"text": "the old king sees"}]}
        expected = client.post("/v1/models/translation_en_de:predict", json=body).json()["predictions"][0]
        assert tf.make_ndarray(answer.outputs["translations"])[0, 0].decode() == expected["translations"][0]
        figures = client.get("/metrics").text
        assert 'nlp_rnn_requests_total{model="next_word",method="Predict",code="200"} 1' in figures


def test_a_strict_server_with_a_token(exports, tmp_path):
    folder = part_of(exports, tmp_path, "next_word")
    with connected(folder, is_strict=True, token="secret") as (predictions, *_):
        made = request(PREDICT, "next_word", "suggest", text=["The cat "])
        assert refused(predictions.Predict, made) == (
            "UNAUTHENTICATED", "send the metadata authorization: Bearer TOKEN",
        )  # fmt: skip
        found = refused(predictions.Predict, made, metadata=[("authorization", "Bearer secret")])
        assert found[0] == "INVALID_ARGUMENT"
        assert "Missing but required: {allow_profanity,count}" in found[1]
