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
    """Imports TensorFlow and suppresses the messages that it always writes at start-up. Other messages are kept.

    TensorFlow's C++ code writes them before it reads any log setting, so the file descriptor itself is redirected.

    Args:
      set_up: configures devices; it is called before TensorFlow's first operation, after which this is impossible.

    Returns:
      the result of `set_up`; None without it.

    Raises:
      ConfigError: if KERAS_BACKEND is jax.
    """
    if keras_backend() != "tensorflow":
        raise ConfigError(
            "KERAS_BACKEND is jax, which only trains models from prepared token ids; unset it for everything else"
        )
    if "tensorflow" in sys.modules:
        return set_up() if set_up else None
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    with without_noise():
        import tensorflow as tf

        tf.config.list_physical_devices()
    result = set_up() if set_up else None
    with without_noise():
        # The first operation searches for devices; the first transposes print what oneDNN does not support.
        for dtype in (tf.int32, tf.int64, tf.bool):
            tf.transpose(tf.zeros((1, 1), dtype))
    return result


def keras_backend() -> str:
    """Keras's backend: "tensorflow", or "jax" if the environment variable KERAS_BACKEND is jax.

    Raises:
      ConfigError: if it has another value.
    """
    # The variable is set so that Keras does not read keras.json.
    name = os.environ.setdefault("KERAS_BACKEND", "tensorflow") or "tensorflow"
    if name not in ("tensorflow", "jax"):
        raise ConfigError(
            f"the environment's KERAS_BACKEND is {name!r}, but must be tensorflow or jax; unset it for tensorflow"
        )
    return name


@contextlib.contextmanager
def without_noise(noise: re.Pattern[bytes] = START_UP_NOISE) -> Iterator[None]:
    """Suppresses the messages that TensorFlow always writes to standard error, including those of child processes.

    Other lines are written when the context ends, unless it ends with a ConfigError or Ctrl-C.

    Args:
      noise: matches the lines to suppress.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        has_own_message = False
        try:
            yield
        except (ConfigError, KeyboardInterrupt):
            has_own_message = True
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            notes.seek(0)
            for line in notes:
                if not has_own_message and not noise.search(line):
                    os.write(2, line)
