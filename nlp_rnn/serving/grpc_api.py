"""TensorFlow Serving's gRPC API: PredictionService and ModelService. Needs the extra `grpc`.

Source: tensorflow/serving, apis/*.proto, servables/tensorflow/predict_util.cc, get_model_metadata_impl.cc and
model_servers/model_service_impl.cc; error messages are its own.
"""

import logging
import math
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.framework.types_pb2 import DataType
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from nlp_rnn.serving import examples
from nlp_rnn.serving.engine import Engine
from nlp_rnn.serving.guard import check_token, told_errors
from nlp_rnn.serving.json_tensors import Arrays
from nlp_rnn.serving.request_errors import RequestError, invalid
from nlp_rnn.serving.served_model import ServedModel
from nlp_rnn.serving.signatures import Signature, Tensor

logger = logging.getLogger(__name__)
_T = TypeVar("_T")


class GrpcServer:
    """The gRPC server of an engine. Its methods belong to the engine's event loop.

    Args:
      address: HOST:PORT to listen at; port 0: any free one.
    """

    def __init__(self, engine: Engine, address: str) -> None:
        limits = engine.settings.limits
        self._server = grpc.aio.server(
            maximum_concurrent_rpcs=limits.max_requests,
            options=[("grpc.max_receive_message_length", limits.max_body_bytes), ("grpc.so_reuseport", 0)],
        )
        guard = _Guard(engine)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Predictions(engine, guard), self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Models(engine, guard), self._server)
        self._address, self._seconds = address, limits.shutdown_seconds
        self.port = 0

    async def start(self) -> None:
        """Begins to listen; `port` is then known."""
        self.port = self._server.add_insecure_port(self._address)
        await self._server.start()

    async def stop(self) -> None:
        """Accepts no more requests, and lets the running ones finish within the limit of time."""
        await self._server.stop(self._seconds)


class _Guard:
    """What happens around every request: token, limit of time, error texts, log and figures."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def answer(self, context: Any, method: str, model: str, compute: Callable[[str], Awaitable[_T]]) -> _T:
        """The result of `compute(request_id)`; errors are told to the client by gRPC's codes."""
        request_id, start, status = uuid.uuid4().hex, time.monotonic(), 499  # the client has gone
        settings = self._engine.settings
        try:
            given = dict(context.invocation_metadata() or ()).get("authorization", "")
            check_token(str(given).encode(), settings.token.encode(), "metadata authorization")
            async with told_errors(request_id, settings.limits.timeout_seconds):
                answer = await compute(request_id)
            status = 200
            return answer
        except RequestError as failure:
            status = failure.status
            code = "RESOURCE_EXHAUSTED" if failure.code == "TOO_LARGE" else failure.code
            await context.abort(grpc.StatusCode[code], failure.message)
            raise  # abort has raised already
        finally:
            seconds = time.monotonic() - start
            known = model if any(each.name == model for each in self._engine.store.newest()) else ""
            self._engine.metrics.add_request(known, method, status, seconds)
            logger.info("%s gRPC %s %d %.1f ms", request_id, method, status, 1000 * seconds)


