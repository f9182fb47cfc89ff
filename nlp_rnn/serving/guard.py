"""What happens around every request: identity, token, limits of number and time, error texts, log and figures."""

import asyncio
import contextlib
import hmac
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.responses import Response

from nlp_rnn.printable import one_line
from nlp_rnn.serving.json_tensors import error_answer
from nlp_rnn.serving.limits import Limits
from nlp_rnn.serving.metrics import Metrics
from nlp_rnn.serving.request_errors import RequestError

logger = logging.getLogger(__name__)

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
_REQUEST_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_PROBES = ("/healthz", "/readyz")
_OPEN = (*_PROBES, "/")  # without a token: probes and browsers have none, and these tell nothing else


class Guard:
    """ASGI middleware around the whole app.

    Args:
      limits: max_requests and timeout_seconds are checked here.
      token: that requests must carry as "Authorization: Bearer TOKEN"; "" for none.
    """

    def __init__(self, app: ASGIApp, *, limits: Limits, token: str, metrics: Metrics) -> None:
        self._app, self._limits, self._token, self._metrics = app, limits, token.encode(), metrics
        self._running = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._running += 1
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        state = {"id": given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex, "running": self._running}
        # A new dictionary: that of the app's lifespan would be shared by all requests.
        scope["state"] = {**scope.get("state", {}), **state}
        start, status = time.monotonic(), 0

        async def send_marked(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", scope["state"]["id"].encode())]
            await send(message)

        try:
            await self._answer(scope, receive, send_marked, headers, lambda: status > 0)
        finally:
            self._running -= 1
            self._log(scope, status or 499, time.monotonic() - start)  # 499: the client has gone

    async def _answer(self, scope: Any, receive: Any, send: Any, headers: Any, is_begun: Callable[[], bool]) -> None:
        try:
            self._admit(scope["path"], headers)
            seconds = self._limits.timeout_seconds
            async with told_errors(scope["state"]["id"], seconds) as scope["state"]["timeout"]:
                await self._app(scope, receive, send)
        except RequestError as error:
            if not is_begun():
                await error_response(error)(scope, receive, send)
        except asyncio.CancelledError:  # the time for running requests is over, and the server stops
            if is_begun():
                raise
            stopped = RequestError("UNAVAILABLE", "this server stops before the answer is computed; try again")
            await error_response(stopped)(scope, receive, send)

    def _admit(self, path: str, headers: dict[bytes, bytes]) -> None:
        if path in _OPEN:
            return
        check_token(headers.get(b"authorization", b""), self._token, "header Authorization")
        if self._running > self._limits.max_requests:
            raise RequestError(
                "RESOURCE_EXHAUSTED",
                f"this server answers {self._limits.max_requests} requests at a time; try again later",
            )

    def _log(self, scope: Any, status: int, seconds: float) -> None:
        state = scope["state"]
        if scope["path"] in _PROBES:  # they come every second
            return
        self._metrics.add_request(state.get("model", ""), state.get("method", ""), status, seconds)
        path = one_line(scope["path"][:200])
        logger.info("%s %s %s %d %.1f ms", state["id"], scope["method"], path, status, 1000 * seconds)


@contextlib.asynccontextmanager
async def told_errors(request_id: str, seconds: float) -> AsyncIterator[asyncio.Timeout]:
    """A limit of time, within which all that goes wrong becomes a RequestError.

    Args:
      request_id: under which the server's log has its own mistakes, without the user's text.
      seconds: that the answer may take.
    """
    try:
        async with asyncio.timeout(seconds) as timeout:
            yield timeout
    except RequestError:
        raise
    except TimeoutError:
        message = f"the answer takes longer than this server's {seconds:g} seconds"
        raise RequestError("DEADLINE_EXCEEDED", message) from None
    except Exception as error:
        # The message may hold the user's text, so the log gets the place only.
        place = error.__traceback__
        while place and place.tb_next:
            place = place.tb_next
        where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else "?"
        logger.error("%s failed: %s at %s", request_id, type(error).__name__, where)
        raise RequestError("INTERNAL", "internal error; the server's log has the request's id") from None


def check_token(given: bytes, token: bytes, name: str) -> None:
    """Checks the token of a request.

    Args:
      given: as "Bearer TOKEN".
      token: the server's; b"" for none.
      name: of what the request gives it in.

    Raises:
      RequestError: if it is not the server's.
    """
    scheme, _, secret = given.partition(b" ")
    # Compares also where the scheme is wrong, so that times tell nothing.
    if token and (not hmac.compare_digest(secret.strip(), token) or scheme.lower() != b"bearer"):
        raise RequestError("UNAUTHENTICATED", f"send the {name}: Bearer TOKEN")


def json_response(text: str, status: int = 200) -> Response:
    """A response of JSON text."""
    return Response(text, status, media_type="application/json")


def error_response(error: RequestError) -> Response:
    """The response that tells an error."""
    response = json_response(error_answer(error.message), error.status)
    if error.code == "UNAUTHENTICATED":
        response.headers["WWW-Authenticate"] = "Bearer"
    if error.code in ("RESOURCE_EXHAUSTED", "UNAVAILABLE"):
        response.headers["Retry-After"] = "1"
    return response
