"""What `nlp-rnn doctor` looks at: installation, hardware, data, runs and exported models."""

import csv
import importlib.metadata
import importlib.util
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nlp_rnn import extras, manifest
from nlp_rnn.cli.check import check_data
from nlp_rnn.config.settings import Config
from nlp_rnn.errors import ConfigError
from nlp_rnn.tensorflow_import import import_tensorflow

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth to know.

    Attributes:
      severity: "error": it cannot work; "warning": it works badly; "note": it could be better.
      what, consequence, mend: one sentence each.
    """

    severity: Severity
    what: str
    consequence: str
    mend: str


_USUAL_EXTRAS = ("demo", "console", "translation", "tune", "serve")  # commands name the others when they need them
_LEAST_DISK_GB = 2.0


# --- installation and hardware ----------------------------------------------------------------------------------------


def installation() -> Iterator[Finding]:
    """Python, TensorFlow, Keras and the extras."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        version = ".".join(map(str, sys.version_info[:2]))
        yield Finding("error", f"Python is {version}.", "It is not tested.", "Use Python 3.11, 3.12 or 3.13.")
    for package, least, below in (("tensorflow", (2, 21), (2, 22)), ("keras", (3, 15), (3, 16))):
        try:
            text = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            if package == "tensorflow" and importlib.util.find_spec("tensorflow"):
                continue  # tensorflow-cpu
            yield Finding("error", f"{package} is not installed.", "Nothing works.", "Run pip install nlp-rnn again.")
            continue
        numbers = tuple(int(part) for part in text.split(".")[:2])
        if not least <= numbers < below:
            wanted = f"{package}>={'.'.join(map(str, least))},<{'.'.join(map(str, below))}"
            yield Finding("error", f"{package} is {text}.", "It is not tested.", f"Run pip install '{wanted}'.")
    for name in _USUAL_EXTRAS:
        if lacking := extras.missing(name):
            what = f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not installed."
            mend = f"Run pip install 'nlp-rnn[{name}]' if you want to."
            yield Finding("note", what, f"You cannot use {extras.EXTRAS[name].use}.", mend)


def hardware(folder: Path) -> Iterator[Finding]:
    """Processor, threads, and the disk of a folder."""
    flags = _processor_flags()
    if flags and "avx512f" not in flags and "avx2" not in flags:
        yield Finding("warning", "The processor has no AVX2.", "Training is slow.", "Use a newer processor.")
    elif flags and not {"avx512_bf16", "amx_bf16"} & flags:
        yield Finding(
            "note", "The processor has no bfloat16 products.", "hardware.matmul_precision=bfloat16 would be slower.",
            "Leave it at float32.",
        )  # fmt: skip
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        value = os.environ.get(name, "")
        if value.isdecimal() and 0 < int(value) < cores:
            yield Finding(
                "warning", f"{name} is {value}, but there are {cores} processors.",
                "TensorFlow leaves some of them idle.", f"Unset {name}, unless other programs need them.",
            )  # fmt: skip
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free / 1e9
    if free < _LEAST_DISK_GB:
        yield Finding(
            "warning", f"{place} has {free:.1f} GB left.", "A training may end with a full disk.",
            "Free some space, or set runs_dir and NLP_RNN_CACHE to another disk.",
        )  # fmt: skip


def _processor_flags() -> set[str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return set(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))


# --- data -------------------------------------------------------------------------------------------------------------


def data(config: Config) -> Iterator[Finding]:
    """What a training on a config would be given."""
    try:
        facts = check_data(config)
    except ConfigError as error:
        for line in str(error).splitlines():
            yield Finding("error", f"{line}.", "It cannot be trained.", "See the end of that line.")
        return
    splits = facts["splits"]
    train = splits["train"]
    for warning in facts["warnings"]:
        yield Finding("warning", f"{warning}.", "The model learns the mistake.", "Mend the labels in the files.")
    if train["examples"] < config.training.batch_size and config.kind != "language_model":
        yield Finding(
            "warning", f"There are {train['examples']:,} texts to train on, fewer than a batch.",
            "An epoch is a single step.", "Use more data, or a smaller training.batch_size.",
        )  # fmt: skip
    yield from _rare_labels(train["labels"])
    for name, split in splits.items():
        dropped = sum(split["dropped"].values())
        if dropped > 0.2 * max(split["read"], 1):
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in split["dropped"].items())
            yield Finding(
                "warning", f"data.{name}: {dropped:,} of {split['read']:,} examples are left out: {reasons}.",
                "Much of the data is not used.", "Look at these examples.",
            )  # fmt: skip
        if split["empty"] > 0.01 * split["examples"]:
            yield Finding(
                "warning", f"data.{name}: {split['empty']:,} of {split['examples']:,} texts are empty.",
                "The model learns what to answer to nothing.", "Is data.text_column right?",
            )  # fmt: skip
        if "\ufffd" in split["first"]:
            yield Finding(
                "warning", f"data.{name}: the first text holds replacement characters.",
                "Letters were lost when the file was written or read.", "Set data.encoding, or write the file again.",
            )  # fmt: skip
    yield from _lengths(config, splits)


