"""Character-level generation: a language model of any text's characters, which writes on from a prompt."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from nlp_rnn.cli import commands
from nlp_rnn.cli import main as cli
from nlp_rnn.config.settings import Config
from nlp_rnn.errors import ConfigError
from nlp_rnn.tensorflow_import import import_tensorflow
from nlp_rnn.training import language_training

TASK = "char_generation"


def train(config: Config) -> cli.Result:
    """Trains, or goes on where the run directory stops, and measures the best weights on validation data."""
    run, found = language_training.train_run(config)
    nats = found.pop("cross_entropy")
    text = f"validation: {nats:.4f} nats a character (best of {found['epochs']} epochs)\nrun: {run.path}\ncurves: {run.path}/curves.png"
    return cli.Result({"run": str(run.path), **found, "validation_nats": nats}, text)


def prepare(config: Config) -> cli.Result:
    """Makes the run directory with the token ids in it, so that train reads them instead of the texts."""
    return commands.prepare(config)


def evaluate(options: Namespace) -> cli.Result:
    """Scores a run, reports how original its texts are, and draws how far back its gradients reach."""
    import_tensorflow()
    from nlp_rnn.evaluation import characters as character_evaluation
    from nlp_rnn.training import run_directory

    run = run_directory.load_run(Path(options.run), TASK)
    config = cli.config_of(run.config, run.path / "config.yaml", options.settings)
    facts = character_evaluation.evaluate_run(
        run_directory.Run(run.path, config), options.split, temperature=options.temperature, seed=options.seed
    )
    return cli.Result(facts, f"{character_evaluation.describe(facts)}\n\ngradients: {run.path}/gradients.png")


def export(options: Namespace) -> cli.Result:
    """Writes the run's best weights as the next version under saved_models/char_generation."""
    import_tensorflow()
    from nlp_rnn.evaluation import language_model as language_evaluation
    from nlp_rnn.export import generation as generation_export
    from nlp_rnn.export import saved_model
    from nlp_rnn.training import run_directory

    run = run_directory.load_run(Path(options.run), TASK)
    model, tokenizer = language_evaluation.load_language_model(run)
    module = generation_export.GenerationModule(model, tokenizer, run.config)
    names = {"serving_default": module.write} | {
        name: getattr(module, name) for name in ("generate", "begin", "extend", "explain", "tokenize")
    }
    extras = generation_export.generation_extras(module, run.config, run.metrics)
    path = saved_model.export_module(module, Path(options.to) / TASK, names, extras)
    return cli.Result({"model": str(path)}, f"{path}: load it with tf.saved_model.load; signatures {', '.join(names)}")


def predict(options: Namespace) -> Iterator[cli.Result]:
    """Writes on from each prompt; on a terminal, as it goes."""
    loaded = commands.exported_model(options, TASK)
    from nlp_rnn.decoding import generation
    from nlp_rnn.export import generation_client

    if options.min_length > options.length:
        raise ConfigError(f"--min-length is {options.min_length}, but --length is {options.length}; lower the one or raise the other")
    for stop in options.stop:
        if len(stop) > generation.MOST_STOP_LENGTH:
            raise ConfigError(
                f"--stop is {stop!r}, of {len(stop)} characters, but {generation.MOST_STOP_LENGTH} at most are compared; shorten it"
            )
    settings = {
        name: getattr(options, name) for name in ("min_length", "temperature", "top_k", "top_p", "repetition_penalty", "seed", "stop")
    } | {"max_length": options.length}
    for prompts in cli.input_texts(options, batch_size=16):
        generation_client.warn_of_unknown_characters(loaded, prompts)
        if sys.stdout.isatty() and not options.json:
            for prompt in prompts:
                generation_client.stream_to(sys.stdout, loaded, prompt, settings)
            continue
        for facts in generation_client.write(loaded, prompts, settings):
            yield cli.Result(facts, facts["prompt"] + facts["text"])


def explain(options: Namespace) -> cli.Result:
    """One unit's activation over a text: coloured on a terminal, numbers in a pipe, or a picture."""
    loaded = commands.exported_model(options, TASK)
    import tensorflow as tf

    from nlp_rnn.evaluation import inspection
    from nlp_rnn.visualization import attributions

    found = {
        name: value.numpy()[0] for name, value in loaded.explain(tf.constant([options.text[0].encode("utf-8", "surrogateescape")])).items()
    }
    characters, activations = [token.decode("utf-8") for token in found["tokens"]], found["activations"]
    if not characters:
        raise ConfigError("TEXT is empty; give a text to show a unit's activation over")
    units = activations.shape[1]
    if options.unit is not None and options.unit >= units:
        raise ConfigError(f"--unit is {options.unit}, but the model has units 0 to {units - 1}")
    unit = inspection.telling_unit(activations) if options.unit is None else options.unit
    values = [float(value) for value in activations[:, unit]]
    title = f"unit {unit} of {units}, from {min(values):+.2f} (blue) to {max(values):+.2f} (orange)"
    if options.png:
        from nlp_rnn.visualization.plots import plot_activations

        plot_activations(characters, activations[:, unit], Path(options.png), title=title)
    rows = "\n".join(f"{value:+.4f}\t{character!r}" for character, value in zip(characters, values, strict=True))
    text = attributions.activations_to_terminal(characters, values) if sys.stdout.isatty() else rows
    return cli.Result({"unit": unit, "tokens": characters, "activations": values}, f"{title}\n{text}")


def tokenizer(options: Namespace) -> Iterator[cli.Result]:
    """The pieces and ids of each text as the model reads them, and the text that the ids give back."""
    return commands.show_tokens(options, TASK)


def add_options(parser: ArgumentParser, verb: str) -> None:
    """The options of generation."""
    if verb in ("predict", "evaluate"):
        temperature = cli.between(float, 0, 100, "a number from 0 (always the likeliest character) to 100")
        parser.add_argument("--temperature", type=temperature, default=0.8, metavar="T", help="of the draw (default: %(default)s)")
        seed = cli.between(int, 0, 2**31 - 1, "a whole number from 0")
        parser.add_argument("--seed", type=seed, default=1, metavar="N", help="of the draw")
    if verb == "predict":
        length = cli.between(int, 1, 1_000_000, "a whole number from 1 to 1,000,000")
        parser.add_argument("--length", type=length, default=200, metavar="N", help="characters at most (default: %(default)s)")
        parser.add_argument("--min-length", type=length, default=1, metavar="N", help="characters at least (default: %(default)s)")
        parser.add_argument("--top-k", type=length, default=0, metavar="K", help="draw among the K likeliest characters")
        top_p = cli.between(float, 1e-9, 1, "a number above 0, 1 at most")
        parser.add_argument("--top-p", type=top_p, default=1.0, metavar="P", help="draw among the likeliest that make up P")
        penalty = cli.between(float, 1, 100, "a number from 1 to 100")
        parser.add_argument("--repetition-penalty", type=penalty, default=1.0, metavar="R", help="divide recent characters' probabilities")
        parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text; can be repeated")
    if verb == "explain":
        number = cli.between(int, 0, 2**31, "a whole number from 0")
        parser.add_argument("--unit", type=number, metavar="N", help="which unit (default: the most telling one)")


if __name__ == "__main__":
    sys.exit(cli.main(sys.modules[__name__]))
