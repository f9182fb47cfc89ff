"""The address of an input service, checked; no TensorFlow."""

import socket
from typing import Any

from nlp_rnn.errors import ConfigError


def check_answers(address: str, setting: str, seconds: float = 10.0) -> None:
    """Raises ConfigError if nothing listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=min(seconds, 10.0)).close()
    except (OSError, OverflowError, ValueError) as error:
        raise ConfigError(
            f"{setting} is {address}, but nothing answers there ({error}); start it by nlp-rnn serve-inputs --port {port} on {host}"
        ) from None


def first_line(error: Any) -> str:
    """Of what an error of TensorFlow's says."""
    return next((line for line in error.message.splitlines() if line.strip()), type(error).__name__)[:300]
