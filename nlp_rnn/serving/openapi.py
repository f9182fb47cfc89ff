"""The OpenAPI document of the server: paths, requests, answers and errors.

Source: OpenAPI Specification 3.1.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter

from nlp_rnn import __version__
from nlp_rnn.decoding.settings import GenerationSettings

_JSON = "application/json"
_ERRORS = {
    "400": "The request is not what the model takes.",
    "401": "The server needs a token.",
    "404": "The model or version is not served.",
    "413": "The request is over a limit.",
    "429": "Too many requests; try again later.",
    "500": "An error of the server; its log has the request's id.",
    "501": "The model has no such method.",
    "503": "Models are being loaded, or the server stops.",
    "504": "The answer takes too long.",
}


def document(models: list[Any]) -> dict[str, Any]:
    """The document of a server.

    Args:
      models: the newest served version of each model.
    """
    names = [model.name for model in models]
    name: dict[str, Any] = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    if names:
        name["schema"]["examples"] = names
    predict = {
        "type": "object",
        "properties": {
            "signature_name": {"type": "string", "description": "Empty or left out: serving_default."},
            "instances": {"type": "array", "minItems": 1, "description": "The inputs row by row."},
            "inputs": {"description": "The inputs column by column."},
        },
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
    }
    answer = {
        "type": "object",
        "oneOf": [
            {"required": ["predictions"], "properties": {"predictions": {"type": "array"}}},
            {"required": ["outputs"], "properties": {"outputs": {}}},
        ],
    }
    stream = {
        "type": "object",
        "required": ["prompt"],
        "properties": {"prompt": {"type": "string"}, **TypeAdapter(GenerationSettings).json_schema()["properties"]},
    }
    tokens = {"token": {"type": "http", "scheme": "bearer"}}
    error = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    paths: dict[str, Any] = {
        "/v1/models/{model}:predict": {"post": _call("Predictions.", [name], predict, _JSON, answer)},
        "/v1/models/{model}:stream": {
            "post": _call("Generated text as server-sent events.", [name], stream, "text/event-stream", {})
        },
        "/v1/models/{model}": {"get": _look("The states of the versions.", [name])},
        "/v1/models/{model}/metadata": {"get": _look("The signatures.", [name])},
        "/models": {"get": _look("Name, version, task and labels of all models.", [])},
        "/healthz": {"get": _plain("Whether the process is alive.")},
        "/readyz": {"get": _plain("Whether models are loaded.", {"503": "No models are loaded."})},
        "/metrics": {"get": _plain("Figures for Prometheus.")},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "nlp-rnn serve",
            "version": __version__,
            "description": "TensorFlow Serving's REST API, and streamed text.",
        },
        "paths": paths,
        "components": {"securitySchemes": tokens, "schemas": {"Error": error}},
        "security": [{}, {"token": []}],
    }


def _call(summary: str, parameters: list[Any], body: dict[str, Any], kind: str, answer: dict[str, Any]) -> Any:
    content = {"required": True, "content": {_JSON: {"schema": body}}}
    return {**_look(summary, parameters, kind, answer), "requestBody": content}


def _look(summary: str, parameters: list[Any], kind: str = _JSON, answer: dict[str, Any] | None = None) -> Any:
    error = {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    responses = {status: {"description": text, "content": error} for status, text in _ERRORS.items()}
    answered = {"description": "The answer.", "content": {kind: {"schema": answer or {}}}}
    return {"summary": summary, "parameters": parameters, "responses": {"200": answered, **responses}}


def _plain(summary: str, errors: Mapping[str, str] = MappingProxyType({})) -> Any:
    content = {"text/plain": {"schema": {"type": "string"}}}
    texts = {"200": "Yes.", **errors}
    responses = {status: {"description": text, "content": content} for status, text in texts.items()}
    return {"summary": summary, "responses": responses}
