"""Imports TensorFlow without its start-up noise."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from nlp_rnn.errors import ConfigError

START_UP_NOISE = re.compile(
    rb"WARNING: All log messages before absl|^I\d{4} |failed call to cuInit|oneDNN supports DT_"
    rb"|GeneratorDatasetOp.*not be optimized|^\s*$"
)


def import_tensorflow(set_up: Callable[[], Any] | None = None) -> Any:
    """Imports TensorFlow without the messages that it always writes at start-up. Other messages are passed on.

    C++ writes them before any log setting is read, so the file descriptor itself is redirected meanwhile.

    Args:
      set_up: called before TensorFlow's first operation, after which devices cannot be set up.

    Returns:
      the result of `set_up`.

    Raises:
      ConfigError: if KERAS_BACKEND is jax.
    """
    if keras_backend() != "tensorflow":
        raise ConfigError(
            "KERAS_BACKEND is jax, on which models are trained from prepared ids; unset it for everything else"
        )
    if "tensorflow" in sys.modules:
        return set_up() if set_up else None
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    with without_noise():
        import tensorflow as tf

        tf.config.list_physical_devices()
    result = set_up() if set_up else None
    with without_noise():
        # The first operation looks for devices; the first transposes write what oneDNN lacks.
        for dtype in (tf.int32, tf.int64, tf.bool):
            tf.transpose(tf.zeros((1, 1), dtype))
    return result


def keras_backend() -> str:
    """Keras's backend: "tensorflow", or "jax" if the environment variable KERAS_BACKEND is jax.

    Raises:
      ConfigError: if it has another value.
    """
    # Set, so that keras.json is not read.
    name = os.environ.setdefault("KERAS_BACKEND", "tensorflow") or "tensorflow"
    if name not in ("tensorflow", "jax"):
        raise ConfigError(
            f"the environment's KERAS_BACKEND is {name!r}, but must be tensorflow or jax; unset it for tensorflow"
        )
    return name


@contextlib.contextmanager
def without_noise(noise: re.Pattern[bytes] = START_UP_NOISE) -> Iterator[None]:
    """Suppresses the messages that TensorFlow always writes to standard error, also those of child processes.

    Other lines are passed on at the end, unless the context ends with a ConfigError or Ctrl-C.

    Args:
      noise: matches the lines to suppress.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        is_told = False
        try:
            yield
        except (ConfigError, KeyboardInterrupt):
            is_told = True
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            notes.seek(0)
            for line in notes:
                if not is_told and not noise.search(line):
                    os.write(2, line)
