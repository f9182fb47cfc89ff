"""Requests that arrive while a batch is computed form the next one, and each gets its own answer."""

import asyncio
import contextlib
import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nlp_rnn.serving.batching import Batcher, batch_key
from nlp_rnn.serving.request_errors import RequestError
from nlp_rnn.serving.signatures import Signature, Tensor

_NUMBERS = Tensor("DT_FLOAT", (None,))
ADD = Signature("add", {"x": _NUMBERS}, {"y": _NUMBERS}, "tensorflow/serving/predict", is_batched=True)
SEARCH = Signature(
    "search",
    {
        "text": Tensor("DT_STRING", (None,)),
        "beam_size": Tensor("DT_INT32", (None,)),
        "seed": Tensor("DT_INT32", (None,)),
    },
    {"y": _NUMBERS},
    "tensorflow/serving/predict",
    defaults={"beam_size": 5, "seed": 1},
    is_batched=True,
)


class Compute:
    """Adds one to x as soon as it may; fails for negative numbers."""

    def __init__(self):
        self.may_run, self.batches = threading.Event(), []

    def __call__(self, inputs):
        assert self.may_run.wait(60)
        self.batches.append(inputs["x"].tolist())
        if (inputs["x"] < 0).any():
            raise RequestError("INVALID_ARGUMENT", "negative")
        return {"y": inputs["x"] + 1}


@contextlib.contextmanager
def batching(signature=ADD, *, max_rows=64, max_queued=100):
    compute, rows = Compute(), []
    with ThreadPoolExecutor(2) as executor:
        batcher = Batcher(signature, compute, executor, max_rows=max_rows, max_queued=max_queued, on_batch=rows.append)
        try:
            yield batcher, compute, rows
        finally:
            compute.may_run.set()


async def ask(batcher, *values):
    try:
        return (await batcher.answer({"x": np.array(values, np.float32)}))["y"].tolist()
    except RequestError as error:
        return error.message


async def ask_all(batcher, compute, requests):
    """The answers to requests of which the first is computed while the others arrive."""
    tasks = [asyncio.create_task(ask(batcher, *values)) for values in requests]
    await asyncio.sleep(0.05)
    compute.may_run.set()
    return await asyncio.gather(*tasks)


def test_what_arrives_meanwhile_is_the_next_batch():
    with batching() as (batcher, compute, rows):
        answers = asyncio.run(ask_all(batcher, compute, [[1], [2, 3], [4], [5, 6, 7]]))
    assert answers == [[2], [3, 4], [5], [6, 7, 8]]
    # The task that computes starts only when the loop turns, so that the first batch holds all of them, or one.
    assert sorted(x for batch in compute.batches for x in batch) == [1, 2, 3, 4, 5, 6, 7]
    assert rows == [len(batch) for batch in compute.batches]
    assert len(compute.batches) <= 2


def test_requests_of_one_after_another_are_alone():
    async def run(batcher):
        return [await ask(batcher, number) for number in range(3)]

    with batching() as (batcher, compute, _):
        compute.may_run.set()
        assert asyncio.run(run(batcher)) == [[1], [2], [3]]
    assert compute.batches == [[0], [1], [2]]


def test_batches_have_a_largest_size():
    with batching(max_rows=3) as (batcher, compute, rows):
        answers = asyncio.run(ask_all(batcher, compute, [[1, 2], [3, 4], [5], [6, 7, 8, 9]]))
    assert answers == [[2, 3], [4, 5], [6], [7, 8, 9, 10]]
    assert rows == [3, 2, 4]  # a request is never split


def test_one_request_at_fault_does_not_hurt_the_others():
    with batching() as (batcher, compute, _):
        assert asyncio.run(ask_all(batcher, compute, [[1], [-2], [3]])) == [[2], "negative", [4]]


def test_a_full_queue_is_told():
    async def run(batcher, compute):
        first = asyncio.create_task(ask(batcher, 0))
        await asyncio.sleep(0.05)  # it is computed now, and waits no longer
        answers = await ask_all(batcher, compute, [[1], [2], [3]])
        return [await first, *answers]

    with batching(max_queued=2) as (batcher, compute, _):
        answers = asyncio.run(run(batcher, compute))
    assert answers == [[1], [2], [3], "2 requests wait for this model already; try again later"]


def test_requests_that_were_given_up_are_not_computed():
    async def run(batcher, compute):
        first = asyncio.create_task(ask(batcher, 0))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(ask(batcher, 1))
        await asyncio.sleep(0.01)
        assert len(batcher) == 1
        second.cancel()
        await asyncio.sleep(0.01)
        compute.may_run.set()
        return [await first, await ask(batcher, 2)]

    with batching() as (batcher, compute, _):
        assert asyncio.run(run(batcher, compute)) == [[1], [3]]
    assert compute.batches == [[0], [2]]


def test_a_bug_is_told_to_the_requests():
    def fail(inputs):
        raise KeyError("bug")

    async def run(batcher):
        await batcher.answer({"x": np.zeros(1, np.float32)})

    with ThreadPoolExecutor(1) as executor, pytest.raises(KeyError):
        asyncio.run(run(Batcher(ADD, fail, executor, max_rows=1, max_queued=1, on_batch=lambda rows: None)))


def search_inputs(texts, beam_sizes, seed=1):
    texts = np.array([text.encode() for text in texts], object)
    return {
        "text": texts, "beam_size": np.array(beam_sizes, np.int32),
        "seed": np.full(len(texts), seed, np.int32),
    }  # fmt: skip


def test_requests_with_the_same_settings_are_together():
    key = batch_key(SEARCH, search_inputs(["a"], [5]))
    assert key is not None
    assert key == batch_key(SEARCH, search_inputs(["b", "c"], [5, 5], seed=2))
    assert key != batch_key(SEARCH, search_inputs(["a"], [4]))  # the answer is as wide as the largest beam
    assert key != batch_key(SEARCH, search_inputs(["a", "b"], [5, 4]))


def test_inputs_that_are_not_rows_are_alone():
    inputs = search_inputs(["a", "b"], [5, 5])
    assert batch_key(SEARCH, {**inputs, "seed": np.ones(1, np.int32)}) is None
    assert batch_key(dataclasses.replace(SEARCH, is_batched=False), inputs) is None