def _rare_labels(labels: dict[str, int]) -> Iterator[Finding]:
    total = sum(labels.values())
    if len(labels) > 1 and total and min(labels.values()) < 0.05 * total:
        rarest = min(labels, key=labels.__getitem__)
        yield Finding(
            "note", f"The label {rarest!r} has {labels[rarest]:,} of {total:,} examples.",
            "Accuracy says little about it.", "Watch macro F1, and try training.class_weights=balanced.",
        )  # fmt: skip


def _lengths(config: Config, splits: dict[str, Any]) -> Iterator[Finding]:
    for name, split in splits.items():
        for side, tokens in split.get("tokens", {}).items():
            if tokens["unknown"] > 0.05 and config.tokenizer.level == "word":
                yield Finding(
                    "warning", f"data.{name}: {100 * tokens['unknown']:.1f} % of the {side} are unknown.",
                    "The model does not see these words.",
                    "Raise tokenizer.vocab_size, lower tokenizer.min_count, or use tokenizer.level=subword.",
                )  # fmt: skip
            if config.kind == "classifier" and tokens["median"] >= config.data.max_length:
                yield Finding(
                    "warning", f"data.{name}: half of the texts are longer than {config.data.max_length} tokens.",
                    "Much of them is not read.", "Raise data.max_length.",
                )  # fmt: skip


# --- runs -------------------------------------------------------------------------------------------------------------


def run(path: Path) -> Iterator[Finding]:
    """A run directory: its files, its loss curve, its weights."""
    from nlp_rnn.training.run_directory import load_run

    try:
        loaded = load_run(path)
    except ConfigError as error:
        yield Finding("error", f"{error}.", "It cannot be used.", "Restore it from a copy, or train again.")
        return
    if not (path / manifest.NAME).is_file():
        yield Finding(
            "note", f"{path} has no {manifest.NAME}.", "Damaged files are not noticed.", "Newer runs have one."
        )
    if not loaded.best_checkpoint.is_file():
        yield Finding("error", f"{path} has no weights yet.", "It cannot be evaluated or exported.", "Train on.")
        return
    try:
        yield from _curve(path / "history.csv", loaded.config.training.monitor)
    except (ValueError, csv.Error):
        yield Finding(
            "warning", f"{path}/history.csv is damaged.", "The course of the training cannot be told.",
            "Rerun the same train command: it writes the file again from the checkpoint.",
        )  # fmt: skip
    try:
        yield from _weights(loaded.best_checkpoint)
    except ConfigError as error:
        yield Finding("error", f"{error}.", "It cannot be used.", "Restore it from a copy, or train again.")
    if loaded.config.kind == "classifier":
        temperature = loaded.calibration.temperature
        if not 0.5 <= temperature <= 2:
            kind = "over" if temperature > 1 else "under"
            yield Finding(
                "note", f"{path}: the fitted temperature is {temperature:.2f}.",
                f"The model by itself is far too {kind}confident.",
                "Its answers are calibrated; more regularisation may help.",
            )  # fmt: skip


