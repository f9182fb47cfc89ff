"""Claim: each model in saved_models/ is small, answers soon after its process starts, and fast from then on.

For each model a process that imports TensorFlow alone (of LiteRT files: LiteRT alone) loads it, answers one text, then
the same text again and again. Given folders with the same models in float32, these are measured too.

    python -m benchmarks.model_footprint [FOLDER ...] [--rounds 50]
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent.parent
_TEXTS = {
    "sentiment": "A warm, funny and beautifully acted film. I want to see it again.",
    "next_word": "This is one of the ",
    "char_generation": "ROMEO:\n",
    "translation": "Two men are playing chess in a park.",
}


def main() -> None:
    """Measures all models, each in a process of its own."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(Path(sys.argv[2]), int(sys.argv[3]))))
        return
    from benchmarks import timing  # it imports TensorFlow, which the processes of LiteRT models must not

    parser = timing.parser(__doc__, rounds=50)
    parser.add_argument("folders", nargs="*", type=Path, default=[_ROOT / "saved_models"])
    options = parser.parse_args()
    timing.wait_until_quiet(options.wait)
    for folder in options.folders:
        for version in sorted(folder.resolve().glob("*/1")):
            size = sum(path.stat().st_size for path in version.rglob("*") if path.is_file()) / 1e6
            command = [sys.executable, "-m", "benchmarks.model_footprint", "--one", str(version), str(options.rounds)]
            done = subprocess.run(command, check=True, cwd=_ROOT, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{folder.name}/{version.parent.name}: {size:.1f} MB; first answer after {found['first']:.1f} s "
                f"({found['import']:.1f} s of it to import); then {found['milliseconds']:.2f} ms a text; "
                f"{found['megabytes']:.0f} MB of memory, {found['without']:.0f} of it before the model",
                flush=True,
            )


def measure(version: Path, rounds: int) -> dict[str, float]:
    """Times one model in this process: seconds since its start, milliseconds a text, megabytes of memory."""
    name = version.parent.name
    text = next(text for task, text in _TEXTS.items() if name.startswith(task))
    load = _on_litert if name.endswith("_litert") else _on_tensorflow
    answer, imported, without = load(version, text)
    answer()
    first = _since_start()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        answer()
        seconds.append(time.perf_counter() - start)
    return {
        "first": first, "import": imported, "milliseconds": 1000 * statistics.median(seconds), "megabytes": _memory(),
        "without": without,
    }  # fmt: skip


def _on_tensorflow(version: Path, text: str) -> tuple[Callable[[], Any], float, float]:
    import tensorflow as tf

    tf.constant(0)
    imported, without = _since_start(), _memory()
    loaded = tf.saved_model.load(str(version))  # kept: it owns the variables
    signature, inputs = loaded.signatures["serving_default"], tf.constant([text])
    name = next(iter(signature.structured_input_signature[1]))
    return lambda: (loaded, signature(**{name: inputs})), imported, without


def _on_litert(version: Path, text: str) -> tuple[Callable[[], Any], float, float]:
    from nlp_rnn.ondevice.litert_model import OnDeviceModel
    from nlp_rnn.ondevice.typing_session import TypingSession

    imported, without = _since_start(), _memory()
    session = TypingSession(OnDeviceModel(version), count=3)
    return lambda: session.suggest(text), imported, without


def _since_start() -> float:
    """Seconds since this process was started."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return uptime - float(fields[19]) / os.sysconf("SC_CLK_TCK")


def _memory() -> float:
    """Resident memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


if __name__ == "__main__":
    main()
