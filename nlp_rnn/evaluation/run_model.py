"""Loads runs or ensembles of them, as models or as the module that is exported; and exports them."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras

from nlp_rnn import files
from nlp_rnn.config.settings import Config, DataConfig
from nlp_rnn.config.tables import TASKS
from nlp_rnn.data import datasets
from nlp_rnn.data.corpus import Corpus, corpus_with
from nlp_rnn.errors import ConfigError
from nlp_rnn.evaluation.mixtures import ExportedNGrams, ngrams_within
from nlp_rnn.export import litert, saved_model
from nlp_rnn.export.classifier import ClassifierModule, classifier_extras
from nlp_rnn.export.generation import GenerationModule, generation_extras
from nlp_rnn.export.next_word import NextWordModule, language_extras
from nlp_rnn.export.signature_defaults import signature_defaults
from nlp_rnn.export.translation import TranslationModule, translation_extras
from nlp_rnn.models.language_ensemble import LanguageEnsemble
from nlp_rnn.models.language_model import LanguageModel
from nlp_rnn.tokenization.tokenizer import Tokenizer
from nlp_rnn.training.run_directory import Run
from nlp_rnn.training.trained_models import load_classifier, load_language_model, load_translator


class Exported(NamedTuple):
    """A finished export.

    Attributes:
      path: the written folder.
      signatures: names of the signatures; empty for LiteRT.
      bytes: sizes of LiteRT files by name.
      checked: of LiteRT, what was measured on validation texts.
    """

    path: Path
    signatures: tuple[str, ...]
    bytes: dict[str, int]
    checked: dict[str, Any]


_NUM_TEXTS, _MAX_CHARACTERS = 200, 10_000  # of the check of LiteRT files
_MAX_MEGABYTES = 1000  # of n-grams


# --- models -----------------------------------------------------------------------------------------------------------


def load_classifiers(runs: list[Run]) -> tuple[list[keras.Model], Tokenizer]:
    """Loads the classifiers of an ensemble, and their tokenizer.

    Raises:
      ConfigError: if the runs do not share labels, vocabulary and the length of texts.
    """
    loaded, first = [load_classifier(run) for run in runs], runs[0]
    for run in runs[1:]:
        if run.labels != first.labels or run.config.data.outputs != first.config.data.outputs:
            raise ConfigError(
                f"--run {run.path} has other labels than {first.path}; train both on the same data and labels"
            )
        for key in ("max_length", "keep"):
            value, wanted = getattr(run.config.data, key), getattr(first.config.data, key)
            if value != wanted:
                raise ConfigError(
                    f"--run {run.path}: data.{key} is {value}, but {wanted} in {first.path}; "
                    "the runs of an ensemble must read the same tokens: train both with one value"
                )
    _check_vocabularies(runs, [tokenizer for _, tokenizer in loaded])
    return [model for model, _ in loaded], loaded[0][1]


def check_seeds(runs: list[Run], corpus: Corpus, split: str) -> None:
    """Checks that the runs of an ensemble were not trained on the split.

    Raises:
      ConfigError: if their seeds draw different splits.
    """
    seeds = {run.config.seed for run in runs}
    if len(seeds) > 1 and corpus.is_drawn(split):
        raise ConfigError(
            f"--run: the runs have the seeds {', '.join(map(str, sorted(seeds)))}, which draw different splits, "
            "so one run "
            "is evaluated on training data of another; give the splits as files, or train all runs with one seed"
        )


def load_language_models(runs: list[Run]) -> tuple[LanguageModel | LanguageEnsemble, Tokenizer]:
    """Loads one run's language model, or an ensemble of several, and the tokenizer.

    Raises:
      ConfigError: if the runs do not share their vocabulary and the direction in which they read.
    """
    loaded = [load_language_model(run) for run in runs]
    _check_vocabularies(runs, [tokenizer for _, tokenizer in loaded])
    for run in runs[1:]:
        if run.config.model.is_reversed != runs[0].config.model.is_reversed:
            raise ConfigError(
                f"--run {run.path}: model.is_reversed is {str(run.config.model.is_reversed).lower()}, but not in "
                f"{runs[0].path}; the runs of an ensemble must read in one direction"
            )
    models = [model for model, _ in loaded]
    return (models[0] if len(models) == 1 else LanguageEnsemble(models)), loaded[0][1]


# --- modules ----------------------------------------------------------------------------------------------------------


def load_module(runs: list[Run]) -> Any:
    """Builds the module to export from one run's best weights, or from an ensemble.

    Raises:
      ConfigError: see `_load_translators`, `load_classifiers` and `load_language_models`.
    """
    # Our layers in place of Keras's, whatever the run's settings: they are the ones that export quick loops.
    runs = [_with_layers(run, fast="on") for run in runs]
    run = runs[0]
    answers = TASKS[run.config.task].answers
    if answers == "translations":
        return _load_translators(runs)
    if answers == "labels":
        return ClassifierModule(*load_classifiers(runs), run.config, run.labels, [each.calibration for each in runs])
    _check_direction(run)
    module = GenerationModule if answers == "characters" else NextWordModule
    return module(*load_language_models(runs), run.config)


def _check_direction(run: Run) -> None:
    if run.config.model.is_reversed:
        raise ConfigError(
            f"--run is {run.path}, whose model reads texts backwards (model.is_reversed), so it cannot predict next "
            f"words; "
            "use it as model.init_from of a classifier"
        )


def _with_layers(run: Run, *, fast: Literal["on", "off"]) -> Run:
    """The run with model.fast changed, and without chunks: exports read a text at once, with the same result."""
    model = dataclasses.replace(run.config.model, fast=fast, chunk_length=0)
    return dataclasses.replace(run, config=dataclasses.replace(run.config, model=model))


def _load_translators(runs: list[Run]) -> TranslationModule:
    """Loads one run's translator, or an ensemble of several.

    Raises:
      ConfigError: if the runs do not share languages and vocabulary.
    """
    first = runs[0].config.data
    for run in runs:
        data = run.config.data
        if (data.source_language, data.target_language) != (first.source_language, first.target_language):
            raise ConfigError(
                f"--run {run.path} is from {data.source_language} to {data.target_language}; "
                "the runs of an ensemble must share their languages"
            )
    loaded = [load_translator(run) for run in runs]
    _check_vocabularies(runs, [tokenizer for _, tokenizer in loaded])
    return TranslationModule([model for model, _ in loaded], loaded[0][1], runs[0].config)


def _check_vocabularies(runs: list[Run], tokenizers: list[Tokenizer]) -> None:
    for run, tokenizer in zip(runs, tokenizers, strict=True):
        if (
            tokenizer.vocabulary_text() != tokenizers[0].vocabulary_text()
            or tokenizer.settings() != tokenizers[0].settings()
        ):
            raise ConfigError(
                f"--run {run.path} has another vocabulary than {runs[0].path}; "
                "train both on the same data and tokenizer.*"
            )


# --- exports ----------------------------------------------------------------------------------------------------------


def export_runs(
    runs: list[Run], to: Path, *, format: str = "savedmodel", weights: str = "float32", data: DataConfig | None = None,
    ngram_megabytes: float = 0.0,
) -> Exported:  # fmt: skip
    """Exports one run's best weights, or an ensemble, as the next version.

    Args:
      format: "savedmodel"; or "litert", of a single run that does not translate.
      weights: "float32"; or "int8", in a quarter of the space; or "int4", with embeddings in an eighth of it. LiteRT:
        "int8" leaves the float file out.
      to: the folder of the exported models.
      data: of LiteRT: where the validation texts are on which the files are checked; None: where the run found them.
      ngram_megabytes: of LiteRT, next words: adds an n-gram model of the training text with at most so many; 0: none.

    Raises:
      ConfigError: if the task has no such format or weights; see `load_module`, `litert.word_settings`.
    """
    run = runs[0]
    config = run.config
    _check_export(runs, format, weights, ngram_megabytes)
    metrics = run.metrics if len(runs) == 1 else {}  # an ensemble has none yet
    if format == "litert":
        folder = to / f"{config.task}_litert"
        path, checked = _export_litert(
            run, data or config.data, folder, int8_only=weights == "int8", ngram_megabytes=ngram_megabytes
        )
        return Exported(path, (), checked["bytes"], checked)
    module = load_module(runs)
    name: str = config.task
    signatures = module.signature_functions()
    if isinstance(module, ClassifierModule):
        extras = classifier_extras(module, config, run.labels, metrics)
    elif isinstance(module, NextWordModule):
        extras = language_extras(module, config, metrics)
    elif isinstance(module, GenerationModule):
        extras = generation_extras(module, config, metrics)
    else:
        name = f"{config.task}_{config.data.source_language}_{config.data.target_language}"
        extras = translation_extras(module, config, metrics)
    defaults = {signature: signature_defaults(TASKS[config.task].answers, signature) for signature in signatures}
    path = saved_model.export_module(module, files.child(to, name), signatures, extras, defaults, weights=weights)
    return Exported(path, tuple(signatures), {}, {})


def _check_export(runs: list[Run], format: str, weights: str, ngram_megabytes: float) -> None:
    """Raises ConfigError if the task or the number of runs has no such export."""
    config = runs[0].config
    allowed = ("savedmodel",) if TASKS[config.task].answers == "translations" else ("savedmodel", "litert")
    if format not in allowed:
        raise ConfigError(f"format is {format!r}, but must be {' or '.join(allowed)} for {config.task}")
    if weights not in ("float32", "int8", "int4"):
        raise ConfigError(f"weights is {weights!r}, but must be float32, int8 or int4")
    if format == "litert" and len(runs) > 1:
        raise ConfigError(f"format is 'litert', but there are {len(runs)} runs; export an ensemble as savedmodel")
    if format == "litert" and weights == "int4":
        raise ConfigError("weights is 'int4', but LiteRT files are int8 or float32; use int8")
    if not 0 <= ngram_megabytes <= _MAX_MEGABYTES:
        raise ConfigError(f"ngram_megabytes is {ngram_megabytes}, but must be a number from 0 to {_MAX_MEGABYTES}")
    if ngram_megabytes and (format != "litert" or TASKS[config.task].answers != "words"):
        raise ConfigError(
            f"--ngrams (ngram_megabytes) is {ngram_megabytes:g}, but only next_word exports for LiteRT have n-grams; "
            "add --format litert, or leave it out"
        )


def _export_litert(
    run: Run, data: DataConfig, folder: Path, *, int8_only: bool, ngram_megabytes: float
) -> tuple[Path, dict[str, Any]]:
    from nlp_rnn.export import litert_classifier, litert_language_model

    config, answers = run.config, TASKS[run.config.task].answers
    if answers == "labels":
        plain = _with_layers(run, fast="off")  # LiteRT has none of the operations of the fast layers
        model, tokenizer = load_classifier(plain)
        texts = _validation_texts(config, data)
        return litert_classifier.export_classifier(
            model, tokenizer, config, run.labels, run.calibration, texts, folder, int8_only=int8_only
        )
    _check_direction(run)
    language_model, tokenizer = load_language_model(run)
    texts = _validation_texts(config, data)
    if answers == "characters":
        return litert_language_model.export_characters(
            language_model, tokenizer, config, texts, folder, int8_only=int8_only
        )
    ngrams = _ngrams(run, data, language_model, tokenizer, ngram_megabytes) if ngram_megabytes else None
    return litert_language_model.export_next_word(
        language_model, tokenizer, config, run.metrics, texts, folder, int8_only=int8_only, ngrams=ngrams
    )


def _ngrams(run: Run, data: DataConfig, model: LanguageModel, tokenizer: Tokenizer, megabytes: float) -> ExportedNGrams:
    """The n-gram model of the run's training text. If that cannot be read, the message says why it is needed."""
    litert.word_settings(tokenizer)  # whether the words can be exported at all
    try:
        corpus = corpus_with(dataclasses.replace(run.config, data=data), "validation", also=("train",))
    except ConfigError as error:
        raise ConfigError(
            f"--ngrams (ngram_megabytes) is {megabytes:g}, which needs the training text: {error}; if the data "
            "are elsewhere now, give data.* settings as for evaluate"
        ) from None
    train, validation = (datasets.prepare_stream(corpus, name, data, tokenizer) for name in ("train", "validation"))
    return ngrams_within(int(megabytes * 1e6), model, train, validation)


def _validation_texts(config: Config, data: DataConfig) -> list[str]:
    """Some texts of the validation split, evenly spaced.

    Raises:
      ConfigError: if they cannot be read; the message says why they are needed.
    """
    try:
        corpus = corpus_with(dataclasses.replace(config, data=data), "validation")
    except ConfigError as error:
        raise ConfigError(
            f"--format is litert, whose files are checked on validation texts: {error}; if the data are elsewhere now, "
            "give data.* settings as for evaluate"
        ) from None
    step = max(corpus.facts["validation"].num_examples // _NUM_TEXTS, 1)
    examples = itertools.islice(corpus.examples("validation"), 0, step * _NUM_TEXTS, step)
    return [example.text[:_MAX_CHARACTERS] for example in examples]
