"""Odd HTTP requests to `nlp-rnn serve`, whose answers must be JSON with the client's mistake, never the server's."""

import contextlib
import http.client
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.commands import end, start
from tests.chaos.models import EXPORTS, SETTINGS
from tests.chaos.trials import NAMES, TEXTS, Trial
from tests.conftest import free_port

_GOOD = {
    "sentiment": {"instances": ["the film was good"]},
    "next_word": {"instances": ["My neighbour likes "]},
    "char_generation": {"instances": ["The c"]},
    "translation_en_de": {"instances": ["the old king"]},
}
_VERBS = ["predict", "predict", "predict", "classify", "regress", "stream", "explain", ""]
_ODD = [
    None, True, -1, 0, 10**30, 0.5, float("nan"), [], {}, [[]], [[], [1]], {"b64": "x"}, {"b64": ["a"]}, "\ud800",
    ["a", 1], "a" * 100_000, *TEXTS,
]  # fmt: skip
_BODIES = [
    b"", b"{", b"\xff", b"[" * 50_000, b'{"a":' * 50_000, b'{"instances": [' + b"9" * 6000 + b"]}", b"null", b"NaN",
    b'{"instances": [1]}{"instances": [1]}', b'{"instances": ["\\ud800"]}', b"\x00", b"a=b&c=d",
]  # fmt: skip


@contextlib.contextmanager
def _server(base: Path, work: Path) -> Iterator[tuple[int, Path]]:
    """Serves the models of all tasks; yields the port, and the file of what the server logs."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for task in SETTINGS:
        shutil.copytree(base / task / "saved_models" / EXPORTS[task], work / "models" / EXPORTS[task])
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        streams = Path(name)
        (streams / "input").touch()
        process = start(["serve", "--models", "models", "--port", str(port)], work, streams)
        try:
            for _ in range(600):
                with contextlib.suppress(OSError):
                    if all(_send(port, "POST", *each)[0] == 200 for each in _right_requests().values()):
                        break
                time.sleep(0.5)
            yield port, streams / "errors"
        finally:
            end(process)


def _send(port: int, method: str, path: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _right_requests() -> dict[str, tuple[str, bytes]]:
    """Path and body of a right request to each model."""
    return {name: (f"/v1/models/{name}:predict", json.dumps(body).encode()) for name, body in _GOOD.items()}


def _request(generator: Random) -> dict[str, Any]:
    request: dict[str, Any] = {}
    for key in generator.sample(["instances", "inputs", "signature_name", "examples", "prompt", "x"], 2):
        value = generator.choice(_ODD)
        if key == "instances" and generator.random() < 0.8:
            names = [
                "text",
                "count",
                "beam_size",
                "seed",
                "temperature",
                "stop",
                "top_k",
                "max_length",
                "prefix",
                "states",
            ]
            row = {name: generator.choice(_ODD) for name in generator.sample(names, generator.randint(0, 3))}
            value = [{"text": "a"} | row if generator.random() < 0.7 else generator.choice(_ODD)] * generator.randint(
                0, 3
            )
        if key == "signature_name":
            value = generator.choice(["serving_default", "translate", "suggest", "generate", "explain", "step", value])
        request[key] = value
    return request


def requests(base: Path, work: Path, generator: Random) -> Iterator[Trial]:
    """Sends odd requests to one server, which must also answer a right one as before, every ten trials."""
    with _server(base, work) as (port, log):
        right = {name: _send(port, "POST", *each) for name, each in _right_requests().items()}
        for number in range(10**9):
            model = generator.choice(list(_GOOD))
            body = json.dumps(_request(generator)).encode()
            if generator.random() < 0.3:
                place = generator.randrange(len(body))
                body = generator.choice([*_BODIES, body[:place], body[:place] + generator.randbytes(3) + body[place:]])
            odd = generator.choice(NAMES).encode("utf-8", "surrogateescape")[:5000].hex()
            quoted = "".join(f"%{odd[n : n + 2]}" for n in range(0, len(odd), 2))
            path = f"/v1/models/{model if generator.random() < 0.9 else quoted}:{generator.choice(_VERBS)}"
            method = generator.choice(["POST"] * 8 + ["GET", "PUT", "DELETE", "OPTIONS", "BREW"])
            headers = generator.choice(
                [{}, {"Content-Type": "x"}, {"Content-Encoding": "gzip"}, {"Authorization": "\xff"}]
            )
            yield f"{method} {path[:80]} {body[:200]!r}", *_judged(port, method, path, body, headers, log)
            if number % 10 == 0:
                name = generator.choice(list(_GOOD))
                again = _send(port, "POST", *_right_requests()[name])
                yield f"a right request to {name}", *(("ok", "") if again == right[name] else ("FINDING", repr(again)))


def _judged(port: int, method: str, path: str, body: bytes, headers: dict[str, str], log: Path) -> tuple[str, str]:
    try:
        status, answer = _send(port, method, path, body, headers)
    except (OSError, http.client.HTTPException) as error:
        return "FINDING", f"no answer: {error!r}"
    if b"Traceback" in answer or "Traceback" in log.read_text("utf-8", "replace"):
        log.write_text("", encoding="utf-8")
        return "FINDING", f"traceback, status {status}: {answer[:300]!r}"
    if status >= 500 and status != 501:
        return "FINDING", f"status {status}: {answer[:300]!r}"
    if answer == b"Invalid HTTP request received.":  # the web server's own words for what is no HTTP
        return "refused", f"{status} {answer!r}"
    if status in (200, 400) and ":stream" not in path:
        try:
            json.loads(answer)
        except ValueError:
            return "FINDING", f"status {status}, not JSON: {answer[:300]!r}"
    return ("ok" if status == 200 else "refused"), f"{status} {answer[:200]!r}"
