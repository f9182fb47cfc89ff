"""The machines that train together, as the environment variable TF_CONFIG names them. No TensorFlow."""

import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from nlp_rnn.errors import ConfigError

_EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
_GREETING = "nlp-rnn "


@dataclass(frozen=True)
class Cluster:
    """The workers of a training.

    Attributes:
      addresses: host:port of all workers, the chief's first.
      index: of this process among them, from 0.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run directory."""
        return self.index == 0


def cluster_of_environment() -> Cluster | None:
    """Reads TF_CONFIG; None if it is not set.

    Raises:
      ConfigError: if it is malformed or inconsistent.
    """
    text = os.environ.get("TF_CONFIG", "")
    return parse_cluster(text) if text else None


def parse_cluster(text: str) -> Cluster:
    """Parses a TF_CONFIG of workers, one of which may be called chief.

    Raises:
      ConfigError: if it is malformed or inconsistent.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise _mistake(text, f"is not JSON ({error})") from None
    groups, task = (content.get(key) if isinstance(content, dict) else None for key in ("cluster", "task"))
    if not isinstance(groups, dict) or not isinstance(task, dict):
        raise _mistake(text, "lacks the object 'cluster' or 'task'")
    if set(groups) - {"chief", "worker"}:
        others = ", ".join(sorted(set(groups) - {"chief", "worker"}))
        raise _mistake(text, f"names {others}, but all machines must be workers, one of them optionally the chief")
    addresses: list[str] = []
    starts = {}
    for kind in ("chief", "worker"):
        group = groups.get(kind, [])
        if not isinstance(group, list) or not all(isinstance(address, str) for address in group):
            raise _mistake(text, f"has no list of addresses under cluster.{kind}")
        starts[kind] = len(addresses)
        addresses += group
    task_type, index = task.get("type"), task.get("index")
    if not isinstance(task_type, str) or task_type not in groups:
        raise _mistake(
            text, f"has the task type {task_type!r}, but its cluster names {', '.join(sorted(groups)) or 'nobody'}"
        )
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(groups[task_type]):
        raise _mistake(
            text,
            f"has the task index {index!r}, but its cluster names {len(groups[task_type])} of type {task_type}, "
            f"counted from 0",
        )
    if len(groups.get("chief", [])) > 1:
        raise _mistake(text, "names several chiefs; name one")
    for address in addresses:
        if not re.fullmatch(r"(?:[\w-]{1,63}(?:\.[\w-]{1,63})*\.?|\[[0-9A-Fa-f:.]+\]):\d{1,5}", address):
            raise _mistake(text, f"has the address {address!r}, which is not of the form host:port")
        if not 1 <= int(address.rpartition(":")[2]) <= 65535:
            raise _mistake(text, f"has the address {address!r}, but ports are 1 to 65535")
        if addresses.count(address) > 1:
            raise _mistake(text, f"names {address} twice; give each worker its own address")
    return Cluster(tuple(addresses), starts[task_type] + index)


def await_others(cluster: Cluster, seconds: float, devices: str = "") -> None:
    """Waits until all other workers answer at their addresses, and answers at its own.

    Args:
      devices: this worker's devices, which must be the same everywhere: TensorFlow multiplies them by the number of
        workers.

    Raises:
      ConfigError: if some workers do not answer within `seconds` (with their addresses), or have other devices.
    """
    own = cluster.addresses[cluster.index]
    missing = [address for address in cluster.addresses if address != own]
    greeting = f"{_GREETING}{devices}\n".encode()
    deadline = time.monotonic() + seconds
    with _listening(own, greeting):
        while missing := [address for address in missing if not _answers(address, own, greeting)]:
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"TF_CONFIG: no answer within {seconds:g} seconds from {', '.join(missing)}; start the same "
                    f"command "
                    "there, check the address and firewalls, or raise hardware.connect_seconds"
                )
            time.sleep(0.2)


@contextlib.contextmanager
def _listening(address: str, greeting: bytes) -> Iterator[None]:
    """Sends the greeting to everyone who connects, while the context lasts."""
    port = int(address.rsplit(":", 1)[1])
    try:
        if socket.has_dualstack_ipv6():
            server = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        else:
            server = socket.create_server(("", port))
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"TF_CONFIG: worker at {address} cannot listen there ({error}); end the process that uses the port, or "
            f"give "
            "another port"
        ) from None
    server.settimeout(0.05)
    is_over = threading.Event()

    def greet() -> None:
        while not is_over.is_set():
            with contextlib.suppress(OSError):  # includes time-outs
                connection, _ = server.accept()
                with connection:
                    connection.sendall(greeting)

    greeter = threading.Thread(target=greet, daemon=True)
    greeter.start()
    try:
        yield
    finally:
        is_over.set()
        greeter.join()
        server.close()


def _answers(address: str, own: str, greeting: bytes) -> bool:
    """Whether a worker answers. A worker that has met all others no longer answers, but has seen our greeting."""
    host, port = address.rsplit(":", 1)
    try:
        connection = socket.create_connection((host.strip("[]"), int(port)), timeout=1)
    except (OSError, ValueError, OverflowError):  # ValueError: not a valid host name
        return False
    said = b""
    with connection, contextlib.suppress(OSError):
        said = connection.recv(1000)
    if said.startswith(_GREETING.encode()) and said != greeting:
        time.sleep(1)  # so that the other worker sees it too
        theirs, ours = (text.decode("utf-8", "replace").removeprefix(_GREETING).strip() for text in (said, greeting))
        raise ConfigError(
            f"TF_CONFIG: {address} has {theirs or 'no GPU'}, but {own} has {ours or 'no GPU'}; all workers must have "
            f"the "
            "same number: hide some with CUDA_VISIBLE_DEVICES"
        )
    return True


def _mistake(text: str, what: str) -> ConfigError:
    shown = text if len(text) <= 200 else text[:200] + "..."
    return ConfigError(f"TF_CONFIG is {shown!r}: it {what}; it must be like {_EXAMPLE}")