class _Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
    """PredictionService without MultiInference."""

    def __init__(self, engine: Engine, guard: _Guard) -> None:
        self._engine, self._guard = engine, guard

    async def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802
        async def compute(request_id: str) -> Any:
            model, name = _find(self._engine, request), request.model_spec.signature_name or "serving_default"
            if name not in model.signatures:
                raise invalid(f'Serving signature name: "{name}" not found in signature def')
            signature = model.signatures[name]
            settings = self._engine.settings
            inputs = _arrays(
                request.inputs, signature, is_strict=settings.is_strict, most=settings.limits.max_body_bytes
            )
            wanted = _filtered(list(request.output_filter), signature)
            outputs = await self._engine.compute(model, name, inputs, request_id=request_id)
            response = predict_pb2.PredictResponse()
            _fill_spec(response, model, name)
            for key in wanted:
                tensor = tf.make_tensor_proto(outputs[key], _dtype_number(signature.outputs[key]))
                response.outputs[key].CopyFrom(tensor)
            return response

        return await self._guard.answer(context, "Predict", request.model_spec.name, compute)

    async def Classify(self, request: Any, context: Any) -> Any:  # noqa: N802
        async def compute(request_id: str) -> Any:
            model, name, outputs, _ = await self._infer(request, "classify", request_id)
            labels, scores = examples.classes_and_scores(outputs)
            response = classification_pb2.ClassificationResponse()
            _fill_spec(response, model, name)
            for row_labels, row_scores in zip(labels, scores, strict=True):
                row = response.result.classifications.add()
                for label, score in zip(row_labels, row_scores, strict=True):
                    row.classes.add(label=label.decode("utf-8", "replace"), score=score)
            return response

        return await self._guard.answer(context, "Classify", request.model_spec.name, compute)

    async def Regress(self, request: Any, context: Any) -> Any:  # noqa: N802
        async def compute(request_id: str) -> Any:
            model, name, outputs, rows = await self._infer(request, "regress", request_id)
            response = regression_pb2.RegressionResponse()
            _fill_spec(response, model, name)
            for value in examples.regressed(outputs, rows).ravel():
                response.result.regressions.add(value=value)
            return response

        return await self._guard.answer(context, "Regress", request.model_spec.name, compute)

    async def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        async def compute(_: str) -> Any:
            model = _find(self._engine, request)
            if not request.metadata_field:
                raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
            for name in request.metadata_field:
                if name != "signature_def":
                    raise invalid(f"Metadata field {name} is not supported")
            signatures = get_model_metadata_pb2.SignatureDefMap()
            json_format.Parse(f'{{"signature_def": {model.signature_json}}}', signatures)
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            _fill_spec(response, model, "")
            response.metadata["signature_def"].Pack(signatures)
            return response

        return await self._guard.answer(context, "GetModelMetadata", request.model_spec.name, compute)

    async def MultiInference(self, request: Any, context: Any) -> Any:  # noqa: N802
        async def compute(_: str) -> Any:
            raise RequestError("UNIMPLEMENTED", "this server has no MultiInference; send a Predict for each signature")

        return await self._guard.answer(context, "MultiInference", "", compute)

    async def _infer(self, request: Any, method: str, request_id: str) -> tuple[ServedModel, str, Arrays, int]:
        """Computes a signature of serialized examples: (model, name of the signature, outputs, number of examples)."""
        model = _find(self._engine, request)
        name = examples.check_signature(model, request.model_spec.signature_name or "serving_default", method)
        kind = request.input.WhichOneof("kind")
        content = getattr(request.input, kind) if kind else None
        if content is None or not content.examples:
            raise invalid("Input is empty")
        # Messages one after the other are their union.
        context = content.context.SerializeToString() if kind == "example_list_with_context" else b""
        rows = np.empty(len(content.examples), object)
        rows[:] = [context + example.SerializeToString() for example in content.examples]
        outputs = await self._engine.compute(model, name, {"inputs": rows}, request_id=request_id)
        return model, name, outputs, len(rows)


