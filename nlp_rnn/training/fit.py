"""Compiles, fits and resumes models, and predicts with them."""

import contextlib
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from nlp_rnn import extras
from nlp_rnn.config.settings import Config, HardwareConfig, TrainingConfig
from nlp_rnn.data.bptt import TokenStream, WindowStream
from nlp_rnn.data.bucketing import (
    Batch,
    Batches,
    BatchStream,
    IdReader,
    Reader,
    classification_stream,
    labelled_batch,
    padding_waste,
    pair_batch,
    pair_keys,
    pair_reader,
    pair_stream,
    plan_ordered_batches,
    text_reader,
)
from nlp_rnn.data.excerpts import Excerpts
from nlp_rnn.data.inputs import Inputs
from nlp_rnn.data.token_cache import PairCache, TokenCache
from nlp_rnn.distribution.placement import ONE_DEVICE, Placement
from nlp_rnn.errors import ConfigError
from nlp_rnn.models.classifier import layer_groups
from nlp_rnn.models.language_model import LanguageModel
from nlp_rnn.models.translator import Translator
from nlp_rnn.models.unique import unique
from nlp_rnn.training import stacking, transfer, word_vectors
from nlp_rnn.training.checkpoints import Progress, assign_arrays, checkpoint_arrays, load_progress, save_checkpoint
from nlp_rnn.training.class_weights import make_objective, warn_of_imbalance
from nlp_rnn.training.optimizers import build_optimizer, scale_rates
from nlp_rnn.training.origin import find_origin
from nlp_rnn.training.run_callback import RunCallback, kept_weights
from nlp_rnn.training.run_directory import Run, wait_for_disk

logger = logging.getLogger(__name__)

Callbacks = Sequence[keras.callbacks.Callback]
_LINEAR_PART = ("ngrams/", "stack/")  # weights that are fitted after each training
_USUAL_MULTIPLE = 32  # of batch lengths on JAX, where XLA compiles each length anew


def configure_hardware(hardware: HardwareConfig, seed: int) -> None:
    """Sets random seeds, kernels and precision. Call it before a model is built."""
    keras.utils.set_random_seed(seed)
    if hardware.is_deterministic and _has_tensorflow():
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    if _has_tensorflow():
        from nlp_rnn.layers.fast import precision

        precision.set_matmul_precision(hardware.matmul_precision)
    keras.config.set_dtype_policy(
        "float32" if hardware.mixed_precision == "off" else f"mixed_{hardware.mixed_precision}"
    )


# --- training ------------------------------------------------------------------------------------------------------


def train_classifier(
    model: keras.Model, run: Run, inputs: Inputs, placement: Placement = ONE_DEVICE, callbacks: Callbacks = ()
) -> Progress:
    """Trains a classifier, or resumes its run. The best weights are written to the run's best checkpoint.

    Args:
      model: built in the scope of `placement`.
      inputs: with TokenCaches.
      placement: the devices.
      callbacks: called before the callback that keeps the run directory.

    Raises:
      ConfigError: if the loss is no longer finite; the last good checkpoint is kept.
      Stopped: on Ctrl-C or SIGTERM, after saving.
    """
    config, train = run.config.training, inputs.train
    model.objective = make_objective(run.config, inputs.labels, train)
    warn_of_imbalance(run.config, inputs.labels, train)
    rows = placement.rows(config.batch_size)
    multiple = _multiple(run.config, placement)
    excerpts = Excerpts(train.offsets, config.excerpts, run.config.seed) if config.excerpts else None
    reader = text_reader(train, rows, multiple, inputs.resample, excerpts)
    stream = classification_stream(train, reader, config, run.config.seed, served=_served(reader, run))
    compile_model(model, config, config.epochs * stream.steps_per_epoch, placement)
    if config.unfreeze or config.layer_decay != 1:
        groups = layer_groups(model, run.config.model)
        starts = [stream.steps_per_epoch * sum(config.unfreeze[:number]) for number in range(len(groups))]
        optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # unwraps float16's loss scaling
        scale_rates(optimizer, groups, decay=config.layer_decay, starts=starts)
    logger.info(
        "training on %d examples, %d steps per epoch, batch %d, %.1f %% padding, %s parameters",
        len(train), stream.steps_per_epoch, config.batch_size, 100 * padding_waste(stream.keys(0), stream.plan()),
        f"{model.count_params():,}",
    )  # fmt: skip
    evaluation = _classifier_evaluation(inputs.validation, config.batch_size, rows, multiple)
    return _train(model, run, stream, evaluation, placement, lambda: _begin_classifier(model, run, train), callbacks)


