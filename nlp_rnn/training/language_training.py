"""From a config to a trained language model in its run directory: what the pipelines of language models share."""

from typing import Any

from nlp_rnn.config.settings import Config
from nlp_rnn.training import run_directory, setup


def train_run(config: Config) -> tuple[run_directory.Run, dict[str, Any]]:
    """Trains, or goes on where the run directory stops; draws curves.png.

    Returns:
      the run, and seconds, epochs, best_epoch, seed and cross_entropy, the best one on validation data in nats a token.

    Raises:
      ConfigError: see `setup.opened`, `training.train_language_model`.
    """
    with setup.opened(config) as found:
        from nlp_rnn.models.build import build_language_model
        from nlp_rnn.training import fit
        from nlp_rnn.visualization import plots

        placement, run, inputs = found.placement, found.run, found.inputs
        fit.configure_hardware(config.hardware, config.seed)
        with placement.scope():
            model = build_language_model(config.model, vocab_size=inputs.vocab_size, training=config.training)
        progress = fit.train_language_model(model, run, inputs, placement)
    summary = {"seconds": round(progress.seconds, 1), "epochs": progress.epoch, "best_epoch": progress.best_epoch, "seed": config.seed}
    if placement.is_chief:
        plots.plot_curves(progress.history, run.path / "curves.png", title=f"{config.name}: {config.model.cell}")
        run.write_metrics(training=summary)
    return run, summary | {"cross_entropy": progress.best if progress.best is not None else float("nan")}
