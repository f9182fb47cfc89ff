"""Computes requests, whatever protocol they came by: finds the model, checks limits, batches."""

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from nlp_rnn.printable import one_line
from nlp_rnn.serving.batching import Batcher
from nlp_rnn.serving.json_tensors import Arrays
from nlp_rnn.serving.limits import NUM_THREADS, Limits, check_inputs, check_outputs, check_settings
from nlp_rnn.serving.metrics import Metrics
from nlp_rnn.serving.model_store import ModelStore
from nlp_rnn.serving.served_model import ServedModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerSettings:
    """How a server answers.

    Attributes:
      is_strict: whether requests must give all inputs, as TensorFlow Serving requires.
      token: that clients must send; "" for none.
      allowed_origins: of web pages that browsers let call this server; "*" for all.
      logs_text: whether the inputs of requests are logged.
      poll_seconds: between two looks for new versions.
    """

    limits: Limits = field(default_factory=Limits)
    is_strict: bool = False
    token: str = ""
    allowed_origins: tuple[str, ...] = ()
    logs_text: bool = False
    poll_seconds: float = 1.0


class Engine:
    """What the HTTP and the gRPC server share. Its methods belong to one event loop.

    Attributes:
      store: the models.
      metrics: the figures of all requests.
    """

    def __init__(self, store: ModelStore, settings: ServerSettings) -> None:
        self.store, self.settings, self.metrics = store, settings, Metrics()
        self._executor = ThreadPoolExecutor(max_workers=NUM_THREADS, thread_name_prefix="batches")

    def stop(self) -> None:
        """Begins no further computation."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def compute(self, model: ServedModel, signature: str, inputs: Arrays, *, request_id: str) -> Arrays:
        """The outputs of a signature for the inputs of one request.

        Raises:
          RequestError: if the inputs or the answer are over a limit, the queue is full, or the graph rejects them.
        """
        limits = self.settings.limits
        check_inputs(inputs, limits)
        if model.signatures[signature].defaults:  # it is one of our exports
            check_settings(signature, inputs)
        self.log_text(request_id, {name: array.ravel()[:8] for name, array in inputs.items() if array.dtype == object})
        if signature not in model.batchers:
            model.batchers[signature] = Batcher(
                model.signatures[signature],
                lambda batch: model.call(signature, batch),
                self._executor,
                max_rows=limits.max_batch_rows,
                max_queued=limits.max_queued,
                on_batch=lambda rows: self.metrics.add_batch(model.name, signature, rows),
            )
        with in_use(model):
            outputs = await model.batchers[signature].answer(inputs)
        check_outputs(outputs, limits)
        return outputs

    def log_text(self, request_id: str, inputs: object) -> None:
        """Writes a request's inputs into the log, if that is wanted."""
        if self.settings.logs_text:
            logger.info("%s inputs %s", request_id, one_line(repr(inputs)[:1000]))


@contextlib.contextmanager
def in_use(model: ServedModel) -> Iterator[None]:
    """While it lasts, the version is not unloaded."""
    model.users += 1
    try:
        yield
    finally:
        model.users -= 1
