"""Character generation: trains a language model of any text's characters that continues a prompt."""

import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from nlp_rnn import api
from nlp_rnn.cli import commands
from nlp_rnn.cli import main as cli
from nlp_rnn.cli import options as command_options
from nlp_rnn.cli.texts import input_texts
from nlp_rnn.config.settings import Config
from nlp_rnn.decoding.settings import GenerationSettings
from nlp_rnn.errors import ConfigError
from nlp_rnn.printable import printable
from nlp_rnn.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from nlp_rnn.training.recipes import Trained

TASK = "char_generation"


def train(config: Config) -> cli.Result:
    """Trains a model, or resumes the run, and scores the best weights on validation data."""
    return commands.train(config, "nats_per_character", "{:.4f} nats per character", _nats_per_character)


def _nats_per_character(trained: "Trained") -> float:
    """As `evaluate` has it: the ends of texts cost, but do not count as characters."""
    validation = trained.inputs.validation
    return trained.best * validation.num_tokens / max(validation.num_tokens - len(validation), 1)


def prepare(config: Config) -> cli.Result:
    """Creates the run directory with the token ids, so that train needs no texts."""
    return commands.prepare(config)


def tune(options: Namespace) -> cli.Result:
    """Searches for better settings on validation data; writes a config file."""
    return commands.tune(options, TASK)


def evaluate(options: Namespace) -> cli.Result:
    """Scores a run, or an ensemble of several, reports the originality of its texts, and draws a run's gradients."""
    import_tensorflow()
    from nlp_rnn.evaluation import characters as character_evaluation

    settings = command_options.settings_of(GenerationSettings, options)
    runs = commands.runs_of(options, TASK)
    facts = character_evaluation.evaluate_runs(runs, options.split, **settings)
    picture = f"\n\ngradients: {runs[0].path}/gradients.png" if len(runs) == 1 else ""
    return cli.Result(facts, f"{character_evaluation.describe(facts)}{picture}")


def export(options: Namespace) -> cli.Result:
    """Writes a run's best weights, or an ensemble of several, under saved_models/char_generation (LiteRT: _litert)."""
    return commands.export(options, TASK)


def predict(options: Namespace) -> Iterator[cli.Result]:
    """Continues each prompt. On a terminal, shows the text while it is generated."""
    settings = command_options.settings_of(GenerationSettings, options)
    model = api.load(options.model, TASK)
    for prompts in input_texts(options, batch_size=16):
        if sys.stdout.isatty() and not options.json:
            for prompt in prompts:
                sys.stdout.write(printable(prompt.decode("utf-8", "replace")))
                for piece in model.stream(prompt, **settings):
                    print(printable(piece), end="", flush=True)
                print()
            continue
        for generation in model.generate_all(prompts, **settings):
            yield cli.Result(asdict(generation), generation.prompt + generation.text)


def explain(options: Namespace) -> cli.Result:
    """Shows one unit's activation over a text: coloured on a terminal, as numbers in a pipe, or as a picture."""
    loaded = api.load(options.model, TASK).signatures
    import tensorflow as tf

    from nlp_rnn.evaluation import inspection
    from nlp_rnn.visualization import attributions

    facts = {name: value.numpy()[0] for name, value in loaded.explain(tf.constant([options.text[0].encode()])).items()}
    characters, activations = [token.decode("utf-8") for token in facts["tokens"]], facts["activations"]
    if not characters:
        raise ConfigError("TEXT is empty; give a text to show a unit's activation over")
    units = activations.shape[1]
    if options.unit is not None and options.unit >= units:
        raise ConfigError(f"--unit is {options.unit}, but the model has units 0 to {units - 1}")
    unit = inspection.most_informative_unit(activations) if options.unit is None else options.unit
    values = [float(value) for value in activations[:, unit]]
    title = f"unit {unit} of {units}, from {min(values):+.2f} (blue) to {max(values):+.2f} (orange)"
    if options.png:
        from nlp_rnn.visualization.plots import plot_activations

        plot_activations(characters, activations[:, unit], Path(options.png), title=title)
    rows = "\n".join(f"{value:+.4f}\t{character!r}" for character, value in zip(characters, values, strict=True))
    text = attributions.activations_to_terminal(characters, values) if sys.stdout.isatty() else rows
    facts = {"unit": unit, "tokens": characters, "activations": values}
    return cli.Result(facts, f"{title}\n{text}", is_styled=sys.stdout.isatty())


def tokenizer(options: Namespace) -> Iterator[cli.Result]:
    """Shows the pieces and ids of each text as the model reads it, and the decoded ids."""
    return commands.show_tokens(options, TASK)


def add_options(parser: command_options.Parser, command: str) -> None:
    """Adds the options of generation."""
    if command == "predict":
        command_options.add_settings(parser, GenerationSettings, max_length="length")
    if command == "evaluate":
        command_options.add_settings(parser, GenerationSettings, "temperature", "seed")
    if command == "export":
        command_options.add_format(parser, "for phones")
    if command == "explain":
        number = command_options.between(int, 0, 1_000_000, "a whole number from 0")
        parser.add_argument("--unit", type=number, metavar="N", help="which unit (default: the most informative one)")


if __name__ == "__main__":
    sys.exit(cli.main(sys.modules[__name__]))
