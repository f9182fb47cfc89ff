"""Next word: a language model of any text, which proposes the next words and completes those begun."""

import math
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from nlp_rnn.cli import commands
from nlp_rnn.cli import main as cli
from nlp_rnn.config.loading import load_config
from nlp_rnn.config.settings import Config
from nlp_rnn.errors import ConfigError
from nlp_rnn.tensorflow_import import import_tensorflow
from nlp_rnn.training import language_training

TASK = "next_word"


def train(config: Config) -> cli.Result:
    """Trains, or goes on where the run directory stops, and measures the best weights on validation data."""
    run, found = language_training.train_run(config)
    perplexity = math.exp(found.pop("cross_entropy"))
    text = f"validation perplexity {perplexity:.2f} (best of {found['epochs']} epochs)\nrun: {run.path}\ncurves: {run.path}/curves.png"
    return cli.Result({"run": str(run.path), **found, "validation_perplexity": perplexity}, text)


def prepare(config: Config) -> cli.Result:
    """Makes the run directory with the token ids in it, so that train reads them instead of the texts."""
    return commands.prepare(config)


def evaluate(options: Namespace) -> cli.Result:
    """Scores a run: perplexity and keyboard metrics, into its metrics.json; or, word by word, a LiteRT export."""
    import_tensorflow()
    from nlp_rnn.evaluation import language_model as language_evaluation
    from nlp_rnn.ondevice import litert_model
    from nlp_rnn.training import run_directory

    if options.model:
        if options.baseline or options.adapt:
            raise ConfigError("--baseline and --adapt are for --run: the n-gram and the cache are measured with the run's weights")
        device = litert_model.OnDeviceModel(options.model, precision=options.precision)
        config = cli.config_of(load_config(device.path / "config.yaml", task=TASK), device.path / "config.yaml", options.settings)
        facts = language_evaluation.evaluate_device(device, config, options.split)
        return cli.Result(facts, language_evaluation.describe(facts))
    run = run_directory.load_run(Path(options.run), TASK)
    config = cli.config_of(run.config, run.path / "config.yaml", options.settings)
    facts = language_evaluation.evaluate_run(
        run_directory.Run(run.path, config), options.split, has_baseline=options.baseline, adapts=options.adapt
    )  # fmt: skip
    return cli.Result(facts, language_evaluation.describe(facts))


def export(options: Namespace) -> cli.Result:
    """Writes the run's best weights as the next version under saved_models/next_word, or next_word_litert."""
    import_tensorflow()
    from nlp_rnn.evaluation import language_model as language_evaluation
    from nlp_rnn.export import next_word as next_word_export
    from nlp_rnn.export import saved_model
    from nlp_rnn.training import run_directory

    run = run_directory.load_run(Path(options.run), TASK)
    if run.config.model.is_reversed:
        raise ConfigError(
            f"--run is {options.run}, whose model reads texts from their end (model.is_reversed), so it predicts no next words; "
            "it is for model.init_from of a classifier"
        )
    model, tokenizer = language_evaluation.load_language_model(run)
    if options.format == "litert":
        from nlp_rnn.export import litert as litert_export

        path, found = litert_export.export_litert(model, tokenizer, run.config, run.metrics, Path(options.to) / f"{TASK}_litert")
        sizes = ", ".join(f"{precision} {size / 1e6:.1f} MB" for precision, size in found["bytes"].items())
        return cli.Result({"model": str(path), **found}, f"{path}: LiteRT, {sizes}; see README.md there")
    module = next_word_export.NextWordModule(model, tokenizer, run.config)
    signatures = {"serving_default": module.complete, "suggest": module.suggest, "step": module.step, "tokenize": module.tokenize}
    extras = next_word_export.language_extras(module, run.config, run.metrics)
    path = saved_model.export_module(module, Path(options.to) / TASK, signatures, extras)
    return cli.Result({"model": str(path)}, f"{path}: load it with tf.saved_model.load; signatures {', '.join(signatures)}")


def predict(options: Namespace) -> Iterator[cli.Result]:
    """The likeliest next words after each text, or the completions of the word it ends with."""
    loaded = commands.exported_model(options, TASK)
    import tensorflow as tf

    for texts in cli.input_texts(options):
        count, allowed = tf.fill([len(texts)], options.count), tf.fill([len(texts)], options.profanity)
        answer = {name: value.numpy() for name, value in loaded.suggest(tf.constant(texts, tf.string), count, allowed).items()}
        for text, words, probabilities in zip(texts, answer["words"], answer["probabilities"], strict=True):
            pairs = [(word.decode("utf-8"), float(share)) for word, share in zip(words, probabilities, strict=True) if word]
            facts = {"text": text.decode("utf-8", "replace"), "words": [{"word": word, "probability": share} for word, share in pairs]}
            yield cli.Result(facts, "   ".join(f"{word} {share:.4f}" for word, share in pairs) + f"\t{facts['text']}")


def tokenizer(options: Namespace) -> Iterator[cli.Result]:
    """The pieces and ids of each text as the model reads them, and the text that the ids give back."""
    return commands.show_tokens(options, TASK)


def console(options: Namespace) -> Iterator[cli.Result]:
    """Proposes words while you type, from a LiteRT export; through a pipe a line in, proposals out. TensorFlow is not imported."""
    from nlp_rnn.ondevice import console, litert_model
    from nlp_rnn.ondevice.typing_session import TypingSession

    model = litert_model.OnDeviceModel(options.model, precision=options.precision)
    session = TypingSession(model, count=options.count, adapts=options.learn or bool(options.memory), allows_profanity=options.profanity)
    if options.memory:
        session.memory.load(Path(options.memory))
    if sys.stdin.isatty() and not options.json:
        console.run_terminal(session, history_file=options.history)
        return
    for line, proposals in console.run_pipe(session, sys.stdin.buffer):
        facts = {"text": line, "words": [{"word": each.word, "probability": each.probability} for each in proposals]}
        yield cli.Result(facts, "   ".join(f"{each.word} {each.probability:.4f}" for each in proposals))


if __name__ == "__main__":
    sys.exit(cli.main(sys.modules[__name__]))
