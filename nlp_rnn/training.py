"""Compile, fit, resume, predict."""

import functools
import importlib.util
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from nlp_rnn.checkpoints import Progress, load_checkpoint, load_progress
from nlp_rnn.config import ConfigError, HardwareConfig, TrainingConfig
from nlp_rnn.datasets import (
    Batch,
    Resampler,
    TokenCache,
    classification_batch,
    make_dataset,
    make_stepwise_dataset,
    padding_waste,
    plan_batches,
    plan_ordered_batches,
)
from nlp_rnn.keeper import RunKeeper, kept_weights
from nlp_rnn.language_model import LanguageModel
from nlp_rnn.optimizers import build_optimizer
from nlp_rnn.pairs import PairCache, PairStream, make_pair_evaluation
from nlp_rnn.runs import Run
from nlp_rnn.streams import TokenStream, WindowStream, unknown_share
from nlp_rnn.translator import Translator

logger = logging.getLogger(__name__)


def configure_hardware(hardware: HardwareConfig, seed: int) -> None:
    """Seeds everything and sets kernels and precision; call it before a model is built."""
    keras.utils.set_random_seed(seed)
    if hardware.is_deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy("float32" if hardware.mixed_precision == "off" else f"mixed_{hardware.mixed_precision}")


# --- training ------------------------------------------------------------------------------------------------------


class BatchStream:
    """The training batches, in an order that depends on seed and epoch only; can start in mid-epoch.

    Args:
      resample: (token_ids, epoch, step) -> token_ids, other segmentations of the same texts; or None.
    """

    def __init__(self, cache: TokenCache, config: TrainingConfig, seed: int, resample: Resampler | None = None) -> None:
        self._cache, self._batch_size, self._seed, self._resample = cache, config.batch_size, seed, resample
        steps = math.ceil(len(cache.labels) / config.batch_size)
        self.steps_per_epoch = min(steps, config.max_steps_per_epoch or steps)
        self.epoch = self.first_step = 0

    def plan(self) -> list[np.ndarray]:
        """The batches of the current epoch that are still to come."""
        batches = plan_batches(self._cache.lengths, self._batch_size, seed=self._seed, epoch=self.epoch)
        return batches[self.first_step : self.steps_per_epoch]

    def __call__(self) -> Iterator[Batch]:
        for step, indices in enumerate(self.plan(), start=self.first_step):
            token_ids, labels, weights = classification_batch(self._cache, indices, self._batch_size)
            yield self._resample(token_ids, self.epoch, step) if self._resample else token_ids, labels, weights


def train_classifier(
    model: keras.Model, run: Run, train: TokenCache, validation: TokenCache, resample: Resampler | None = None
) -> Progress:
    """Trains the model, or goes on where the run stopped; the best weights end up in the run's best checkpoint.

    Args:
      resample: what `BatchStream` takes.

    Raises:
      ConfigError: if the loss is no longer finite; the last good checkpoint stays.
      Stopped: on Ctrl-C or SIGTERM, after saving.
    """
    config = run.config.training
    stream = BatchStream(train, config, run.config.seed, resample)
    model.compile(
        build_optimizer(config, config.epochs * stream.steps_per_epoch),
        # The mean over real examples: filled-up rows weigh 0.
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight"),
        weighted_metrics=[
            keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
            keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="cross_entropy"),
        ],
        jit_compile=False,  # XLA would compile anew for every length
    )
    logger.info(
        "training on %d examples, %d steps an epoch, batch %d, %.1f %% padding, %s parameters",
        len(train.labels), stream.steps_per_epoch, config.batch_size, 100 * padding_waste(train.lengths, stream.plan()),
        f"{model.count_params():,}",
    )  # fmt: skip
    return _train(model, run, stream, make_evaluation_dataset(validation, config.batch_size))


def train_language_model(model: LanguageModel, run: Run, train: TokenCache, validation: TokenCache) -> Progress:
    """As `train_classifier`, over texts that are read on from batch to batch; `streams.check_length` comes first."""
    config = run.config.training
    text = TokenStream(train, config.batch_size, drop_remainder=True)
    stream = WindowStream(
        text, window=config.window, is_random=config.random_window, seed=run.config.seed, max_steps=config.max_steps_per_epoch
    )
    model.compile(build_optimizer(config, stream.num_steps(config.epochs)), jit_compile=False)
    unknown = 100 * unknown_share(train)
    num_parameters = sum(math.prod(weight.shape) for weight in model.kept_weights)
    logger.info("training on %s tokens (%.1f %% unknown), vocabulary %s", f"{text.num_tokens:,}", unknown, f"{model.vocab_size:,}")
    logger.info(
        "%d steps in the first epoch, %d rows, windows of about %d tokens, %s parameters",
        stream.steps_per_epoch, config.batch_size, config.window, f"{num_parameters:,}",
    )  # fmt: skip
    return _train(model, run, stream, _language_evaluation(validation, config), make_stepwise_dataset, has_drawn_epochs=True)


