"""Sets up a training from its config: devices, corpus, token ids and run directory, on one or several machines."""

import contextlib
import dataclasses
import functools
import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nlp_rnn import files
from nlp_rnn.config.settings import TFDS_SOURCES, Config
from nlp_rnn.data.corpus import Corpus, load_corpus
from nlp_rnn.data.inputs import Inputs, load_inputs, save_inputs
from nlp_rnn.data.label_names import label_names
from nlp_rnn.data.labels import check_class_weights
from nlp_rnn.distribution import jax_devices
from nlp_rnn.distribution.placement import Placement, start_devices
from nlp_rnn.errors import ConfigError
from nlp_rnn.tensorflow_import import keras_backend
from nlp_rnn.training import initial_vectors, run_directory
from nlp_rnn.training.checkpoints import load_progress
from nlp_rnn.training.origin import check_labels, check_origins

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedTraining:
    """A training ready to begin: its devices, run directory and inputs."""

    placement: Placement
    run: run_directory.Run
    inputs: Inputs


@contextlib.contextmanager
def opened(config: Config) -> Iterator[PreparedTraining]:
    """Sets up a training. Creates or finds its run directory and locks it while the context lasts.

    Raises:
      ConfigError: if the run directory is of another config or locked by another process; see `run_directory.find_run`,
        `check_origins`, `corpus.load_corpus`, `placement.start_devices`, `datasets.prepare_inputs`.
    """
    run = run_directory.find_run(config)  # raises if it is of another config
    _check_other_models(config, run)
    prepared = run if run is not None and run.ids.is_dir() else None
    if keras_backend() == "jax":
        if prepared is None:
            raise ConfigError(
                f"KERAS_BACKEND is jax, which trains from token ids, but {config.runs_dir}/{config.name} has none; "
                "run the command prepare first, with the same settings and without KERAS_BACKEND"
            )
        placement = jax_devices.start_devices(config)
    elif prepared is not None:
        placement = start_devices(config.hardware)
    else:
        placement, corpus = start(config)
    placement.check(config.training)
    with placement.joined():
        if prepared is not None:
            logger.info("using the prepared token ids in %s", prepared.ids)
            run, inputs = prepared, _find_inputs(prepared)
        else:
            run, inputs = make_inputs(config, placement, corpus)
        for what, digest in inputs.digests.items():
            placement.agree(what, digest)
        with run_directory.locked(run, is_chief=placement.is_chief):
            yield PreparedTraining(placement, run, inputs)


def prepare(config: Config) -> tuple[run_directory.Run, Inputs]:
    """Creates the config's run directory with its token ids. Training then needs neither the corpus nor TensorFlow.

    Raises:
      ConfigError: see `opened`.
    """
    run = run_directory.find_run(config)
    _check_other_models(config, run)
    if run is not None and run.ids.is_dir():
        return run, load_inputs(run.ids)
    placement, corpus = start(config)
    run, inputs = make_inputs(config, placement, corpus)
    with run_directory.locked(run):
        if run.ids.is_dir():  # another command has prepared it meanwhile
            return run, load_inputs(run.ids)
        with files.atomic_folder(run.ids) as temporary:
            save_inputs(inputs, temporary)
    return run, inputs


def _check_other_models(config: Config, run: run_directory.Run | None) -> None:
    """Checks the models and vectors that the training still needs.

    Args:
      run: the run directory; None if there is none yet.
    """
    has_begun = run is not None and load_progress(run.last_checkpoint).has_begun
    check_origins(config, is_prepared=run is not None and run.ids.is_dir(), has_begun=has_begun)
    if run is None:
        initial_vectors.check(config)


