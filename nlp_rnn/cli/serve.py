"""The command `nlp-rnn serve`: answers requests to exported models over HTTP."""

import asyncio
import ipaddress
import logging
import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from nlp_rnn import extras
from nlp_rnn.cli.main import set_up_logging
from nlp_rnn.cli.options import Parser, add_settings, between, settings_of
from nlp_rnn.errors import ConfigError
from nlp_rnn.files import unreadable
from nlp_rnn.serving.limits import NUM_THREADS, Limits
from nlp_rnn.serving.tfserving_config import write_tfserving_config
from nlp_rnn.tensorflow_import import import_tensorflow

logger = logging.getLogger(__name__)

_DESCRIPTION = """Serves the exported models of a folder over HTTP, with the REST API of TensorFlow Serving:
POST /v1/models/NAME:predict, GET /v1/models/NAME, GET /v1/models/NAME/metadata. New versions are loaded without a
restart."""
_BACKLOG = 2048  # connections that wait to be accepted


def main(arguments: list[str]) -> None:
    """Runs `nlp-rnn serve ...` until SIGTERM or Ctrl-C, and then ends the process.

    Raises:
      ConfigError: if there are no models, the port is taken, or the extra `serve` is not installed.
    """
    options = _parser().parse_args(arguments)
    limits = Limits(**settings_of(Limits, options))
    folder, labels, token = Path(options.models), _labels(options.label), _token(options.token_file)
    if not folder.is_dir():
        raise ConfigError(f"--models is {folder}, but there is no such folder; export a model, or give another folder")
    if options.write_tfserving_config:
        print(write_tfserving_config(folder, Path(options.write_tfserving_config), options.tfserving_base))
        return
    extras.require("serve", "this command is nlp-rnn serve")
    import uvicorn

    if options.port and options.port == options.grpc_port:
        raise ConfigError(f"--grpc-port is {options.grpc_port}, as --port; give two different ports")
    grpc_address = "" if options.grpc_port is None else _grpc_address(options.host, options.grpc_port)
    listener = _listener(options.host, options.port)
    with listener:
        set_up_logging("%(asctime)s %(levelname)s %(message)s")
        os.environ.setdefault("TF_NUM_INTEROP_THREADS", str(NUM_THREADS))
        import_tensorflow()
        from nlp_rnn.serving.app import make_app
        from nlp_rnn.serving.engine import ServerSettings
        from nlp_rnn.serving.model_store import ModelStore, find_versions
        from nlp_rnn.serving.served_model import load_served

        try:
            versions = find_versions(folder)
        except OSError as error:
            raise unreadable(error) from None
        if not versions:
            raise ConfigError(
                f"--models is {folder}, but holds no exported model (NAME/VERSION/saved_model.pb); export one first"
            )
        _check_labels(labels, versions)
        settings = ServerSettings(
            limits, options.strict, token, tuple(options.allow_origin), options.log_text, options.poll_seconds
        )
        app = make_app(ModelStore(folder, load_served, labels), settings, grpc_address=grpc_address)
        host, port = listener.getsockname()[:2]
        print(f"listening at http://{_in_url(host)}:{port}", flush=True)
        if grpc_address:
            print(f"listening at {grpc_address} (gRPC)", flush=True)
        if not ipaddress.ip_address(host).is_loopback and not token:
            logger.warning("everyone who reaches %s can use this server; --token-file restricts it", options.host)
        _run(uvicorn, app, listener, limits.shutdown_seconds)


