"""The small models of the trials, one folder per task, and what the commands answer about them undisturbed."""

import hashlib
import json
import random
import shutil
from pathlib import Path
from typing import Any

from nlp_rnn.training.checkpoints import load_arrays
from tests.chaos.commands import Ended, as_json, killed_at_rename, run
from tests.conftest import BAD, GOOD, TRANSLATION_SETTINGS, make_lines, make_pairs, make_review, write_csv

_TINY = ["training.epochs=3", "training.max_steps_per_epoch=6", "training.learning_rate=0.02", "model.dropout=0.1"]
_TEXT = [
    "data.source=text", "data.train=lines.txt", "data.test_fraction=0.1", "data.remove_repeated=false",
    "model.units=12", "model.embedding_dim=8", "training.batch_size=8", "training.window=10",
]  # fmt: skip
SETTINGS = {
    "sentiment": [
        "data.source=csv", "data.train=reviews.csv", "data.test_fraction=0.2", "data.max_length=20", "model.units=6",
        "model.embedding_dim=8", "model.ngrams=2", "training.batch_size=16", *_TINY,
    ],
    "next_word": [*_TEXT, *_TINY],
    "char_generation": [
        "data.source=documents", "data.train=lines.txt", "data.test_fraction=0.1", "model.units=12",
        "model.embedding_dim=8", "training.batch_size=8", "training.window=20", *_TINY,
    ],
    "translation": [
        *TRANSLATION_SETTINGS, "tokenizer.level=subword", "tokenizer.vocab_size=300", "tokenizer.min_count=2",
        "model.units=8", "model.embedding_dim=16", *_TINY,
    ],
}  # fmt: skip
# A classifier that begins with the weights of a language model, which is in the folder of sentiment too.
TRANSFER = [
    *SETTINGS["sentiment"], "model.init_from=runs/language", "model.embedding_dim=8", "model.units=12",
    "model.is_bidirectional=false", "model.last_units=8", "model.ngrams=0",
]  # fmt: skip
TEXTS = ["the film was lovely and ", "My neighbour likes the gr", "", "\u00e9\u4e2d \U0001f600 no 5.", "the old king"]
LINES = b"My neighbour likes \nThe old ki\n\nzebrafish \nzebrafish \nA dog zebra\n/stats\n"
EXPORTS = {task: task for task in SETTINGS} | {"translation": "translation_en_de"}


def make_models(folder: Path) -> None:
    """Fills a folder with `TASK/`, each with data, runs/small, runs/part (killed after an epoch) and saved_models/."""
    for task in SETTINGS:
        place = folder / task
        if not (place / "expected.json").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            _make_model(task, place)


def _make_model(task: str, place: Path) -> None:
    _write_data(task, place)
    if task == "sentiment":
        _done(run("next_word", "train", "name=language", *SETTINGS["next_word"], folder=place))
    _done(run(task, "train", "name=small", *SETTINGS[task], folder=place))
    expected: dict[str, Any] = {"run": outcome(place / "runs/small")}
    number = 3
    while not (place / "runs/part/checkpoints/last.npz").exists():
        shutil.rmtree(place / "runs/part", ignore_errors=True)
        number += 1
        run(task, "train", "name=part", *SETTINGS[task], folder=place, before=killed_at_rename(number))
    for path in place.rglob(".nlp-rnn-*"):  # what the kill left
        path.unlink()
    if task == "sentiment":
        _done(run(task, "train", "name=transfer", *TRANSFER, folder=place))
        expected["transfer"] = outcome(place / "runs/transfer")
    if task == "translation":
        start = "training.start_from=runs/small"  # the runs of an ensemble share a vocabulary
        _done(run(task, "train", "name=other", *SETTINGS[task], "seed=2", start, folder=place))
    for command in ("evaluate", "export", "int8", "litert", "ensemble", "predict", "explain", "console"):
        if command in commands_of(task):
            text = LINES + b"/save memory.json\n" if command == "console" else b""
            expected[command] = answer(command, _done(run(*arguments_of(command, task), folder=place, text=text)))
    (place / "expected.json").write_text(json.dumps(expected), encoding="utf-8")


