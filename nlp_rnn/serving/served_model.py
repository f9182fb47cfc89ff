"""One version of a model in memory: loaded, warmed up, called with arrays."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from nlp_rnn.config.tables import TASKS
from nlp_rnn.decoding.settings import GenerationSettings
from nlp_rnn.errors import ConfigError
from nlp_rnn.export import generation_client, saved_model
from nlp_rnn.export.signature_defaults import signature_defaults
from nlp_rnn.export.warm_up import example, read_warm_up
from nlp_rnn.serving.json_tensors import Arrays
from nlp_rnn.serving.request_errors import STATUSES, RequestError
from nlp_rnn.serving.signatures import DTYPES, Signature, read_signatures

logger = logging.getLogger(__name__)

# Their outputs are padded to the longest text of a batch, so that rows of other requests would show.
_PADDED = ("explain", "score", "tokenize")


@dataclasses.dataclass(eq=False)
class ServedModel:
    """A version that requests can use.

    Attributes:
      loaded: the result of tf.saved_model.load.
      signatures: by name.
      signature_json: all signatures as TensorFlow Serving shows them.
      task, labels: of an export of this package; "" and empty for other SavedModels.
      has_label_sets: whether it gives texts any number of labels.
      users: the number of requests that use it now.
      batchers: of signatures that were called, by name; see `Batcher`.
    """

    name: str
    version: int
    loaded: Any
    signatures: dict[str, Signature]
    signature_json: str
    task: str = ""
    labels: list[str] = dataclasses.field(default_factory=list)
    has_label_sets: bool = False
    users: int = 0
    batchers: dict[str, Any] = dataclasses.field(default_factory=dict)

    def call(self, signature: str, inputs: Arrays) -> Arrays:
        """Computes a signature. Several threads may call it.

        Raises:
          RequestError: if the graph rejects the inputs.
        """
        tensors = {
            name: tf.constant(array, tf.string if array.dtype == object else None) for name, array in inputs.items()
        }
        try:
            outputs = self.loaded.signatures[signature](**tensors)
            return {name: _array(output.numpy()) for name, output in outputs.items()}
        except tf.errors.OpError as error:
            # Its text shows the graph, and may show the user's; the client is told neither.
            code = next((code for code in STATUSES if getattr(tf.errors, code, None) == error.error_code), "INTERNAL")
            if STATUSES[code] >= 500:
                logger.error("%s %d, signature %s: %s", self.name, self.version, signature, type(error).__name__)
            raise RequestError(code, f"the model cannot compute these inputs ({type(error).__name__})") from None

    def release(self) -> None:
        """Frees the memory that TensorFlow does not free by itself. The model cannot be used after it."""
        compact = getattr(self.loaded, "compact_weights", None)
        if compact is not None:
            compact.release()


def load_served(name: str, version: int, folder: Path) -> ServedModel:
    """Loads a version and calls each signature, so that the first request is as fast as the others.

    Args:
      folder: of an export, or of any SavedModel.

    Raises:
      ConfigError: if files are damaged, it does not load, or an export's signature fails.
    """
    signatures, shown = read_signatures(folder)
    if (folder / "assets.extra" / "config.yaml").is_file():
        exported = saved_model.load_model(folder)
        task = exported.config.task
        described = {signature: _described(each, task) for signature, each in signatures.items()}
        model = ServedModel(
            name, version, exported.loaded, described, shown, task, exported.labels, exported.config.data.multi_label
        )
    else:
        saved_model.check_files(folder)
        model = ServedModel(name, version, saved_model.load_graph(folder), signatures, shown)
    _warm_up(model, folder)
    if can_stream(model):
        list(generation_client.stream(model.loaded, b"a", dataclasses.asdict(GenerationSettings(max_length=1))))
    return model


def can_stream(model: ServedModel) -> bool:
    """Whether the model generates text piece by piece."""
    return bool(model.task) and "extend" in model.signatures


def _described(signature: Signature, task: str) -> Signature:
    """The signature of an export with its defaults, and whether rows of several requests can be computed together.

    Of other SavedModels that is not known: their rows may depend on each other.
    """
    defaults = signature_defaults(TASKS[task].answers, signature.name)
    return dataclasses.replace(
        signature,
        # Earlier exports take some settings once for all rows: a default for each row would not fit.
        defaults={name: value for name, value in defaults.items() if signature.inputs[name].shape != ()},
        is_batched=signature.has_rows and signature.name not in _PADDED,
    )


def _array(value: Any) -> np.ndarray:
    return np.array(value, object) if isinstance(value, bytes) else np.asarray(value)


def _warm_up(model: ServedModel, folder: Path) -> None:
    """Calls the signatures with the requests that the SavedModel brings, and the others with one row of examples."""
    try:
        requests = list(read_warm_up(folder))
    except (tf.errors.OpError, DecodeError, ValueError, TypeError) as error:
        raise ConfigError(f"{folder}: its warm-up requests are damaged ({error}); export it again") from None
    asked = {name for name, _ in requests}
    for signature in model.signatures.values():
        if signature.name not in asked:
            inputs = {
                name: example(DTYPES[tensor.dtype], tensor.shape or (), signature.defaults.get(name))
                for name, tensor in signature.inputs.items()
            }
            requests.append((signature.name, inputs))
    for name, inputs in requests:
        try:
            model.call(name, inputs)
        except (RequestError, ValueError, TypeError, LookupError) as error:
            if model.task:
                raise ConfigError(f"signature {name} fails ({error}); export it again") from None
            logger.info("%s %d: no warm-up of %s (%s)", model.name, model.version, name, type(error).__name__)
