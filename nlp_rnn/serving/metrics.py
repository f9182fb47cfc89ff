"""Figures of a server, in the text format of Prometheus."""

import bisect
import threading
from collections import defaultdict
from collections.abc import Iterable

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counts requests and batches. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[Labels, int] = defaultdict(int)
        self._seconds: dict[Labels, list[float]] = {}
        self._rows: dict[Labels, list[float]] = {}

    def add_request(self, model: str, method: str, status: int, seconds: float) -> None:
        """Counts an answered request, by model, method (such as "predict") and HTTP status."""
        with self._lock:
            self._requests[("model", model), ("method", method), ("code", str(status))] += 1
            _observe(self._seconds, (("model", model), ("method", method)), _SECONDS, seconds)

    def add_batch(self, model: str, signature: str, rows: int) -> None:
        """Counts a batch, by model and signature."""
        with self._lock:
            _observe(self._rows, (("model", model), ("signature", signature)), _ROWS, rows)

    def text(self, queued: dict[str, int], running: int, versions: Iterable[tuple[str, int]]) -> str:
        """All figures as text.

        Args:
          queued: requests that wait, by model.
          running: requests that are being answered.
          versions: (model, version) that are served.
        """
        with self._lock:
            lines = [*_head("nlp_rnn_requests_total", "counter", "Answered requests by HTTP status.")]
            lines += [_line("nlp_rnn_requests_total", labels, count) for labels, count in self._requests.items()]
            lines += _histogram("nlp_rnn_request_seconds", "Time per request.", self._seconds, _SECONDS)
            lines += _histogram("nlp_rnn_batch_rows", "Rows that were computed together.", self._rows, _ROWS)
        lines += _head("nlp_rnn_queued_requests", "gauge", "Requests that wait for a batch.")
        lines += [_line("nlp_rnn_queued_requests", (("model", name),), count) for name, count in queued.items()]
        lines += [*_head("nlp_rnn_running_requests", "gauge", "Requests that are being answered.")]
        lines += [_line("nlp_rnn_running_requests", (), running)]
        lines += _head("nlp_rnn_served_version", "gauge", "1 for each version that is served.")
        lines += [_line("nlp_rnn_served_version", (("model", name), ("version", str(v))), 1) for name, v in versions]
        return "\n".join(lines) + "\n"


def _observe(table: dict[Labels, list[float]], labels: Labels, bounds: tuple[float, ...], value: float) -> None:
    """Adds a value to its bucket; behind the buckets stand the sum and the count."""
    buckets = table.setdefault(labels, [0.0] * (len(bounds) + 3))
    buckets[bisect.bisect_left(bounds, value)] += 1
    buckets[-2] += value
    buckets[-1] += 1


def _histogram(name: str, text: str, table: dict[Labels, list[float]], bounds: tuple[float, ...]) -> list[str]:
    lines = _head(name, "histogram", text)
    for labels, buckets in table.items():
        total = 0.0
        for bound, count in zip((*map(str, bounds), "+Inf"), buckets, strict=False):
            total += count
            lines.append(_line(f"{name}_bucket", (*labels, ("le", bound)), total))
        lines += [_line(f"{name}_sum", labels, buckets[-2]), _line(f"{name}_count", labels, buckets[-1])]
    return lines


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _line(name: str, labels: Labels, value: float) -> str:
    written = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
    number = int(value) if value == int(value) else value  # all digits: rates are differences of large numbers
    return f"{name}{{{written}}} {number}" if written else f"{name} {number}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
