"""The command `nlp-rnn serve-inputs`: reads batches for trainers on other machines; see `data.input_service`."""

import os
import signal
import socket
import threading

from nlp_rnn.cli.options import Parser
from nlp_rnn.data.service_address import check_answers, first_line
from nlp_rnn.errors import ConfigError
from nlp_rnn.tensorflow_import import import_tensorflow

_DESCRIPTION = """Reads, resamples and pads batches for trainers that set hardware.input_service. It uses TensorFlow's
tf.data service. The token ids must be on a disk that this machine and the trainers share, at the same path
(data.cache_dir). All machines need the same TensorFlow version. The service has no password: use it in trusted networks
only."""


def main(arguments: list[str]) -> None:
    """Runs `nlp-rnn serve-inputs ...`: reads batches for trainers until SIGTERM or Ctrl-C.

    Raises:
      ConfigError: if an option is wrong, a port is in use, or the dispatcher of --join does not answer.
    """
    parser = Parser(prog="nlp-rnn serve-inputs", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument(
        "--port",
        type=int,
        default=5000,
        help="port of the dispatcher, for hardware.input_service (default: %(default)s)",
    )
    parser.add_argument("--worker-port", type=int, default=0, help="port of the worker (default: any free port)")
    parser.add_argument(
        "--host", default=socket.gethostname(), help="name of this machine in the network (default: %(default)s)"
    )
    parser.add_argument(
        "--join", metavar="HOST:PORT", default="", help="add a worker to the dispatcher that runs at this address"
    )
    options = parser.parse_args(arguments)
    address = options.join or f"{options.host}:{options.port}"
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    import_tensorflow()
    import tensorflow as tf

    service, servers = tf.data.experimental.service, []
    try:
        if options.join:
            check_answers(address, "nlp-rnn serve-inputs: --join")
        else:
            servers.append(service.DispatchServer(service.DispatcherConfig(port=options.port)))
        worker = service.WorkerConfig(address, worker_address=f"{options.host}:%port%", port=options.worker_port)
        servers.append(service.WorkerServer(worker))
    except tf.errors.OpError as error:
        raise ConfigError(
            f"nlp-rnn serve-inputs: {first_line(error)}; choose another --port or --worker-port if it is in use"
        ) from None
    print(f"serving inputs; train with hardware.input_service={address}", flush=True)
    stopped.wait()
    # The servers keep no state, and TensorFlow's destructors can wait for ever for a client that has left.
    os._exit(0)
