"""Claim: `nlp-rnn serve` answers many clients several times as fast as the usual ways to serve a Keras model.

Every rival serves the same exported model in a process of its own, at loopback. Clients send one text per request over
connections that stay open; the load comes from this process, on the same machine. The rivals:

- ours: `nlp-rnn serve`;
- bare: Starlette, which calls the SavedModel once per request, one at a time;
- FastAPI: an endpoint that calls `model.predict` of the Keras model;
- LitServe: batches of up to 64, which wait 5 ms;
- batch function: Starlette and core TensorFlow's `tf.nondifferentiable_batch_function`.

FastAPI, LitServe and the batch function serve the classifier only. It also times one client beside a call of the
SavedModel in this process.

    python -m benchmarks.serving --models saved_models --run runs/sentiment_demo [--seconds 5] [--plot FILE]
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import timing
from nlp_rnn.files import newest_version

CLIENTS = (1, 16, 64)
TEXT = "the film was a good story with great actors and lovely music but the end is dull and rather too long"
WORDS = TEXT.split()
RIVALS = ("ours", "bare", "FastAPI", "LitServe", "batch function")


def main() -> None:
    """Measures all rivals and prints a table for each task."""
    options = _options()
    if options.server:
        _SERVERS[options.server](options)
        return
    timing.wait_until_quiet(options.wait)
    models = sorted(path.name for path in options.models.iterdir() if any(path.glob("[0-9]*/saved_model.pb")))
    models = [name for name in models if options.only in (None, name)]
    ratios: dict[str, dict[str, float]] = {}
    for model in models:
        task = task_of(options.models / model)
        rivals = [name for name in RIVALS if task == "sentiment" or name in ("ours", "bare")]
        if not options.run:
            rivals = [name for name in rivals if name != "FastAPI"]
        found = {name: measure(options, model, task, name) for name in rivals}
        for clients in CLIENTS:
            name = f"{model}, {clients} clients" if clients > 1 else f"{model}, one client"
            ratios[name] = {
                other: found[other][clients] / found["bare"][clients] for other in rivals if other != "bare"
            }
            print(f"{name}: times bare: " + ", ".join(f"{key} {value:.2f}" for key, value in ratios[name].items()))
        if task == "sentiment":
            _beside_a_call(options, model)
    if options.plot:
        timing.plot_ratios(options.plot, "Requests a second, beside one call per request", ratios)


def _options() -> argparse.Namespace:
    parser = timing.parser(__doc__, rounds=1)
    parser.add_argument("--models", type=Path, default=Path("saved_models"), help="folder of the exported models")
    parser.add_argument("--run", type=Path, help="the classifier's run, for FastAPI")
    parser.add_argument("--only", help="the name of the one model to measure")
    parser.add_argument("--seconds", type=float, default=5, help="of load for each number")
    parser.add_argument("--server", choices=[*_SERVERS], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(options: argparse.Namespace, model: str, task: str, rival: str) -> dict[int, float]:
    """Requests a second of a rival by number of clients."""
    rates = {}
    with _running(options, model, rival) as port:
        asyncio.run(_load(port, _requests(model, task, rival), 8, 2.0))  # warms up
        for clients in CLIENTS:
            seconds = asyncio.run(_load(port, _requests(model, task, rival), clients, options.seconds))
            seconds.sort()
            rates[clients] = len(seconds) / options.seconds
            p50, p99 = (1000 * seconds[int(share * (len(seconds) - 1))] for share in (0.5, 0.99))
            print(
                f"{model:18} {rival:15} {clients:3} clients {rates[clients]:7.0f} requests/s, "
                f"p50 {p50:7.1f} ms, p99 {p99:7.1f} ms",
                flush=True,
            )
    return rates


def _beside_a_call(options: argparse.Namespace, model: str) -> None:
    """Times single requests, short and of 250 words, beside calls of the SavedModel in this process."""
    import tensorflow as tf

    path = newest_version(options.models / model)
    loaded = tf.saved_model.load(str(path))
    classify = loaded.signatures["serving_default"]
    with _running(options, model, "ours") as port:
        for length in (12, 250):
            text = " ".join(random.Random(1).choices(WORDS, k=length))
            connection = socket.create_connection(("127.0.0.1", port))
            request = _http(f"/v1/models/{model}:predict", {"instances": [text]})

            def ask(connection: socket.socket = connection, request: bytes = request) -> None:
                connection.sendall(request)
                answer = connection.recv(65536)
                while not answer.endswith(b"]}"):  # the head may come before the body
                    answer += connection.recv(65536)
                assert answer.startswith(b"HTTP/1.1 200"), answer

            def call(text: str = text) -> None:
                classify(text=tf.constant([text]))["probability"].numpy()

            found = timing.interleave({"call": call, "request": ask}, 100, warm_up=30, lead_in=True)
            one, other = (1000 * statistics.median(found[name]) for name in ("call", "request"))
            print(f"one text of {length} words: call {one:.2f} ms, request {other:.2f} ms ({other / one - 1:+.0%})")
            connection.close()


# --- load -------------------------------------------------------------------------------------------------------------


def task_of(model: Path) -> str:
    """The task of an exported model."""
    config = next(model.glob("[0-9]*/assets.extra/config.yaml")).read_text(encoding="utf-8")
    found = re.search(r"^task: (\w+)", config, re.MULTILINE)
    assert found
    return found[1]


def _requests(model: str, task: str, rival: str) -> list[bytes]:
    """Requests with distinct texts, 5 to 30 words each."""
    generator, found = random.Random(0), []
    for _ in range(500):
        text = " ".join(generator.choices(WORDS, k=generator.randint(5, 30)))
        row: Any = {"sentiment": text, "translation": {"text": text}, "next_word": {"text": f"{text} "}}.get(task)
        body: dict[str, Any] = {"instances": [row]}
        if task == "char_generation":
            row = {
                "prompt": text, "max_length": 50, "min_length": 1, "temperature": 0.8, "top_k": 0, "top_p": 1.0,
                "repetition_penalty": 1.0, "seed": 1, "stop": [],
            }  # fmt: skip
            body = {"signature_name": "generate", "instances": [row]}
        elif task != "sentiment":
            body = {"instances": [row["text"]]}
        path = f"/v1/models/{model}:predict" if rival == "ours" else "/predict"
        found.append(_http(path, body))
    return found


def _http(path: str, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


async def _load(port: int, requests: list[bytes], clients: int, seconds: float) -> list[float]:
    """Seconds of each answered request of some clients at once."""
    found: list[float] = []
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        place = number
        while time.perf_counter() < end:
            start = time.perf_counter()
            writer.write(requests[place % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            assert length
            await reader.readexactly(int(length[1]))
            found.append(time.perf_counter() - start)
            place += clients
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return found


@contextlib.contextmanager
def _running(options: argparse.Namespace, model: str, rival: str) -> Iterator[int]:
    """The port of a rival's server."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    if rival == "ours":
        command = ["-m", "pipelines", "serve", "--models", str(options.models), "--port", str(port)]
    else:
        command = ["-m", "benchmarks.serving", "--server", rival, "--models", str(options.models), "--model", model]
        command += ["--port", str(port), *(["--run", str(options.run)] if options.run else [])]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        [sys.executable, *command],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_for(process, port, "/readyz" if rival == "ours" else "/health")
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # LitServe leaves processes behind otherwise
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, path: str) -> None:
    import urllib.request

    for _ in range(600):
        assert process.poll() is None, "the server has ended"
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise TimeoutError(path)


