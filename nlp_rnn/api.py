"""The Python API: load a model and use it, or train one.

    import nlp_rnn

    classify = nlp_rnn.load("saved_models/sentiment")
    classify("What a film!")                                # Prediction(label='pos', probability=0.54)

    run = nlp_rnn.train("configs/sentiment_demo.yaml", {"training.epochs": 2, "name": "short"})
    run.evaluate("test").metrics["accuracy"]

`import nlp_rnn` imports neither TensorFlow nor Keras; `load` and `train` do where they need them. The command line uses
this module too.
"""

import itertools
import math
import operator
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from nlp_rnn import extras, files
from nlp_rnn.config.loading import load_config, load_saved_config
from nlp_rnn.config.rules import broken_rules
from nlp_rnn.config.settings import Config
from nlp_rnn.config.tables import TASKS, Answers, resolve
from nlp_rnn.data.labels import without_surrogates
from nlp_rnn.decoding.settings import GenerationSettings, SearchSettings
from nlp_rnn.errors import ConfigError
from nlp_rnn.layers.masking import IMPOSSIBLE
from nlp_rnn.results import (
    Attributions,
    Evaluation,
    Generation,
    LabelSet,
    Prediction,
    Suggestion,
    TextScore,
    Tokens,
    Translation,
)

if TYPE_CHECKING:
    from nlp_rnn.training.recipes import Trained

Text = str | bytes
TextList = list[str] | list[bytes] | tuple[Text, ...]
Answer = TypeVar("Answer", Prediction, LabelSet)


# --- models -----------------------------------------------------------------------------------------------------------


class Model:
    """A loaded model; see its subclasses.

    Attributes:
      config: the settings it was trained with.
      path: the folder it was loaded from.
      labels: class names of a classifier; otherwise empty.

    Of a model on a server, `path` is its URL, and `config` is None.
    """

    def __init__(self, signatures: Any, config: Any, path: Path | str, labels: list[str], calls: Any = None) -> None:
        self._signatures, self.config, self.path, self.labels = signatures, config, path, labels
        self._calls = calls or _Local(signatures, config)

    @property
    def signatures(self) -> Any:
        """The model's TensorFlow functions, such as `signatures.tokenize(text)`.

        Raises:
          ConfigError: if the model is on a server, or a LiteRT export.
        """
        if self._signatures is None:
            if isinstance(self.path, Path):
                raise ConfigError(f"the model is {self.path}, a LiteRT export; this needs the SavedModel")
            raise ConfigError(f"the model is {self.path}, on a server; this needs a model in a folder")
        return self._signatures

    def tokenize(self, text: Text) -> Tokens:
        """Splits a text into pieces and ids."""
        answer = {name: values[0] for name, values in self._calls.answer("tokenize", [_bytes(text)]).items()}
        return Tokens(
            [piece.decode("utf-8") for piece in answer["tokens"]],
            answer["token_ids"].tolist(),
            answer["text"].decode("utf-8"),
        )


class _Labeller(Model, Generic[Answer]):
    """Labels texts."""

    @overload  # a str is an iterable too, of characters
    def __call__(self, texts: str, batch_size: int = 64) -> Answer: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, texts: bytes, batch_size: int = 64) -> Answer: ...
    @overload
    def __call__(self, texts: TextList, batch_size: int = 64) -> list[Answer]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, texts: Iterable[Text], batch_size: int = 64) -> Iterator[Answer]: ...
    def __call__(self, texts: Any, batch_size: int = 64) -> Any:
        """Classifies texts.

        Returns:
          the answer for one text; a list for a list; an iterator for another iterable, which is read as needed.
        """
        if isinstance(texts, Text):
            return self._classify([_bytes(texts)])[0]
        predictions = (each for batch in _batches(texts, batch_size) for each in self._classify(batch))
        return list(predictions) if isinstance(texts, list | tuple) else predictions

    def explain(self, text: Text) -> Attributions:
        """Attributes the answer to tokens, by integrated gradients (Sundararajan et al. 2017).

        The answer is the predicted label, the most likely label of a label set, or a score.
        """
        from nlp_rnn.visualization.attributions import attribution_of

        answer, facts = (
            {name: values[0] for name, values in self._calls.answer(function, [_bytes(text)]).items()}
            for function in ("classify", "explain")
        )
        result = attribution_of(answer, facts)
        return Attributions(result.label, result.probability, result.tokens, result.scores)

    def _classify(self, texts: list[bytes]) -> list[Answer]:
        raise NotImplementedError


