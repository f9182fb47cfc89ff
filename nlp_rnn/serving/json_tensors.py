"""Requests and answers of TensorFlow Serving's REST API, as JSON and as arrays.

Source: tensorflow/serving, util/json_tensor.cc; error messages are its own.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from nlp_rnn.serving.request_errors import RequestError, invalid
from nlp_rnn.serving.signatures import DTYPES, Signature

Arrays = dict[str, np.ndarray]
_MAX_SHOWN_BYTES = 256  # of a value in an error message
_MAX_RANK = 64
# Messages of Python's parser -> those of TensorFlow Serving's.
_PARSE_ERRORS = {
    "Expecting value": "Invalid value.",
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
    "Invalid control character at": "Invalid encoding in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
}


# --- requests ---------------------------------------------------------------------------------------------------------


def parse_body(body: bytes) -> dict[str, Any]:
    """Parses the JSON object of a request. What follows it is ignored, as there.

    Invalid UTF-8 becomes surrogates, which `text_bytes` turns into the same bytes again.

    Raises:
      RequestError: if the body is not a JSON object.
    """
    text = body.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    if not text.strip(" \t\r\n"):
        raise invalid("JSON Parse error: The document is empty")
    try:
        value, _ = json.JSONDecoder().raw_decode(text, re.match(r"[ \t\r\n]*", text).end())  # type: ignore[union-attr]
    except json.JSONDecodeError as error:
        raise invalid(f"JSON Parse error: {_parse_error(text, error)} at offset: {_offset(text, error)}") from None
    except RecursionError:
        raise invalid("JSON Parse error: The document is nested too deeply") from None
    except ValueError:  # Python limits the digits of whole numbers
        raise invalid("JSON Parse error: Number too big to be stored in double.") from None
    if not isinstance(value, dict):
        raise invalid(f"JSON Value: {shown(value)} Is not object")
    return value


def signature_name(request: dict[str, Any]) -> str:
    """The name of the signature that a request calls; "" for the default.

    Raises:
      RequestError: if it is not a string.
    """
    name = request.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {shown(request)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def parse_predict(request: dict[str, Any], signature: Signature, *, is_strict: bool) -> tuple[Arrays, bool]:
    """Reads the inputs of a prediction.

    Args:
      is_strict: whether all inputs must be given, as TensorFlow Serving requires; else defaults are filled in.

    Returns:
      (name -> array, whether the request is in row format).

    Raises:
      RequestError: if the inputs are not those of the signature.
    """
    defaults = {} if is_strict else signature.defaults
    if "instances" in request and "inputs" in request:
        raise invalid(
            f"JSON Value: {shown(request)} Not formatted correctly expecting only one of 'inputs' or 'instances' "
            "keys to exist "
        )
    if "instances" in request:
        rows = request["instances"]
        if not isinstance(rows, list):
            raise invalid(f"JSON Value: {shown(request)} Expecting 'instances' to be an list/array")
        if not rows:
            raise invalid(f"JSON Value: {shown(request)} No values in 'instances' array")
        return _checked(_from_rows(rows, signature, defaults), signature), True
    if "inputs" in request:
        return _checked(_from_columns(request["inputs"], signature, defaults), signature), False
    raise invalid("Missing 'inputs' or 'instances' key")


def _from_rows(rows: list[Any], signature: Signature, defaults: dict[str, Any]) -> Arrays:
    if not isinstance(rows[0], dict) and len(signature.inputs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    are_objects = _is_object(rows[0])
    names = sorted(signature.inputs)
    flat: dict[str, list[Any]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for number, row in enumerate(rows):
        if _is_object(row) != are_objects:
            expected = "object but got list" if are_objects else "value/list but got object"
            raise invalid(f"Expecting {expected} at item {number} of input list")
        for name, value in ({**defaults, **row} if are_objects else {names[0]: row}).items():
            try:
                _add_item(name, value, signature, flat, shapes)
            except RequestError as error:
                key = f" key: {name}" if are_objects else ""
                raise invalid(
                    f"Failed to process element: {number}{key} of 'instances' list. "
                    f"Error: {error.code}: {error.message}"
                ) from None
        if are_objects and {*defaults, *row} != set(names):
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. JSON object: {shown(row)} "
                f"keys must be equal to: {','.join(names)}"
            )
    return {
        name: _array(values, (len(rows), *shapes[name]), signature.inputs[name].dtype) for name, values in flat.items()
    }


def _add_item(
    name: str, value: Any, signature: Signature, flat: dict[str, list[Any]], shapes: dict[str, tuple[int, ...]]
) -> None:
    if name not in signature.inputs:
        raise invalid(f"JSON object: does not have named input: {name}")
    shape = _shape(value)
    values = list(_values(value, 0, shape, signature.inputs[name].dtype))
    if name not in shapes:
        shapes[name], flat[name] = shape, []
    elif (size := _size(shapes[name])) != len(values):
        raise invalid(f"Expecting tensor size: {size} but got: {len(values)}")
    elif shapes[name] != shape:
        raise invalid(f"Expecting shape {_written(shapes[name])} but got: {_written(shape)}")
    flat[name] += values


def _from_columns(columns: Any, signature: Signature, defaults: dict[str, Any]) -> Arrays:
    if not _is_object(columns):
        if len(signature.inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        columns = dict.fromkeys(signature.inputs, columns)
    rows = next((len(columns[name]) for name in signature.inputs if isinstance(columns.get(name), list)), 0)
    arrays = {}
    for name, tensor in signature.inputs.items():
        if name not in columns and name not in defaults:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        if name not in columns:
            arrays[name] = tensor.repeated(defaults[name], rows)
            continue
        shape = _shape(columns[name])
        arrays[name] = _array(list(_values(columns[name], 0, shape, tensor.dtype)), shape, tensor.dtype)
    return arrays


def _checked(arrays: Arrays, signature: Signature) -> Arrays:
    if missing := sorted(set(signature.inputs) - set(arrays)):
        given, wanted = ",".join(sorted(arrays)), ",".join(sorted(signature.inputs))
        raise invalid(
            f"input size does not match signature: {len(arrays)}!={len(signature.inputs)} len({{{given}}}) != "
            f"len({{{wanted}}}). Sent extra: {{}}. Missing but required: {{{','.join(missing)}}}."
        )
    for name, array in arrays.items():
        signature.inputs[name].check_shape(name, array.shape)
    return arrays


def _shape(value: Any) -> tuple[int, ...]:
    """The shape that the first elements of nested lists have."""
    shape: list[int] = []
    while isinstance(value, list | tuple):
        if len(shape) == _MAX_RANK:
            raise invalid("JSON Parse error: The document is nested too deeply")
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape)


def _values(value: Any, level: int, shape: tuple[int, ...], dtype: str) -> Iterator[Any]:
    """Yields the values of nested lists.

    Raises:
      RequestError: if the lists are not of this shape, or a value is not of this dtype.
    """
    if not isinstance(value, list | tuple):
        if level != len(shape):
            raise invalid(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        yield _value(value, dtype)
        return
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for each in value:
        yield from _values(each, level + 1, shape, dtype)


def _value(value: Any, dtype: str) -> Any:
    kind = DTYPES.get(dtype)
    if kind is None:
        raise RequestError("UNIMPLEMENTED", f"Conversion of JSON Value: {shown(value)} to type: {_name_of(dtype)}")
    if kind is object:
        if isinstance(value, dict):
            return decode_base64(value)
        if isinstance(value, str):
            return text_bytes(value)
    elif kind is np.bool_:
        if isinstance(value, bool):
            return value
    elif isinstance(value, bool):
        pass
    elif kind in (np.float32, np.float64):
        if isinstance(value, int | float):
            return _float(value)
    elif isinstance(value, int) and np.iinfo(kind).min <= value <= np.iinfo(kind).max:
        return value
    raise invalid(f"JSON Value: {shown(value)} Type: {type_of(value)} is not of expected type: {_name_of(dtype)}")


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise invalid("JSON Parse error: Number too big to be stored in double.") from None


def text_bytes(value: str) -> bytes:
    """The bytes of a string of `parse_body`."""
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise invalid("JSON Parse error: The surrogate pair in string is invalid.") from None


def decode_base64(value: dict[str, Any]) -> bytes:
    """The bytes of {"b64": "..."}.

    Raises:
      RequestError: if it is another object, or not base64.
    """
    if not _is_base64(value):
        raise invalid(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError):
        raise invalid("Unable to base64 decode") from None


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _array(values: list[Any], shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if DTYPES[dtype] is object:
        array = np.empty(len(values), object)
        array[:] = values
    else:
        with np.errstate(over="ignore"):  # a number beyond float32 is infinite, as there
            array = np.array(values, np.float64 if dtype == "DT_FLOAT" else DTYPES[dtype]).astype(DTYPES[dtype])
    return array.reshape(shape)


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _written(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _name_of(dtype: str) -> str:
    return dtype.removeprefix("DT_").lower()


# --- answers ----------------------------------------------------------------------------------------------------------


def predict_answer(outputs: Arrays, *, is_row_format: bool) -> str:
    """The JSON text of a prediction.

    Raises:
      RequestError: if the outputs cannot be written in this format.
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    if not is_row_format:
        texts = {name: _nested(name, outputs[name]) for name in sorted(outputs)}
        return f'{{"outputs": {_object(texts) if len(texts) > 1 else next(iter(texts.values()))}}}'
    rows = -1
    for name, output in sorted(outputs.items()):
        if not output.ndim:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if rows not in (-1, len(output)):
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {len(output)} expecting: {rows}")
        rows = len(output)
    columns = {name: [_nested(name, row) for row in output] for name, output in sorted(outputs.items())}
    if len(columns) == 1:
        written = next(iter(columns.values()))
    else:
        written = [_object({name: column[row] for name, column in columns.items()}) for row in range(rows)]
    return f'{{"predictions": [{", ".join(written)}]}}'