class _Models(model_service_pb2_grpc.ModelServiceServicer):
    """ModelService."""

    def __init__(self, engine: Engine, guard: _Guard) -> None:
        self._engine, self._guard = engine, guard

    async def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        async def compute(_: str) -> Any:
            name, version, label = _target(request)
            response = get_model_status_pb2.GetModelStatusResponse()
            states = get_model_status_pb2.ModelVersionStatus.State
            for number, each in self._engine.store.states(name, version, label).items():
                status = response.model_version_status.add(version=number, state=states.Value(each.state))
                status.status.error_code = getattr(tf.errors, each.code)
                status.status.error_message = each.message
            return response

        return await self._guard.answer(context, "GetModelStatus", request.model_spec.name, compute)

    async def HandleReloadConfigRequest(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Sets the labels of models. This server serves all models of its folder, whatever the list names."""

        async def compute(_: str) -> Any:
            if request.config.WhichOneof("config") != "model_config_list":
                raise invalid("this server reads model_config_list only")
            labels = {}
            for config in request.config.model_config_list.config:
                if Path(config.base_path).absolute() != self._engine.store.folder.absolute() / config.name:
                    raise invalid(f"model {config.name} has another base_path than the folder that this server serves")
                labels[config.name] = dict(config.version_labels)
            self._engine.store.set_labels(labels)
            response = model_management_pb2.ReloadConfigResponse()
            response.status.error_code = tf.errors.OK
            return response

        return await self._guard.answer(context, "HandleReloadConfigRequest", "", compute)


def _target(request: Any) -> tuple[str, int | None, str | None]:
    """Name, version and label of a request's model.

    Raises:
      RequestError: if it names none.
    """
    if not request.HasField("model_spec") or not request.model_spec.name:
        raise invalid("Missing ModelSpec")
    spec = request.model_spec
    choice = spec.WhichOneof("version_choice")
    version = spec.version.value if choice == "version" else None
    return spec.name, version, spec.version_label if choice == "version_label" else None


def _find(engine: Engine, request: Any) -> ServedModel:
    model: ServedModel = engine.store.find(*_target(request))
    return model


def _fill_spec(response: Any, model: ServedModel, signature: str) -> None:
    response.model_spec.name, response.model_spec.signature_name = model.name, signature
    response.model_spec.version.value = model.version


def _arrays(tensors: Any, signature: Signature, *, is_strict: bool, most: int) -> Arrays:
    """The inputs of a prediction; left-out settings get their defaults unless the server is strict.

    Args:
      most: the largest number of values in a tensor, since a short message can stand for a large one.

    Raises:
      RequestError: if the inputs are not those of the signature.
    """
    arrays = {}
    for name, tensor in tensors.items():
        if name in signature.inputs:
            arrays[name] = _array(name, tensor, signature.inputs[name], most)
    if not is_strict and arrays:
        rows = max((len(array) for array in arrays.values() if array.ndim), default=1)
        for name, default in signature.defaults.items():
            if name not in tensors:
                arrays[name] = signature.inputs[name].repeated(default, rows)
    if set(arrays) != set(signature.inputs) or set(tensors) - set(signature.inputs):
        sent, needed = set(tensors), set(signature.inputs)
        shown = [",".join(sorted(names)) for names in (sent, needed, sent - needed, needed - set(arrays))]
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(needed)} len({{{shown[0]}}}) != "
            f"len({{{shown[1]}}}). Sent extra: {{{shown[2]}}}. Missing but required: {{{shown[3]}}}."
        )
    return arrays


def _array(name: str, proto: Any, tensor: Tensor, most: int) -> np.ndarray:
    sizes = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or min(sizes, default=0) < 0 or math.prod(sizes) > most:
        raise invalid(f"input {name} has no shape that this server takes")
    if proto.dtype != _dtype_number(tensor):
        given = DataType.Name(proto.dtype) if proto.dtype in DataType.values() else str(proto.dtype)
        raise invalid(f"input {name} is of type {given}, but the signature takes {tensor.dtype}")
    tensor.check_shape(name, tuple(sizes))
    try:
        return np.asarray(tf.make_ndarray(proto))
    except (ValueError, TypeError):
        raise invalid(f"input {name} does not hold as many values as its shape says") from None


def _filtered(wanted: list[str], signature: Signature) -> list[str]:
    """The outputs to return: those of a filter, or all."""
    for name in wanted:
        if name not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set "
                f"{{{','.join(sorted(signature.outputs))}}}."
            )
        if wanted.count(name) > 1:
            raise invalid(f"duplicate output tensor alias: {name}")
    return wanted or sorted(signature.outputs)


def _dtype_number(tensor: Tensor) -> int:
    return int(DataType.Value(tensor.dtype))