def _begin_classifier(model: keras.Model, run: Run, train: TokenCache) -> None:
    _begin(model, run, train)
    if run.config.model.standardize and not run.config.training.start_from:
        stacking.fit_standardization(model, train, run.config.seed, _steps_multiple(run.config.training))
    if run.config.data.outputs == "ordinal" and not run.config.training.start_from:
        scale = model.get_layer("encoder").get_layer("scale")
        scale.assign_counts(np.bincount(train.labels[train.labelled_rows], minlength=scale.num_classes))


def stack_parts(model: keras.Model, run: Run, inputs: Inputs) -> None:
    """Fits a classifier's linear part, then the shares of both parts, and saves them with the best weights.

    The shares are fitted to whole validation texts and to an excerpt of each, so that they suit short texts too.

    Args:
      model: with the run's best weights, on one device.
      inputs: with TokenCaches.
    """
    objective = make_objective(run.config, inputs.labels, inputs.train)
    stacking.fit_linear_part(model.get_layer("ngrams"), inputs.train, run.config.seed, objective)
    layer, validation = model.get_layer("stack"), inputs.validation
    with tempfile.TemporaryDirectory() as folder:
        texts = (validation, stacking.draw_excerpts(validation, Path(folder), run.config.seed))

        def logits(shares: list[float]) -> np.ndarray:
            layer.assign(shares)
            return np.concatenate([predict_logits(model, cache, run.config.training) for cache in texts])

        deep, wide = logits([1.0, 0.0]), logits([0.0, 1.0])
    labels, lengths = (np.concatenate([getattr(cache, name) for cache in texts]) for name in ("labels", "lengths"))
    stacking.fit_stack(layer, deep, wide, labels, lengths)
    save_checkpoint(run.best_checkpoint, checkpoint_arrays(model.weights))


def train_language_model(
    model: LanguageModel, run: Run, inputs: Inputs, placement: Placement = ONE_DEVICE, callbacks: Callbacks = ()
) -> Progress:
    """Like `train_classifier`, over one long text per row. Call `bptt.check_length` first."""
    config, rows = run.config.training, placement.rows(run.config.training.batch_size)
    if placement.has_fixed_shapes and config.random_window:
        raise ConfigError("training.random_window is true, but a TPU needs windows of one length; use false")
    text = TokenStream(inputs.train, config.batch_size, drop_remainder=True, rows=rows)
    stream = WindowStream(
        text, window=config.window, is_random=config.random_window, seed=run.config.seed,
        max_steps=config.max_steps_per_epoch,
        is_fixed=placement.has_fixed_shapes, is_rotated=config.partial_shuffle,
    )  # fmt: skip
    compile_model(model, config, stream.num_steps(config.epochs), placement)
    unknown = 100 * inputs.train.unknown_share()
    num_parameters = count_parameters(model)
    logger.info(
        "training on %s tokens (%.1f %% unknown), vocabulary %s",
        f"{text.num_tokens:,}",
        unknown,
        f"{model.vocab_size:,}",
    )
    logger.info(
        "%d steps in the first epoch, %d rows, windows of about %d tokens, %s parameters",
        stream.steps_per_epoch, config.batch_size, config.window, f"{num_parameters:,}",
    )  # fmt: skip
    evaluation = _language_evaluation(inputs.validation, config, rows, placement)
    return _train(model, run, stream, evaluation, placement, lambda: _begin(model, run, inputs.train), callbacks)


def train_translator(
    model: Translator, run: Run, inputs: Inputs, placement: Placement = ONE_DEVICE, callbacks: Callbacks = ()
) -> Progress:
    """Like `train_classifier`, on pairs."""
    config, train = run.config.training, inputs.train
    rows = placement.rows(config.batch_size)
    multiple = _multiple(run.config, placement)
    reader = pair_reader(train, rows, multiple, inputs.resample)
    stream = pair_stream(train, reader, config, run.config.seed, served=_served(reader, run))
    compile_model(model, config, config.epochs * stream.steps_per_epoch, placement)
    logger.info(
        "training on %s pairs, %s target tokens, %d steps per epoch, batch %d, vocabulary %s, %s parameters",
        f"{len(train):,}", f"{train.num_tokens:,}", stream.steps_per_epoch, config.batch_size, f"{model.vocab_size:,}",
        f"{model.count_params():,}",
    )  # fmt: skip
    evaluation = _pair_evaluation(inputs.validation, config.batch_size, rows, multiple)
    return _train(model, run, stream, evaluation, placement, lambda: _begin(model, run, train), callbacks)


