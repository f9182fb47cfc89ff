"""The methods :classify and :regress: requests of tf.train.Examples.

Source: tensorflow/serving, util/json_tensor.cc and servables/tensorflow/classifier.cc, regressor.cc; error messages are
its own.
"""

import json
from typing import Any

import numpy as np

from nlp_rnn.serving.json_tensors import Arrays, decode_base64, floats, shown, text_bytes, type_of
from nlp_rnn.serving.request_errors import RequestError, invalid
from nlp_rnn.serving.served_model import ServedModel

_NOUNS = {"classify": "classification", "regress": "regression"}


def check_signature(model: ServedModel, name: str, method: str) -> str:
    """Returns the name of a signature, if it has the method "classify" or "regress".

    Raises:
      RequestError: if there is none with this name and method.
    """
    if name not in model.signatures:
        raise invalid(f"No signature was found with the name: {name}")
    signature = model.signatures[name]
    if signature.method != f"tensorflow/serving/{method}":
        raise invalid(
            f"Expected {_NOUNS[method]} signature method_name to be tensorflow/serving/{method}. "
            f"Was: {signature.method}"
        )
    if list(signature.inputs) != ["inputs"]:
        raise invalid("Expected one input Tensor.")
    return name


def parse_examples(request: dict[str, Any]) -> Arrays:
    """Serialized examples, string [rows], of a request; the features of its `context` are added to each.

    Raises:
      RequestError: if the request holds no examples.
    """
    from tensorflow.core.example.example_pb2 import Example

    context = Example()
    if "context" in request:
        _fill(context, request["context"])
    if "examples" not in request:
        raise invalid(
            f"JSON Value: {shown(request)} When method is classify, key 'examples' is expected and was not found"
        )
    examples = request["examples"]
    if not isinstance(examples, list):
        raise invalid(f"JSON Value: {shown(request)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid(f"JSON Value: {shown(request)} 'examples' value is an empty array")
    rows = np.empty(len(examples), object)
    for number, content in enumerate(examples):
        example = Example()
        example.CopyFrom(context)
        _fill(example, content)
        rows[number] = example.SerializeToString()
    return {"inputs": rows}


def classify_answer(outputs: Arrays) -> str:
    """The JSON text of classifications: label and score of each class of each row; see `classes_and_scores`."""
    labels, scores = classes_and_scores(outputs)
    rows = []
    for row_labels, row_scores in zip(labels, scores, strict=True):
        texts = (json.dumps(label.decode("utf-8", "replace"), ensure_ascii=False) for label in row_labels)
        pairs = (f"[{text}, {number}]" for text, number in zip(texts, floats(row_scores), strict=True))
        rows.append(f"[{', '.join(pairs)}]")
    return f'{{"results": [{", ".join(rows)}]}}'


def classes_and_scores(outputs: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Labels bytes [rows, classes] and scores float32 [rows, classes] of a classification.

    Raises:
      RequestError: if the outputs are not those of a classification.
    """
    classes, scores = outputs.get("classes"), outputs.get("scores")
    for array in (classes, scores):
        if array is not None and array.ndim != 2:
            raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {list(array.shape)}")
    shape = next((array.shape for array in (classes, scores) if array is not None), None)
    if shape is None:
        raise invalid('Expected classification signature outputs to contain at least one of "classes" or "scores".')
    labels = np.full(shape, b"", object) if classes is None else classes
    return labels, np.zeros(shape, np.float32) if scores is None else scores


def regress_answer(outputs: Arrays, rows: int) -> str:
    """The JSON text of regressions, one number per row; see `regressed`."""
    return f'{{"results": [{", ".join(floats(regressed(outputs, rows)))}]}}'


def regressed(outputs: Arrays, rows: int) -> np.ndarray:
    """The numbers of a regression, one per row.

    Raises:
      RequestError: if the outputs are not those of a regression.
    """
    values = outputs.get("outputs")
    if values is None:
        raise invalid("Expected one output Tensor.")
    if values.size != rows:
        raise invalid(f"Expected output batch size to be {rows}.  Got: {values.size}")
    return values


def _fill(example: Any, content: Any) -> None:
    if not isinstance(content, dict):
        raise invalid(f"Example must be JSON object but got JSON {type_of(content)}")
    for name, values in content.items():
        if any("\ud800" <= character <= "\udfff" for character in name):  # of invalid UTF-8, or half of a pair
            raise invalid("the name of a feature is not valid Unicode")
        feature = example.features.feature[name]
        feature.Clear()
        for value in values if isinstance(values, list) else [values]:
            _add(feature, name, value)


def _add(feature: Any, name: str, value: Any) -> None:
    kind, converted = _feature_value(name, value)
    present = feature.WhichOneof("kind")
    if present not in (None, kind):
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {present.removesuffix('_list')}")
    getattr(feature, kind).value.append(converted)


def _feature_value(name: str, value: Any) -> tuple[str, Any]:
    if isinstance(value, bool):
        return "int64_list", int(value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise invalid(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
        return "int64_list", value
    if isinstance(value, float):
        return "float_list", value
    if isinstance(value, str):
        return "bytes_list", text_bytes(value)
    if isinstance(value, dict):
        try:
            return "bytes_list", decode_base64(value)
        except RequestError as error:
            if error.message == "Unable to base64 decode":
                raise
    raise invalid(f"Feature: {name} has element with unexpected JSON type: {type_of(value)}")
