"""Scores a trained or exported classifier on a split, with its most confident errors and a baseline."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from nlp_rnn.config.settings import Config
from nlp_rnn.config.types import Outputs
from nlp_rnn.data import datasets
from nlp_rnn.data.corpus import Corpus, corpus_with, load_corpus
from nlp_rnn.data.label_names import check_labels, label_names
from nlp_rnn.data.readers import Example
from nlp_rnn.errors import ConfigError
from nlp_rnn.evaluation.classifier_report import MAX_ROWS, describe_scores, score
from nlp_rnn.evaluation.label_set_metrics import most_confident_label_errors
from nlp_rnn.evaluation.metrics import most_confident_errors
from nlp_rnn.evaluation.nbsvm import Nbsvm
from nlp_rnn.evaluation.run_model import check_seeds, load_classifiers
from nlp_rnn.export.saved_model import ExportedModel
from nlp_rnn.models.calibration import Calibration, calibration_of_ensemble, predicted_classes, probabilities_of
from nlp_rnn.printable import one_line
from nlp_rnn.tokenization.tokenizer import Tokenizer
from nlp_rnn.training import fit
from nlp_rnn.training.run_directory import Run
from nlp_rnn.visualization import plots

_NUM_ERRORS = 5


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
      facts: split, labels, metrics, errors and optionally baseline.
      picture: path of the confusion matrix.
    """

    facts: dict[str, Any]
    picture: Path | None


@dataclass(frozen=True)
class _Scored:
    """A model's calibrated probabilities of a split, float [examples, classes], and the truth."""

    labels: list[str]
    probabilities: np.ndarray
    targets: np.ndarray
    calibration: Calibration
    outputs: Outputs


def evaluate_runs(
    runs: list[Run], split: str, *, min_probability: float = 0.0, has_baseline: bool = False
) -> Evaluation:
    """Evaluates the best weights of a run, or an ensemble of runs, whose calibrated probabilities are averaged.

    Of a single run, adds the metrics to metrics.json and draws confusion_<split>.png.

    Args:
      runs: one run, or the members of an ensemble; the config of the first one names the data.
      min_probability: see `classification_metrics`.
      has_baseline: whether `Nbsvm` is trained on the train split and scored too.

    Raises:
      ConfigError: if one of these is given for label sets, or the runs do not fit together: see `load_classifiers` and
        `check_seeds`.
    """
    run = runs[0]
    _check_options(run.config, min_probability, has_baseline=has_baseline)
    corpus = corpus_with(run.config, split)
    check_labels(corpus, split, run.labels)
    check_seeds(runs, corpus, split)
    models, tokenizer = load_classifiers(runs)
    label_ids = {label: number for number, label in enumerate(run.labels)}
    cache = datasets.prepare_split(corpus, split, run.config.data, tokenizer, label_ids)
    calibrations, outputs, members = [each.calibration for each in runs], run.config.data.outputs, []
    for model, calibration in zip(models, calibrations, strict=True):
        logits = fit.predict_logits(model, cache, run.config.training)
        members.append(probabilities_of(logits, outputs, calibration.temperature))
    probabilities = np.mean(members, axis=0) if len(members) > 1 else members[0]
    scored = _Scored(run.labels, probabilities, cache.labels, calibration_of_ensemble(calibrations), outputs)
    facts = _facts(corpus, split, scored, min_probability)
    picture, is_kept = None, len(runs) == 1
    if is_kept:
        run.write_metrics(**{split: facts["metrics"]})
    if is_kept and outputs != "label_sets":
        picture = run.path / f"confusion_{split}.png"
        title = f"{run.config.name}, {split}: {100 * facts['metrics']['accuracy']:.2f} % of {len(cache.labels):,}"
        plots.plot_confusion(facts["metrics"]["confusion_matrix"], run.labels, picture, title=title)
    if has_baseline:  # last, so that the model's figures are kept whatever happens
        facts["baseline"] = _score_baseline(run.config, split)
        if is_kept:
            run.write_metrics(**{f"{split}_baseline": facts["baseline"]})
    return Evaluation(facts, picture)


def evaluate_model(
    exported: ExportedModel, config: Config, split: str, *, min_probability: float = 0.0, has_baseline: bool = False
) -> Evaluation:
    """Scores an exported model through its own signature, strings in.

    Args:
      config: the model's, with data.* settings of this machine.
      min_probability, has_baseline: see `evaluate_runs`.
    """
    _check_options(config, min_probability, has_baseline=has_baseline)
    corpus = corpus_with(config, split)
    check_labels(corpus, split, exported.labels)
    numbers = {label: number for number, label in enumerate(exported.labels)}
    probabilities, truth = [], []
    examples = corpus.examples(split)
    while chunk := list(itertools.islice(examples, config.training.batch_size)):
        texts = tf.constant([example.text for example in chunk])
        probabilities.append(exported.loaded.classify(texts)["probabilities"].numpy())
        truth += [datasets.label_targets(example.label, config.data, numbers) for example in chunk]
    scored = _Scored(
        exported.labels, np.concatenate(probabilities), np.array(truth), exported.calibration, config.data.outputs
    )
    facts = _facts(corpus, split, scored, min_probability)
    if has_baseline:
        facts["baseline"] = _score_baseline(config, split)
    return Evaluation(facts, None)


