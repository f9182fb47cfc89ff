"""Scores a trained or exported classifier on a split, with its most confident errors and a baseline."""

import itertools
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from nlp_rnn.config.settings import Config
from nlp_rnn.data import datasets
from nlp_rnn.data.corpus import Corpus, check_labels, corpus_with, label_names, load_corpus
from nlp_rnn.evaluation.metrics import classification_metrics, most_confident_errors
from nlp_rnn.evaluation.nbsvm import Nbsvm
from nlp_rnn.evaluation.run_model import load_classifier
from nlp_rnn.tokenization.tokenizer import Tokenizer
from nlp_rnn.training import fit
from nlp_rnn.training.run_directory import Run
from nlp_rnn.visualization import plots

logger = logging.getLogger(__name__)

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


def evaluate_run(run: Run, split: str) -> Evaluation:
    """Scores the run's best weights, adds the figures to metrics.json and draws confusion_<split>.png."""
    corpus = corpus_with(run.config, split)
    check_labels(corpus, split, run.labels)
    model, tokenizer = load_classifier(run)
    label_ids = {label: number for number, label in enumerate(run.labels)}
    cache = datasets.prepare_split(corpus, split, run.config.data, tokenizer, label_ids)
    probabilities = fit.predict_probabilities(model, cache, run.config.training.batch_size)
    facts = _facts(corpus, split, run.labels, probabilities, cache.labels)
    picture = run.path / f"confusion_{split}.png"
    title = f"{run.config.name}, {split}: {100 * facts['metrics']['accuracy']:.2f} % of {len(cache.labels):,}"
    plots.plot_confusion(facts["metrics"]["confusion_matrix"], run.labels, picture, title=title)
    run.write_metrics(**{split: facts["metrics"]})
    return Evaluation(facts, picture)


def evaluate_model(loaded: Any, config: Config, labels: list[str], split: str) -> Evaluation:
    """Scores an exported model through its own signature."""
    corpus = corpus_with(config, split)
    check_labels(corpus, split, labels)
    numbers = {label: number for number, label in enumerate(labels)}
    probabilities, truth = [], []
    examples = corpus.examples(split)
    while chunk := list(itertools.islice(examples, config.training.batch_size)):
        probabilities.append(loaded.classify(tf.constant([example.text for example in chunk]))["probabilities"].numpy())
        truth += [numbers[example.label] for example in chunk]
    return Evaluation(_facts(corpus, split, labels, np.concatenate(probabilities), np.array(truth)), None)


def evaluate_baseline(config: Config, split: str) -> dict[str, Any]:
    """Trains NBSVM on the words of the train split and scores it on `split`."""
    start = time.monotonic()
    corpus = load_corpus(config.data, config.seed)
    tokenizer = Tokenizer("word", nfkc=config.tokenizer.nfkc, html_breaks=config.tokenizer.html_breaks)
    labels = label_names(corpus)
    numbers = {label: number for number, label in enumerate(labels)}
    train_labels, truth = ([numbers[example.label] for example in corpus.examples(name)] for name in ("train", split))
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
    auc = "" if metrics["auc"] is None else f"   AUC {metrics['auc']:.4f}"
    lines = [
        f"{facts['split']}: {metrics['num_examples']:,} examples",
        f"accuracy {100 * metrics['accuracy']:.2f} %   F1 {metrics['f1']:.4f}{auc}",
        f"cross-entropy {metrics['cross_entropy']:.4f} nats   "
        f"calibration error {100 * metrics['expected_calibration_error']:.2f} %",
        "confusion (rows: true, columns: predicted " + ", ".join(facts["labels"]) + ")",
    ]
    for label, row in zip(facts["labels"], metrics["confusion_matrix"], strict=True):
        lines.append(f"  {label:<14}" + "".join(f"{count:>9,}" for count in row))
    if "baseline" in facts:
        baseline = facts["baseline"]
        lines.append(
            f"baseline {baseline['name']}: accuracy {100 * baseline['accuracy']:.2f} % ({baseline['seconds']:.0f} s)"
        )
    if facts["errors"]:
        lines.append("most confident errors:")
        lines += [
            f"  predicted {e['predicted']} ({100 * e['probability']:.1f} %), is {e['label']}: {e['text'][:160]}"
            for e in facts["errors"]
        ]
    if evaluation.picture:
        lines.append(f"picture: {evaluation.picture}")
    return "\n".join(lines)


def _facts(
    corpus: Corpus, split: str, labels: list[str], probabilities: np.ndarray, truth: np.ndarray
) -> dict[str, Any]:
    places = most_confident_errors(probabilities, truth, count=_NUM_ERRORS)
    texts = {row: example.text for row, example in enumerate(corpus.examples(split)) if row in set(places)}
    errors = [
        {
            "text": texts[place],
            "label": labels[truth[place]],
            "predicted": labels[int(probabilities[place].argmax())],
            "probability": float(probabilities[place].max()),
        }
        for place in places
    ]
    return {"split": split, "labels": labels, "metrics": classification_metrics(probabilities, truth), "errors": errors}


def _words(corpus: Corpus, split: str, tokenizer: Tokenizer) -> Iterator[str]:
    examples = corpus.examples(split)
    while chunk := list(itertools.islice(examples, 512)):
        pieces = tokenizer.pieces(tf.constant([example.text for example in chunk]))
        yield from (text.decode("utf-8") for text in tf.strings.reduce_join(pieces, axis=-1, separator=" ").numpy())
