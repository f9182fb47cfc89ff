"""One code for any hardware: which devices train, and where Keras's `fit` needs help on several of them.

Each replica of the model computes an equal part of every global batch's rows; gradients are added up over all replicas
before they are clipped, and losses are divided by the weight of the whole batch (`replicas`). So the result does not
depend on the number of replicas, nor on the number of parts into which each splits its rows to save memory.
"""

import contextlib
import functools
import hashlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nlp_rnn.config.settings import HardwareConfig, TrainingConfig
from nlp_rnn.distribution.cluster import Cluster, await_others, cluster_of_environment
from nlp_rnn.errors import ConfigError, Stopped
from nlp_rnn.tensorflow_import import import_tensorflow, without_noise

logger = logging.getLogger(__name__)

_SECONDS_TO_JOIN = 60.0  # when all workers answer


@dataclass(frozen=True)
class Placement:
    """The devices of a training.

    Attributes:
      strategy: of tf.distribute; None for one device.
      num_replicas: copies of the model, on all machines.
      worker, num_workers: this process among those that train together.
      name: what was chosen.
    """

    strategy: Any = None
    num_replicas: int = 1
    worker: int = 0
    num_workers: int = 1
    name: str = "cpu"

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run directory."""
        return self.worker == 0

    @property
    def has_fixed_shapes(self) -> bool:
        """Whether all batches must be of one shape."""
        return self.name == "tpu"

    def scope(self) -> Any:
        """In which models and optimizers are made."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def wait_for_all(self) -> None:
        """Returns when all workers have come here."""
        self.sum_over_workers()

    def sum_over_workers(self, *numbers: int) -> tuple[int, ...]:
        """The sum of each of some numbers over all workers; all of them must call it."""
        if self.num_workers == 1:
            return numbers
        import tensorflow as tf

        local = self.num_replicas // self.num_workers
        values = self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant((*numbers, 0)) * int(context.replica_id_in_sync_group % local == 0)
        )
        return tuple(self.strategy.reduce("SUM", values, axis=None).numpy().tolist()[:-1])

    @contextlib.contextmanager
    def chief_first(self) -> Iterator[None]:
        """The chief does what stands in the context before the others: they find files that it left."""
        if not self.is_chief:
            self.wait_for_all()
        yield
        if self.is_chief:
            self.wait_for_all()

    def agree(self, what: str, value: str) -> None:
        """Refuses workers of which one has something else; all of them must call it.

        Args:
          what: for the message.

        Raises:
          ConfigError: if so.
        """
        own = [
            int.from_bytes(hashlib.blake2b(f"{part}{value}".encode(), digest_size=2).digest(), "big")
            for part in range(4)
        ]
        if self.sum_over_workers(*own) != tuple(number * self.num_workers for number in own):
            raise ConfigError(
                f"worker {self.worker} of {self.num_workers}: {what} differs among the workers; give all the same settings and files"
            )

    def told_by_chief(self, *numbers: int) -> tuple[int, ...]:
        """The chief's numbers; all workers must call it."""
        return self.sum_over_workers(*(number if self.is_chief else 0 for number in numbers))

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Around a training: a worker that is lost, or fails, ends the others with a line.

        Raises:
          ConfigError: if another worker is lost.
        """
        if self.num_workers == 1:
            yield
            return
        import tensorflow as tf
        from tensorflow.python.eager import context

        lost = (
            tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError,
            tf.errors.FailedPreconditionError,
        )  # fmt: skip
        try:
            yield
        except lost:
            raise ConfigError(
                f"worker {self.worker} of {self.num_workers}: another worker has ended or cannot be reached; if it has not said why, start "
                "the same command on all of them again: the training goes on from its last checkpoint"
            ) from None
        except Stopped:
            raise
        except BaseException as error:
            # Else the others would wait for us without end.
            with contextlib.suppress(tf.errors.OpError):
                context.context().report_error_to_cluster(tf.errors.ABORTED, f"worker {self.worker}: {error}")
            raise

    def rows(self, batch_size: int) -> slice:
        """Which rows of every global batch this worker reads."""
        size = batch_size // self.num_workers
        return slice(self.worker * size, (self.worker + 1) * size)

    def distribute(self, dataset: Any) -> Any:
        """A data set of this worker's rows as `fit` reads it, given the number of steps: its replicas get theirs in the rows' order."""
        if self.strategy is None:
            return dataset
        return self.strategy.distribute_datasets_from_function(lambda _: self._replicas_batches(dataset))

    def _replicas_batches(self, dataset: Any) -> Any:
        """The batches of this worker's replicas, one after the other."""
        import tensorflow as tf

        local = self.num_replicas // self.num_workers

        def split(*batch: Any) -> tf.data.Dataset:
            def rows_of_replicas(tensor: tf.Tensor) -> tf.Tensor:
                size = tensor.shape[0] // local
                parts = tf.reshape(tensor, tf.concat([[local, size], tf.shape(tensor)[1:]], axis=0))
                return tf.ensure_shape(parts, [local, size, *tensor.shape[1:]])

            return tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(rows_of_replicas, batch))

        own = dataset.flat_map(split)
        # Of a data set that may end, workers ask each other before every step whether anybody has a batch left, and shapes are
        # lost. So it goes on with empty batches, which nobody reads.
        empty = tf.nest.map_structure(
            lambda spec: tf.zeros([size or 1 for size in spec.shape], spec.dtype), own.element_spec
        )
        return own.concatenate(tf.data.Dataset.from_tensors(empty).repeat()).prefetch(2 * local)

    def check(self, training: TrainingConfig) -> None:
        """Refuses batches that cannot be split evenly.

        Raises:
          ConfigError: so.
        """
        parts = self.num_replicas * training.gradient_accumulation
        if training.batch_size % parts:
            of = f"{self.num_replicas} replicas" + (
                f" of {training.gradient_accumulation} parts each" if training.gradient_accumulation > 1 else ""
            )
            below = training.batch_size - training.batch_size % parts
            near = f"{below} or {below + parts}" if below else f"{parts}"
            raise ConfigError(
                f"training.batch_size is {training.batch_size}, but must be a multiple of {parts}, for {of}; use {near}"
            )


