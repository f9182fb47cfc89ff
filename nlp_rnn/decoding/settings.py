"""The settings of generation and beam search: defaults, ranges, descriptions.

Python, command line and exports use them.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from nlp_rnn.config.loading import checked
from nlp_rnn.errors import ConfigError

Finite = Annotated[float, Field(allow_inf_nan=False)]
MAX_LENGTH = 1_000_000  # of a text that is generated, in characters
MAX_BEAMS = 100
MAX_STOP_LENGTH = 32  # of a stop string, in characters
MAX_RATIO = 10  # of the pieces of a translation to those of its source


@dataclass(frozen=True)
class GenerationSettings:
    """How a character model continues a prompt.

    The descriptions of the fields are also the help of the command line.
    """

    max_length: Annotated[int, Field(ge=1, le=MAX_LENGTH, description="characters at most")] = 200
    min_length: Annotated[int, Field(ge=1, le=MAX_LENGTH, description="characters at least")] = 1
    temperature: Annotated[
        Finite, Field(ge=0, le=100, description="of the draw; 0: always the most likely character")
    ] = 0.8
    top_k: Annotated[
        int, Field(ge=0, le=1_000_000, description="draw among the k most likely characters; 0: among all")
    ] = 0
    top_p: Annotated[
        Finite, Field(gt=0, le=1, description="draw among the most likely characters with this total probability")
    ] = 1.0
    repetition_penalty: Annotated[
        Finite, Field(ge=1, le=100, description="divide the probabilities of recent characters by it")
    ] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**31, description="of the draw: the same seed gives the same text")] = 1
    stop: Annotated[tuple[str, ...], Field(description="end before this text")] = ()

    @classmethod
    def checked(cls, **settings: Any) -> "GenerationSettings":
        """Checks and returns the settings.

        Raises:
          ConfigError: if settings are unknown or out of range; one line per setting.
        """
        values = checked(cls, settings)
        _check_order("min_length", values.min_length, "max_length", values.max_length)
        for stop in values.stop:
            _check_text("stop", stop)
            if len(stop) > MAX_STOP_LENGTH:
                raise ConfigError(
                    f"stop is {stop!r}, of {len(stop)} characters, but at most {MAX_STOP_LENGTH} are compared; shorten "
                    f"it"
                )
        return values


@dataclass(frozen=True)
class SearchSettings:
    """How a translator searches. The descriptions of the fields are also the help of the command line."""

    beam_size: Annotated[int, Field(ge=1, le=MAX_BEAMS, description="hypotheses followed; 1: greedy")] = 5
    length_penalty: Annotated[
        Finite, Field(ge=0, le=10, description="exponent of (5 + length) / 6, by which scores are divided; 0: none")
    ] = 1.0
    coverage_penalty: Annotated[
        Finite, Field(ge=0, le=10, description="weight of the penalty for source pieces without attention")
    ] = 0.0
    min_length: Annotated[int, Field(ge=0, le=10_000, description="pieces at least")] = 0
    max_length: Annotated[
        int, Field(ge=0, le=10_000, description="at most so many pieces; 0: twice the source's plus ten")
    ] = 0
    min_ratio: Annotated[
        Finite, Field(ge=0, le=MAX_RATIO, description="at least this multiple of the source's pieces")
    ] = 0.0
    max_ratio: Annotated[
        Finite, Field(ge=0, le=MAX_RATIO, description="at most this multiple of the source's pieces; 0: no limit")
    ] = 0.0
    no_repeat_ngram: Annotated[int, Field(ge=0, le=10_000, description="repeat no n-gram of n pieces; 0: allowed")] = 0
    prefix: Annotated[str, Field(description="begin the translation with this text")] = ""

    @classmethod
    def checked(cls, **settings: Any) -> "SearchSettings":
        """Checks and returns the settings.

        Raises:
          ConfigError: if settings are unknown or out of range; one line per setting.
        """
        values = checked(cls, settings)
        if values.max_length:
            _check_order("min_length", values.min_length, "max_length", values.max_length)
        if values.max_ratio:
            _check_order("min_ratio", values.min_ratio, "max_ratio", values.max_ratio)
        _check_text("prefix", values.prefix)
        return values


def _check_order(least: str, low: float, most: str, high: float) -> None:
    if low > high:
        raise ConfigError(f"{least} is {low}, but {most} is {high}; lower the first or raise the second")


def _check_text(name: str, text: str) -> None:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ConfigError(f"{name} is {text!r}, which has half of a surrogate pair; give valid Unicode") from None
