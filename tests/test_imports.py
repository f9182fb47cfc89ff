"""Imports go one way, as ARCHITECTURE.md draws them."""

import ast
from pathlib import Path

import pytest

ALLOWED = {
    "__init__": set(),
    "config": set(),
    "startup": {"config"},
    "cluster": {"config"},
    "launch": {"cli", "config"},
    "records": {"cli", "config", "config_file", "files", "pair_sources", "sources", "startup"},
    "serve_inputs": {"cli", "config", "startup"},
    "input_service": {"batches", "config", "serve_inputs"},
    "replicas": set(),
    "distribution": {"cluster", "config", "startup"},
    "train_step": {"distribution", "replicas"},
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
    "tokenizer": {"config", "letter_case", "normalization", "segmentation", "special_ids", "subwords", "words"},
    "encoding": {"special_ids", "tokenizer"},
    "tokenizer_builder": {"config", "files", "special_ids", "subwords", "tokenizer"},
    "cells": set(),
    "recurrence": set(),
    "linear_recurrence": set(),
    "fast_recurrent": {"cells", "linear_recurrence", "precision", "recurrence"},
    "recurrent": {"cells", "config", "fast_recurrent"},
    "fused_adam": set(),
    "optimizers": {"config", "fused_adam"},
    "fast_softmax": set(),
    "heads": {"config", "fast_softmax", "precision"},
    "precision": {"config"},
    "checkpoints": {"config", "files"},
    "language_model": {"config", "heads", "recurrent", "replicas"},
    "attention": {"config"},
    "fast_decoder": {"recurrence"},
    "translator": {"attention", "config", "fast_decoder", "heads", "recurrent", "replicas"},
    "models": {"config", "language_model", "ngrams", "recurrent", "replicas", "translator"},
    "transfer": {"checkpoints", "config", "runs"},
    "ngrams": {"special_ids"},
    "stacking": {"batches", "ngrams", "special_ids"},
    "special_ids": set(),
    "batches": {"config", "special_ids"},
    "inputs": {"batches"},
    "jax_devices": {"config", "distribution"},
    "session": {"config", "corpus", "datasets", "distribution", "files", "inputs", "jax_devices", "runs", "startup", "tokenizer"},
    "beam_search": {"special_ids"},
    "translation_metrics": {"config"},
    "translation_export": {"beam_search", "config", "export", "special_ids", "tokenizer", "translator"},
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
    "vocabulary": {"config", "keyboard", "special_ids", "tokenizer"},
    "proposals": {"language_model", "special_ids", "subwords", "tokenizer", "vocabulary"},
    "language_export": {"config", "encoding", "export", "language_model", "proposals", "special_ids", "tokenizer"},
    "litert_export": {
        "config",
        "config_file",
        "export",
        "files",
        "language_model",
        "neural_cache",
        "ondevice",
        "special_ids",
        "tokenizer",
        "vocabulary",
    },
    "language_evaluation": {
        "batches",
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
        "special_ids",
        "streams",
        "tokenizer",
        "vocabulary",
    },
    "sampling": set(),
    "stepper": {"cells", "language_model"},
    "generation": {"language_model", "sampling", "special_ids", "stepper"},
    "generation_export": {"config", "encoding", "export", "generation", "language_model", "sampling", "special_ids", "tokenizer"},
    "writing": {"special_ids"},
    "originality": set(),
    "inspection": {"config", "language_model", "models"},
    "character_evaluation": {
        "corpus",
        "datasets",
        "evaluation",
        "generation_export",
        "inspection",
        "keyboard",
        "language_evaluation",
        "originality",
        "plots",
        "runs",
        "special_ids",
        "writing",
    },
    "language_training": {"config", "models", "plots", "runs", "session", "training"},
    "explain": {"files", "plots", "special_ids"},
    "runs": {"config", "config_file", "files"},
    "datasets": {
        "batches",
        "config",
        "corpus",
        "encoding",
        "files",
        "inputs",
        "progress",
        "sources",
        "special_ids",
        "streams",
        "tokenizer",
        "tokenizer_builder",
    },
    "streams": {"batches", "config", "special_ids"},
    "keeper": {"checkpoints", "config", "distribution", "files", "progress", "runs"},
    "training": {
        "batches",
        "checkpoints",
        "config",
        "datasets",
        "distribution",
        "input_service",
        "inputs",
        "keeper",
        "language_model",
        "optimizers",
        "precision",
        "runs",
        "stacking",
        "streams",
        "transfer",
        "train_step",
        "translator",
    },
    "export": {"__init__", "config", "config_file", "files", "special_ids", "tokenizer"},
    "classifier_export": {"config", "encoding", "export", "special_ids", "tokenizer"},
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
    "verbs": {"cli", "config", "explain", "export", "session", "startup"},
}
PACKAGE = Path(__file__).parent.parent / "nlp_rnn"
# Keras on any backend: no TensorFlow call.
BACKEND_NEUTRAL = (
    "attention", "cells", "heads", "recurrent", "language_model", "translator", "models", "optimizers", "checkpoints",
)  # fmt: skip


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