ONE_DEVICE = Placement()


def start_devices(hardware: HardwareConfig) -> Placement:
    """Imports TensorFlow and sets up its devices, once a process. It must come before anything else of TensorFlow's.

    Raises:
      ConfigError: if there are no such devices, or not all workers can be reached.
    """
    cluster = cluster_of_environment()
    name = hardware.strategy
    if name == "auto":
        name = (
            "multi_worker"
            if cluster and len(cluster.addresses) > 1
            else "tpu"
            if os.environ.get("TPU_NAME")
            else "auto"
        )
    if name == "multi_worker" and cluster is None:
        raise ConfigError(
            "hardware.strategy is multi_worker, but the environment variable TF_CONFIG, which names the workers, is not set; set it on "
            "every machine, or start the workers of one machine by nlp-rnn launch"
        )
    if cluster and len(cluster.addresses) > 1 and name != "multi_worker":
        raise ConfigError(
            f"hardware.strategy is {name}, but TF_CONFIG names {len(cluster.addresses)} workers, each of which would train on its own; use "
            "auto or multi_worker, or unset TF_CONFIG"
        )
    placement = import_tensorflow(lambda: _place(name, cluster, hardware.num_replicas, hardware.connect_seconds))
    logger.info("hardware: %s", _description(placement, hardware))
    return placement


@functools.cache
def _place(name: str, cluster: Cluster | None, num_replicas: int, connect_seconds: int) -> Placement:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        with contextlib.suppress(RuntimeError):  # TensorFlow is in use already
            tf.config.experimental.set_memory_growth(gpu, True)
    if name == "auto":
        name = "mirrored" if len(gpus) > 1 else "gpu" if gpus else "cpu"
    if name == "gpu" and not gpus:
        raise ConfigError(
            "hardware.strategy is gpu, but TensorFlow finds no GPU; use auto or cpu, or install tensorflow[and-cuda]"
        )
    if name == "cpu" and gpus:
        tf.config.set_visible_devices([], "GPU")
    if name in ("cpu", "gpu"):
        return Placement(name=name)
    if name == "tpu":
        return _place_on_tpu()
    if name == "multi_worker" and cluster is not None:
        placement = _join(cluster, connect_seconds, len(gpus))
    else:
        placement = _mirror(num_replicas or len(gpus), gpus)
    with without_noise():  # of the first iterator
        iter(placement.strategy.distribute_datasets_from_function(lambda _: tf.data.Dataset.from_tensors(0).repeat()))
    return placement