def _check_options(config: Config, min_probability: float, *, has_baseline: bool) -> None:
    if has_baseline and config.data.multi_label:
        raise ConfigError(
            "--baseline is NBSVM, which has one label per text, but data.multi_label is true; leave it out"
        )
    if min_probability and config.data.multi_label:
        raise ConfigError(
            f"min_probability (--min-probability) is {min_probability:g}, but the model chooses any number of labels, "
            "each by a threshold of "
            "its own (data.multi_label); leave it out"
        )


def _score_baseline(config: Config, split: str) -> dict[str, Any]:
    """Trains NBSVM on the words of the train split and scores it on `split`."""
    start = time.monotonic()
    corpus = load_corpus(config.data, config.seed, trains_on_unlabelled=config.trains_on_unlabelled)
    tokenizer = Tokenizer("word", nfkc=config.tokenizer.nfkc, html_breaks=config.tokenizer.html_breaks)
    labels = label_names(corpus, allows_unlabelled=config.trains_on_unlabelled)
    numbers = {label: number for number, label in enumerate(labels)}
    train_labels, truth = (
        [numbers[example.label] for example in _labelled(corpus, name)] for name in ("train", split)
    )  # fmt: skip
    machine = Nbsvm().fit(_words(corpus, "train", tokenizer), np.array(train_labels))
    predicted = machine.predict(_words(corpus, split, tokenizer))
    return {
        "name": "NBSVM, 1- and 2-grams (Wang & Manning 2012)",
        "accuracy": float((predicted == np.array(truth)).mean()),
        "seconds": round(time.monotonic() - start, 1),
    }


def describe(evaluation: Evaluation) -> str:
    """Formats the evaluation."""
    facts, metrics = evaluation.facts, evaluation.facts["metrics"]
    lines = [f"{facts['split']}: {metrics['num_examples']:,} examples"]
    lines += describe_scores(metrics, facts.get("min_probability", 0.0))
    if len(facts["labels"]) > MAX_ROWS and "confusion_matrix" in metrics:
        lines.append(f"confusion of {len(facts['labels'])} labels: --json has it")
    elif "confusion_matrix" in metrics:
        lines.append("confusion (rows: true, columns: predicted " + ", ".join(facts["labels"]) + ")")
        for label, row in zip(facts["labels"], metrics["confusion_matrix"], strict=True):
            lines.append(f"  {label[:40]:<14}" + "".join(f"{count:>9,}" for count in row))
    if "baseline" in facts:
        baseline = facts["baseline"]
        lines.append(
            f"baseline {baseline['name']}: accuracy {100 * baseline['accuracy']:.2f} % ({baseline['seconds']:.0f} s)"
        )
    if facts["errors"]:
        lines.append("most confident errors:")
        lines += [
            f"  predicted {each['predicted']} ({100 * each['probability']:.1f} %), is {each['label']}: "
            f"{one_line(each['text'][:160])}"
            for each in facts["errors"]
        ]
    if evaluation.picture:
        lines.append(f"picture: {evaluation.picture}")
    return "\n".join(lines)


def _facts(corpus: Corpus, split: str, scored: _Scored, min_probability: float) -> dict[str, Any]:
    metrics = score(
        scored.probabilities, scored.targets, scored.labels, scored.outputs, scored.calibration, min_probability
    )
    find = _label_errors if scored.outputs == "label_sets" else _errors
    facts = {"split": split, "labels": scored.labels, "metrics": metrics, "errors": find(corpus, split, scored)}
    return facts | ({"min_probability": min_probability} if min_probability else {})


def _errors(corpus: Corpus, split: str, scored: _Scored) -> list[dict[str, Any]]:
    labels, probabilities = scored.labels, scored.probabilities
    predicted = predicted_classes(probabilities, scored.outputs)
    places = most_confident_errors(probabilities, scored.targets, predicted, count=_NUM_ERRORS)
    texts = _texts(corpus, split, set(places))
    return [
        {
            "text": texts[place],
            "label": labels[scored.targets[place]],
            "predicted": labels[predicted[place]],
            "probability": float(probabilities[place, predicted[place]]),
        }
        for place in places
    ]


def _label_errors(corpus: Corpus, split: str, scored: _Scored) -> list[dict[str, Any]]:
    """Each with one label of a text that was chosen or left out wrongly."""
    places = most_confident_label_errors(
        scored.probabilities, scored.targets, scored.calibration.thresholds, count=_NUM_ERRORS
    )
    texts = _texts(corpus, split, {row for row, _ in places})
    errors = []
    for row, number in places:
        name, share = scored.labels[number], float(scored.probabilities[row, number])
        names = (name, f"not {name}") if scored.targets[row, number] else (f"not {name}", name)
        probability = share if names[1] == name else 1 - share
        errors.append({"text": texts[row], "label": names[0], "predicted": names[1], "probability": probability})
    return errors


def _texts(corpus: Corpus, split: str, rows: set[int]) -> dict[int, str]:
    return {row: example.text for row, example in enumerate(corpus.examples(split)) if row in rows}


def _labelled(corpus: Corpus, split: str) -> Iterator[Example]:
    return (example for example in corpus.examples(split) if example.label)


def _words(corpus: Corpus, split: str, tokenizer: Tokenizer) -> Iterator[str]:
    examples = _labelled(corpus, split)
    while chunk := list(itertools.islice(examples, 512)):
        pieces = tokenizer.pieces(tf.constant([example.text for example in chunk]))
        yield from (text.decode("utf-8") for text in tf.strings.reduce_join(pieces, axis=-1, separator=" ").numpy())
