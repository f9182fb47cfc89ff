"""Next word: a language model of any text, which proposes the next words and completes those begun."""

import sys

from nlp_rnn import cli
from nlp_rnn.config import Config
from nlp_rnn.startup import import_tensorflow

TASK = "next_word"


def train(config: Config) -> cli.Result:
    """Trains, or goes on where the run directory stops, and measures the best weights on validation data."""
    from nlp_rnn import runs, sources

    run = runs.find_run(config)
    corpus = sources.load_corpus(config.data, config.seed)

    import_tensorflow()
    from nlp_rnn import datasets, models, plots, training

    tokenizer = datasets.prepare_tokenizer(corpus, config.data, config.tokenizer)
    splits = {split: datasets.prepare_stream(corpus, split, config.data, tokenizer) for split in ("train", "validation")}
    run = run or runs.create_run(config, [], tokenizer.save)
    training.configure_hardware(config.hardware, config.seed)
    model = models.build_language_model(config.model, vocab_size=tokenizer.vocab_size, training=config.training)
    with runs.locked(run):
        progress = training.train_language_model(model, run, splits["train"], splits["validation"])
        plots.plot_curves(progress.history, run.path / "curves.png", title=f"{config.name}: {config.model.cell}")
        summary = {"seconds": round(progress.seconds, 1), "epochs": progress.epoch, "best_epoch": progress.best_epoch, "seed": config.seed}
        run.write_metrics(training=summary)
    return cli.Result({"run": str(run.path), **summary}, f"run: {run.path}\ncurves: {run.path}/curves.png")


if __name__ == "__main__":
    sys.exit(cli.main(sys.modules[__name__]))