def count_parameters(model: keras.Model) -> int:
    """Counts the weights, without the carried states of a language model."""
    return sum(math.prod(weight.shape) for weight in kept_weights(model))


def compile_model(model: keras.Model, config: TrainingConfig, num_steps: int, placement: Placement) -> None:
    """Sets a model's optimizer and training step.

    Args:
      num_steps: of the whole training, for the learning-rate schedule.
    """
    with placement.scope():
        # TensorFlow's XLA would compile for every length, which takes longer than it saves.
        model.compile(build_optimizer(config, num_steps), jit_compile=not _has_tensorflow())
        model.optimizer.build(model.trainable_variables)  # float16 wraps the optimizer for loss scaling
    # Otherwise `fit`, which is called once per epoch, would replace the weights by their averages.
    model.optimizer.finalize_variable_values = lambda _: None
    if _has_tensorflow():
        from nlp_rnn.training import train_step

        train_step.prepare(model, placement, config.gradient_accumulation)
    elif config.adversarial or config.virtual_adversarial:
        from nlp_rnn.training import jax_gradients

        jax_gradients.prepare(model)


def _served(reader: IdReader, run: Run) -> Reader:
    """The reader, or one that gets its batches from hardware.input_service if that is set and any are still needed."""
    if not run.config.hardware.input_service or load_progress(run.last_checkpoint).is_finished:
        return reader
    from nlp_rnn.data import input_service

    return input_service.served(reader, run.config.hardware)


def _multiple(config: Config, placement: Placement) -> int:
    """The number of which all batch lengths are multiples."""
    if placement.has_fixed_shapes:
        if sampling := config.tokenizer.sampling:
            raise ConfigError(f"tokenizer.sampling is {sampling:g}, but a TPU needs batches of one length; use 0")
        return config.data.max_length + 1  # including EOS_ID
    return _steps_multiple(config.training)


def _steps_multiple(config: TrainingConfig) -> int:
    return config.pad_to_multiple_of or (1 if _has_tensorflow() else _USUAL_MULTIPLE)


def _has_tensorflow() -> bool:
    return keras.backend.backend() == "tensorflow"


def _begin(model: keras.Model, run: Run, train: TokenCache | PairCache) -> None:
    """Assigns the initial weights of model.init_from, model.vectors or training.start_from, if set."""
    if run.config.model.init_from:
        transfer.initialize(model, run.config)
    elif run.config.model.vectors:
        word_vectors.initialize(_embeddings(model, run.config), run.path, train)
    elif start := run.config.training.start_from:
        arrays = find_origin("training.start_from", start).load()
        weights = [each for each in kept_weights(model) if not each.path.startswith(_LINEAR_PART)]
        of_weights = {
            name: values for name, values in arrays.items() if not name.partition(":")[2].startswith(_LINEAR_PART)
        }
        assign_arrays(of_weights, weights, start)
        logger.info("starting from the best weights of %s", start)


def _embeddings(model: keras.Model, config: Config) -> list[keras.layers.Embedding]:
    """The model's embeddings, each once: a translator has one for each language, unless they are tied."""
    if config.kind == "classifier":
        return [model.get_layer("embedding")]
    layers = [model.embedding, getattr(model, "target_embedding", model.embedding)]
    return unique(layers)


def _train(
    model: keras.Model, run: Run, stream: BatchStream | WindowStream, evaluation: Batches, placement: Placement,
    begin: Callable[[], None], more_callbacks: Callbacks,
) -> Progress:  # fmt: skip
    """Fits a compiled model.

    Args:
      begin: assigns the initial weights of a new run.
    """
    config = run.config.training
    progress = _agreed_progress(run, placement)
    callback = RunCallback(run, stream, progress, placement)
    callbacks: list[keras.callbacks.Callback] = [*more_callbacks, callback]
    if config.ema_momentum:
        callbacks.insert(0, callback.averages)
    if config.tensorboard and placement.is_chief:
        callbacks.append(_tensorboard(run))
    callback.write_history()
    if progress.is_finished:
        logger.info("%s is already finished: nothing to train", run.path)
    elif progress.has_begun:
        logger.info("resuming after epoch %d, step %d", progress.epoch, progress.step)
        callback.restore(model)
    else:
        begin()
    with callback.signals():
        while not progress.is_finished:
            # One epoch per fit, since all epochs of one fit have the same length, and a resumed one is shorter.
            stream.start_at(progress.epoch, progress.step)
            num_steps = stream.steps_per_epoch - progress.step
            # TensorFlow finds the end of a data set by itself, and warns if the number of steps is given.
            is_endless = placement.strategy is not None or not _has_tensorflow()
            sizes = {"steps_per_epoch": num_steps, "validation_steps": evaluation.count} if is_endless else {}
            with _reading_errors(stream):
                model.fit(
                    _fed(Batches(stream, num_steps), placement), validation_data=_fed(evaluation, placement),
                    initial_epoch=progress.epoch, epochs=progress.epoch + 1, callbacks=callbacks, shuffle=False,
                    verbose=0, **sizes,
                )  # fmt: skip
    callback.finish()
    return progress


