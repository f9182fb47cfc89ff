"""The server as an ASGI app: TensorFlow Serving's REST API, streamed generation, health and figures.

Source of the API: tensorflow/serving, http_rest_api_handler.cc and http_rest_api_util.cc.
"""

import asyncio
import contextlib
import json
import re
import threading
from collections.abc import AsyncIterator
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from nlp_rnn.serving import examples, json_tensors, streaming
from nlp_rnn.serving.engine import Engine, ServerSettings, in_use
from nlp_rnn.serving.guard import Guard, json_response
from nlp_rnn.serving.json_tensors import Arrays
from nlp_rnn.serving.limits import too_large
from nlp_rnn.serving.model_store import ModelStore
from nlp_rnn.serving.openapi import document
from nlp_rnn.serving.playground import playground
from nlp_rnn.serving.request_errors import RequestError, invalid
from nlp_rnn.serving.served_model import ServedModel

_TARGET = r"/v1/models/([^/:]+)(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?"
_CALL = re.compile(rf"(?i){_TARGET}:(classify|regress|predict|stream)", re.ASCII)
_LOOK = re.compile(
    r"(?i)/v1/models(?:/([^/:]+))?(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?(?:/(metadata))?", re.ASCII
)
_MAX_VERSION = 2**63 - 1
_STALLED_SECONDS = 60
_FEW_VALUES = 10_000


