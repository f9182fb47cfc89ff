"""Checks the address of an input service. It does not import TensorFlow."""

import socket
from typing import Any

from nlp_rnn.errors import ConfigError


def check_answers(address: str, setting: str, seconds: float = 10.0) -> None:
    """Checks that a server listens at an address.

    Args:
      address: HOST:PORT.
      setting: name of the setting with the address, for the message.
      seconds: time limit; at most 10.

    Raises:
      ConfigError: if no server listens there.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=min(seconds, 10.0)).close()
    except (OSError, OverflowError, ValueError) as error:
        raise ConfigError(
            f"{setting} is {address}, but no server responds there ({error}); "
            "start it with nlp-rnn serve-inputs --port "
            f"{port} on {host}"
        ) from None


def first_line(error: Any) -> str:
    """The first line of a TensorFlow error's message, at most 300 characters."""
    return next((line for line in error.message.splitlines() if line.strip()), type(error).__name__)[:300]
