"""Computes the rows of several requests together.

There is no timer: while a batch is computed, requests wait; when it is done, those that wait form the next batch. So a
single client never waits, and batches grow with the load. Source: the adaptive batching of Crankshaw et al. 2017
(Clipper), section 4.3, without its delay.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlp_rnn.serving.json_tensors import Arrays
from nlp_rnn.serving.request_errors import RequestError
from nlp_rnn.serving.signatures import Signature

# Settings on which neither the shape of an answer nor much of its time depends: rows with other values can be together.
_FREE_SETTINGS = ("seed", "prefix")


@dataclass(eq=False)
class _Waiting:
    inputs: Arrays
    rows: int
    key: Hashable
    answer: "asyncio.Future[Arrays]"


class Batcher:
    """The queue of one signature of one version. All its methods belong to one event loop.

    Args:
      compute: arrays -> arrays; runs in a thread of `executor`, one call at a time.
      max_rows: of a batch of several requests.
      max_queued: requests that may wait.
      on_batch: called with the number of rows of each batch.
    """

    def __init__(
        self,
        signature: Signature,
        compute: Callable[[Arrays], Arrays],
        executor: Executor,
        *,
        max_rows: int,
        max_queued: int,
        on_batch: Callable[[int], None],
    ) -> None:
        self._signature, self._compute, self._executor = signature, compute, executor
        self._max_rows, self._max_queued, self._on_batch = max_rows, max_queued, on_batch
        self._waiting: deque[_Waiting] = deque()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """The number of waiting requests."""
        return len(self._waiting)

    async def answer(self, inputs: Arrays) -> Arrays:
        """The outputs for a request's inputs: what the signature gives for them alone.

        Raises:
          RequestError: if the queue is full, or the graph rejects the inputs.
        """
        if len(self._waiting) >= self._max_queued:
            raise RequestError(
                "RESOURCE_EXHAUSTED", f"{self._max_queued} requests wait for this model already; try again later"
            )
        future = asyncio.get_running_loop().create_future()
        rows = max((len(array) for array in inputs.values() if array.ndim), default=0)
        self._waiting.append(_Waiting(inputs, rows, batch_key(self._signature, inputs), future))
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        """Computes batches until no request waits."""
        try:
            while batch := self._next_batch():
                await self._compute_batch(batch)
        finally:
            self._task = None

    def _next_batch(self) -> list[_Waiting]:
        """The request that has waited longest, and the others that can be computed with it."""
        while self._waiting and self._waiting[0].answer.done():  # given up
            self._waiting.popleft()
        if not self._waiting:
            return []
        first = self._waiting.popleft()
        batch, rows, left = [first], first.rows, deque[_Waiting]()
        for each in self._waiting:
            if each.answer.done():
                continue
            if first.key is not None and each.key == first.key and rows + each.rows <= self._max_rows:
                batch.append(each)
                rows += each.rows
            else:
                left.append(each)
        self._waiting = left
        return batch

    async def _compute_batch(self, batch: list[_Waiting]) -> None:
        self._on_batch(sum(each.rows for each in batch))
        try:
            answers = await self._computed(batch)
        except RequestError as error:
            if len(batch) == 1:
                _fail(batch[0], error)
                return
            for each in batch:  # one of them is at fault: the others must not suffer
                await self._compute_batch([each])
            return
        except Exception as error:  # told to the requests, which would wait for ever otherwise
            for each in batch:
                _fail(each, error)
            return
        for each, outputs in zip(batch, answers, strict=True):
            if not each.answer.done():
                each.answer.set_result(outputs)

    async def _computed(self, batch: list[_Waiting]) -> list[Arrays]:
        names = batch[0].inputs
        inputs = batch[0].inputs
        if len(batch) > 1:
            inputs = {name: np.concatenate([each.inputs[name] for each in batch]) for name in names}
        outputs = await asyncio.get_running_loop().run_in_executor(self._executor, self._compute, inputs)
        if len(batch) == 1:
            return [outputs]
        ends = np.cumsum([each.rows for each in batch])[:-1]
        parts = {name: np.split(array, ends) for name, array in outputs.items()}
        return [{name: arrays[number] for name, arrays in parts.items()} for number in range(len(batch))]


def batch_key(signature: Signature, inputs: Arrays) -> Hashable:
    """What requests must share to be computed together; None: nothing is computed with this request.

    They share the shape of a row, and the settings, since some decide the shape of an answer (beam_size) or its time
    (max_length).
    """
    if not signature.is_batched or len({len(array) for array in inputs.values()}) != 1:
        return None
    key: list[Any] = []
    for name, array in sorted(inputs.items()):
        key.append(array.shape[1:])
        if name in signature.defaults and name not in _FREE_SETTINGS:
            key.append(tuple(sorted(set(array.ravel().tolist()))))
    return tuple(key)


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