def make_app(store: ModelStore, settings: ServerSettings, *, grpc_address: str = "") -> Starlette:
    """The server of a folder of models. It looks for models when the app starts, in a thread.

    Args:
      grpc_address: HOST:PORT where gRPC is served too; "" for nowhere. `state.stop_grpc` of the app stops it early.
    """
    engine = Engine(store, settings)
    server = _RestApi(engine)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watcher = threading.Thread(target=store.watch, args=(settings.poll_seconds,), name="models", daemon=True)
        watcher.start()
        grpc_server = None
        if grpc_address:
            from nlp_rnn.serving.grpc_api import GrpcServer

            grpc_server = GrpcServer(engine, grpc_address)
            await grpc_server.start()

        async def stop_grpc() -> None:
            if grpc_server:
                await grpc_server.stop()

        app.state.stop_grpc = stop_grpc
        try:
            yield
        finally:
            await stop_grpc()
            store.stop()
            engine.stop()

    guard = Middleware(Guard, limits=settings.limits, token=settings.token, metrics=engine.metrics)
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.allowed_origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
        expose_headers=["X-Request-Id"],
    )
    routes = [
        Route("/", playground, methods=["GET"]),
        Route("/healthz", server.health, methods=["GET"]),
        Route("/readyz", server.readiness, methods=["GET"]),
        Route("/metrics", server.figures, methods=["GET"]),
        Route("/monitoring/prometheus/metrics", server.figures, methods=["GET"]),
        Route("/openapi.json", server.openapi, methods=["GET"]),
        Route("/models", server.list_models, methods=["GET"]),
        Route("/{path:path}", server.rest, methods=["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]),
    ]
    return Starlette(
        routes=routes, middleware=[*([cors] if settings.allowed_origins else []), guard], lifespan=lifespan
    )


class _RestApi:
    """The endpoints."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._store, self._settings = engine, engine.store, engine.settings

    async def health(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readiness(self, _: Request) -> Response:
        is_ready = self._store.is_ready
        return PlainTextResponse("ready\n" if is_ready else "loading\n", status_code=200 if is_ready else 503)

    async def figures(self, request: Request) -> Response:
        served = self._store.all_served()
        queued: dict[str, int] = {model.name: 0 for model in served}
        for model in served:
            queued[model.name] += sum(map(len, model.batchers.values()))
        versions = [(model.name, model.version) for model in served]
        text = self._engine.metrics.text(queued, request.scope["state"]["running"], versions)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def openapi(self, _: Request) -> Response:
        return json_response(json.dumps(document(self._store.newest()), ensure_ascii=False))

    async def list_models(self, _: Request) -> Response:
        self._store.check_complete()
        models = [
            {
                "name": model.name, "version": model.version, "task": model.task, "labels": model.labels,
                "has_label_sets": model.has_label_sets,
                "signatures": sorted(model.signatures),
            }
            for model in self._store.newest()
        ]  # fmt: skip
        return json_response(json.dumps({"models": models}, ensure_ascii=False))

    async def rest(self, request: Request) -> Response:
        path = request.scope.get("raw_path", request.url.path.encode()).decode("latin-1").partition("?")[0]
        if not path.lower().startswith("/v1/"):
            raise RequestError("NOT_FOUND", "Not found")
        if request.method == "POST" and (call := _CALL.fullmatch(path)):
            method = call[4].lower()
            request.scope["state"]["method"] = method
            name, version, label = _target(call)
            body = await _body(request, self._settings.limits.max_body_bytes)
            if method == "stream":
                return await self._stream(request, body, name, version, label)
            return json_response(await self._answer(request, body, method, (name, version, label)))
        if request.method == "GET" and (look := _LOOK.fullmatch(path)):
            return self._look(request, look)
        raise invalid(f"Malformed request: {request.method} {path[:200]}")

    def _look(self, request: Request, look: re.Match[str]) -> Response:
        if not look[1]:
            raise invalid("Missing model name in request.")
        name, version, label = _target(look)
        request.scope["state"]["method"] = "metadata" if look[4] else "status"
        if look[4]:
            model = self._found(request, name, version, label)
            spec = json.dumps({"name": name, "signature_name": "", "version": str(model.version)}, ensure_ascii=False)
            signatures = f'{{"signature_def": {{"signature_def": {model.signature_json}}}}}'
            return json_response(f'{{"model_spec": {spec}, "metadata": {signatures}}}')
        states = [
            {
                "version": str(number), "state": each.state,
                "status": {"error_code": each.code, "error_message": each.message},
            }
            for number, each in self._store.states(name, version, label).items()
        ]  # fmt: skip
        request.scope["state"]["model"] = name
        return json_response(json.dumps({"model_version_status": states}))

    async def _answer(
        self, request: Request, body: bytes, method: str, target: tuple[str, int | None, str | None]
    ) -> str:
        content = json_tensors.parse_body(body)
        name = json_tensors.signature_name(content) or "serving_default"
        if method != "predict":
            inputs = examples.parse_examples(content)
            model = self._found(request, *target)
            outputs = await self._compute(request, model, examples.check_signature(model, name, method), inputs)
            if method == "classify":
                return examples.classify_answer(outputs)
            return examples.regress_answer(outputs, len(inputs["inputs"]))
        model = self._found(request, *target)
        if name not in model.signatures:
            raise invalid(f'Serving signature name: "{name}" not found in signature def')
        inputs, is_row_format = json_tensors.parse_predict(
            content, model.signatures[name], is_strict=self._settings.is_strict
        )
        outputs = await self._compute(request, model, name, inputs)
        if sum(array.size for array in outputs.values()) < _FEW_VALUES:
            return json_tensors.predict_answer(outputs, is_row_format=is_row_format)
        # Long answers take a while to write; meanwhile the event loop goes on.
        return await asyncio.to_thread(json_tensors.predict_answer, outputs, is_row_format=is_row_format)

    async def _compute(self, request: Request, model: ServedModel, signature: str, inputs: Arrays) -> Arrays:
        return await self._engine.compute(model, signature, inputs, request_id=request.scope["state"]["id"])

    async def _stream(
        self, request: Request, body: bytes, name: str, version: int | None, label: str | None
    ) -> Response:
        limits = self._settings.limits
        content = json_tensors.parse_body(body)
        model = self._found(request, name, version, label)
        prompt, settings = streaming.parse_request(model, content, limits)
        self._engine.log_text(request.scope["state"]["id"], {"prompt": prompt})
        # The stream ends by itself at its deadline; the later one is for clients that stop reading.
        request.scope["state"]["timeout"].reschedule(
            asyncio.get_running_loop().time() + limits.timeout_seconds + _STALLED_SECONDS
        )
        return streaming.response(model, prompt, settings, limits.timeout_seconds, in_use(model))

    def _found(self, request: Request, name: str, version: int | None, label: str | None) -> ServedModel:
        model = self._store.find(name, version, label)
        request.scope["state"]["model"] = name  # only names of models: others would fill the figures
        return model


def _target(parts: re.Match[str]) -> tuple[str, int | None, str | None]:
    """Name, version and label in a path. They are keys of tables, and never part of a file's path."""
    version = int(parts[2][:20]) if parts[2] else None
    if version is not None and version > _MAX_VERSION:
        raise invalid(f"Failed to convert version: {parts[2][:200]} to numeric.")
    return unquote(parts[1]), version, unquote(parts[3]) if parts[3] else None


async def _body(request: Request, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large(f"the request has {declared} bytes", f"{max_bytes} bytes per request")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                raise too_large("the request is too long", f"{max_bytes} bytes per request")
    except ClientDisconnect:
        raise RequestError("CANCELLED", "the client has gone") from None
    return bytes(body)
