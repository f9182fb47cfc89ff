"""The signatures of a SavedModel: names, types and shapes of inputs and outputs."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToDict

from nlp_rnn.errors import ConfigError
from nlp_rnn.serving.request_errors import invalid

# Texts are bytes in arrays of dtype object.
DTYPES: dict[str, Any] = {
    "DT_FLOAT": np.float32,
    "DT_DOUBLE": np.float64,
    "DT_INT8": np.int8,
    "DT_INT16": np.int16,
    "DT_INT32": np.int32,
    "DT_INT64": np.int64,
    "DT_UINT8": np.uint8,
    "DT_UINT32": np.uint32,
    "DT_UINT64": np.uint64,
    "DT_BOOL": np.bool_,
    "DT_STRING": object,
}


@dataclass(frozen=True)
class Tensor:
    """An input or output: its dtype, such as "DT_FLOAT", and shape, with None for any size; None for any shape."""

    dtype: str
    shape: tuple[int | None, ...] | None

    def check_shape(self, name: str, sizes: tuple[int, ...]) -> None:
        """Checks the shape of an input.

        Raises:
          RequestError: if the signature takes another one.
        """
        if self.shape is None:
            return
        if len(sizes) != len(self.shape) or any(
            size not in (None, given) for size, given in zip(self.shape, sizes, strict=True)
        ):
            wanted = ",".join("?" if size is None else str(size) for size in self.shape)
            raise invalid(
                f"input {name} has the shape [{','.join(map(str, sizes))}], but the signature takes [{wanted}]"
            )

    def repeated(self, value: Any, rows: int) -> np.ndarray:
        """An input with the same value in each row: [rows], or [rows, n] of a list of n values."""
        values = value if isinstance(value, tuple | list) else [value]
        array = np.empty([rows, len(values)], DTYPES[self.dtype])
        array[:] = [each.encode() if isinstance(each, str) else each for each in values]
        return array if values is value else array[:, 0]


@dataclass(frozen=True)
class Signature:
    """A signature.

    Attributes:
      inputs, outputs: by name, sorted.
      method: such as "tensorflow/serving/predict".
      defaults: of inputs that a request may leave out, for one row.
      is_batched: whether rows of several requests may be computed together.
    """

    name: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    method: str
    defaults: dict[str, Any] = field(default_factory=dict)
    is_batched: bool = False

    @property
    def has_rows(self) -> bool:
        """Whether all inputs and outputs have one entry per row, of any number of rows."""
        return all(each.shape and each.shape[0] is None for each in (*self.inputs.values(), *self.outputs.values()))


def read_signatures(folder: Path) -> tuple[dict[str, Signature], str]:
    """Reads the signatures of a SavedModel.

    Returns:
      (signatures by name, those of the model's meta graph as JSON, as TensorFlow Serving shows them).

    Raises:
      ConfigError: if the file is damaged.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    path = folder / "saved_model.pb"
    try:
        graphs = saved_model_pb2.SavedModel.FromString(path.read_bytes()).meta_graphs
    except (OSError, DecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__}); export it again") from None
    served = next((graph for graph in graphs if "serve" in graph.meta_info_def.tags), None)
    if served is None:
        raise ConfigError(f"{path}: has no graph with the tag 'serve'; export it again")
    signatures = {
        name: Signature(name, _tensors(each.inputs), _tensors(each.outputs), each.method_name)
        for name, each in served.signature_def.items()
        if each.method_name  # not the initializer that TensorFlow stores among them
    }
    shown = {
        name: MessageToDict(each, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        for name, each in sorted(served.signature_def.items())
    }
    return signatures, json.dumps(shown)


def _tensors(infos: Any) -> dict[str, Tensor]:
    from tensorflow.core.framework.types_pb2 import DataType

    tensors = {}
    for name, info in sorted(infos.items()):
        sizes = [None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim]
        tensors[name] = Tensor(DataType.Name(info.dtype), None if info.tensor_shape.unknown_rank else tuple(sizes))
    return tensors
