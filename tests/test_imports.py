"""Imports go one way, as ARCHITECTURE.md draws them."""

import ast
from pathlib import Path

import pytest

ALLOWED = {
    "__init__": set(),
    "config": set(),
    "startup": set(),
    "progress": set(),
    "metrics": set(),
    "baselines": set(),
    "config_rules": {"config"},
    "config_file": {"config", "config_rules"},
    "files": {"config"},
    "sources": {"config", "files", "startup"},
    "pair_sources": {"config", "files", "sources"},
    "languages": {"config"},
    "corpus": {"config", "languages", "pair_sources", "sources"},
    "normalization": set(),
    "words": set(),
    "segmentation": set(),
    "subwords": {"config", "segmentation"},
    "letter_case": set(),
    "tokenizer": {"config", "letter_case", "normalization", "segmentation", "subwords", "words"},
    "tokenizer_builder": {"config", "files", "subwords", "tokenizer"},
    "cells": set(),
    "recurrence": set(),
    "linear_recurrence": set(),
    "fast_recurrent": {"cells", "linear_recurrence", "recurrence"},
    "recurrent": {"cells", "config", "fast_recurrent"},
    "fused_adam": set(),
    "optimizers": {"config", "fused_adam"},
    "fast_softmax": set(),
    "heads": {"config", "fast_softmax"},
    "checkpoints": {"config", "files"},
    "language_model": {"config", "heads", "recurrent"},
    "attention": {"config"},
    "translator": {"attention", "config", "heads", "recurrent"},
    "models": {"config", "language_model", "recurrent", "translator"},
    "pairs": {"config", "corpus", "datasets", "tokenizer"},
    "beam_search": {"tokenizer"},
    "translation_metrics": {"config"},
    "translation_export": {"beam_search", "config", "export", "tokenizer", "translator"},
    "translation_evaluation": {
        "checkpoints",
        "config",
        "evaluation",
        "export",
        "files",
        "models",
        "progress",
        "runs",
        "tokenizer",
        "translation_export",
        "translation_metrics",
        "translator",
    },
    "attention_map": {"files"},
    "plots": {"files"},
    "keyboard": set(),
    "kneser_ney": set(),
    "neural_cache": {"config", "files"},
    "ondevice": {"config"},
    "typing_session": {"neural_cache", "ondevice"},
    "console": {"config", "typing_session"},
    "vocabulary": {"config", "keyboard", "tokenizer"},
    "proposals": {"language_model", "subwords", "tokenizer", "vocabulary"},
    "language_export": {"config", "export", "language_model", "proposals", "tokenizer"},
    "litert_export": {"config", "config_file", "export", "files", "language_model", "neural_cache", "ondevice", "tokenizer", "vocabulary"},
    "language_evaluation": {
        "checkpoints",
        "config",
        "datasets",
        "evaluation",
        "keyboard",
        "kneser_ney",
        "language_model",
        "models",
        "neural_cache",
        "ondevice",
        "progress",
        "runs",
        "streams",
        "tokenizer",
        "vocabulary",
    },
    "sampling": set(),
    "stepper": {"cells", "language_model"},
    "generation": {"language_model", "sampling", "stepper", "tokenizer"},
    "generation_export": {"config", "export", "generation", "language_model", "sampling", "tokenizer"},
    "writing": {"tokenizer"},
    "originality": set(),
    "inspection": {"config", "language_model", "models"},
    "character_evaluation": {
        "datasets",
        "evaluation",
        "generation_export",
        "inspection",
        "corpus",
        "keyboard",
        "language_evaluation",
        "originality",
        "plots",
        "runs",
        "tokenizer",
        "writing",
    },
    "language_training": {"config", "corpus", "datasets", "models", "plots", "runs", "startup", "streams", "training"},
    "explain": {"files", "plots", "tokenizer"},
    "runs": {"config", "config_file", "files"},
    "datasets": {"config", "corpus", "files", "progress", "sources", "tokenizer", "tokenizer_builder"},
    "streams": {"config", "datasets", "tokenizer"},
    "keeper": {"checkpoints", "config", "files", "progress", "runs"},
    "training": {"checkpoints", "config", "datasets", "keeper", "language_model", "optimizers", "pairs", "runs", "streams", "translator"},
    "export": {"__init__", "config", "config_file", "files", "tokenizer"},
    "classifier_export": {"config", "export", "tokenizer"},
    "evaluation": {
        "baselines",
        "checkpoints",
        "config",
        "corpus",
        "datasets",
        "metrics",
        "models",
        "plots",
        "runs",
        "tokenizer",
        "training",
    },
    "cli": {"config", "config_file"},
    "verbs": {"cli", "explain", "export", "startup"},
}
PACKAGE = Path(__file__).parent.parent / "nlp_rnn"
# Keras on any backend: no TensorFlow call.
BACKEND_NEUTRAL = ("attention", "cells", "heads", "recurrent", "language_model", "translator", "models", "optimizers", "checkpoints")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def internal(path: Path) -> set[str]:
    modules = {file.stem for file in PACKAGE.glob("*.py")}
    found = {name.split(".")[1] for name in imported(path) if name.startswith("nlp_rnn.")}
    return {name if name in modules else "__init__" for name in found}


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_module_imports_only_what_lies_below_it(path):
    assert internal(path) <= ALLOWED[path.stem]


def test_nothing_imports_pipelines():
    assert not [path for path in PACKAGE.glob("*.py") if any(name.split(".")[0] == "pipelines" for name in imported(path))]


@pytest.mark.parametrize("name", BACKEND_NEUTRAL)
def test_layers_and_models_are_plain_keras(name):
    assert not [module for module in imported(PACKAGE / f"{name}.py") if module.split(".")[0] == "tensorflow"]
