"""Translation: trains a translator from pairs of sentences."""

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
from nlp_rnn.cli.texts import input_texts
from nlp_rnn.config.settings import Config
from nlp_rnn.decoding.settings import SearchSettings
from nlp_rnn.printable import one_line
from nlp_rnn.tensorflow_import import import_tensorflow

TASK = "translation"


def train(config: Config) -> cli.Result:
    """Trains a model, or resumes the run, and scores the best weights on validation data."""
    return commands.train(config, "perplexity", "perplexity {:.2f} per piece", lambda trained: math.exp(trained.best))


def prepare(config: Config) -> cli.Result:
    """Creates the run directory with the token ids, so that train needs no texts."""
    return commands.prepare(config)


def tune(options: Namespace) -> cli.Result:
    """Searches for better settings on validation data; writes a config file."""
    return commands.tune(options, TASK)


def evaluate(options: Namespace) -> cli.Result:
    """Scores a run, or an ensemble of several, against the references of a split."""
    import_tensorflow()
    from nlp_rnn.evaluation import translation as translation_evaluation

    runs, search = commands.runs_of(options, TASK), command_options.settings_of(SearchSettings, options)
    facts = translation_evaluation.evaluate_runs(runs, options.split, **search)
    text = f"{translation_evaluation.describe(facts)}\n\ntranslations: {runs[0].path}/translations_{options.split}.txt"
    return cli.Result(facts, text)


def export(options: Namespace) -> cli.Result:
    """Writes the best weights of a run, or an ensemble of several, under saved_models/translation_SOURCE_TARGET."""
    return commands.export(options, TASK)


def predict(options: Namespace) -> Iterator[cli.Result]:
    """Translates each sentence; shows the best translation, or the best few."""
    settings = command_options.settings_of(SearchSettings, options)
    model = api.load(options.model, TASK)
    for texts in input_texts(options, batch_size=32):
        for text, hypotheses in zip(texts, model.translate_all(texts, options.n_best, **settings), strict=True):
            facts = [asdict(each) for each in hypotheses]
            lines = [
                one_line(each.text) if options.n_best == 1 else f"{each.score:.4f}\t{one_line(each.text)}"
                for each in hypotheses
            ]
            end = "\n" if options.n_best > 1 else ""  # a blank line between sentences
            yield cli.Result({"text": text.decode("utf-8", "replace"), "translations": facts}, "\n".join(lines) + end)


def explain(options: Namespace) -> cli.Result:
    """Shows the attention of the decoder: a map in the terminal, a page or a picture."""
    loaded = api.load(options.model, TASK).signatures
    from nlp_rnn.visualization import attention_map

    alignment = attention_map.read_attention(loaded, options.text[0], options.translation)
    if options.html:
        attention_map.write_html(alignment, Path(options.html))
    if options.png:
        from nlp_rnn.visualization.plots import plot_attention

        plot_attention(alignment.source_tokens, alignment.target_tokens, alignment.attention, Path(options.png))
    show = attention_map.to_terminal if sys.stdout.isatty() else attention_map.to_plain
    return cli.Result(alignment._asdict(), show(alignment))


def tokenizer(options: Namespace) -> Iterator[cli.Result]:
    """Shows the pieces and ids of each text as the model reads it, and the decoded ids."""
    return commands.show_tokens(options, TASK)


def add_options(parser: command_options.Parser, command: str) -> None:
    """Adds the options of the search."""
    if command == "predict":
        command_options.add_settings(parser, SearchSettings)
        count = command_options.between(int, 1, 100, "a whole number from 1 to 100")
        parser.add_argument(
            "--n-best", type=count, default=1, metavar="N", help="translations to show (default: %(default)s)"
        )
    if command == "evaluate":
        command_options.add_settings(parser, SearchSettings, "beam_size", "length_penalty")
    if command == "explain":
        parser.add_argument("--html", metavar="FILE", help="write a page")
        parser.add_argument(
            "--translation", default="", metavar="TEXT", help="explain this one (default: the best found)"
        )


if __name__ == "__main__":
    sys.exit(cli.main(sys.modules[__name__]))