@contextlib.contextmanager
def _reading_errors(stream: BatchStream | WindowStream) -> Iterator[None]:
    """If reading batches failed with a ConfigError, raises it instead of TensorFlow's error about it."""
    try:
        yield
    except Exception:
        if isinstance(stream, BatchStream) and stream.mistake:
            raise stream.mistake from None
        raise


def _agreed_progress(run: Run, placement: Placement) -> Progress:
    """The progress that the chief reads. Waits until this worker sees the same on the shared disk."""
    progress = load_progress(run.last_checkpoint)
    chiefs = placement.told_by_chief(progress.epoch, progress.step)

    def look() -> Progress | None:
        seen = load_progress(run.last_checkpoint)
        return seen if (seen.epoch, seen.step) == chiefs else None

    agreed = wait_for_disk(look)
    if agreed is None:
        raise ConfigError(
            f"runs_dir: worker {placement.worker} sees {run.last_checkpoint} after epoch {progress.epoch}, "
            f"step {progress.step}, but the chief after epoch {chiefs[0]}, step {chiefs[1]}; "
            "set runs_dir to a folder on a disk that all machines share"
        )
    return agreed


def _tensorboard(run: Run) -> keras.callbacks.Callback:
    extras.require("tensorboard", "training.tensorboard is true")
    return keras.callbacks.TensorBoard(str(run.path / "tensorboard"), write_graph=False)


def _fed(batches: Batches, placement: Placement) -> Any:
    """Batches in the form that `fit` reads."""
    if not _has_tensorflow():
        return batches.read()
    from nlp_rnn.data.datasets import make_dataset

    return placement.distribute(make_dataset(batches, is_fixed=placement.has_fixed_shapes))


# --- evaluation ----------------------------------------------------------------------------------------------------


def _classifier_evaluation(cache: TokenCache, batch_size: int, rows: slice, multiple: int) -> Batches:
    """All examples once, the shortest first; of each batch the given rows."""
    plan, read = plan_ordered_batches(cache.lengths, batch_size), text_reader(cache, rows, multiple)

    def batches() -> Iterator[Batch]:
        for indices, ids in zip(plan, read(plan), strict=True):
            yield labelled_batch(cache, indices, read.rows, *ids)

    return Batches(batches, len(plan))


def _language_evaluation(cache: TokenCache, config: TrainingConfig, rows: slice, placement: Placement) -> Batches:
    text = TokenStream(cache, config.batch_size, drop_remainder=False, rows=rows)
    plan = text.windows(config.window, is_fixed=placement.has_fixed_shapes)
    return Batches(lambda: (text.read(*place) for place in plan), len(plan))


def _pair_evaluation(cache: PairCache, batch_size: int, rows: slice, multiple: int) -> Batches:
    """All pairs once, the shortest first."""
    plan, read = plan_ordered_batches(pair_keys(cache), batch_size), pair_reader(cache, rows, multiple)
    return Batches(lambda: (pair_batch(*ids) for ids in read(plan)), len(plan))


def predict_logits(model: keras.Model, cache: TokenCache, config: TrainingConfig) -> np.ndarray:
    """Predicts logits, float32 [examples, classes], in the cache's order."""
    batch_size = config.batch_size
    multiple = 1 if _has_tensorflow() else _steps_multiple(config)  # it compiles no length anew
    batches = _classifier_evaluation(cache, batch_size, slice(0, batch_size), multiple)
    num_steps = None if _has_tensorflow() else batches.count
    predicted = model.predict(_fed(batches, ONE_DEVICE), steps=num_steps, verbose=0)[: len(cache.labels)]
    logits = np.empty_like(predicted)
    logits[np.concatenate(plan_ordered_batches(cache.lengths, batch_size))] = predicted
    return logits
