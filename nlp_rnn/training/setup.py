"""A training from its config: devices, corpus, token ids and run directory, in an order that several machines can share."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from nlp_rnn import files
from nlp_rnn.config.settings import TFDS_SOURCES, Config
from nlp_rnn.data.corpus import Corpus, label_names, load_corpus
from nlp_rnn.data.inputs import Inputs, load_inputs, save_inputs
from nlp_rnn.distribution import jax_devices
from nlp_rnn.distribution.placement import Placement, start_devices
from nlp_rnn.errors import ConfigError
from nlp_rnn.tensorflow_import import keras_backend
from nlp_rnn.training import run_directory

logger = logging.getLogger(__name__)

_SECONDS_OF_A_SLOW_DISK = 90.0


@dataclass(frozen=True)
class Session:
    """A training that can begin: its devices, run directory and inputs."""

    placement: Placement
    run: run_directory.Run
    inputs: Inputs


@contextlib.contextmanager
def opened(config: Config) -> Iterator[Session]:
    """What the config's training needs; its run directory is made, or found, and held while the context lasts.

    Raises:
      ConfigError: if the run directory is of another config or held by another process; see `run_directory.find_run`,
        `corpus.load_corpus`, `placement.start_devices`, `datasets.prepare_inputs`.
    """
    run = run_directory.find_run(config)  # refuses one of another config
    prepared = run if run is not None and run.ids.is_dir() else None
    if keras_backend() == "jax":
        if prepared is None:
            raise ConfigError(
                f"KERAS_BACKEND is jax, which trains from token ids, but {config.runs_dir}/{config.name} has none; make them by the verb "
                "prepare, with the same settings and without KERAS_BACKEND"
            )
        placement = jax_devices.start_devices(config)
    elif prepared is not None:
        placement = start_devices(config.hardware)
    else:
        placement, corpus = _start(config)
    placement.check(config.training)
    with placement.joined():
        if prepared is not None:
            logger.info("token ids: those that are prepared in %s", prepared.ids)
            run, inputs = prepared, _find_inputs(prepared)
        else:
            run, inputs = _make_inputs(config, placement, corpus)
        for what, digest in inputs.digests.items():
            placement.agree(what, digest)
        with run_directory.locked(run, is_chief=placement.is_chief):
            yield Session(placement, run, inputs)


def prepare(config: Config) -> tuple[run_directory.Run, Inputs]:
    """Makes the config's run directory, with the token ids in it: training then needs neither the corpus nor TensorFlow.

    Raises:
      ConfigError: see `opened`.
    """
    run = run_directory.find_run(config)
    if run is not None and run.ids.is_dir():
        return run, load_inputs(run.ids)
    placement, corpus = _start(config)
    run, inputs = _make_inputs(config, placement, corpus)
    with run_directory.locked(run), files.atomic_folder(run.ids) as temporary:
        save_inputs(inputs, temporary)
    return run, inputs


def _start(config: Config) -> tuple[Placement, Corpus]:
    """The devices and the surveyed corpus. Mistakes in files of the user's show before TensorFlow is imported."""
    is_parallel = config.kind == "translator"
    if config.data.source not in TFDS_SOURCES:
        corpus = load_corpus(config.data, config.seed, is_parallel=is_parallel)
        if config.kind == "classifier":
            label_names(corpus)
        return start_devices(config.hardware), corpus
    # These are read by TensorFlow, whose devices must be set up first; and prepared, by one worker.
    placement = start_devices(config.hardware)
    with placement.joined(), placement.chief_first():
        return placement, load_corpus(config.data, config.seed, is_parallel=is_parallel)


def _make_inputs(config: Config, placement: Placement, corpus: Corpus) -> tuple[run_directory.Run, Inputs]:
    from nlp_rnn.data import datasets

    facts = corpus.data_facts()
    with placement.chief_first():
        run = run_directory.find_run(config)  # another process may have made it meanwhile
        if run is not None:
            run_directory.check_data(run, facts)
            return run, datasets.prepare_inputs(corpus, config, run.path / "tokenizer")[0]
        inputs, tokenizer = datasets.prepare_inputs(corpus, config)
        if placement.is_chief:
            return run_directory.create_run(config, inputs.labels, facts, tokenizer.save), inputs
        return _await_run(config, placement), inputs


def _find_inputs(run: run_directory.Run) -> Inputs:
    inputs, sampling = load_inputs(run.ids), run.config.tokenizer.sampling
    if not sampling:
        return inputs
    from nlp_rnn.data import datasets
    from nlp_rnn.tokenization.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(run.path / "tokenizer")
    return dataclasses.replace(inputs, resample=datasets.Resampling(tokenizer, sampling, run.config.seed))


def _await_run(config: Config, placement: Placement) -> run_directory.Run:
    """The run directory, which the chief has made."""
    deadline = time.monotonic() + _SECONDS_OF_A_SLOW_DISK
    while (run := run_directory.find_run(config)) is None:
        if time.monotonic() > deadline:
            raise ConfigError(
                f"runs_dir is {config.runs_dir}, but worker {placement.worker} does not see {config.name} there, which the chief has made; "
                "set runs_dir to a folder on a disk that all machines share"
            )
        time.sleep(0.5)
    return run