class TextClassifier(_Labeller[Prediction]):
    """Gives texts one label each."""

    def _classify(self, texts: list[bytes]) -> list[Prediction]:
        answer = self._calls.answer("classify", texts)
        predictions = []
        for number, (name, row) in enumerate(zip(answer["label"], answer["probabilities"], strict=True)):
            label, probabilities = name.decode("utf-8"), dict(zip(self.labels, map(float, row), strict=True))
            score = float(answer["score"][number]) if "score" in answer else None
            predictions.append(Prediction(label, probabilities[label], probabilities, score))
        return predictions


class LabelSetClassifier(_Labeller[LabelSet]):
    """Gives texts any number of labels."""

    def _classify(self, texts: list[bytes]) -> list[LabelSet]:
        answer = self._calls.answer("classify", texts)
        label_sets = []
        for row, is_chosen in zip(answer["probabilities"], answer["chosen"], strict=True):
            order = [number for number in (-row).argsort(kind="stable") if is_chosen[number]]
            probabilities = dict(zip(self.labels, map(float, row), strict=True))
            label_sets.append(LabelSet([self.labels[number] for number in order], probabilities))
        return label_sets


class _LanguageModel(Model):
    """Tells how likely a text is."""

    def score(self, text: Text) -> TextScore:
        """Scores a text from its beginning to its end.

        Raises:
          ConfigError: of an export that has no signature `score`.
        """
        answer = self._calls.answer("score", [_bytes(text)])
        tokens = [token.decode("utf-8", "replace") for token in answer["tokens"][0]]
        return TextScore(tokens, list(map(float, answer["log_probabilities"][0])))


class NextWordModel(_LanguageModel):
    """Suggests next words, and completions of the current word."""

    def suggest(self, text: Text, count: int = 5, allow_profanity: bool = False) -> list[Suggestion]:
        """Suggests next words after a text that ends in a space, else completions of its last word.

        Args:
          count: of words, 1 to 100.

        Raises:
          ConfigError: if it is another number.
        """
        return next(self.suggest_all([text], count, allow_profanity))

    def suggest_all(
        self, texts: Iterable[Text], count: int = 5, allow_profanity: bool = False
    ) -> Iterator[list[Suggestion]]:
        """Calls `suggest` for each text. The texts are read as needed."""
        _check_whole("count", count, 1, 100)
        for batch in _batches(texts, 64):
            answer = self._calls.answer("suggest", batch, count=count, allow_profanity=allow_profanity)
            for words, probabilities in zip(answer["words"], answer["probabilities"], strict=True):
                pairs = zip(words, probabilities, strict=True)
                yield [Suggestion(word.decode("utf-8"), float(share)) for word, share in pairs if word]


class CharacterModel(_LanguageModel):
    """Continues a prompt, character by character."""

    def generate(self, prompt: Text, **settings: Any) -> Generation:
        """Continues a prompt.

        Args:
          settings: those of `GenerationSettings`: max_length, min_length, temperature, top_k, top_p,
            repetition_penalty, seed, stop.

        Raises:
          ConfigError: if a setting is out of its range.
        """
        return next(self.generate_all([prompt], **settings))

    def generate_all(self, prompts: Iterable[Text], **settings: Any) -> Iterator[Generation]:
        """Calls `generate` for each prompt. Each result is the same as alone."""
        checked = asdict(GenerationSettings.checked(**settings))
        for batch in _batches(prompts, 16):
            yield from (Generation(**facts) for facts in self._calls.generate(batch, checked))

    def stream(self, prompt: Text, **settings: Any) -> Iterator[str]:
        """Yields the text of `generate` piece by piece, while it is generated."""
        return self._calls.stream(_bytes(prompt), asdict(GenerationSettings.checked(**settings)))