def start(config: Config, *, reads_test: bool = True) -> tuple[Placement, Corpus]:
    """The devices and the surveyed corpus. Mistakes in files of the user's show before TensorFlow is imported.

    Args:
      reads_test: see `Corpus`.
    """
    load = functools.partial(
        load_corpus, config.data, config.seed, is_parallel=config.kind == "translator", reads_test=reads_test,
        trains_on_unlabelled=config.trains_on_unlabelled,
    )  # fmt: skip
    if config.data.source not in TFDS_SOURCES:
        corpus = load()
        if config.kind == "classifier":
            check_class_weights(config, label_names(corpus, allows_unlabelled=config.trains_on_unlabelled))
        return start_devices(config.hardware), corpus
    # TensorFlow reads these sources, so its devices must be set up first. One worker prepares them.
    placement = start_devices(config.hardware)
    with placement.joined(), placement.chief_first():
        return placement, load()


def make_inputs(config: Config, placement: Placement, corpus: Corpus) -> tuple[run_directory.Run, Inputs]:
    """The run directory of a config, made or found, and what the model is trained on."""
    from nlp_rnn.data import datasets

    facts = corpus.data_facts()
    if config.training.teacher:
        from nlp_rnn.training import teacher

        facts["train"]["teachers"] = teacher.digests(config)
        teacher.warn_of_seeds(config, corpus)
    with placement.chief_first():
        run = run_directory.find_run(config)  # another process may have made it meanwhile
        if run is not None:
            run_directory.check_data(run, facts)
            return run, _taught(config, *datasets.prepare_inputs(corpus, config, run.path / "tokenizer"))
        inputs, tokenizer = datasets.prepare_inputs(corpus, config)
        check_labels(config, inputs.labels)
        inputs = _taught(config, inputs, tokenizer)
        if placement.is_chief:
            return _create_run(config, inputs, facts, tokenizer), inputs
        return _await_run(config, placement), inputs


def _taught(config: Config, inputs: Inputs, tokenizer: Any) -> Inputs:
    """The inputs with the answers of training.teacher, if there is one."""
    if not config.training.teacher:
        return inputs
    from nlp_rnn.training import classifier_teacher, language_teacher, teacher, translation_teacher

    digests = inputs.digests | {"the answers of training.teacher": " ".join(teacher.digests(config))}
    if config.kind == "translator":
        train: Any = translation_teacher.teach(inputs.train, config, tokenizer)
        digests["the teachers' translations"] = hashlib.blake2b(train.lengths.tobytes(), digest_size=16).hexdigest()
    elif config.kind == "language_model":
        train = language_teacher.teach(inputs.train, config, tokenizer)
    else:
        train = classifier_teacher.teach(inputs.train, config, inputs.labels, tokenizer)
    return dataclasses.replace(inputs, train=train, digests=digests)


def _create_run(config: Config, inputs: Inputs, facts: dict[str, Any], tokenizer: Any) -> run_directory.Run:
    """Makes the run directory, with the word vectors of model.vectors in it: they are not read again."""
    vectors = None
    if config.model.vectors:
        logger.info("model.vectors: reading %s", config.model.vectors)
        vectors = initial_vectors.match_vocabulary(config, tokenizer.all_pieces())
    return run_directory.create_run(config, inputs.labels, facts, tokenizer.save, vectors)


def _find_inputs(run: run_directory.Run) -> Inputs:
    inputs, sampling = load_inputs(run.ids), run.config.tokenizer.sampling
    if not sampling:
        return inputs
    if keras_backend() == "jax":
        from nlp_rnn.tokenization.segmentations import Segmentations

        return dataclasses.replace(inputs, resample=Segmentations(run.path / "tokenizer", sampling, run.config.seed))
    from nlp_rnn.data import datasets
    from nlp_rnn.tokenization.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(run.path / "tokenizer")
    return dataclasses.replace(inputs, resample=datasets.Resampling(tokenizer, sampling, run.config.seed))


def _await_run(config: Config, placement: Placement) -> run_directory.Run:
    """Waits for the run directory that the chief creates."""
    run = run_directory.wait_for_disk(lambda: run_directory.find_run(config))
    if run is None:
        raise ConfigError(
            f"runs_dir is {config.runs_dir}, but worker {placement.worker} does not see {config.name} there, "
            "which the chief has created; set runs_dir to a folder on a disk that all machines share"
        )
    return run
