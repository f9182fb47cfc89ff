"""Claim: under mixed load, with a new version of a model every minute and a broken one between, no request fails.

Each answer is compared with the model's own in this process. Memory is read every ten seconds: from the first fifth of
the time to the end it grows by at most 5 %. At the end the server is killed and started again.

    python -m benchmarks.serving_soak --models saved_models [--minutes 10] [--plot FILE]
"""

import argparse
import http.client
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import memory_curve
from benchmarks.serving import WORDS, task_of
from nlp_rnn.files import newest_version


def main() -> None:
    """Runs the load and prints counts, memory and the time of a restart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("saved_models"))
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--plot", type=Path, help="a PNG file to write the curve of memory to")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = Path(shutil.copytree(options.models, Path(folder) / "models"))
        process, port = _start(models)
        try:
            found = _soak(options, models, process, port)
            process.send_signal(signal.SIGKILL)
            process.wait()
            start = time.perf_counter()
            process, port = _start(models)
            print(f"after kill -9 it answers again in {time.perf_counter() - start:.1f} s")
        finally:
            process.kill()
    if options.plot:
        memory_curve.plot(options.plot, found, "Memory of the server under load")
    memory_curve.check_growth(found)


def _soak(options: argparse.Namespace, models: Path, process: Any, port: int) -> memory_curve.Curve:
    """The load itself; returns (minutes, MB of memory)."""
    counts: Counter[str] = Counter()
    questions = [each for path in models.iterdir() if path.is_dir() for each in _questions(path)]
    stop = threading.Event()
    threads = [
        threading.Thread(target=_ask, args=(port, random.Random(number), questions, counts, stop))
        for number in range(options.clients)
    ]
    for thread in threads:
        thread.start()
    begun, memory, exchanged = time.monotonic(), memory_curve.Curve(), 0
    while (passed := time.monotonic() - begun) < 60 * options.minutes:
        memory.append((passed / 60, memory_curve.resident_megabytes(process.pid)))
        if passed > 60 * (exchanged + 0.5):
            exchanged += 1
            _exchange(models, is_broken=exchanged == 3)
        stop.wait(memory_curve.SAMPLE_SECONDS)
    stop.set()
    for thread in threads:
        thread.join()
    print(
        f"{counts['right']:,} answers right, {counts['wrong']} wrong, {counts['failed']} failed in "
        f"{options.minutes:g} minutes; {exchanged} new versions, {int(exchanged >= 3)} of them broken"
    )
    return memory


def _start(models: Path) -> tuple[Any, int]:
    """Starts the server, and waits until it answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "serve", "--models", str(models), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert process.stdout
    line = process.stdout.readline()
    found = re.search(r":(\d+)$", line.strip())
    assert found, line
    port = int(found[1])
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return process, port
        except OSError:
            pass
        time.sleep(0.1)


def _questions(model: Path) -> list[tuple[str, str, dict[str, Any]]]:
    """Requests of a model and its own answers: (path, body, answer)."""
    import tensorflow as tf

    version = newest_version(model)
    if not (version / "saved_model.pb").exists():
        return []
    loaded = tf.saved_model.load(str(version)).signatures["serving_default"]
    name = "prompt" if task_of(model) == "char_generation" else "text"
    generator, found = random.Random(0), []
    for _ in range(20):
        text = " ".join(generator.choices(WORDS, k=generator.randint(1, 40)))
        outputs = {key: value.numpy()[0] for key, value in loaded(**{name: tf.constant([text])}).items()}
        found.append((f"/v1/models/{model.name}:predict", json.dumps({"inputs": [text]}), outputs))
    return found


def _ask(port: int, generator: random.Random, questions: list[Any], counts: Counter[str], stop: Any) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    while not stop.is_set():
        path, body, expected = generator.choice(questions)
        try:
            connection.request("POST", path, body)
            answer = connection.getresponse()
            content = json.loads(answer.read())
            counts["failed" if answer.status != 200 else "right" if _equal(content, expected) else "wrong"] += 1
        except (OSError, http.client.HTTPException, ValueError):
            counts["failed"] += 1
            connection.close()


def _equal(content: dict[str, Any], expected: dict[str, Any]) -> bool:
    import numpy as np

    outputs = content["outputs"]
    found = outputs if isinstance(outputs, dict) else {next(iter(expected)): outputs}
    for name, value in expected.items():
        other, own = np.array(found[name])[0], np.asarray(value)
        if own.dtype.kind == "f":
            if not np.allclose(other, own, atol=1e-5):
                return False
        elif [str(each) for each in np.ravel(other)] != [_text(each) for each in np.ravel(own)]:
            return False
    return True


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _exchange(models: Path, *, is_broken: bool) -> None:
    """Puts a new version of one model beside the last, as a copy that appears at once."""
    model = sorted(path for path in models.iterdir() if any(path.glob("[0-9]*/saved_model.pb")))[0]
    newest = newest_version(model)
    copy = shutil.copytree(newest, models / f".copy-{newest.name}")
    if is_broken:
        graph = Path(copy) / "saved_model.pb"
        graph.write_bytes(graph.read_bytes()[:1000])
    os.rename(copy, model / str(int(newest.name) + 1))
    if is_broken:  # the next copy shall be of one that loads
        time.sleep(5)
        shutil.rmtree(model / str(int(newest.name) + 1))


if __name__ == "__main__":
    main()
