"""The settings of generation and of beam search: their defaults, ranges and meaning, for Python, command line and exports alike."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from nlp_rnn.config.loading import checked
from nlp_rnn.errors import ConfigError

Finite = Annotated[float, Field(allow_inf_nan=False)]
MAX_STOP_LENGTH = 32  # of a stop string, in characters


@dataclass(frozen=True)
class GenerationSettings:
    """How a character model continues a prompt. The description of a field is also the help of its command-line option."""

    max_length: Annotated[int, Field(ge=1, le=1_000_000, description="characters at most")] = 200
    min_length: Annotated[int, Field(ge=1, le=1_000_000, description="characters at least")] = 1
    temperature: Annotated[
        Finite, Field(ge=0, le=100, description="of the draw; 0: always the likeliest character")
    ] = 0.8
    top_k: Annotated[
        int, Field(ge=0, le=1_000_000, description="draw among the k likeliest characters; 0: among all")
    ] = 0
    top_p: Annotated[
        Finite, Field(gt=0, le=1, description="draw among the likeliest characters that make up this probability")
    ] = 1.0
    repetition_penalty: Annotated[
        Finite, Field(ge=1, le=100, description="divide the probabilities of recent characters by it")
    ] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**31, description="of the draw: the same seed gives the same text")] = 1
    stop: Annotated[tuple[str, ...], Field(description="end before this text")] = ()

    @classmethod
    def checked(cls, **settings: Any) -> "GenerationSettings":
        """The settings, checked.

        Raises:
          ConfigError: naming each setting that is unknown or out of its range, one per line.
        """
        found = checked(cls, settings)
        if found.min_length > found.max_length:
            raise ConfigError(
                f"min_length is {found.min_length}, but max_length is {found.max_length}; lower the one or raise the other"
            )
        for stop in found.stop:
            if len(stop) > MAX_STOP_LENGTH:
                raise ConfigError(
                    f"stop is {stop!r}, of {len(stop)} characters, but {MAX_STOP_LENGTH} at most are compared; shorten it"
                )
        return found


@dataclass(frozen=True)
class SearchSettings:
    """How a translator searches. The description of a field is also the help of its command-line option."""

    beam_size: Annotated[int, Field(ge=1, le=100, description="hypotheses followed; 1: greedy")] = 5
    length_penalty: Annotated[
        Finite, Field(ge=0, le=10, description="exponent of the length that scores are divided by; 0: none")
    ] = 1.0
    coverage_penalty: Annotated[
        Finite, Field(ge=0, le=10, description="weight of the penalty for source pieces not looked at")
    ] = 0.0
    min_length: Annotated[int, Field(ge=0, le=10_000, description="pieces at least")] = 0
    max_length: Annotated[
        int, Field(ge=0, le=10_000, description="pieces at most; 0: twice the source's and ten more")
    ] = 0
    min_ratio: Annotated[Finite, Field(ge=0, le=10, description="pieces at least, in multiples of the source's")] = 0.0
    max_ratio: Annotated[
        Finite, Field(ge=0, le=10, description="pieces at most, in multiples of the source's; 0: no limit")
    ] = 0.0
    no_repeat_ngram: Annotated[int, Field(ge=0, le=10_000, description="no n pieces in a row twice; 0: allowed")] = 0
    prefix: Annotated[str, Field(description="begin the translation with this text")] = ""

    @classmethod
    def checked(cls, **settings: Any) -> "SearchSettings":
        """The settings, checked.

        Raises:
          ConfigError: naming each setting that is unknown or out of its range, one per line.
        """
        return checked(cls, settings)