class TranslationModel(Model):
    """Translates sentences."""

    @overload
    def translate(self, texts: Text, **settings: Any) -> Translation: ...
    @overload
    def translate(self, texts: Iterable[Text], **settings: Any) -> list[Translation]: ...
    def translate(self, texts: Any, **settings: Any) -> Any:
        """Translates one sentence, or each sentence of an iterable.

        Args:
          settings: those of `SearchSettings`: beam_size, length_penalty, coverage_penalty, min_length, max_length,
            min_ratio, max_ratio, no_repeat_ngram, prefix.

        Returns:
          the best translation of each sentence; an empty one with the score -inf if the settings leave none.

        Raises:
          ConfigError: if a setting is out of its range.
        """
        if "n_best" in settings:
            raise ConfigError("n_best is not a setting of translate, which gives the best only; use translate_all")
        if isinstance(texts, Text):
            return self.translate([texts], **settings)[0]
        nothing = Translation("", -math.inf)
        return [next(iter(best), nothing) for best in self.translate_all(texts, **settings)]

    def translate_all(self, texts: Iterable[Text], n_best: int = 1, **settings: Any) -> Iterator[list[Translation]]:
        """Yields the `n_best` translations of each sentence, the best first; fewer if the settings leave fewer."""
        _check_whole("n_best", n_best, 1, 100)
        search = SearchSettings.checked(**settings)
        for batch in _batches(texts, 32):
            answer = self._calls.translate(batch, asdict(search), n_best)
            for row, scores in zip(answer["translations"], answer["scores"], strict=True):
                pairs = list(zip(row, scores, strict=True))[:n_best]
                yield [Translation(text.decode("utf-8"), float(score)) for text, score in pairs if score > IMPOSSIBLE]


