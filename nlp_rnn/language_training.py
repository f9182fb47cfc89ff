"""From a config to a trained language model in its run directory: what the pipelines of language models share."""

from typing import Any

from nlp_rnn import runs
from nlp_rnn.config import Config
from nlp_rnn.corpus import load_corpus
from nlp_rnn.startup import import_tensorflow


def train_run(config: Config) -> tuple[runs.Run, dict[str, Any]]:
    """Trains, or goes on where the run directory stops; draws curves.png.

    Returns:
      the run, and seconds, epochs, best_epoch, seed and cross_entropy, the best one on validation data in nats a token.

    Raises:
      ConfigError: see `corpus.load_corpus`, `streams.check_length`, `training.train_language_model`.
    """
    run = runs.find_run(config)
    corpus = load_corpus(config.data, config.seed)  # mistakes show before TensorFlow is imported

    import_tensorflow()
    from nlp_rnn import datasets, models, plots, streams, training

    tokenizer = datasets.prepare_tokenizer(corpus, config.data, config.tokenizer, config.training.start_from)
    splits = {split: datasets.prepare_stream(corpus, split, config.data, tokenizer) for split in ("train", "validation")}
    streams.check_length(splits["train"], config.training)
    run = run or runs.create_run(config, [], tokenizer.save)
    training.configure_hardware(config.hardware, config.seed)
    model = models.build_language_model(config.model, vocab_size=tokenizer.vocab_size, training=config.training)
    with runs.locked(run):
        progress = training.train_language_model(model, run, splits["train"], splits["validation"])
        plots.plot_curves(progress.history, run.path / "curves.png", title=f"{config.name}: {config.model.cell}")
        summary = {"seconds": round(progress.seconds, 1), "epochs": progress.epoch, "best_epoch": progress.best_epoch, "seed": config.seed}
        run.write_metrics(training=summary)
    return run, summary | {"cross_entropy": progress.best if progress.best is not None else float("nan")}
