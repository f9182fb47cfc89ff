"""Sentiment: trains a text classifier on reviews or any labelled text."""

import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nlp_rnn import api
from nlp_rnn.cli import commands
from nlp_rnn.cli import main as cli
from nlp_rnn.cli import options as command_options
from nlp_rnn.cli.texts import input_texts
from nlp_rnn.config.settings import Config
from nlp_rnn.errors import ConfigError
from nlp_rnn.printable import one_line
from nlp_rnn.tensorflow_import import import_tensorflow

TASK = "sentiment"


def train(config: Config) -> cli.Result:
    """Trains a model, or resumes the run, and scores the best weights on validation data."""
    trained = api.run_training(config)
    run, facts = trained.run, {"run": str(trained.run.path), **trained.summary}
    if not trained.is_chief:
        return cli.Result(facts, f"run: {run.path}, scored by worker 0")
    from nlp_rnn.evaluation.classifier_report import headline

    scores = run.metrics["validation"]
    text = f"validation {headline(scores)} (best of {trained.summary['epochs']} epochs)\nrun: {run.path}"
    return cli.Result({**facts, "validation": scores}, f"{text}\ncurves: {run.path}/curves.png")


def prepare(config: Config) -> cli.Result:
    """Creates the run directory with the token ids, so that train needs no texts."""
    return commands.prepare(config)


def tune(options: Namespace) -> cli.Result:
    """Searches for better settings on validation data; writes a config file."""
    return commands.tune(options, TASK)


def evaluate(options: Namespace) -> cli.Result:
    """Scores a run (added to its metrics.json), an ensemble of several, or an exported model."""
    import_tensorflow()
    from nlp_rnn.evaluation import classifier as classifier_evaluation
    from nlp_rnn.export import saved_model

    settings: dict[str, Any] = {"min_probability": options.min_probability, "has_baseline": options.baseline}
    if options.run:
        runs = commands.runs_of(options, TASK)
        evaluation = classifier_evaluation.evaluate_runs(runs, options.split, **settings)
    else:
        exported = saved_model.load_model(api.find_model(options.model), TASK)
        config = cli.config_of(exported.config, exported.path / "assets.extra" / "config.yaml", options.settings)
        evaluation = classifier_evaluation.evaluate_model(exported, config, options.split, **settings)
    return cli.Result(evaluation.facts, classifier_evaluation.describe(evaluation))


def export(options: Namespace) -> cli.Result:
    """Writes a run's best weights, or an ensemble of several, under saved_models/sentiment or sentiment_litert."""
    return commands.export(options, TASK)


def predict(options: Namespace) -> Iterator[cli.Result]:
    """Predicts the label of each text, with the probability of `serving_default`, or its chosen labels."""
    classify = api.load(options.model, TASK)
    if isinstance(classify, api.LabelSetClassifier) and options.min_probability:
        raise ConfigError(
            f"--min-probability is {options.min_probability:g}, but the model of --model chooses any number of labels, "
            "each by a threshold "
            "of its own; leave it out"
        )
    for texts in input_texts(options):
        for text, answer in zip(texts, classify(texts), strict=True):
            shown = text.decode("utf-8", "replace")
            if isinstance(answer, api.LabelSet):
                yield _label_set(answer, shown)
            else:
                yield _prediction(answer, shown, classify.labels, options.min_probability)


def _label_set(label_set: api.LabelSet, text: str) -> cli.Result:
    facts = {"text": text} | asdict(label_set)
    shown = ", ".join(f"{label} {label_set.probabilities[label]:.4f}" for label in label_set.labels)
    return cli.Result(facts, f"{shown or '-'}\t{one_line(text)}")


def _prediction(prediction: api.Prediction, text: str, labels: list[str], min_probability: float) -> cli.Result:
    label = prediction.label if prediction.probability >= min_probability else None  # None: the model abstains
    facts: dict[str, Any] = {"text": text} | asdict(prediction) | {"label": label}
    # Of two labels the column is the probability of the second, whatever the answer.
    shown = prediction.probabilities[labels[1]] if len(labels) == 2 else prediction.probability
    columns = ["?" if label is None else label, f"{shown:.4f}", one_line(text)]
    if prediction.score is None:
        del facts["score"]
    else:
        columns.insert(2, f"{prediction.score:.2f}")
    return cli.Result(facts, "\t".join(columns))


def explain(options: Namespace) -> cli.Result:
    """Shows the words that supported the prediction: coloured, as numbers in a pipe, as a page or picture."""
    signatures = api.load(options.model, TASK).signatures
    from nlp_rnn.visualization import attributions

    attribution = attributions.attribute(signatures, options.text[0])
    if options.html:
        attributions.write_html(attribution, Path(options.html))
    if options.png:
        attributions.write_png(attribution, Path(options.png))
    text = attributions.to_terminal(attribution) if sys.stdout.isatty() else attributions.to_plain(attribution)
    return cli.Result(attribution._asdict(), text, is_styled=sys.stdout.isatty())


def tokenizer(options: Namespace) -> Iterator[cli.Result]:
    """Shows the pieces and ids of each text as the model reads it, and the decoded ids."""
    return commands.show_tokens(options, TASK)


def add_options(parser: command_options.Parser, command: str) -> None:
    """Adds the options of classifiers."""
    if command == "evaluate":
        parser.source.add_argument("--model", metavar="DIR", help="exported model, or its name")
        parser.add_argument("--baseline", action="store_true", help="also train and score NBSVM, the linear baseline")
    if command in ("evaluate", "predict"):
        what = (
            "leave texts unanswered" if command == "predict" else "also report the scores if texts were left unanswered"
        )
        parser.add_argument(
            "--min-probability", metavar="P", default=0.0,
            type=command_options.between(float, 0, 1, "a number from 0 to 1"),
            help=f"{what} whose label has a lower probability (default: %(default)s)",
        )  # fmt: skip
    if command == "export":
        command_options.add_format(parser, "for phones")
    if command == "explain":
        parser.add_argument("--html", metavar="FILE", help="write a page")


if __name__ == "__main__":
    sys.exit(cli.main(sys.modules[__name__]))