def _curve(path: Path, monitor: str) -> Iterator[Finding]:
    if not path.is_file():
        return
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    name = monitor if rows and monitor in rows[0] else "val_loss"
    values = [float(row.get(name) or "nan") for row in rows]
    losses = [float(row.get("loss") or "nan") for row in rows]
    if not values:
        return
    sign = -1 if name.endswith(("accuracy", "f1")) else 1
    costs = [sign * value for value in values]
    if any(not math.isfinite(value) for value in (*values, *losses)):
        yield Finding(
            "error", f"{path}: the loss is not finite.", "The training diverged.",
            "Lower training.learning_rate, or set training.clip_norm.",
        )  # fmt: skip
        return
    best = costs.index(min(costs))
    if sign > 0 and len(values) > 1 and costs[-1] > 1.5 * max(costs[0], 1e-9):
        yield Finding(
            "error", f"{path}: {name} rose from {values[0]:.3f} to {values[-1]:.3f}.", "The training diverged.",
            "Lower training.learning_rate.",
        )  # fmt: skip
    elif len(values) - 1 - best >= 3 and losses[-1] < losses[best]:
        yield Finding(
            "warning", f"{path}: {name} was best in epoch {best + 1} of {len(values)}.",
            "The model overfits; the later epochs were in vain.", "Use more dropout, or fewer training.epochs.",
        )  # fmt: skip
    elif best == len(values) - 1 and best > 0 and abs(values[-2] - values[-1]) > 0.02 * abs(values[-2]):
        yield Finding(
            "note", f"{path}: {name} still improved by more than 2 % in the last epoch.", "It could become better.",
            "Train with more training.epochs.",
        )  # fmt: skip
    if len(values) > 2 and abs(values[0] - values[best]) < 0.005 * abs(values[0]):
        yield Finding(
            "warning", f"{path}: {name} stayed at {values[0]:.3f}.", "The model learns nothing.",
            "Raise training.learning_rate, and look at the data with nlp-rnn check.",
        )  # fmt: skip


def _weights(path: Path) -> Iterator[Finding]:
    import numpy as np

    from nlp_rnn.training.checkpoints import load_arrays

    for name, values in load_arrays(path).items():
        if values.dtype.kind != "f" or not values.size:
            continue
        if not np.isfinite(values).all():
            yield Finding(
                "error", f"{path}: {name} holds values that are not finite.", "All answers are wrong.",
                "Train again with a lower training.learning_rate.",
            )  # fmt: skip
        elif values.ndim == 2 and values.size > 16 and not values.any():
            yield Finding(
                "warning", f"{path}: {name} is zero everywhere.", "This part of the model does nothing.",
                "Was it trained at all?",
            )  # fmt: skip


# --- models -----------------------------------------------------------------------------------------------------------


def model(path: Path, run_path: Path | None = None) -> Iterator[Finding]:
    """An exported model: its files, its figures, and whether it is the run's. Of LiteRT exports the files alone."""
    import_tensorflow()  # without its messages
    from nlp_rnn.evaluation.model_health import examine, has_vocabulary_of, litert_problems

    problems = litert_problems(path)
    if problems is not None:
        yield from (Finding("error", f"{each}.", "It cannot be used.", "Export it again.") for each in problems)
        return
    try:
        folder, metrics, problem = examine(path)
        is_of_run = run_path is None or has_vocabulary_of(folder, run_path)
    except ConfigError as error:
        yield Finding("error", f"{error}.", "It cannot be used.", "Export it again.")
        return
    if problem:
        yield Finding("error", f"{folder}: {problem}.", "Users would see it.", "Train and export it again.")
    if not is_of_run:
        yield Finding(
            "error", f"{folder} has another vocabulary than {run_path}.", "It is not an export of this run.",
            "Export the run again.",
        )  # fmt: skip
    if "test" not in metrics:
        yield Finding(
            "note", f"{folder}: has no figures on the test split.", "Nobody knows how good it is.",
            "Run evaluate --split test, and export again; of an ensemble, evaluate shows them, but does not keep them.",
        )  # fmt: skip
    for split in ("test", "validation"):
        error_of_calibration = metrics.get(split, {}).get("expected_calibration_error", 0.0)
        if error_of_calibration > 0.1:
            yield Finding(
                "warning", f"{folder}: probabilities are off by {error_of_calibration:.2f} on {split}.",
                "A probability of 0.9 does not mean 90 %.", "Calibrate on validation data that is like the user's.",
            )  # fmt: skip
            break


def everything(checks: list[Callable[[], Iterator[Finding]]]) -> list[Finding]:
    """All findings, the gravest first."""
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted((each for check in checks for each in check()), key=lambda each: order[each.severity])
