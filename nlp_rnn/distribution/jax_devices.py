"""The devices of a training on Keras's backend JAX. No TensorFlow.

Each device computes an equal part of the rows of every global batch (`keras.distribution.DataParallel`). Arrays are
global here, so sums over the batch are already sums over all devices.
"""

import logging
from typing import Any

from nlp_rnn import extras
from nlp_rnn.config.settings import Config
from nlp_rnn.distribution.placement import Placement
from nlp_rnn.errors import ConfigError

logger = logging.getLogger(__name__)


def start_devices(config: Config) -> Placement:
    """Finds the devices. Call it once per process, before a model is built.

    Raises:
      ConfigError: if there are no such devices, or a setting needs TensorFlow.
    """
    _check(config)
    devices = _devices(config.hardware.strategy, config.hardware.num_replicas)
    import jax
    import keras

    jax.config.update("jax_default_device", devices[0])  # also where JAX itself would prefer a GPU
    parallel = (
        keras.distribution.DataParallel(devices=[f"{each.platform}:{each.id}" for each in devices])
        if len(devices) > 1
        else None
    )
    keras.distribution.set_distribution(parallel)
    logger.info("hardware: JAX, %d x %s", len(devices), devices[0].device_kind)
    return Placement(num_replicas=len(devices), name="jax")


def _check(config: Config) -> None:
    extras.require("jax", "KERAS_BACKEND is jax")
    if config.hardware.strategy == "multi_worker":
        raise ConfigError(
            "hardware.strategy is multi_worker, which needs TensorFlow; JAX trains on one machine: use auto"
        )
    for key, value, allowed in (
        ("training.optimizer", config.training.optimizer, ("adam", "adamw", "sgd")),
        ("training.gradient_accumulation", config.training.gradient_accumulation, (1,)),
        ("training.tensorboard", config.training.tensorboard, (False,)),
        ("hardware.input_service", config.hardware.input_service, ("",)),
        ("model.softmax", config.model.softmax, ("full", "sampled")),
        ("hardware.matmul_precision", config.hardware.matmul_precision, ("float32",)),
    ):
        if value not in allowed:
            values = ", ".join(map(str, allowed))
            raise ConfigError(
                f"{key} is {value}, which needs Keras's backend tensorflow, but KERAS_BACKEND is jax; "
                + (f"use {values}" if values else "leave it empty")
            )


def _devices(strategy: str, num_replicas: int) -> list[Any]:
    import jax

    try:
        devices = jax.devices(None if strategy in ("auto", "mirrored") else strategy)
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(
            f"hardware.strategy is {strategy}, but JAX finds no such device ({reason}); use auto"
        ) from None
    if num_replicas > len(devices):
        raise ConfigError(
            f"hardware.num_replicas is {num_replicas}, but JAX finds {len(devices)} devices; use 0 for all of them"
        )
    return devices[: num_replicas or (1 if strategy in ("cpu", "gpu") else None)]
