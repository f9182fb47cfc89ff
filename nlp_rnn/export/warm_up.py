"""The file of requests by which TensorFlow Serving warms a model up before it is served.

Source: tensorflow/serving, g3doc/saved_model_warmup.md: a TFRecord file of PredictionLog messages in assets.extra/. The
parts of these messages that are needed are declared here, since the package that holds them is an extra.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

NAME = "tf_serving_warmup_requests"
_TEXT = b"A short text to begin with."
_ROWS = (1, 16)  # one text, and a batch: small batches have a graph of their own


def write_warm_up(version: Path, defaults: dict[str, dict[str, Any]]) -> None:
    """Writes the file into the folder of a SavedModel, which has an assets.extra/.

    Args:
      version: saved_models/<name>/<version>, also under a temporary name.
      defaults: signature -> input -> its value for one row; other inputs are zeros or a short text.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    graph = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes()).meta_graphs[0]
    with tf.io.TFRecordWriter(str(version / "assets.extra" / NAME)) as writer:
        for name, signature in sorted(graph.signature_def.items()):
            if not signature.method_name:  # the initializer that TensorFlow stores among them
                continue
            for rows in _ROWS:
                inputs = {}
                for key, info in sorted(signature.inputs.items()):
                    shape = [None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim]
                    value = example(_dtype(info.dtype), shape, defaults.get(name, {}).get(key), rows)
                    # All values of an input are equal, so one is stored with the shape.
                    stored = value.flat[0] if value.size else value
                    inputs[key] = tf.make_tensor_proto(stored, info.dtype, value.shape).SerializeToString()
                writer.write(_prediction_log(name, inputs).SerializeToString())


def read_warm_up(version: Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yields the requests in the folder of a SavedModel: (signature, its inputs). Yields nothing if it has none.

    Raises:
      tf.errors.DataLossError, google.protobuf.message.DecodeError: if the file is damaged.
    """
    path = version / "assets.extra" / NAME
    if not path.is_file():
        return
    for record in tf.data.TFRecordDataset(str(path)):
        request = _PredictionLog.FromString(record.numpy()).predict_log.request
        tensors = {key: tf.make_ndarray(_tensor(value)) for key, value in request.inputs.items()}
        yield request.model_spec.signature_name, tensors


def example(dtype: Any, shape: Sequence[int | None], default: Any = None, rows: int = 1) -> np.ndarray:
    """Rows of a default, or of zeros or a short text.

    Args:
      dtype: NumPy's; object for texts.
      shape: of the input; None for sizes that may be any.
      default: a value for one row; of a tuple or list, no entries are given.
    """
    sizes = [rows if not place and size is None else size or 1 for place, size in enumerate(shape)]
    if isinstance(default, tuple | list):
        sizes[1:] = [0] * (len(sizes) - 1)
    elif default is not None:
        return np.full(sizes, default.encode() if isinstance(default, str) else default, dtype)
    return np.full(sizes, _TEXT if dtype is object else 0, dtype)


def _dtype(number: int) -> Any:
    dtype = tf.as_dtype(number)
    return object if dtype == tf.string else dtype.as_numpy_dtype


def _tensor(serialized: bytes) -> Any:
    from tensorflow.core.framework import tensor_pb2

    return tensor_pb2.TensorProto.FromString(serialized)


def _prediction_log(signature: str, inputs: dict[str, bytes]) -> Message:
    log = _PredictionLog()
    log.predict_log.request.model_spec.signature_name = signature
    for name, tensor in inputs.items():
        log.predict_log.request.inputs[name] = tensor
    return log


def _declare() -> type[Message]:
    """The class of the message PredictionLog. The fields have the numbers of tensorflow_serving/apis/*.proto.

    A tensor is declared as bytes, which are written as a message inside a message is.
    """
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="nlp_rnn/warm_up.proto", package="nlp_rnn", syntax="proto3")

    def declare(parent: Any, name: str, /, **fields: tuple[int, str]) -> Any:
        message = parent.add(name=name)
        for field, (number, kind) in fields.items():
            is_scalar = kind in ("string", "bytes")
            declared = message.field.add(
                name=field,
                number=number,
                label=kinds.LABEL_REPEATED if kind.endswith("Entry") else kinds.LABEL_OPTIONAL,
                type=getattr(kinds, f"TYPE_{kind.upper()}") if is_scalar else kinds.TYPE_MESSAGE,
            )
            if not is_scalar:
                declared.type_name = f".nlp_rnn.{kind}"
        return message

    declare(file.message_type, "ModelSpec", signature_name=(3, "string"))
    request = declare(
        file.message_type, "PredictRequest", model_spec=(1, "ModelSpec"), inputs=(2, "PredictRequest.InputsEntry")
    )
    declare(request.nested_type, "InputsEntry", key=(1, "string"), value=(2, "bytes")).options.map_entry = True
    declare(file.message_type, "PredictLog", request=(1, "PredictRequest"))
    declare(file.message_type, "PredictionLog", predict_log=(6, "PredictLog"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("nlp_rnn.PredictionLog"))


_PredictionLog: Any = _declare()
