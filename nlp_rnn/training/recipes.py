"""Trains a model from its config, for all tasks."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlp_rnn.config.settings import Config
from nlp_rnn.data.inputs import Inputs
from nlp_rnn.errors import ConfigError
from nlp_rnn.models.calibration import Calibration, probabilities_of
from nlp_rnn.training import run_directory, setup
from nlp_rnn.training.checkpoints import Progress, load_progress
from nlp_rnn.training.run_directory import Run


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
      run: the run directory.
      inputs: the training and validation data.
      summary: seconds, epochs, best_epoch, seed and tokens (of the train split; of pairs those of the target); on the
        chief also parameters.
      best: the best value of the monitored metric; nan if no epoch was finished.
      is_chief: whether this process writes the run's files.
      probabilities: of classifiers, on the chief: float32 [validation examples, classes] of the best weights,
        calibrated.
      calibration: of classifiers, on the chief: the temperature and thresholds of the run.
    """

    run: Run
    inputs: Inputs
    summary: dict[str, Any]
    best: float
    is_chief: bool
    probabilities: np.ndarray | None = None
    calibration: Calibration | None = None


def train_run(config: Config) -> Trained:
    """Trains, or resumes the run; draws curves.png and writes metrics.json.

    Raises:
      ConfigError: see `setup.opened` and `fit`.
      Stopped: on Ctrl-C or SIGTERM, after saving.
    """
    with _memory_errors(config):
        with setup.opened(config) as session:
            placement, run, inputs = session.placement, session.run, session.inputs
            was_calibrated = load_progress(run.last_checkpoint).is_finished and run.is_calibrated
            model, progress = fit_model(session)
        if placement.is_chief:  # the other workers need not wait for it
            with run_directory.locked(run):
                calibrated = _calibrate(run, inputs, was_calibrated=was_calibrated)
    summary = {
        "seconds": round(progress.seconds, 1),
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "seed": config.seed,
        "tokens": inputs.train.num_tokens,
    }
    if placement.is_chief:
        from nlp_rnn.training import fit
        from nlp_rnn.visualization import plots

        summary["parameters"] = fit.count_parameters(model)
        title = f"{config.name}: {config.model.cell}, {summary['parameters']:,} parameters"
        plots.plot_curves(progress.history, run.path / "curves.png", title=title)
        run.write_metrics(training=summary)
    best = progress.best if progress.best is not None else float("nan")
    return Trained(run, inputs, summary, best, placement.is_chief, *(calibrated if placement.is_chief else ()))


@contextlib.contextmanager
def _memory_errors(config: Config) -> Iterator[None]:
    """Says which settings take less memory, where there is too little."""
    try:
        yield
    except Exception as error:
        if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":  # TensorFlow's
            is_windowed = config.kind == "language_model"
            length = (
                f"training.window ({config.training.window})"
                if is_windowed
                else f"data.max_length ({config.data.max_length})"
            )
            raise ConfigError(
                f"there is too little memory for this training; lower training.batch_size ({config.training.batch_size}"
                f"), {length}, model.units ({config.model.units}) or model.embedding_dim "
                f"({config.model.embedding_dim}), or raise training.gradient_accumulation "
                f"({config.training.gradient_accumulation})"
            ) from error
        raise


def fit_model(session: setup.PreparedTraining, callbacks: Sequence[Any] = ()) -> tuple[Any, Progress]:
    """Builds the model of a run and trains it, or resumes.

    Args:
      callbacks: Keras callbacks besides those that keep the run directory.

    Raises:
      ConfigError, Stopped: see `train_run`.
    """
    from nlp_rnn.training import fit

    config = session.run.config
    fit.configure_hardware(config.hardware, config.seed)
    with session.placement.scope():
        model = build_model(config, session.inputs)
    train = {
        "classifier": fit.train_classifier,
        "translator": fit.train_translator,
        "language_model": fit.train_language_model,
    }[config.kind]
    return model, train(model, session.run, session.inputs, session.placement, callbacks)


def _calibrate(run: Run, inputs: Inputs, *, was_calibrated: bool) -> tuple[np.ndarray, Calibration] | tuple[()]:
    """Fits what is fitted on validation data after training, in float32 as the model answers later, on this machine.

    Args:
      was_calibrated: whether this was done after the last step already.

    Returns:
      of classifiers, (validation probabilities, calibration).
    """
    from nlp_rnn.models.build import in_float32

    with in_float32():
        if run.config.kind == "classifier":
            return _calibrate_classifier(run, inputs, was_calibrated=was_calibrated)
        if run.config.training.fit_temperature and not was_calibrated:
            _calibrate_language_model(run, inputs)
    return ()


def _calibrate_classifier(run: Run, inputs: Inputs, *, was_calibrated: bool) -> tuple[np.ndarray, Calibration]:
    """First stacks the two parts of a wide and deep classifier."""
    from nlp_rnn.training import calibrate, fit
    from nlp_rnn.training.checkpoints import load_checkpoint

    best = build_model(run.config, inputs)
    load_checkpoint(run.best_checkpoint, best.weights)
    if run.config.model.ngrams and not was_calibrated:
        fit.stack_parts(best, run, inputs)
    logits = fit.predict_logits(best, inputs.validation, run.config.training)
    outputs = run.config.data.outputs
    if not was_calibrated:
        run.write_calibration(calibrate.fit_calibration(logits, inputs.validation.labels, outputs))
    calibration = run.calibration
    return probabilities_of(logits, outputs, calibration.temperature), calibration


def _calibrate_language_model(run: Run, inputs: Inputs) -> None:
    from nlp_rnn.training import calibrate
    from nlp_rnn.training.checkpoints import load_checkpoint

    best = build_model(run.config, inputs)
    load_checkpoint(run.best_checkpoint, best.kept_weights)
    calibration = calibrate.fit_language_model(best, inputs.validation, run.config.training)
    run.write_calibration(calibration)
    run.write_metrics(temperature=calibration.temperature)


def build_model(config: Config, inputs: Inputs) -> Any:
    """Builds the config's model for the vocabulary and labels of `inputs`."""
    if config.kind == "classifier":
        from nlp_rnn.models.classifier import build_classifier

        return build_classifier(
            config.model, vocab_size=inputs.vocab_size, num_classes=len(inputs.labels), outputs=config.data.outputs
        )
    from nlp_rnn.models.build import build_language_model, build_translator

    build = build_translator if config.kind == "translator" else build_language_model
    return build(config.model, vocab_size=inputs.vocab_size, training=config.training)
