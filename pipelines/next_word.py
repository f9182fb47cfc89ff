"""Next word: trains a language model of any text that suggests the next words and completes the current one."""

import math
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from nlp_rnn import api
from nlp_rnn.cli import commands
from nlp_rnn.cli import main as cli
from nlp_rnn.cli import options as command_options
from nlp_rnn.cli.texts import input_texts, stdin_lines
from nlp_rnn.config.loading import load_saved_config
from nlp_rnn.config.settings import Config
from nlp_rnn.errors import ConfigError
from nlp_rnn.printable import one_line
from nlp_rnn.tensorflow_import import import_tensorflow

TASK = "next_word"


def train(config: Config) -> cli.Result:
    """Trains a model, or resumes the run, and scores the best weights on validation data."""
    return commands.train(config, "perplexity", "perplexity {:.2f}", lambda trained: math.exp(trained.best))


def prepare(config: Config) -> cli.Result:
    """Creates the run directory with the token ids, so that train needs no texts."""
    return commands.prepare(config)


def tune(options: Namespace) -> cli.Result:
    """Searches for better settings on validation data; writes a config file."""
    return commands.tune(options, TASK)


def evaluate(options: Namespace) -> cli.Result:
    """Scores a run (added to its metrics.json), an ensemble of several, or a LiteRT export word by word."""
    import_tensorflow()
    from nlp_rnn.evaluation import language_model as language_evaluation
    from nlp_rnn.ondevice import litert_model

    if options.model:
        if options.baseline or options.adapt:
            raise ConfigError(
                "--baseline and --adapt are for --run: the n-gram and the cache are measured with the run's weights"
            )
        device = litert_model.OnDeviceModel(api.find_model(options.model), precision=options.precision or "int8")
        saved = device.path / "config.yaml"
        config = cli.config_of(load_saved_config(saved, TASK), saved, options.settings)
        facts = language_evaluation.evaluate_device(device, config, options.split, max_examples=options.max_examples)
        return cli.Result(facts, language_evaluation.describe(facts))
    if options.precision:
        raise ConfigError(f"--precision is {options.precision}, but is for --model; a run's weights are float32")
    facts = language_evaluation.evaluate_runs(
        commands.runs_of(options, TASK), options.split, has_baseline=options.baseline, adapts=options.adapt,
        max_examples=options.max_examples,
    )  # fmt: skip
    return cli.Result(facts, language_evaluation.describe(facts))


def export(options: Namespace) -> cli.Result:
    """Writes a run's best weights, or an ensemble of several, under saved_models/next_word or next_word_litert."""
    return commands.export(options, TASK)


def predict(options: Namespace) -> Iterator[cli.Result]:
    """Suggests the most likely next words after each text, or completions of its last word."""
    model = api.load(options.model, TASK)
    for texts in input_texts(options):
        for text, words in zip(texts, model.suggest_all(texts, options.count, options.allow_profanity), strict=True):
            shown = "   ".join(f"{each.word} {each.probability:.4f}" for each in words)
            told = text.decode("utf-8", "replace")
            facts = {"text": told, "words": [asdict(each) for each in words]}
            yield cli.Result(facts, f"{shown}\t{one_line(told)}")


def tokenizer(options: Namespace) -> Iterator[cli.Result]:
    """Shows the pieces and ids of each text as the model reads it, and the decoded ids."""
    return commands.show_tokens(options, TASK)


def console(options: Namespace) -> Iterator[cli.Result]:
    """Suggests words while you type, or for each line of a pipe, from a LiteRT export. Does not import TensorFlow."""
    from nlp_rnn.ondevice import console, litert_model
    from nlp_rnn.ondevice.memory_file import load_memory
    from nlp_rnn.ondevice.typing_session import TypingSession

    model = litert_model.OnDeviceModel(api.find_model(options.model), precision=options.precision or "int8")
    session = TypingSession(
        model,
        count=options.count,
        adapts=options.learn or bool(options.memory),
        allows_profanity=options.allow_profanity,
    )
    if options.memory:
        load_memory(Path(options.memory), session.words, session.memory)
    if sys.stdin.isatty() and not options.json:
        console.run_terminal(session, history_file=options.history)
        return
    for line, suggestions in console.run_pipe(session, (line.decode("utf-8") for line in stdin_lines())):
        facts = {"text": line, "words": [{"word": each.word, "probability": each.probability} for each in suggestions]}
        yield cli.Result(facts, "   ".join(f"{each.word} {each.probability:.4f}" for each in suggestions))


def add_options(parser: command_options.Parser, command: str) -> None:
    """Adds the options of suggestions."""
    if command == "evaluate":
        parser.source.add_argument(
            "--model", metavar="DIR", help="LiteRT export, or its name, such as next_word_litert"
        )
        parser.add_argument(
            "--baseline",
            action="store_true",
            help="also train and score an n-gram model, alone and mixed with the model",
        )
        parser.add_argument(
            "--adapt",
            nargs="?",
            choices=("cache", "dynamic"),
            const="cache",
            default="",
            help="also score the model while it learns from the text: with a cache of the previous words (default), or "
            "by dynamic evaluation, which trains it",
        )
        parser.add_argument(
            "--max-examples",
            metavar="N",
            type=command_options.between(int, 0, sys.maxsize, "a whole number from 0"),
            default=0,
            help="score the first N texts of the split only (default: all)",
        )
    if command == "console":
        parser.add_argument(
            "--model", metavar="DIR", help="LiteRT export (default: next_word_litert, of the folders with models)"
        )
        parser.add_argument("--learn", action="store_true", help="adapt to what you type")
        parser.add_argument("--memory", metavar="FILE", default="", help="restore what /save kept; implies --learn")
        parser.add_argument(
            "--history", metavar="FILE", default="", help="keep the lines for the next session's arrow keys"
        )
    if command in ("evaluate", "console"):
        parser.add_argument("--precision", choices=("int8", "float"), default="", help="of --model (default: int8)")
    if command in ("predict", "console"):
        parser.add_argument(
            "--count",
            type=command_options.between(int, 1, 100, "a whole number from 1 to 100"),
            default=5,
            metavar="N",
            help="words to suggest, at most 100 (default: %(default)s)",
        )
        parser.add_argument("--allow-profanity", action="store_true", help="suggest profanity too")
    if command == "export":
        command_options.add_format(parser, "for phones and the console")
        parser.add_argument(
            "--ngrams",
            metavar="MB",
            type=command_options.between(float, 0, 1000, "a number of megabytes from 0 to 1000"),
            default=0.0,
            help="with --format litert: add an n-gram model of the training text, of at most so many megabytes, "
            "which suggestions mix with the neural model (default: none)",
        )


if __name__ == "__main__":
    sys.exit(cli.main(sys.modules[__name__]))
