"""Sentiment: reviews, or any labelled texts, to a classifier of strings."""

import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nlp_rnn import cli, verbs
from nlp_rnn.config import Config
from nlp_rnn.startup import import_tensorflow

TASK = "sentiment"


def train(config: Config) -> cli.Result:
    """Trains, or goes on where the run directory stops, and measures the best weights on validation data."""
    from nlp_rnn import session

    with session.opened(config) as found:
        from nlp_rnn import checkpoints, metrics, models, plots, training

        placement, run, inputs = found.placement, found.run, found.inputs
        training.configure_hardware(config.hardware, config.seed)

        def build() -> Any:
            return models.build_classifier(config.model, vocab_size=inputs.vocab_size, num_classes=len(inputs.labels))

        with placement.scope():
            model = build()
        progress = training.train_classifier(model, run, inputs, placement)
    summary = {"seconds": round(progress.seconds, 1), "epochs": progress.epoch, "best_epoch": progress.best_epoch, "seed": config.seed}
    if not placement.is_chief:
        return cli.Result({"run": str(run.path), **summary}, f"run: {run.path}, scored by worker 0")
    title = f"{config.name}: {config.model.cell}, {model.count_params():,} parameters"
    plots.plot_curves(progress.history, run.path / "curves.png", title=title)
    best = build()  # on this machine alone
    checkpoints.load_checkpoint(run.best_checkpoint, best.weights)
    if config.model.ngrams:
        training.stack_parts(best, run, inputs.validation)
    probabilities = training.predict_probabilities(best, inputs.validation, config.training.batch_size)
    scores = metrics.classification_metrics(probabilities, inputs.validation.labels)
    run.write_metrics(training=summary | {"parameters": model.count_params()}, validation=scores)
    text = f"validation accuracy {100 * scores['accuracy']:.2f} % (best of {progress.epoch} epochs)\nrun: {run.path}"
    return cli.Result({"run": str(run.path), **summary, "validation": scores}, f"{text}\ncurves: {run.path}/curves.png")


def prepare(config: Config) -> cli.Result:
    """Makes the run directory with the token ids in it, so that train reads them instead of the texts."""
    return verbs.prepare(config)


def evaluate(options: Namespace) -> cli.Result:
    """Scores a run (into its metrics.json) or an exported model."""
    import_tensorflow()
    from nlp_rnn import evaluation, export, runs

    if options.run:
        run = runs.load_run(Path(options.run), TASK)
        config = cli.config_of(run.config, run.path / "config.yaml", options.settings)
        found = evaluation.evaluate_run(runs.Run(run.path, config), options.split)
    else:
        exported = export.load_model(options.model, TASK)
        config = cli.config_of(exported.config, exported.path / "assets.extra" / "config.yaml", options.settings)
        found = evaluation.evaluate_model(exported.loaded, config, exported.labels, options.split)
    if options.baseline:
        found.facts["baseline"] = evaluation.evaluate_baseline(config, options.split)
    return cli.Result(found.facts, evaluation.describe(found))


def export(options: Namespace) -> cli.Result:
    """Writes the run's best weights as the next version under saved_models/sentiment."""
    import_tensorflow()
    from nlp_rnn import classifier_export, evaluation, runs

    run = runs.load_run(Path(options.run), TASK)
    model, tokenizer = evaluation.load_classifier(run)
    module = classifier_export.ClassifierModule(model, tokenizer, run.config, run.labels)
    extras = classifier_export.classifier_extras(module, run.config, run.labels, run.metrics)
    path = classifier_export.export_classifier(module, Path(options.to) / TASK, extras)
    return cli.Result({"model": str(path)}, f"{path}: load it with tf.saved_model.load; signatures serving_default, explain, tokenize")


def predict(options: Namespace) -> Iterator[cli.Result]:
    """A label and the probability that `serving_default` gives, for each text."""
    loaded = verbs.exported_model(options, TASK)
    for texts in cli.input_texts(options):
        answer = {name: value.numpy() for name, value in loaded.classify(_strings(texts)).items()}
        for text, label, probability in zip(texts, answer["label"], answer["probability"], strict=True):
            shown = text.decode("utf-8", "replace")
            facts = {"text": shown, "label": label.decode("utf-8"), "probability": float(probability)}
            yield cli.Result(facts, f"{facts['label']}\t{probability:.4f}\t{shown}")


def explain(options: Namespace) -> cli.Result:
    """Which words spoke for the answer: coloured on a terminal, numbers in a pipe, or a page or picture."""
    loaded = verbs.exported_model(options, TASK)
    from nlp_rnn import explain

    found = explain.attribute(loaded, options.text[0])
    if options.html:
        explain.write_html(found, Path(options.html))
    if options.png:
        explain.write_png(found, Path(options.png))
    text = explain.to_terminal(found) if sys.stdout.isatty() else explain.to_plain(found)
    return cli.Result(found._asdict(), text)


def tokenizer(options: Namespace) -> Iterator[cli.Result]:
    """The pieces and ids of each text as the model reads them, and the text that the ids give back."""
    return verbs.show_tokens(options, TASK)


def _strings(texts: list[bytes]) -> Any:
    import tensorflow as tf

    return tf.constant(texts, tf.string)


if __name__ == "__main__":
    sys.exit(cli.main(sys.modules[__name__]))
