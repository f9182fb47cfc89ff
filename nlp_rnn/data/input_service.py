"""Batches that other machines read, resample and pad with TensorFlow's tf.data service.

The workers need TensorFlow and the files of token ids at the same paths as on the trainer; they do not need this
package. Batches are numbered. They arrive in any order and are put in order here, so that a training is the same with
and without the service. The trainer cannot distinguish a killed worker from a slow one (TensorFlow still waited after a
minute). If no batch arrives for hardware.connect_seconds, the trainer reads the missing batches of the current request
itself and then sends the next request to the workers. Source: tf.data.experimental.service.
"""

import contextlib
import logging
import queue
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorflow as tf

from nlp_rnn.config.settings import HardwareConfig
from nlp_rnn.data.bucketing import IdReader, Reader
from nlp_rnn.data.datasets import Resampling
from nlp_rnn.data.service_address import check_answers, first_line
from nlp_rnn.errors import ConfigError

logger = logging.getLogger(__name__)

_NUM_ORDERED = 500  # batches per request, which is also the largest number that wait here for an earlier one
_BUFFER_BYTES = 4096  # a text has some hundred bytes; TensorFlow's default is 256 KB per text


def served(reader: IdReader, hardware: HardwareConfig) -> Reader:
    """Makes a reader of the same batches that uses the workers of hardware.input_service.

    Raises:
      ConfigError: if nothing listens there. While reading: if a worker cannot read the ids, or no batch arrives within
        hardware.connect_seconds.
    """
    check_answers(hardware.input_service, "hardware.input_service", hardware.connect_seconds)

    def read(plan: list[np.ndarray], epoch: int = 0, first_step: int = 0) -> Iterator[list[np.ndarray]]:
        for start in range(0, len(plan), _NUM_ORDERED):
            yield from _read_some(reader, plan[start : start + _NUM_ORDERED], epoch, first_step + start, hardware)

    return read


def _read_some(
    reader: IdReader, plan: list[np.ndarray], epoch: int, first_step: int, hardware: HardwareConfig
) -> Iterator[list[np.ndarray]]:  # fmt: skip
    waiting: dict[int, list[np.ndarray]] = {}
    num_lost = 0
    with contextlib.closing(
        _arrivals(_dataset(reader, plan, epoch, first_step, hardware.input_service), hardware)
    ) as arrivals:
        for number, indices in enumerate(plan):
            while number not in waiting and (arrived := next(arrivals, None)):
                waiting[arrived[0]] = arrived[1]
            if number not in waiting:
                num_lost += 1
                waiting[number] = next(reader([indices], epoch, first_step + number))
            yield waiting.pop(number)
    if num_lost:
        logger.warning(
            "hardware.input_service: %d batches did not arrive, probably since a worker was lost; "
            "the trainer read them",
            num_lost,
        )


def _dataset(reader: IdReader, plan: list[np.ndarray], epoch: int, first_step: int, address: str) -> tf.data.Dataset:
    """A data set of (number of a batch in the plan, its ids), in any order."""
    num_sides = len(reader.caches)
    places = list(reader.places(plan, epoch))
    seeds = np.zeros((len(plan), num_sides, 2), np.int32)
    resamplers = cast(tuple[Resampling | None, ...], reader.resamplers)  # of TensorFlow, which the service needs
    for side, resample in enumerate(resamplers):
        if resample:
            for number in range(len(plan)):
                seeds[number, side] = resample.place(epoch, num_sides * (first_step + number) + side)
    paths = [cache.path.resolve() / "ids.bin" for cache in reader.caches]

    @tf.autograph.experimental.do_not_convert
    def read(number: tf.Tensor, starts: tf.Tensor, lengths: tf.Tensor, times: tf.Tensor, seeds: tf.Tensor) -> Any:
        sides = []
        for side, (path, fill, resample) in enumerate(zip(paths, reader.fills, resamplers, strict=True)):
            ids = _read_rows(path, starts[side], lengths[side], times[side], fill)
            sides.append(resample.draw(ids, seeds[side]) if resample else ids)
        return number, tuple(sides)

    def stacked(name: str) -> np.ndarray:
        return np.array([[getattr(place, name) for place in sides] for sides in places])

    elements = (np.arange(len(plan)), stacked("starts"), stacked("lengths"), stacked("time").astype(np.int32), seeds)
    service = tf.data.experimental.service
    distribute = service.distribute(processing_mode=service.ShardingPolicy.DYNAMIC, service=f"grpc://{address}")
    return (
        tf.data.Dataset.from_tensor_slices(elements)
        .map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
        .apply(distribute)
    )


def _read_rows(path: Path, starts: tf.Tensor, lengths: tf.Tensor, time: tf.Tensor, fill: int) -> tf.Tensor:
    """The result of `Places.read` in core operations. For a missing row, it reads the file's first id and drops it."""
    size = path.stat().st_size

    @tf.autograph.experimental.do_not_convert
    def read_row(start: tf.Tensor, length: tf.Tensor) -> tf.data.Dataset:
        return tf.data.FixedLengthRecordDataset(
            str(path), 4 * length, 4 * start, size - 4 * (start + length), _BUFFER_BYTES
        )

    rows = tf.data.Dataset.from_tensor_slices((starts, tf.maximum(lengths, 1))).flat_map(read_row)
    texts = tf.strings.substr(rows.batch(starts.shape[0]).get_single_element(), tf.zeros_like(lengths), 4 * lengths)
    ids = tf.io.decode_raw(texts, tf.int32, fixed_length=4 * time)
    first = tf.where(lengths == 0, fill, ids[:, 0])
    return tf.concat([first[:, None], ids[:, 1:]], axis=1)


def _arrivals(
    dataset: tf.data.Dataset, hardware: HardwareConfig
) -> Generator[tuple[int, list[np.ndarray]], None, None]:
    """Yields the elements of a data set until none arrives for hardware.connect_seconds.

    A thread reads the data set, since TensorFlow waits without a time limit.
    """
    elements: queue.Queue[Any] = queue.Queue(maxsize=16)
    is_over = threading.Event()
    has_arrived = False

    def put(item: Any) -> None:
        while not is_over.is_set():
            with contextlib.suppress(queue.Full):
                elements.put(item, timeout=0.5)
                return

    def read() -> None:
        try:
            for number, sides in dataset.as_numpy_iterator():
                put((int(number), list(sides)))
                if is_over.is_set():
                    return
            put(None)
        except tf.errors.OpError as error:
            put(error)

    threading.Thread(target=read, daemon=True).start()
    try:
        while True:
            try:
                item = elements.get(timeout=hardware.connect_seconds)
            except queue.Empty:
                if has_arrived:
                    return
                raise ConfigError(
                    f"hardware.input_service is {hardware.input_service}, from which no batch came in "
                    f"{hardware.connect_seconds} seconds (hardware.connect_seconds); "
                    "restart the service, then rerun the same command to resume"
                ) from None
            if item is None:
                return
            if isinstance(item, Exception):
                raise ConfigError(
                    f"hardware.input_service is {hardware.input_service}, whose worker failed: {first_line(item)}; "
                    "token "
                    "ids must be on a disk that the workers share (data.cache_dir), at the same path, and TensorFlow's "
                    "versions must be equal"
                )
            has_arrived = True
            yield item
    finally:
        is_over.set()
