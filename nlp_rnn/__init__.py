"""Recurrent text models that are small, fast on a plain CPU and easy to serve.

`load`, `train` and `tune` are the Python API; they and all else here are imported when they are first used.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nlp_rnn.api import (
        CharacterModel,
        LabelSetClassifier,
        NextWordModel,
        Run,
        TextClassifier,
        TranslationModel,
        Trial,
        Tuning,
        load,
        train,
        tune,
    )
    from nlp_rnn.errors import ConfigError, Stopped
    from nlp_rnn.results import (
        Attributions,
        Evaluation,
        Generation,
        LabelSet,
        Prediction,
        Suggestion,
        TextScore,
        Tokens,
        Translation,
    )

__all__ = [
    "Attributions", "CharacterModel", "ConfigError", "Evaluation", "Generation", "LabelSet", "LabelSetClassifier",
    "NextWordModel", "Prediction", "Run", "Stopped", "Suggestion", "TextClassifier", "TextScore", "Tokens",
    "Translation", "TranslationModel", "Trial", "Tuning", "load", "train", "tune",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'nlp_rnn' has no attribute {name!r}")
    from nlp_rnn import api, errors

    return getattr(errors if name in ("ConfigError", "Stopped") else api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