def error_answer(message: str) -> str:
    """The JSON text of an error."""
    return json.dumps({"error": message.encode("utf-8", "replace").decode("utf-8")}, ensure_ascii=False)


def floats(values: np.ndarray) -> list[str]:
    """Numbers as TensorFlow Serving writes them: six digits, else all that are needed; whole ones as 3.0."""
    flat = values.ravel()
    written = [f"{value:.6g}" for value in flat.tolist()]
    exact = np.array(written, np.float64).astype(flat.dtype)
    digits = 9 if flat.dtype == np.float32 else 17
    return [
        _decimal(text if same else f"{value:.{digits}g}")
        for text, same, value in zip(written, (exact == flat).tolist(), flat.tolist(), strict=True)
    ]


def _decimal(text: str) -> str:
    if text in ("nan", "inf", "-inf"):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[text]
    return text if "." in text or "e" in text else f"{text}.0"


def _nested(name: str, values: Any) -> str:
    """The JSON text of an output or one of its rows, a scalar or nested lists."""
    array = np.asarray(values) if not isinstance(values, bytes) else np.array(values, object)
    if array.dtype in (np.float32, np.float64):
        texts = floats(array) if array.size else []
    elif array.dtype == object:
        is_bytes = name.endswith("_bytes")
        texts = [_string(value, is_bytes=is_bytes) for value in array.ravel().tolist()]
    elif array.dtype.kind in "biu":
        texts = [json.dumps(value) for value in array.ravel().tolist()]
    else:
        raise invalid(f"Failed to write JSON value for tensor type: {array.dtype}")
    return _brackets(texts, array.shape)