def _done(ended: Ended) -> Ended:
    if ended.status != 0:
        raise RuntimeError(f"a command failed before any trial: {ended.errors[-2000:]}")
    return ended


def _write_data(task: str, place: Path) -> None:
    generator = random.Random(0)
    if task == "translation":
        rows = make_pairs(300, 1)
        for name, part in (("train", rows[:240]), ("validation", rows[240:270]), ("test", rows[270:])):
            for side, language in enumerate(("en", "de")):
                (place / f"{name}.{language}").write_text("".join(f"{row[side]}\n" for row in part), encoding="utf-8")
        return
    rows = [(make_review(generator, GOOD if i % 2 else BAD), "pos" if i % 2 else "neg") for i in range(200)]
    write_csv(place / "reviews.csv", rows)
    lines = [text for text, _ in rows] if task == "sentiment" else make_lines(300, 3)
    (place / "lines.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def commands_of(task: str) -> list[str]:
    """The names of `arguments_of` that a task has."""
    own = {
        "sentiment": ["transfer", "explain"],
        "next_word": ["litert", "console", "memory"],
        "translation": ["ensemble"],
    }
    int8 = [] if task == "char_generation" else ["int8"]
    return ["train", "resume", "prepare", "evaluate", "export", *int8, "predict", *own.get(task, [])]


def arguments_of(command: str, task: str) -> list[str]:
    """The arguments of a command about the models in the current folder.

    Args:
      command: train, resume, transfer, prepare, evaluate, export, int8, litert, ensemble, predict, explain, console,
        or memory (the console with what it has learnt).
    """
    model, settings = f"saved_models/{EXPORTS[task]}", SETTINGS[task]
    export = [task, "export", "--run", "runs/small"]
    console = [task, "console", "--model", f"{model}_litert", "--json"]
    return {
        "train": [task, "train", "name=again", *settings],
        "resume": [task, "train", "name=part", *settings],
        "transfer": [task, "train", "name=moved", *TRANSFER],
        "prepare": [task, "prepare", "name=again", *settings],
        "evaluate": [task, "evaluate", "--run", "runs/small", "--json"],
        "export": [*export, "--to", "saved_models"],
        "int8": [*export, "--to", "saved_models/int8", "--weights", "int8"],
        "litert": [*export, "--format", "litert", "--ngrams", "0.1"],
        "ensemble": [*export, "--run", "runs/other", "--to", "saved_models/ensemble"],
        "predict": [task, "predict", "--model", model, "--json", *TEXTS],
        "explain": [task, "explain", "--model", model, "--json", TEXTS[0]],
        "console": [*console, "--learn"],
        "memory": [*console, "--memory", "memory.json"],
    }[command]


def answer(command: str, ended: Ended) -> Any:
    """What must be equal each time that a command ends well; None: nothing."""
    if command in ("export", "int8", "litert", "ensemble", "prepare", "train", "resume", "transfer"):
        return None
    return _without_times(as_json(ended.output))


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(each) for key, each in value.items() if not key.endswith("seconds")}
    return [_without_times(each) for each in value] if isinstance(value, list) else value


def outcome(run_folder: Path) -> dict[str, Any]:
    """What of a run must not depend on interruptions: digests of its best weights and files, metrics and history."""
    digest = hashlib.blake2b(digest_size=16)
    # Without the digest of the vocabulary that a checkpoint holds: runs without a manifest have none.
    for name, values in sorted(load_arrays(run_folder / "checkpoints" / "best.npz").items()):
        digest.update(name.encode() + values.tobytes())
    metrics = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))
    texts = {name: (run_folder / name).read_text(encoding="utf-8") for name in ("history.csv", "labels.json")}
    return {"weights": digest.hexdigest(), "training": _without_times(metrics["training"]), **texts}


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The keys whose values differ."""
    return [f"{key} differs" for key in expected if found.get(key) != expected[key]]
