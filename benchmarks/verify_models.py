"""Claim: each model that comes with the code has the figure that its card and RESULTS.md give.

Each SavedModel answers the official test data in a process of its own that imports TensorFlow and not this package; a
LiteRT export (int8) in one without TensorFlow. The answers are scored here and compared with saved_models/figures.json,
to the printed digits. Needs NLP_RNN_DATA.

    python -m benchmarks.verify_models [--short] [--write [--max-examples N]] [NAME ...]

--short: some of the examples only (a minute in all). --write NAME: writes the figures of a new model, with and without
--short; --max-examples: of the first N examples, also from then on.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from nlp_rnn import files
from nlp_rnn.config.loading import load_saved_config
from nlp_rnn.config.tables import TASKS
from nlp_rnn.data.corpus import corpus_with
from nlp_rnn.evaluation.translation_metrics import require_sacrebleu
from nlp_rnn.ondevice import litert_file
from nlp_rnn.tensorflow_import import without_noise

_ROOT = Path(__file__).parent.parent
_MODELS = _ROOT / "saved_models"
_FIGURES_FILE = _MODELS / "figures.json"


class Figure(NamedTuple):
    """The figure of a task.

    Attributes:
      name: as in metrics.json.
      percent: whether the share, 0-1, is printed in percent.
      digits: after the point, as printed in RESULTS.md.
      num_short: examples of the short form; characters of the text for a model of characters.
      compute: (answers of `answer_alone`, texts, references) -> the figure.
    """

    name: str
    percent: bool
    digits: int
    num_short: int
    compute: Callable[[Any, list[str], list[str]], float]


def _accuracy(answers: list[str], _: list[str], labels: list[str]) -> float:
    return sum(map(str.__eq__, answers, labels)) / len(labels)


def _perplexity(cost: dict[str, float], _texts: list[str], _labels: list[str]) -> float:
    return math.exp(cost["nats"] / cost["num_tokens"])


def _nats(cost: dict[str, float], texts: list[str], _: list[str]) -> float:
    return cost["nats"] / (cost["num_tokens"] - len(texts))  # the ends of texts are no characters


def _bleu(answers: list[str], _: list[str], references: list[str]) -> float:
    return float(require_sacrebleu().BLEU(lowercase=True).corpus_score(answers, [references]).score)


_FIGURES = {
    "labels": Figure("accuracy", True, 2, 200, _accuracy),
    "words": Figure("perplexity", False, 2, 20, _perplexity),
    "characters": Figure("nats_per_character", False, 4, 5000, _nats),
    "translations": Figure("lowercased_bleu", False, 2, 50, _bleu),
}


def main() -> int:
    """Prints a line for each model; the exit status is 1 if a figure differs, and 2 if a model is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="of a folder in saved_models/ (default: those in figures.json)"
    )
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--max-examples", type=int, metavar="N")
    options = parser.parse_args()
    if options.max_examples is not None and (not options.write or options.max_examples < 1):
        parser.error("--max-examples needs a number of 1 or more, and --write")
    versions = {path.parent.name: path for path in sorted(_MODELS.glob("*/1")) if _is_model(path)}
    promised = _promises()
    missing = sorted({*options.names, *promised} - set(versions))
    if missing:
        print(f"saved_models has no version 1 of {', '.join(missing)}", file=sys.stderr)
        return 2
    if not options.names and not promised:
        print("figures.json has no figures; name the models to measure", file=sys.stderr)
        return 2
    if not options.names:  # demos and users put models of their own there
        for name in sorted(set(versions) - set(promised)):
            print(f"{name}: has no figure in figures.json; left out")
    form, is_good = "short" if options.short else "full", True
    for name in options.names or sorted(promised):
        start = time.monotonic()
        promise = promised.get(name, {})
        num_texts = options.max_examples or promise.get("num_texts")
        measured, figure, seconds = verify(versions[name], is_short=options.short, num_texts=num_texts)
        if options.write:
            _write(name, {"figure": figure, form: measured} | ({"num_texts": num_texts} if num_texts else {}))
            told = "written"
        else:
            wanted = promise.get(form, "nothing")
            told = "as promised" if measured == wanted else f"PROMISED: {wanted}"
            is_good &= measured == wanted
        parts = f"loaded in {seconds['load']:.1f} s, answered in {seconds['answer']:.0f} s"
        print(f"{name}: {figure} {measured}, {told}; {parts}, {time.monotonic() - start:.0f} s in all", flush=True)
    return 0 if is_good else 1


def _is_model(version: Path) -> bool:
    return (version / "saved_model.pb").is_file() or litert_file.is_ondevice(version)


def _promises() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    return json.loads(_FIGURES_FILE.read_text(encoding="utf-8")) if _FIGURES_FILE.is_file() else found


def _write(name: str, facts: dict[str, Any]) -> None:
    promises = _promises()  # read anew: another process may have written meanwhile
    promises.setdefault(name, {}).update(facts)
    with files.atomic_file(_FIGURES_FILE) as path:
        path.write_text(json.dumps(promises, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def verify(version: Path, *, is_short: bool, num_texts: int | None = None) -> tuple[str, str, dict[str, float]]:
    """Measures a model's figure.

    Args:
      num_texts: uses the first so many examples of test; None: all.

    Returns:
      (the figure as printed, its name, seconds of loading and answering).
    """
    is_ondevice = litert_file.is_ondevice(version)
    config = load_saved_config(version / ("" if is_ondevice else "assets.extra") / "config.yaml")
    figure = _FIGURES[TASKS[config.task].answers]
    examples = list(corpus_with(config, "test").examples("test"))[:num_texts]
    texts, references = [each.text for each in examples], [each.label for each in examples]
    if is_short and len(texts) == 1:
        texts = [texts[0][: figure.num_short]]
    elif is_short:  # spread, since a source may have its labels in order
        chosen = slice(0, len(texts), max(len(texts) // figure.num_short, 1))
        texts, references = texts[chosen][: figure.num_short], references[chosen][: figure.num_short]
    with tempfile.TemporaryDirectory() as folder:
        questions, answers = Path(folder) / "questions.json", Path(folder) / "answers.json"
        questions.write_text(json.dumps(texts), encoding="utf-8")
        # SavedModels: in another folder and without this one in the path, so that the package cannot help.
        script = ["-m", "benchmarks.answer_ondevice"] if is_ondevice else ["-P", _ROOT / "benchmarks/answer_alone.py"]
        command = [sys.executable, *map(str, (*script, version.absolute(), questions, answers))]
        with without_noise():
            subprocess.run(command, check=True, cwd=_ROOT if is_ondevice else folder)
        found = json.loads(answers.read_text(encoding="utf-8"))
    value = figure.compute(found["answers"], texts, references)
    printed = f"{100 * value:.{figure.digits}f} %" if figure.percent else f"{value:.{figure.digits}f}"
    return printed, figure.name, found["seconds"]


if __name__ == "__main__":
    sys.exit(main())