def _parser() -> Parser:
    parser = Parser(prog="nlp-rnn serve", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument(
        "--models", metavar="DIR", default="saved_models", help="folder of the models (default: %(default)s)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: all (default: %(default)s)")
    parser.add_argument(
        "--port", type=between(int, 0, 65535, "a number from 0 to 65535"), default=8501,
        help="to listen at; 0: any free one (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--grpc-port", type=between(int, 0, 65535, "a number from 0 to 65535"), default=None,
        help="also speak TensorFlow Serving's gRPC at this port; 0: any free one; needs the extra grpc (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--strict", action="store_true", help="require all inputs of a signature, as TensorFlow Serving does"
    )
    parser.add_argument(
        "--token-file", metavar="FILE", default="",
        help="file with a token that requests must carry (Authorization: Bearer TOKEN); also NLP_RNN_TOKEN",
    )  # fmt: skip
    parser.add_argument(
        "--allow-origin", metavar="URL", action="append", default=[],
        help="of web pages that may call the server (CORS); can be repeated (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--label", metavar="MODEL/LABEL=VERSION", action="append", default=[],
        help="keep a version served, also under this label; can be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--poll-seconds", metavar="N", type=between(float, 0.01, 86400, "a number from 0.01 to 86400"), default=1.0,
        help="between two looks for new versions (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--write-tfserving-config", metavar="FILE", default="",
        help="write a model config file for TensorFlow Serving instead, and end",
    )  # fmt: skip
    parser.add_argument(
        "--tfserving-base", metavar="DIR", default="/models",
        help="where TensorFlow Serving finds the folder of --models (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--log-text", action="store_true", help="write the texts of requests into the log")
    add_settings(parser, Limits)
    return parser


def _labels(options: list[str]) -> dict[str, dict[str, int]]:
    labels: dict[str, dict[str, int]] = {}
    for option in options:
        parts = re.fullmatch(r"([^/:=]+)/([^/:=]+)=([0-9]{1,18})", option)
        if not parts:
            raise ConfigError(f"--label is {option!r}, but must be MODEL/LABEL=VERSION, such as sentiment/stable=3")
        labels.setdefault(parts[1], {})[parts[2]] = int(parts[3])
    return labels


def _check_labels(labels: dict[str, dict[str, int]], versions: dict[str, dict[int, Path]]) -> None:
    for name, numbers in labels.items():
        for label, number in numbers.items():
            if number not in versions.get(name, {}):
                there = ", ".join(f"{model} {each}" for model in sorted(versions) for each in sorted(versions[model]))
                raise ConfigError(
                    f"--label is {name}/{label}={number}, but there is no such model and version; there are {there}"
                )


def _token(file: str) -> str:
    """The token in a file, else that in NLP_RNN_TOKEN; "" for none."""
    if not file:
        return os.environ.get("NLP_RNN_TOKEN", "").strip()
    try:
        token = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file is {file}, but it cannot be read ({error}); give a text file") from None
    if not token:
        raise ConfigError(f"--token-file is {file}, but the file is empty; write a token into it")
    return token


def _grpc_address(host: str, port: int) -> str:
    """HOST:PORT for gRPC, at which nothing listens yet.

    Raises:
      ConfigError: if the extra is not installed, or the address cannot be used.
    """
    extras.require("grpc", f"--grpc-port is {port}")
    with _listener(host, port, "--grpc-port") as listener:
        host, port = listener.getsockname()[:2]
    return f"{_in_url(host)}:{port}"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _listener(host: str, port: int, option: str = "--port") -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # With the protocol named, asyncio turns Nagle's algorithm off, which delayed each answer by 40 ms.
        listener = socket.socket(family, kind, socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:  # UnicodeError: of a name that cannot be one, such as a..b
        raise _unusable(host, port, option, error) from None
    try:
        if os.name != "nt":  # where it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _unusable(host, port, option, error) from None
    return listener


def _unusable(host: str, port: int, option: str, error: OSError | UnicodeError) -> ConfigError:
    if isinstance(error, UnicodeError):
        reason: str | None = "not the name of a machine"
    else:
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
    return ConfigError(f"nlp-rnn serve: --host {host} {option} {port}: {reason}; choose another address or port")


def _run(uvicorn: Any, app: Any, listener: socket.socket, shutdown_seconds: int) -> None:
    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # Both protocols stop accepting at once, and share the time for running requests.
            await asyncio.gather(app.state.stop_grpc(), super().shutdown(sockets))

    # uvicorn finishes the running requests, and then raises the signal again: for these handlers.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, proxy_headers=False, lifespan="on",
        timeout_graceful_shutdown=shutdown_seconds,
    )  # fmt: skip
    Server(config).run(sockets=[listener])
    logger.info("stopped")
    # A computation that has begun cannot be interrupted, and Python would wait for its thread.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)