# --- the rivals' servers ----------------------------------------------------------------------------------------------


def _saved_model(options: argparse.Namespace) -> Any:
    import tensorflow as tf

    path = newest_version(options.models / options.model)
    return tf.saved_model.load(str(path))


def _run_starlette(options: argparse.Namespace, answer: Any) -> None:
    """Serves `answer(body) -> JSON`, called in threads."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    async def predict(request: Request) -> Response:
        found = await run_in_threadpool(answer, json.loads(await request.body()))
        return Response(json.dumps(found), media_type="application/json")

    async def health(_: Request) -> Response:
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/predict", predict, methods=["POST"]), Route("/health", health)])
    uvicorn.run(app, port=options.port, log_level="error", access_log=False)


def _plain(outputs: Any) -> Any:
    return {
        name: [each.decode() if isinstance(each, bytes) else each for each in value.numpy().ravel().tolist()]
        for name, value in outputs.items()
    }


def _serve_bare(options: argparse.Namespace) -> None:
    import threading

    import tensorflow as tf

    loaded, lock = _saved_model(options), threading.Lock()

    def answer(body: dict[str, Any]) -> Any:
        function = loaded.signatures[body.get("signature_name", "serving_default")]
        rows = body["instances"]
        specs = function.structured_input_signature[1]
        if len(specs) == 1:
            rows = [{next(iter(specs)): row} for row in rows]
        with lock:
            inputs = {}
            for name, spec in specs.items():
                shape = [len(rows), -1] if spec.shape.rank == 2 else [-1]
                inputs[name] = tf.reshape(tf.constant([row[name] for row in rows], spec.dtype), shape)
            return _plain(function(**inputs))

    _run_starlette(options, answer)


def _serve_batch_function(options: argparse.Namespace) -> None:
    import tensorflow as tf

    loaded = _saved_model(options)

    @tf.nondifferentiable_batch_function(
        num_batch_threads=1, max_batch_size=64, batch_timeout_micros=2000, allowed_batch_sizes=[64],
        max_enqueued_batches=100,
    )  # fmt: skip
    def batched(text: Any) -> Any:
        outputs = loaded.signatures["serving_default"](text=text)
        return outputs["probability"], outputs["label"]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def run(text: Any) -> Any:
        return batched(text)

    def answer(body: dict[str, Any]) -> Any:
        probability, label = run(tf.constant(body["instances"]))
        return {"probability": probability.numpy().tolist(), "label": [each.decode() for each in label.numpy()]}

    _run_starlette(options, answer)


def _serve_fastapi(options: argparse.Namespace) -> None:
    import fastapi
    import uvicorn

    from nlp_rnn.special_ids import PAD_ID
    from nlp_rnn.tokenization.encoding import encode
    from nlp_rnn.training.run_directory import load_run
    from nlp_rnn.training.trained_models import load_classifier

    run = load_run(options.run)
    model, tokenizer = load_classifier(run)
    data = run.config.data
    app = fastapi.FastAPI()

    @app.post("/predict")
    def predict(body: dict[str, list[str]]) -> dict[str, Any]:
        ids = encode(tokenizer, body["instances"], data.max_length, data.keep).to_tensor(PAD_ID)
        return {"logits": model.predict(ids, verbose=0).tolist()}

    @app.get("/health")
    def health() -> str:
        return "ok"

    uvicorn.run(app, port=options.port, log_level="error", access_log=False)


def _serve_litserve(options: argparse.Namespace) -> None:
    os.environ["MODEL"] = str(newest_version(options.models / options.model))
    os.execv(sys.executable, [sys.executable, "-m", "benchmarks.litserve_rival", str(options.port)])


_SERVERS = {
    "bare": _serve_bare,
    "batch function": _serve_batch_function,
    "FastAPI": _serve_fastapi,
    "LitServe": _serve_litserve,
}

if __name__ == "__main__":
    main()