def _brackets(texts: list[str], shape: tuple[int, ...]) -> str:
    if not shape:
        return texts[0]
    for axis in range(len(shape) - 1, 0, -1):
        size = shape[axis]
        texts = [f"[{', '.join(texts[row * size : (row + 1) * size])}]" for row in range(_size(shape[:axis]))]
    return f"[{', '.join(texts)}]"


def _string(value: Any, *, is_bytes: bool) -> str:
    data = value if isinstance(value, bytes) else str(value).encode()
    if is_bytes:
        return f'{{"b64": "{base64.b64encode(data).decode()}"}}'
    return json.dumps(data.decode("utf-8", "replace"), ensure_ascii=False)


def _object(texts: dict[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in texts.items()) + "}"


# --- values in error messages -----------------------------------------------------------------------------------------


def type_of(value: Any) -> str:
    """The name of a JSON value's type."""
    if isinstance(value, bool):
        return str(value)
    names: tuple[tuple[Any, str], ...] = (
        (dict, "Object"), ((list, tuple), "Array"), (str, "String"), ((int, float), "Number")
    )  # fmt: skip
    return next((name for kind, name in names if isinstance(value, kind)), "Null")


def shown(value: Any) -> str:
    """A JSON value for an error message, indented, and cut after 256 bytes."""
    text = ""
    for piece in _pieces(value, 0):
        if len(text.encode("utf-8", "replace")) >= _MAX_SHOWN_BYTES:
            break
        text += piece
    return text if len(text) <= 2 * _MAX_SHOWN_BYTES else text[:_MAX_SHOWN_BYTES]


def _pieces(value: Any, depth: int) -> Iterator[str]:
    if depth > _MAX_RANK:
        yield "..."
    elif isinstance(value, dict) and value:
        before = "{"
        for name, each in value.items():
            yield f"{before}\n{'    ' * (depth + 1)}{json.dumps(name, ensure_ascii=False)}: "
            yield from _pieces(each, depth + 1)
            before = ","
        yield f"\n{'    ' * depth}}}"
    elif isinstance(value, list) and value:
        before = "["
        for each in value:
            yield before
            yield from _pieces(each, depth + 1)
            before = ", "
        yield "]"
    else:
        yield json.dumps(value, ensure_ascii=False)


def _offset(text: str, error: json.JSONDecodeError) -> int:
    if not error.msg.startswith("Illegal trailing comma"):
        return error.pos
    # Since Python 3.13 this is the place of the comma; TensorFlow Serving's is that of the bracket behind it.
    return re.compile(r",[ \t\r\n]*").match(text, error.pos).end()  # type: ignore[union-attr]


def _parse_error(text: str, error: json.JSONDecodeError) -> str:
    if error.msg != "Expecting ',' delimiter":
        return _PARSE_ERRORS.get(error.msg, "Invalid value.")
    is_open: list[str] = []  # the innermost open bracket says what is missing
    for part in re.finditer(r'"(?:\\.|[^"\\])*"|[\[\]{}]', text[: error.pos]):
        if part[0] in "[{":
            is_open.append(part[0])
        elif part[0] in "]}":
            is_open.pop()
    if is_open[-1] == "{":
        return "Missing a comma or } after an object member."
    return "Missing a comma or ] after an array element."
