"""The dtype of large matrix products in training: float32, or bfloat16 with float32 sums.

The setting applies to the whole process, like `torch.set_float32_matmul_precision`, and is read when a training step is
traced. Weights, states, gates, gradient sums and the optimizer are always float32. Inference always multiplies in
float32.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from nlp_rnn.config.types import MatmulPrecision

logger = logging.getLogger(__name__)

_setting: list[MatmulPrecision] = ["float32"]


def set_matmul_precision(precision: MatmulPrecision) -> None:
    """Sets the dtype of products in training steps that are traced from now on. Warns if bfloat16 is only emulated."""
    if precision == "bfloat16" and has_bfloat16() is False:
        logger.warning(
            "hardware.matmul_precision is bfloat16, which this processor only emulates: training will be slow; "
            "use float32"
        )
    _setting[0] = precision


def matmul_dtype(*, is_training: bool = True) -> tf.DType:
    """The dtype of large matrix products: the setting in training steps, float32 in inference."""
    return tf.as_dtype(_setting[0] if is_training else "float32")


@contextlib.contextmanager
def matmul_precision(precision: MatmulPrecision) -> Iterator[None]:
    """Calls `set_matmul_precision` for the duration of the context."""
    before = _setting[0]
    set_matmul_precision(precision)
    try:
        yield
    finally:
        _setting[0] = before


def has_bfloat16() -> bool | None:
    """Whether the processor supports bfloat16 products; None if unknown."""
    if tf.config.get_visible_devices("GPU") or not Path("/proc/cpuinfo").exists():
        return None
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    return any(name in flags for name in ("avx512_bf16", "amx_bf16", "avx_ne_convert", " bf16"))