def train_translator(model: Translator, run: Run, train: PairCache, validation: PairCache, resample: Resampler | None = None) -> Progress:
    """As `train_classifier`, on pairs."""
    config = run.config.training
    stream = PairStream(train, config, run.config.seed, resample)
    model.compile(build_optimizer(config, config.epochs * stream.steps_per_epoch), jit_compile=False)
    logger.info(
        "training on %s pairs, %s target tokens, %d steps an epoch, batch %d, vocabulary %s, %s parameters",
        f"{len(train.rows):,}", f"{train.num_tokens:,}", stream.steps_per_epoch, config.batch_size, f"{model.vocab_size:,}",
        f"{model.count_params():,}",
    )  # fmt: skip
    make = functools.partial(make_stepwise_dataset, num_inputs=2)
    return _train(model, run, stream, make_pair_evaluation(validation, config.batch_size), make)


def _language_evaluation(cache: TokenCache, config: TrainingConfig) -> tf.data.Dataset:
    text = TokenStream(cache, config.batch_size, drop_remainder=False)
    plan = text.windows(config.window)
    return make_stepwise_dataset(lambda: (text.read(*place) for place in plan), len(plan), config.batch_size)


def _train(
    model: keras.Model, run: Run, stream: BatchStream | WindowStream | PairStream, evaluation: tf.data.Dataset,
    make: Callable[..., tf.data.Dataset] = make_dataset, *, has_drawn_epochs: bool = False,
) -> Progress:  # fmt: skip
    """Fits a compiled model.

    Args:
      make: a function (batches, number of them, batch size) -> data set.
      has_drawn_epochs: whether each epoch has a length of its own.
    """
    config = run.config.training
    progress = load_progress(run.last_checkpoint)
    keeper = RunKeeper(run, stream, progress)
    callbacks: list[keras.callbacks.Callback] = [keeper]
    if config.ema_momentum:
        callbacks.insert(0, keeper.averages)
    if config.tensorboard:
        callbacks.append(_tensorboard(run))
    model.test_on_batch(*next(stream()))  # builds the metrics, whose state is part of a checkpoint
    model.optimizer.build(model.trainable_variables)  # float16 wraps the optimizer for loss scaling
    if progress.is_finished:
        logger.info("%s is finished already: nothing to train", run.path)
    elif run.last_checkpoint.exists():
        logger.info("resuming after epoch %d, step %d", progress.epoch, progress.step)
    elif config.start_from:
        load_checkpoint(Path(config.start_from) / "checkpoints" / "best.npz", kept_weights(model))
        logger.info("starting from the best weights of %s", config.start_from)
    with keeper.signals():
        while not progress.is_finished:
            if run.last_checkpoint.exists():  # also after a first fit, which leaves averages where the weights were
                keeper.restore(model)
            # A broken-off epoch is shorter than the others, and fit wants all of one call to be of one length.
            epochs = progress.epoch + 1 if progress.step or has_drawn_epochs else config.epochs
            dataset = make(stream, stream.steps_per_epoch - progress.step, config.batch_size)
            model.fit(
                dataset, validation_data=evaluation, initial_epoch=progress.epoch, epochs=epochs,
                callbacks=callbacks, shuffle=False, verbose=0,
            )  # fmt: skip
    keeper.finish()
    return progress


def _tensorboard(run: Run) -> keras.callbacks.Callback:
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError("training.tensorboard is true, which needs the package tensorboard: pip install 'nlp-rnn[tensorboard]'")
    return keras.callbacks.TensorBoard(str(run.path / "tensorboard"), write_graph=False)


# --- evaluation ----------------------------------------------------------------------------------------------------


def make_evaluation_dataset(cache: TokenCache, batch_size: int) -> tf.data.Dataset:
    """All examples once, the shortest first."""
    plan = plan_ordered_batches(cache.lengths, batch_size)
    return make_dataset(lambda: (classification_batch(cache, indices, batch_size) for indices in plan), len(plan), batch_size)


def predict_probabilities(model: keras.Model, cache: TokenCache, batch_size: int) -> np.ndarray:
    """float32 [examples, classes], in the cache's order."""
    logits = model.predict(make_evaluation_dataset(cache, batch_size), verbose=0)[: len(cache.labels)]
    order = np.concatenate(plan_ordered_batches(cache.lengths, batch_size))
    probabilities = np.empty_like(logits)
    probabilities[order] = keras.ops.convert_to_numpy(keras.ops.softmax(logits, axis=-1))
    return probabilities
