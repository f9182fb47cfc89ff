"""Translation: pairs of sentences to a model that writes one language for another."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from nlp_rnn.cli import commands
from nlp_rnn.cli import main as cli
from nlp_rnn.config.settings import SEARCH_DEFAULTS, Config
from nlp_rnn.tensorflow_import import import_tensorflow

TASK = "translation"


def train(config: Config) -> cli.Result:
    """Trains, or goes on where the run directory stops; the best weights are those of the lowest validation loss."""
    from nlp_rnn.training import setup

    with setup.opened(config) as found:
        from nlp_rnn.models.build import build_translator
        from nlp_rnn.training import fit
        from nlp_rnn.visualization import plots

        placement, run, inputs = found.placement, found.run, found.inputs
        fit.configure_hardware(config.hardware, config.seed)
        with placement.scope():
            model = build_translator(config.model, vocab_size=inputs.vocab_size, training=config.training)
        progress = fit.train_translator(model, run, inputs, placement)
    summary = {"seconds": round(progress.seconds, 1), "epochs": progress.epoch, "best_epoch": progress.best_epoch, "seed": config.seed}
    if placement.is_chief:
        plots.plot_curves(progress.history, run.path / "curves.png", title=f"{config.name}: {config.model.cell}")
        run.write_metrics(training=summary | {"parameters": model.count_params()})
    best = progress.best if progress.best is not None else float("nan")
    text = f"validation: {best:.4f} nats a token (best of {progress.epoch} epochs)\nrun: {run.path}\ncurves: {run.path}/curves.png"
    return cli.Result({"run": str(run.path), **summary, "validation_nats": best}, text)


def prepare(config: Config) -> cli.Result:
    """Makes the run directory with the token ids in it, so that train reads them instead of the texts."""
    return commands.prepare(config)


def evaluate(options: Namespace) -> cli.Result:
    """Scores a run, or several that vote, against the references of a split."""
    import_tensorflow()
    from nlp_rnn.evaluation import translation as translation_evaluation
    from nlp_rnn.training import run_directory

    found = [run_directory.load_run(Path(path), TASK) for path in options.run]
    config = cli.config_of(found[0].config, found[0].path / "config.yaml", options.settings)
    facts = translation_evaluation.evaluate_runs(
        [run_directory.Run(found[0].path, config), *found[1:]],
        options.split,
        beam_size=options.beam_size,
        length_penalty=options.length_penalty,
    )
    text = f"{translation_evaluation.describe(facts)}\n\ntranslations: {found[0].path}/translations_{options.split}.txt"
    return cli.Result(facts, text)


def export(options: Namespace) -> cli.Result:
    """Writes the best weights of a run, or of several that vote, under saved_models/translation_SOURCE_TARGET."""
    import_tensorflow()
    from nlp_rnn.evaluation import translation as translation_evaluation
    from nlp_rnn.export import saved_model
    from nlp_rnn.export import translation as translation_export
    from nlp_rnn.training import run_directory

    found = [run_directory.load_run(Path(path), TASK) for path in options.run]
    config = found[0].config
    module = translation_evaluation.load_module(found)
    names = {"serving_default": module.translate_best} | {name: getattr(module, name) for name in ("translate", "explain", "tokenize")}
    extras = translation_export.translation_extras(module, config, found[0].metrics if len(found) == 1 else {})
    folder = f"{TASK}_{config.data.source_language}_{config.data.target_language}"
    path = saved_model.export_module(module, Path(options.to) / folder, names, extras)
    return cli.Result({"model": str(path)}, f"{path}: load it with tf.saved_model.load; signatures {', '.join(names)}")


def predict(options: Namespace) -> Iterator[cli.Result]:
    """The translation of each sentence, or the best few."""
    import_tensorflow()
    import tensorflow as tf

    from nlp_rnn.evaluation.translation import search_settings, warn_of_long_texts
    from nlp_rnn.export import saved_model

    model = saved_model.load_model(options.model, TASK)

    names = ("coverage_penalty", "min_length", "max_length", "min_ratio", "max_ratio", "no_repeat_ngram")
    chosen = {name: getattr(options, name) for name in names} | {"prefix": options.prefix.encode("utf-8", "surrogateescape")}
    for texts in cli.input_texts(options, batch_size=32):
        warn_of_long_texts(model, texts)
        settings = search_settings(len(texts), max(options.beam_size, options.n_best), options.length_penalty, **chosen)
        answer = {name: value.numpy() for name, value in model.loaded.translate(tf.constant(texts, tf.string), **settings).items()}
        for text, row, scores in zip(texts, answer["translations"], answer["scores"], strict=True):
            found = [
                {"translation": translation.decode("utf-8"), "score": float(score)}
                for translation, score in list(zip(row, scores, strict=True))[: options.n_best]
                if score > -1e9
            ]
            lines = [each["translation"] if options.n_best == 1 else f"{each['score']:.4f}\t{each['translation']}" for each in found]
            end = "\n" if options.n_best > 1 else ""  # a blank line between sentences
            yield cli.Result({"text": text.decode("utf-8", "replace"), "translations": found}, "\n".join(lines) + end)


def explain(options: Namespace) -> cli.Result:
    """What the decoder looked at while it wrote: a map in the terminal, or a page or picture."""
    loaded = commands.exported_model(options, TASK)
    from nlp_rnn.visualization import attention_map

    found = attention_map.read_attention(loaded, options.text[0], options.translation)
    if options.html:
        attention_map.write_html(found, Path(options.html))
    if options.png:
        from nlp_rnn.visualization.plots import plot_attention

        plot_attention(found.source, found.target, found.weights, Path(options.png))
    show = attention_map.to_terminal if sys.stdout.isatty() else attention_map.to_plain
    return cli.Result(found._asdict(), show(found))


def tokenizer(options: Namespace) -> Iterator[cli.Result]:
    """The pieces and ids of each text as the model reads them, and the text that the ids give back."""
    return commands.show_tokens(options, TASK)


def add_options(parser: ArgumentParser, verb: str) -> None:
    """The options of the search."""
    add = parser.add_argument
    if verb in ("predict", "evaluate"):
        default = SEARCH_DEFAULTS
        beam = cli.between(int, 1, 100, "a whole number from 1 (greedy) to 100")
        add("--beam-size", type=beam, default=default["beam_size"], metavar="N", help="hypotheses followed (default: %(default)s)")
        penalty = cli.between(float, 0, 10, "a number from 0 to 10")
        add("--length-penalty", type=penalty, default=default["length_penalty"], metavar="A", help="0: none (default: %(default)s)")
    if verb == "predict":
        length = cli.between(int, 0, 10_000, "a whole number from 0 to 10,000")
        add("--n-best", type=beam, default=1, metavar="N", help="translations to show (default: %(default)s)")
        add("--coverage-penalty", type=penalty, default=0.0, metavar="B", help="0: none (default: %(default)s)")
        add("--min-length", type=length, default=0, metavar="N", help="pieces at least")
        add("--max-length", type=length, default=0, metavar="N", help="pieces at most; 0: twice the source's and ten more")
        add("--min-ratio", type=penalty, default=0.0, metavar="R", help="pieces at least, in multiples of the source's")
        add("--max-ratio", type=penalty, default=0.0, metavar="R", help="pieces at most, in multiples of the source's")
        add("--no-repeat-ngram", type=length, default=0, metavar="N", help="no N pieces in a row twice; 0: allowed")
        add("--prefix", default="", metavar="TEXT", help="what the translation begins with")
    if verb == "explain":
        add("--translation", default="", metavar="TEXT", help="explain this one (default: the best found)")


if __name__ == "__main__":
    sys.exit(cli.main(sys.modules[__name__]))
