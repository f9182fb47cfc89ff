"""Generation as server-sent events: each piece of text is sent as soon as it is generated.

The events are `data: {"text": "..."}`, at the end `event: end` with the number of characters, or `event: error`.
Source: the HTML standard, section 9.2, "Server-sent events".
"""

import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from typing import Any

from starlette.concurrency import iterate_in_threadpool
from starlette.responses import StreamingResponse

from nlp_rnn.decoding.settings import GenerationSettings
from nlp_rnn.errors import ConfigError
from nlp_rnn.export import generation_client
from nlp_rnn.serving.json_tensors import decode_base64, text_bytes
from nlp_rnn.serving.limits import Limits, too_large
from nlp_rnn.serving.request_errors import RequestError, invalid
from nlp_rnn.serving.served_model import ServedModel, can_stream


def parse_request(model: ServedModel, request: dict[str, Any], limits: Limits) -> tuple[bytes, dict[str, Any]]:
    """The prompt and the settings of a request, {"prompt": "...", "max_length": 200, ...}.

    Raises:
      RequestError: if the model does not generate, or a setting is out of its range.
    """
    if not can_stream(model):
        raise RequestError("UNIMPLEMENTED", f"{model.name} does not generate text; models of char_generation do")
    settings = dict(request)
    if "prompt" not in settings:
        raise invalid("prompt is missing; give a text")
    prompt = settings.pop("prompt")
    if isinstance(prompt, dict):
        text = decode_base64(prompt)
    elif isinstance(prompt, str):
        text = text_bytes(prompt)
    else:
        raise invalid("prompt must be a text")
    if len(text) > limits.max_text_bytes:
        raise too_large(f"prompt has {len(text)} bytes", f"{limits.max_text_bytes} bytes per text")
    try:
        checked = asdict(GenerationSettings.checked(**settings))
    except (ConfigError, TypeError) as error:  # TypeError: a key that is the name of an argument, such as "cls"
        raise invalid(" ".join(str(error).split())) from None
    if checked["max_length"] > limits.max_generated:
        raise too_large(f"max_length is {checked['max_length']}", str(limits.max_generated))
    return text, checked


def response(
    model: ServedModel,
    prompt: bytes,
    settings: dict[str, Any],
    seconds: float,
    use: contextlib.AbstractContextManager[None],
) -> StreamingResponse:
    """Streams a text.

    Args:
      seconds: after which the stream ends with an error.
      use: a context that lasts while text is generated.
    """
    deadline = time.monotonic() + seconds

    async def events() -> AsyncIterator[str]:
        with use:
            async for event in iterate_in_threadpool(_events(model, prompt, settings, deadline)):
                yield event

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def _events(model: ServedModel, prompt: bytes, settings: dict[str, Any], deadline: float) -> Iterator[str]:
    import tensorflow as tf

    length = 0
    try:
        for piece in generation_client.stream(model.loaded, prompt, settings):
            length += len(piece)
            if piece:
                yield _event({"text": piece})
            if time.monotonic() > deadline:
                yield _event({"error": "the text takes longer than this server allows"}, "error")
                return
    except tf.errors.OpError as error:
        yield _event({"error": f"the model cannot generate this text ({type(error).__name__})"}, "error")
        return
    yield _event({"length": length}, "end")


def _event(data: dict[str, Any], kind: str = "") -> str:
    name = f"event: {kind}\n" if kind else ""
    return f"{name}data: {json.dumps(data, ensure_ascii=False)}\n\n"