def _mirror(count: int, gpus: list[Any]) -> Placement:
    import tensorflow as tf

    if gpus:
        if count > len(gpus):
            raise ConfigError(
                f"hardware.num_replicas is {count}, but TensorFlow finds {len(gpus)} GPUs; use 0 for all of them"
            )
        devices = [f"GPU:{number}" for number in range(count)]
    elif count:  # parts of the processor, to try out what several devices do
        cpu = tf.config.list_physical_devices("CPU")[0]
        try:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
        except RuntimeError:  # TensorFlow is in use already
            if len(tf.config.list_logical_devices("CPU")) < count:
                raise
        devices = [f"CPU:{number}" for number in range(count)]
    else:
        raise ConfigError(
            "hardware.strategy is mirrored, but TensorFlow finds no GPU; use auto or cpu, or hardware.num_replicas=2 to try it out on a "
            "processor"
        )
    return Placement(tf.distribute.MirroredStrategy(devices), count, name="mirrored")


def _join(cluster: Cluster, connect_seconds: int, num_gpus: int) -> Placement:
    import tensorflow as tf

    address, deadline = cluster.addresses[cluster.index], time.monotonic() + connect_seconds
    await_others(cluster, connect_seconds, f"{num_gpus} GPUs" if num_gpus else "")
    with _killed_after(
        deadline - time.monotonic() + _SECONDS_TO_JOIN, f"TF_CONFIG: the others answer, but do not join {address}"
    ):
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.OpError as error:
            reason = str(error.message).strip().split("\n")[0]
            raise ConfigError(
                f"TF_CONFIG: worker {cluster.index}, {address}, could not join the others ({reason}); its port may be taken, or an earlier "
                "process may still run: end it, wait a minute, or give another port"
            ) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # TensorFlow's own handler only takes note of it
    return Placement(strategy, strategy.num_replicas_in_sync, cluster.index, len(cluster.addresses), "multi_worker")


def _place_on_tpu() -> Placement:
    import tensorflow as tf

    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=os.environ.get("TPU_NAME", ""))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, ImportError, tf.errors.OpError) as error:
        raise ConfigError(
            f"hardware.strategy is tpu, but no TPU answers ({error}); set the environment variable TPU_NAME, or use auto"
        ) from None
    strategy = tf.distribute.TPUStrategy(resolver)
    if strategy.extended.num_hosts > 1:
        raise ConfigError(
            f"hardware.strategy is tpu, of {strategy.extended.num_hosts} hosts, but one host is fed here; use a smaller TPU"
        )
    return Placement(strategy, strategy.num_replicas_in_sync, name="tpu")


@contextlib.contextmanager
def _killed_after(seconds: float, message: str) -> Iterator[None]:
    """Ends this process with a line where the context lasts longer: TensorFlow waits for the others without end, and lets nothing of
    Python's run meanwhile, so that another process must do it."""
    line = f"{message}; compare the TF_CONFIGs, and start the same command on all of them again\n"
    program = "import os, select, sys\nif not select.select([0], [], [], float(sys.argv[1]))[0]:\n" + (
        "    sys.stderr.write(sys.argv[3])\n    os.kill(int(sys.argv[2]), 9)"
    )
    command = [sys.executable, "-I", "-c", program, str(seconds), str(os.getpid()), line]
    watchdog = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603
    try:
        yield
    finally:
        watchdog.communicate()  # closes its standard input, upon which it ends; as it does when we die


def _description(placement: Placement, hardware: HardwareConfig) -> str:
    chosen = " (by auto)" if hardware.strategy == "auto" else ""
    if placement.strategy is None:
        return placement.name + chosen
    where = f", worker {placement.worker} of {placement.num_workers}" if placement.num_workers > 1 else ""
    return f"{placement.name}{chosen}, {placement.num_replicas} replicas{where}"
