"""The devices of a training. The same code runs on any hardware; Keras's `fit` needs some help on several devices.

Each replica of the model computes an equal part of the rows of every global batch. Gradients are summed over all
replicas before they are clipped, and losses are divided by the weight of the whole batch (`replicas`). So the result
does not depend on the number of replicas, nor on the number of parts into which each splits its rows to save memory.
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

_SECONDS_TO_JOIN = 60.0  # after all workers have answered


@dataclass(frozen=True)
class Placement:
    """The devices of a training.

    Attributes:
      strategy: a tf.distribute strategy; None for one device.
      num_replicas: number of copies of the model, on all machines.
      worker, num_workers: the index of this process, and the number of processes that train together.
      name: of the chosen strategy.
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
        """Whether all batches must have the same shape."""
        return self.name == "tpu"

    def scope(self) -> Any:
        """The context in which models and optimizers are built."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def wait_for_all(self) -> None:
        """Waits until all workers have called it."""
        self.sum_over_workers()

    def sum_over_workers(self, *numbers: int) -> tuple[int, ...]:
        """Sums each number over all workers. All workers must call it."""
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
        """Runs the context on the chief first, so that the others find the files that it wrote."""
        if not self.is_chief:
            self.wait_for_all()
        yield
        if self.is_chief:
            self.wait_for_all()

    def agree(self, what: str, value: str) -> None:
        """Checks that all workers have the same value. All workers must call it.

        Args:
          what: names the value in the message.

        Raises:
          ConfigError: if a worker has another value.
        """
        own = [
            int.from_bytes(hashlib.blake2b(f"{part}{value}".encode(), digest_size=2).digest(), "big")
            for part in range(4)
        ]
        if self.sum_over_workers(*own) != tuple(number * self.num_workers for number in own):
            raise ConfigError(
                f"worker {self.worker} of {self.num_workers}: {what} differs among the workers; "
                "give all the same settings and files"
            )

    def told_by_chief(self, *numbers: int) -> tuple[int, ...]:
        """Returns the chief's numbers. All workers must call it."""
        return self.sum_over_workers(*(number if self.is_chief else 0 for number in numbers))

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Encloses a training: if a worker fails or is lost, the others end with an error.

        Raises:
          ConfigError: if another worker is lost.
        """
        if self.num_workers == 1:
            yield
            return
        import tensorflow as tf
        from tensorflow.python.eager import context

        lost = (
            tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError,
            tf.errors.DeadlineExceededError,
            tf.errors.FailedPreconditionError,
        )  # fmt: skip
        try:
            yield
        except Stopped:
            raise
        except BaseException as error:
            # Otherwise the other workers would wait for this one forever.
            with contextlib.suppress(tf.errors.OpError):
                context.context().report_error_to_cluster(tf.errors.ABORTED, f"worker {self.worker}: {error}")
            if not isinstance(error, lost):
                raise
            reason = str(error.message).strip().split("\n")[0][:200] or type(error).__name__
            raise ConfigError(
                f"worker {self.worker} of {self.num_workers}: another worker has ended or cannot be reached, or this "
                f"one failed ({reason}); fix the error that one of them printed, and rerun the same command on all "
                "workers to resume from the last checkpoint"
            ) from None

    def rows(self, batch_size: int) -> slice:
        """The rows of every global batch that this worker reads."""
        size = batch_size // self.num_workers
        return slice(self.worker * size, (self.worker + 1) * size)

    def distribute(self, dataset: Any) -> Any:
        """Distributes a data set of this worker's rows to its replicas, in the order of the rows.

        `fit` needs its length.
        """
        if self.strategy is None:
            return dataset
        return self.strategy.distribute_datasets_from_function(lambda _: self._replicas_batches(dataset))

    def _replicas_batches(self, dataset: Any) -> Any:
        """Splits the batches of this worker among its replicas, one after the other."""
        import tensorflow as tf

        local = self.num_replicas // self.num_workers

        def split(*batch: Any) -> tf.data.Dataset:
            def rows_of_replicas(tensor: tf.Tensor) -> tf.Tensor:
                size = tensor.shape[0] // local
                parts = tf.reshape(tensor, tf.concat([[local, size], tf.shape(tensor)[1:]], axis=0))
                return tf.ensure_shape(parts, [local, size, *tensor.shape[1:]])

            return tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(rows_of_replicas, batch))

        own = dataset.flat_map(split)
        # If a data set may end, workers check before every step whether any of them has a batch left, and lose the
        # shapes. So it is continued with empty batches, which nobody reads.
        empty = tf.nest.map_structure(
            lambda spec: tf.zeros([size or 1 for size in spec.shape], spec.dtype), own.element_spec
        )
        return own.concatenate(tf.data.Dataset.from_tensors(empty).repeat()).prefetch(2 * local)

    def check(self, training: TrainingConfig) -> None:
        """Checks that batches can be split evenly.

        Raises:
          ConfigError: if the batch size is not divisible by the number of parts.
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
    """Imports TensorFlow and sets up its devices, once per process. Call it before anything else uses TensorFlow.

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
            "hardware.strategy is multi_worker, but the environment variable TF_CONFIG, which names the workers, is "
            "not "
            "set; set it on every machine, or start the workers of one machine with nlp-rnn launch"
        )
    if cluster and len(cluster.addresses) > 1 and name != "multi_worker":
        raise ConfigError(
            f"hardware.strategy is {name}, but TF_CONFIG names {len(cluster.addresses)} workers, each of which would "
            "train on its own; use auto or multi_worker, or unset TF_CONFIG"
        )
    placement = import_tensorflow(lambda: _place(name, cluster, hardware.num_replicas, hardware.connect_seconds))
    logger.info("hardware: %s", _description(placement, hardware))
    return placement


@functools.cache
def _place(name: str, cluster: Cluster | None, num_replicas: int, connect_seconds: int) -> Placement:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        with contextlib.suppress(RuntimeError):  # TensorFlow is already in use
            tf.config.experimental.set_memory_growth(gpu, True)
    if name == "auto":
        name = "mirrored" if len(gpus) > 1 else "gpu" if gpus else "cpu"
    if name == "gpu" and not gpus:
        raise ConfigError(
            "hardware.strategy is gpu, but TensorFlow finds no GPU; use auto or cpu, or install tensorflow[and-cuda]"
        )
    if name == "cpu" and gpus:
        try:
            tf.config.set_visible_devices([], "GPU")
        except RuntimeError:
            raise ConfigError(
                "hardware.strategy is cpu, but TensorFlow already uses a GPU in this process; start a new process"
            ) from None
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
    elif count:  # split the processor, to try out several devices
        cpu = tf.config.list_physical_devices("CPU")[0]
        try:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
        except RuntimeError:  # TensorFlow is already in use
            if len(tf.config.list_logical_devices("CPU")) < count:
                raise ConfigError(
                    f"hardware.num_replicas is {count}, but TensorFlow is already in use in this process, so that the "
                    "processor cannot be split any more; start a new process"
                ) from None
        devices = [f"CPU:{number}" for number in range(count)]
    else:
        raise ConfigError(
            "hardware.strategy is mirrored, but TensorFlow finds no GPU; use auto or cpu, or hardware.num_replicas=2 "
            "to try it out on a "
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
                f"TF_CONFIG: worker {cluster.index}, {address}, could not join the others ({reason}); its port may be "
                "taken, or an earlier process may still run: end it, wait a minute, or give another port"
            ) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # TensorFlow's own handler does not end the process
    return Placement(strategy, strategy.num_replicas_in_sync, cluster.index, len(cluster.addresses), "multi_worker")


def _place_on_tpu() -> Placement:
    import tensorflow as tf

    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=os.environ.get("TPU_NAME", ""))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, ImportError, tf.errors.OpError) as error:
        raise ConfigError(
            f"hardware.strategy is tpu, but no TPU answers ({error}); set the environment variable TPU_NAME, or use "
            f"auto"
        ) from None
    strategy = tf.distribute.TPUStrategy(resolver)
    if strategy.extended.num_hosts > 1:
        raise ConfigError(
            f"hardware.strategy is tpu with {strategy.extended.num_hosts} hosts, but only one host is supported; "
            "use a smaller TPU"
        )
    return Placement(strategy, strategy.num_replicas_in_sync, name="tpu")


@contextlib.contextmanager
def _killed_after(seconds: float, message: str) -> Iterator[None]:
    """Kills this process with a message if the context lasts longer.

    TensorFlow waits for the other workers forever and blocks Python meanwhile, so another process has to do it.
    """
    line = f"{message}; compare the TF_CONFIGs, and start the same command on all of them again\n"
    program = "import os, select, sys\nif not select.select([0], [], [], float(sys.argv[1]))[0]:\n" + (
        "    sys.stderr.write(sys.argv[3])\n    os.kill(int(sys.argv[2]), 9)"
    )
    command = [sys.executable, "-I", "-c", program, str(seconds), str(os.getpid()), line]
    watchdog = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603
    try:
        yield
    finally:
        watchdog.communicate()  # closes its standard input, which ends it, as the death of this process does


def _description(placement: Placement, hardware: HardwareConfig) -> str:
    chosen = " (by auto)" if hardware.strategy == "auto" else ""
    if placement.strategy is None:
        return placement.name + chosen
    where = f", worker {placement.worker} of {placement.num_workers}" if placement.num_workers > 1 else ""
    return f"{placement.name}{chosen}, {placement.num_replicas} replicas{where}"
