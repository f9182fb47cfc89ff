"""Sentiment: reviews, or any labelled texts, to a classifier of strings."""

import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nlp_rnn.cli import commands
from nlp_rnn.cli import main as cli
from nlp_rnn.config.settings import Config
from nlp_rnn.tensorflow_import import import_tensorflow

TASK = "sentiment"


def train(config: Config) -> cli.Result:
    """Trains, or goes on where the run directory stops, and measures the best weights on validation data."""
    from nlp_rnn.training import setup

    with setup.opened(config) as found:
        from nlp_rnn.evaluation import metrics
        from nlp_rnn.models.classifier import build_classifier
        from nlp_rnn.training import checkpoints, fit
        from nlp_rnn.visualization import plots

        placement, run, inputs = found.placement, found.run, found.inputs
        fit.configure_hardware(config.hardware, config.seed)

        def build() -> Any:
            return build_classifier(config.model, vocab_size=inputs.vocab_size, num_classes=len(inputs.labels))

        with placement.scope():
            model = build()
        progress = fit.train_classifier(model, run, inputs, placement)
    summary = {"seconds": round(progress.seconds, 1), "epochs": progress.epoch, "best_epoch": progress.best_epoch, "seed": config.seed}
    if not placement.is_chief:
        return cli.Result({"run": str(run.path), **summary}, f"run: {run.path}, scored by worker 0")
    title = f"{config.name}: {config.model.cell}, {model.count_params():,} parameters"
    plots.plot_curves(progress.history, run.path / "curves.png", title=title)
    best = build()  # on this machine alone
    checkpoints.load_checkpoint(run.best_checkpoint, best.weights)
    if config.model.ngrams:
        fit.stack_parts(best, run, inputs.validation)
    probabilities = fit.predict_probabilities(best, inputs.validation, config.training.batch_size)
    scores = metrics.classification_metrics(probabilities, inputs.validation.labels)
    run.write_metrics(training=summary | {"parameters": model.count_params()}, validation=scores)
    text = f"validation accuracy {100 * scores['accuracy']:.2f} % (best of {progress.epoch} epochs)\nrun: {run.path}"
    return cli.Result({"run": str(run.path), **summary, "validation": scores}, f"{text}\ncurves: {run.path}/curves.png")


def prepare(config: Config) -> cli.Result:
    """Makes the run directory with the token ids in it, so that train reads them instead of the texts."""
    return commands.prepare(config)


def evaluate(options: Namespace) -> cli.Result:
    """Scores a run (into its metrics.json) or an exported model."""
    import_tensorflow()
    from nlp_rnn.evaluation import classifier as classifier_evaluation
    from nlp_rnn.export import saved_model
    from nlp_rnn.training import run_directory

    if options.run:
        run = run_directory.load_run(Path(options.run), TASK)
        config = cli.config_of(run.config, run.path / "config.yaml", options.settings)
        found = classifier_evaluation.evaluate_run(run_directory.Run(run.path, config), options.split)
    else:
        exported = saved_model.load_model(options.model, TASK)
        config = cli.config_of(exported.config, exported.path / "assets.extra" / "config.yaml", options.settings)
        found = classifier_evaluation.evaluate_model(exported.loaded, config, exported.labels, options.split)
    if options.baseline:
        found.facts["baseline"] = classifier_evaluation.evaluate_baseline(config, options.split)
    return cli.Result(found.facts, classifier_evaluation.describe(found))


def export(options: Namespace) -> cli.Result:
    """Writes the run's best weights as the next version under saved_models/sentiment."""
    import_tensorflow()
    from nlp_rnn.evaluation import classifier as classifier_evaluation
    from nlp_rnn.export import classifier as classifier_export
    from nlp_rnn.training import run_directory

    run = run_directory.load_run(Path(options.run), TASK)
    model, tokenizer = classifier_evaluation.load_classifier(run)
    module = classifier_export.ClassifierModule(model, tokenizer, run.config, run.labels)
    extras = classifier_export.classifier_extras(module, run.config, run.labels, run.metrics)
    path = classifier_export.export_classifier(module, Path(options.to) / TASK, extras)
    return cli.Result({"model": str(path)}, f"{path}: load it with tf.saved_model.load; signatures serving_default, explain, tokenize")


def predict(options: Namespace) -> Iterator[cli.Result]:
    """A label and the probability that `serving_default` gives, for each text."""
    loaded = commands.exported_model(options, TASK)
    for texts in cli.input_texts(options):
        answer = {name: value.numpy() for name, value in loaded.classify(_strings(texts)).items()}
        for text, label, probability in zip(texts, answer["label"], answer["probability"], strict=True):
            shown = text.decode("utf-8", "replace")
            facts = {"text": shown, "label": label.decode("utf-8"), "probability": float(probability)}
            yield cli.Result(facts, f"{facts['label']}\t{probability:.4f}\t{shown}")


def explain(options: Namespace) -> cli.Result:
    """Which words spoke for the answer: coloured on a terminal, numbers in a pipe, or a page or picture."""
    loaded = commands.exported_model(options, TASK)
    from nlp_rnn.visualization import attributions

    found = attributions.attribute(loaded, options.text[0])
    if options.html:
        attributions.write_html(found, Path(options.html))
    if options.png:
        attributions.write_png(found, Path(options.png))
    text = attributions.to_terminal(found) if sys.stdout.isatty() else attributions.to_plain(found)
    return cli.Result(found._asdict(), text)


def tokenizer(options: Namespace) -> Iterator[cli.Result]:
    """The pieces and ids of each text as the model reads them, and the text that the ids give back."""
    return commands.show_tokens(options, TASK)


def _strings(texts: list[bytes]) -> Any:
    import tensorflow as tf

    return tf.constant(texts, tf.string)


if __name__ == "__main__":
    sys.exit(cli.main(sys.modules[__name__]))