class _Local:
    """Calls the functions of a model in this process. `serving.client.Connection` does the same on a server."""

    def __init__(self, signatures: Any, config: Config) -> None:
        self._signatures, self._config = signatures, config

    def answer(self, function: str, texts: list[bytes], **settings: Any) -> dict[str, Any]:
        """The outputs of a function as arrays, with the same settings for all texts."""
        import tensorflow as tf

        columns = {name: tf.fill([len(texts)], value) for name, value in settings.items()}
        called = getattr(self._signatures, function, None)
        if called is None:
            raise ConfigError(f"the model has no signature {function}: an earlier version exported it; export it again")
        answer = called(_strings(texts), **columns)
        return {name: value.numpy() for name, value in answer.items()}

    def generate(self, prompts: list[bytes], settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Prompt, text and log_probability of each prompt."""
        from nlp_rnn.export import generation_client

        generation_client.warn_of_unknown_characters(self._signatures, prompts)
        return generation_client.write(self._signatures, prompts, settings)

    def stream(self, prompt: bytes, settings: dict[str, Any]) -> Iterator[str]:
        """A text piece by piece."""
        from nlp_rnn.export import generation_client

        generation_client.warn_of_unknown_characters(self._signatures, [prompt])
        return generation_client.stream(self._signatures, prompt, settings)

    def translate(self, texts: list[bytes], settings: dict[str, Any], n_best: int) -> dict[str, Any]:
        """The outputs of `translate` as arrays."""
        from nlp_rnn.export.translation import search_tensors, warn_of_long_texts

        warn_of_long_texts(self._signatures, self._config.data.max_length, texts)
        tensors = search_tensors(SearchSettings(**settings), len(texts), n_best, self._signatures)
        return {name: value.numpy() for name, value in self._signatures.translate(_strings(texts), **tensors).items()}


_MODELS: dict[Answers, type[Model]] = {
    "labels": TextClassifier,
    "words": NextWordModel,
    "characters": CharacterModel,
    "translations": TranslationModel,
}


def _class_of(task: str, has_label_sets: bool) -> type[Model]:
    return LabelSetClassifier if has_label_sets else _MODELS[TASKS[task].answers]


def load(model: str | os.PathLike[str], task: str | None = None) -> Any:
    """Loads a model.

    Args:
      model: a SavedModel's folder, or the folder of its versions; a run directory; the name of a model under
        NLP_RNN_MODELS, ./saved_models or the checkout's saved_models; "hf://owner/name", optionally with @revision,
        from a model hub; "http://host:8501/name", a model of `nlp-rnn serve`; or the folder of a LiteRT export, whose
        int8 file is used. The last two do not need TensorFlow.
      task: the task that the model must have; None allows any.

    Returns:
      a TextClassifier, LabelSetClassifier, NextWordModel, CharacterModel or TranslationModel.

    Raises:
      ConfigError: if there is no such model, it does not load, or it is of another task.
    """
    if re.match("https?://", os.fspath(model)):
        from nlp_rnn.serving.client import Connection

        connection = Connection(os.fspath(model), task)
        kind = _class_of(connection.task, connection.has_label_sets)
        return kind(None, None, connection.url, connection.labels, connection)
    from nlp_rnn.tensorflow_import import import_tensorflow

    path = find_model(model)
    if (on_device := _load_ondevice(path, task)) is not None:
        return on_device
    import_tensorflow()
    if (path / "tokenizer").is_dir():
        return Run.open(path, task).load()
    from nlp_rnn.export import saved_model

    exported = saved_model.load_model(path, task)
    return _class_of(exported.config.task, exported.config.data.multi_label)(
        exported.loaded, exported.config, exported.path, exported.labels
    )


def _load_ondevice(path: Path, task: str | None) -> Model | None:
    """The model of a LiteRT export; None if the folder is none."""
    from nlp_rnn.ondevice import litert_file

    kinds = {
        "labels": "classifier:OnDeviceClassifier", "words": "suggester:OnDeviceSuggester",
        "characters": "generator:OnDeviceGenerator",
    }  # fmt: skip
    if not litert_file.is_ondevice(path):
        return None
    folder = litert_file.find(path)
    kind = litert_file.kind_of(litert_file.read_settings(folder))
    if kind not in kinds:
        raise ConfigError(f"the model is {path}, a LiteRT export of an unknown kind, {kind!r}; export it again")
    config = load_saved_config(folder / "config.yaml", task)
    calls = resolve(f"nlp_rnn.ondevice.{kinds[kind]}")(folder)
    return _class_of(config.task, config.data.multi_label)(None, config, folder, getattr(calls, "labels", []), calls)


def find_model(model: str | os.PathLike[str]) -> Path:
    """Finds the folder that `load` loads. Downloads a hub's model first."""
    name = os.fspath(model)
    if name.startswith("hf://"):
        from nlp_rnn.hub import download

        return download(name)
    files.check_path("the model", name)
    if os.path.exists(name):
        return Path(name)
    folders = _model_folders()
    if re.fullmatch(r"[\w.-]+", name):
        for folder in folders:
            if (folder / name).is_dir():
                return folder / name
    there = _models_there()
    known = (
        f"models there: {', '.join(there)}"
        if there
        else "there are none yet: train and export one, as make demo does, or set NLP_RNN_MODELS"
    )
    raise ConfigError(
        f"the model is {name}, but there is no such folder, nor one in {', '.join(map(str, folders))}; {known}"
    )


def default_model(task: str, ending: str = "") -> str:
    """The name of the model that a command uses without --model: the task's, or the only translator.

    Args:
      ending: of the name, such as "_litert".

    Raises:
      ConfigError: if there are several translators.
    """
    if TASKS[task].answers != "translations":
        return task + ending
    names = [name for name in _models_there() if name.startswith(f"{task}_")]
    if len(names) > 1:
        raise ConfigError(f"--model is not given, and there are several for {task}; give one of {', '.join(names)}")
    return names[0] if names else task


def _model_folders() -> list[Path]:
    given = [Path(os.environ[key]) for key in ("NLP_RNN_MODELS",) if os.environ.get(key)]
    return [*given, Path("saved_models"), Path(__file__).parent.parent / "saved_models"]


def _models_there() -> list[str]:
    folders = [folder for folder in _model_folders() if folder.is_dir()]
    return sorted({entry.name for folder in folders for entry in files.entries(folder) if entry.is_dir()})


# --- training ---------------------------------------------------------------------------------------------------------


class Run:
    """A training in its run directory.

    Attributes:
      path: the run directory.
      config: the settings.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.path, self.config = path, config

    @classmethod
    def open(cls, path: str | os.PathLike[str], task: str | None = None) -> "Run":
        """Opens a run directory that `train` wrote.

        Raises:
          ConfigError: if it is not a run directory, or of another task.
        """
        from nlp_rnn.training.run_directory import load_run

        directory = load_run(Path(path), task)
        return cls(directory.path, directory.config)

    @property
    def metrics(self) -> dict[str, Any]:
        """The figures measured so far: `training`, and each evaluated split."""
        return self._directory.metrics

    def load(self) -> Any:
        """Loads the model with the run's best weights, like `nlp_rnn.load`."""
        from nlp_rnn.evaluation import run_model

        module = run_model.load_module([self._directory])
        labels = self._directory.labels if self.config.kind == "classifier" else []
        return _class_of(self.config.task, self.config.data.multi_label)(module, self.config, self.path, labels)

    def evaluate(self, split: str = "validation", **options: Any) -> Evaluation:
        """Scores the best weights on a split; adds the figures to metrics.json.

        Args:
          split: "validation" or "test".
          options: baseline=True (sentiment, next_word) also trains and scores the baseline; min_probability (sentiment)
            also tells how many answers have that probability; adapt="cache" or "dynamic" (next_word) also scores
            the model while it learns from the text, max_examples=1000 only the first 1,000 texts; temperature, seed
            (char_generation); beam_size, length_penalty (translation).
        """
        from nlp_rnn.evaluation import of_task

        return Evaluation(split, *of_task.evaluate(self._directory, split, **options))

    def export(
        self, to: str | os.PathLike[str] = "saved_models", format: str = "savedmodel", weights: str = "float32",
        ngram_megabytes: float = 0.0,
    ) -> Path:  # fmt: skip
        """Writes the best weights as the next version under `to`; returns its folder.

        Args:
          format: "savedmodel"; or "litert", for phones (not translation), checked on the run's validation texts.
          weights: "float32"; or "int8": a quarter of the space on disk; or "int4": of embeddings an eighth.
          ngram_megabytes: of "litert" for next words: adds an n-gram model of at most that size; 0: none.
        """
        from nlp_rnn.evaluation import run_model

        return run_model.export_runs(
            [self._directory], Path(to), format=format, weights=weights, ngram_megabytes=ngram_megabytes
        ).path

    @property
    def _directory(self) -> Any:
        from nlp_rnn.training import run_directory

        return run_directory.Run(self.path, self.config)


def train(
    config: str | os.PathLike[str] | Config, settings: Mapping[str, Any] | None = None, task: str | None = None
) -> Run:
    """Trains a model, or resumes the unfinished run of the same settings.

    Args:
      config: a YAML file, or a Config.
      settings: "section.key": value, which override the file's.
      task: the task that the config must have; None allows any.

    Returns:
      the finished run.

    Raises:
      ConfigError: for mistakes in settings or data, one line each.
      nlp_rnn.Stopped: on Ctrl-C or SIGTERM, after saving.
    """
    config = _checked_config(config, settings, task)
    return Run(run_training(config).run.path, config)


@dataclass(frozen=True)
class Trial:
    """One trial of a search.

    Attributes:
      number: from 0; the first one has the config's own settings.
      state: "complete"; "pruned": ended early, since it was worse than the others at the same epoch; "too large";
        "failed"; "stopped": the next call continues it.
      settings: "section.key" -> value of each searched setting.
      value: the best value of training.monitor on the validation split; None if no epoch was validated.
      megabytes: size of the exported weights in millions of bytes; None before they were counted.
      reason: why a failed trial failed; otherwise "".
    """

    number: int
    state: str
    settings: dict[str, Any]
    value: float | None
    megabytes: float | None
    reason: str


@dataclass(frozen=True)
class Tuning:
    """The result of `tune`.

    Attributes:
      path: the folder of the study.
      config: the best config.
      config_file: YAML file of the best config.
      picture: a PNG of the trials.
      best: the trial of `config`.
      trials: all trials of the study, in order.
    """

    path: Path
    config: Config = field(repr=False)
    config_file: Path
    picture: Path
    best: Trial
    trials: list[Trial] = field(repr=False)


def tune(
    config: str | os.PathLike[str] | Config | None = None, settings: Mapping[str, Any] | None = None,
    task: str | None = None, *,
    minutes: float, max_megabytes: float | None = None, max_trials: int | None = None,
) -> Tuning:  # fmt: skip
    """Searches for better settings with trials that are compared on the validation split. The test split is not read.

    The study is kept in the folder runs_dir/NAME-tune. The same call continues it.

    Args:
      config: a YAML file or a Config, which the first trial uses; None: the task's defaults.
      settings: "section.key" -> value; they override those of the config and keep their value in all trials.
      task: the task that the config must have; None: any task.
      minutes: wall-clock time from now, in minutes.
      max_megabytes: largest size of the SavedModel's weights in millions of bytes; larger models are not trained. None:
        no limit.
      max_trials: largest number of trials in the study; None: no limit.

    Returns:
      the best config and all trials.

    Raises:
      ConfigError: if a setting or the data are wrong (one line per mistake), or no trial reached a validation.
      nlp_rnn.Stopped: on Ctrl-C or SIGTERM, after saving.
    """
    for name, limit in (("minutes", minutes), ("max_megabytes", max_megabytes), ("max_trials", max_trials)):
        if limit is not None and not limit > 0:
            raise ConfigError(f"{name} is {limit}, but must be more than 0")
    checked, fixed = _checked_config(config, settings, task), set(settings or ())
    return run_tuning(checked, fixed, minutes=minutes, max_megabytes=max_megabytes, max_trials=max_trials)


def run_tuning(
    config: Config, fixed: Collection[str], *, minutes: float, max_megabytes: float | None, max_trials: int | None
) -> Tuning:
    """Does what `tune` does.

    Args:
      config: a checked config.
      fixed: keys of settings that are not searched.
      minutes, max_megabytes, max_trials: see `tune`.

    Raises:
      ConfigError: see `tune`; also if the extra `tune` is not installed.
    """
    deadline = time.monotonic() + 60 * minutes
    extras.require("tune", "tune searches settings")
    from nlp_rnn.training import study, tuning

    tuned = tuning.tune(config, study.Limits(deadline, max_megabytes, max_trials), fixed)
    trials = [Trial(**asdict(record)) for record in tuned.records]
    best = next(trial for trial in trials if trial.number == tuned.best.number)
    return Tuning(tuned.folder, tuned.config, tuned.config_file, tuned.picture, best, trials)


def _checked_config(
    config: str | os.PathLike[str] | Config | None, settings: Mapping[str, Any] | None, task: str | None
) -> Config:
    if not isinstance(config, Config):
        return load_config(config, settings, task=task)
    if settings:
        raise ConfigError("settings are given in addition to a Config; put them into it, or give the path of a file")
    if mistakes := broken_rules(config, task):
        raise ConfigError("\n".join(text for _, text in mistakes))
    return config if config.name else replace(config, name=config.task)


def run_training(config: Config) -> "Trained":
    """Does what `train` does, and returns more of the result."""
    from nlp_rnn.training.recipes import train_run

    trained = train_run(config)
    if trained.probabilities is not None and trained.calibration is not None:
        from nlp_rnn.evaluation.classifier_report import score

        targets, labels, outputs = trained.inputs.validation.labels, trained.inputs.labels, config.data.outputs
        trained.run.write_metrics(
            validation=score(trained.probabilities, targets, labels, outputs, trained.calibration)
        )
    return trained


# --- texts ------------------------------------------------------------------------------------------------------------


def _bytes(text: Text) -> bytes:
    if isinstance(text, bytes):
        return text
    if isinstance(text, str):
        try:
            return text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # unpaired surrogates, as in JSON
            return without_surrogates(text).encode("utf-8")
    raise TypeError(f"a text is a str or bytes, not a {type(text).__name__}")


def _strings(texts: Iterable[Text]) -> Any:
    import tensorflow as tf

    return tf.constant([_bytes(text) for text in texts], tf.string)


def _check_whole(name: str, value: Any, low: int, high: int) -> None:
    """Checks that a number is whole and in a range."""
    try:
        is_allowed = low <= operator.index(value) <= high
    except TypeError:
        is_allowed = False
    if not is_allowed:
        raise ConfigError(f"{name} is {value!r}, but must be a whole number from {low} to {high}")


def _batches(texts: Iterable[Text], size: int) -> Iterator[list[bytes]]:
    if isinstance(texts, Text):
        raise TypeError(f"the texts are one {type(texts).__name__}; give a list of texts")
    _check_whole("batch_size", size, 1, 1_000_000)
    stream = (_bytes(text) for text in texts)
    return iter(lambda: list(itertools.islice(stream, size)), [])
