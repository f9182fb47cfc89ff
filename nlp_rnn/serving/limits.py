"""What one request may cost."""

import os
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from nlp_rnn.config.loading import checked
from nlp_rnn.decoding.settings import MAX_RATIO, GenerationSettings, SearchSettings
from nlp_rnn.errors import ConfigError
from nlp_rnn.serving.request_errors import RequestError, invalid

# Computations at the same time, of different signatures. TensorFlow needs as many threads between operations, since the
# loop of a long generation holds one of them until it ends.
NUM_THREADS = 4 + 2 * (os.cpu_count() or 1)
_SETTINGS: dict[str, Any] = {"generate": GenerationSettings, "translate": SearchSettings}  # of signatures


@dataclass(frozen=True)
class Limits:
    """The limits of a server. The descriptions of the fields are also the help of the command line."""

    max_body_bytes: Annotated[int, Field(ge=1, description="largest request body, in bytes")] = 2_000_000
    max_text_bytes: Annotated[int, Field(ge=1, description="longest text, in bytes of UTF-8")] = 100_000
    max_rows: Annotated[int, Field(ge=1, description="most rows per request")] = 256
    max_beam: Annotated[int, Field(ge=1, le=100, description="largest beam_size")] = 32
    max_generated: Annotated[
        int, Field(ge=1, le=1_000_000, description="largest max_length and count: characters or pieces per text")
    ] = 10_000
    max_answer_values: Annotated[int, Field(ge=1, description="most numbers and texts in an answer")] = 2_000_000
    max_batch_rows: Annotated[int, Field(ge=1, description="most rows that are computed together")] = 64
    max_requests: Annotated[int, Field(ge=1, description="most requests at the same time; others get 429")] = 512
    max_queued: Annotated[int, Field(ge=1, description="most requests that wait for one signature of a model")] = 256
    timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False, description="longest time per request")] = 60.0
    shutdown_seconds: Annotated[
        int, Field(ge=0, description="after SIGTERM, running requests get so much time to finish")
    ] = 30

    @classmethod
    def checked(cls, **settings: Any) -> "Limits":
        """Checks and returns the limits.

        Raises:
          ConfigError: if limits are unknown or out of range; one line per limit.
        """
        return checked(cls, settings)


def check_inputs(inputs: dict[str, np.ndarray], limits: Limits) -> None:
    """Checks the inputs of a request.

    Args:
      inputs: name -> array; texts are bytes in arrays of dtype object.

    Raises:
      RequestError: naming the input, its value and the limit.
    """
    largest: dict[str, float] = {
        "beam_size": limits.max_beam, "max_length": limits.max_generated, "count": limits.max_generated,
        "min_ratio": MAX_RATIO, "max_ratio": MAX_RATIO,
    }  # fmt: skip
    for name, values in inputs.items():
        if values.ndim and len(values) > limits.max_rows:
            raise too_large(f"the request has {len(values)} rows", f"{limits.max_rows} rows per request")
        if values.dtype == object:
            longest = max(map(len, values.ravel()), default=0)
            allowed = min(limits.max_generated if name == "prefix" else limits.max_text_bytes, limits.max_text_bytes)
            if longest > allowed:
                raise too_large(f"{name} has a text of {longest} bytes", f"{allowed} bytes per {name}")
        elif name in largest and values.size and values.max() > largest[name]:
            raise too_large(f"{name} is {values.max()}", str(largest[name]))


def check_settings(signature: str, inputs: dict[str, np.ndarray]) -> None:
    """Checks the ranges of settings, as Python and the command line do; graphs would clamp them.

    Args:
      signature: the name of one of our exports' signatures.
      inputs: those of the request, as for `check_inputs`.

    Raises:
      RequestError: naming the setting, its value and what is allowed.
    """
    numbers = {name: values for name, values in inputs.items() if values.dtype != object and values.size}
    if "count" in numbers and numbers["count"].min() < 1:
        raise invalid(f"count is {numbers['count'].min()}, but must be 1 or more")
    if kind := _SETTINGS.get(signature):
        numbers = {name: values for name, values in numbers.items() if name in kind.__dataclass_fields__}
        for extreme in (np.min, np.max):  # NaN if there is one
            try:
                checked(kind, {name: extreme(values).item() for name, values in numbers.items()})
            except ConfigError as error:
                raise invalid(str(error).replace("\n", "; ")) from None


def check_outputs(outputs: dict[str, np.ndarray], limits: Limits) -> None:
    """Checks the size of an answer.

    Raises:
      RequestError: naming the number of its values and the limit.
    """
    size = sum(array.size for array in outputs.values())
    if size > limits.max_answer_values:
        raise too_large(f"the answer has {size} values", f"{limits.max_answer_values} per answer; send less text")


def too_large(request: str, allowed: str) -> RequestError:
    """The error of a request over a limit."""
    return RequestError("TOO_LARGE", f"{request}, but this server allows at most {allowed}")
