"""Settings: frozen dataclasses, filled from YAML and `section.key=value` overrides.

Order: dataclass default < the task's own defaults < YAML file < command line. Every mistake is reported at once, and nothing here
imports TensorFlow, so that a misspelt key costs milliseconds.
"""

import dataclasses
import difflib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config


class ConfigError(ValueError):
    """A mistake of the user's: the setting, its value, what is allowed and the next step, one line a mistake."""


PositiveInt = Annotated[int, Field(strict=True, gt=0)]
NonNegativeInt = Annotated[int, Field(strict=True, ge=0)]
PositiveFloat = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(strict=True, ge=0, lt=1)]
Switch = Annotated[bool, Field(strict=True)]

Task = Literal["sentiment", "next_word", "char_generation"]
SourceName = Literal["imdb", "movie_reviews", "wikitext2", "tiny_shakespeare", "csv", "tsv", "jsonl", "folders", "text", "documents"]
CellName = Literal["simple_rnn", "lstm", "gru", "min_gru", "min_lstm"]
PoolingName = Literal["last", "max", "mean", "attention"]
SoftmaxName = Literal["full", "sampled", "adaptive"]

_section = with_config(ConfigDict(extra="forbid"))


@_section
@dataclass(frozen=True)
class DataConfig:
    """Where the examples come from and how they are split."""

    source: SourceName = "imdb"
    # Folder of prepared data sets (TFDS below it, or below its folder tfds); empty: the environment's NLP_RNN_DATA.
    dir: str = ""
    # The user's own files, for the sources csv, tsv, jsonl, text (a file, or one with .gz), folders (a folder) and
    # documents (either).
    train: str = ""
    validation: str = ""
    test: str = ""
    text_column: str = "text"
    label_column: str = "label"  # empty: labels are not read
    patterns: tuple[str, ...] = ("*",)  # names of the files that the source documents reads from a folder, such as ["*.py"]
    # How splits that were not given are taken from train. "hash": by a seeded hash of the text, so that equal texts
    # stay together. "blocks": runs of `block_size` rows, for files where related rows stand next to each other.
    # "contiguous": the text in order, its beginning for train, then validation, its end for test, cut between two characters.
    split: Literal["hash", "blocks", "contiguous"] = "hash"
    block_size: PositiveInt = 250
    validation_fraction: Fraction = 0.1
    test_fraction: Fraction = 0.0
    # Whether a text that stands in two splits is taken out of the one that trains. Off where splits are published.
    remove_repeated: Switch = True
    # Longest text in tokens; of a longer one, `keep` says which part stays ("both": half of it from either end).
    max_length: PositiveInt = 512
    keep: Literal["start", "end", "both"] = "both"
    # Token ids are computed once and kept here; empty: the environment's NLP_RNN_CACHE, else ~/.cache/nlp-rnn.
    cache_dir: str = ""


@_section
@dataclass(frozen=True)
class TokenizerConfig:
    """How text becomes ids. The normalisation is computed in the graph, in training and in exported models alike."""

    level: Literal["word", "char", "subword"] = "word"  # subword: SentencePiece's unigram pieces, with bytes
    vocab_size: PositiveInt = 20000  # special pieces and hash buckets included
    min_count: PositiveInt = 2  # words and characters seen less often in training are unknown
    # A vocabulary of one's own instead of training one: a file with a piece a line, or a sentencepiece .model (subword).
    vocabulary: str = ""
    # Case: "lower" (Unicode), "keep", or for words "markers": lower case with <title> or <upper> before the word.
    case: Literal["lower", "keep", "markers"] = "lower"
    nfkc: Switch = False  # Unicode normal form KC: full-width letters, ligatures and the like become plain ones
    html_breaks: Switch = True  # <br /> is white space (not at level char)
    # Of words; treebank: the Penn Treebank's rules for English; whitespace: text that is split already.
    splitter: Literal["unicode", "treebank", "whitespace"] = "unicode"
    oov_buckets: NonNegativeInt = 0  # ids that unknown words share by their hash, instead of the one of <unk>
    reserved: tuple[str, ...] = ()  # symbols with an id of their own that are never split, such as "<sep>"
    # Temperature at which training draws other segmentations than the best (subword regularisation); 0: never. 5 to 10
    # is usual: sentencepiece's alpha 0.2 to 0.1.
    sampling: NonNegativeFloat = 0.0


@_section
@dataclass(frozen=True)
class ModelConfig:
    """The recurrent model."""

    cell: CellName = "lstm"
    embedding_dim: PositiveInt = 128
    units: PositiveInt = 128
    num_layers: PositiveInt = 1
    is_bidirectional: Switch = True
    is_residual: Switch = False
    layer_norm: Switch = False
    pooling: tuple[PoolingName, ...] = ("last", "max", "mean")
    # Whole words of the input: of a classifier each occurrence, of a language model all occurrences in a batch at once.
    word_dropout: Fraction = 0.0
    embedding_dropout: Fraction = 0.0  # embedding dimensions, the same ones at every time step
    dropout: Fraction = 0.2  # between layers (the same dimensions at every time step) and before the output
    recurrent_dropout: Fraction = 0.0  # on the state
    weight_dropout: Fraction = 0.0  # on the recurrent matrix (DropConnect), once a batch
    # Our own loop over time, for lstm and gru on a CPU: "auto" where it is faster, "on", or "off" for Keras's.
    fast: Literal["auto", "on", "off"] = "auto"
    # The output of a language model. Tied: its table is the embedding's, and the last layer has embedding_dim units.
    tie_embeddings: Switch = True
    softmax: SoftmaxName = "full"  # in training; evaluation is exact. sampled, adaptive: for vocabularies of 10,000 and more
    num_sampled: PositiveInt = 4096  # of softmax sampled: words drawn a batch
    cutoffs: tuple[PositiveInt, ...] = ()  # of softmax adaptive: where the clusters of rarer words begin, such as [2000, 10000]


@_section
@dataclass(frozen=True)
class TrainingConfig:
    """How the model is trained."""

    batch_size: PositiveInt = 64
    epochs: PositiveInt = 10
    max_steps_per_epoch: NonNegativeInt = 0  # 0: the whole training set; language models read on in the next epoch
    # lazy_adam leaves the rows of the embedding alone that a batch does not touch: faster for large vocabularies, not equal.
    optimizer: Literal["adam", "adamw", "lazy_adam", "sgd"] = "adam"
    learning_rate: PositiveFloat = 1e-3
    schedule: Literal["constant", "cosine", "one_cycle"] = "one_cycle"
    warmup_fraction: Fraction = 0.1  # of all steps
    weight_decay: NonNegativeFloat = 0.0  # adamw only
    clip_norm: NonNegativeFloat = 1.0  # global norm of the gradient; 0: not clipped
    ema_momentum: Fraction = 0.0  # evaluate, keep and export the moving average of the weights; 0: the weights
    # Of language models: time steps of back-propagation (the state is carried on from window to window), and whether
    # each window's length is drawn around it (Merity et al. 2018, section 4.1), so that the cuts move.
    window: PositiveInt = 35
    random_window: Switch = True
    # Weights of the mean square of the last layer's outputs, and of their change from step to step (Merity et al. 2017).
    activation_regularization: NonNegativeFloat = 0.0
    temporal_regularization: NonNegativeFloat = 0.0
    monitor: Literal["val_accuracy", "val_cross_entropy"] = "val_cross_entropy"
    patience: NonNegativeInt = 3  # epochs without improvement before training stops; 0: never
    checkpoint_seconds: PositiveInt = 120  # also saved at the end of every epoch
    tensorboard: Switch = False  # needs the extra `tensorboard`


@_section
@dataclass(frozen=True)
class HardwareConfig:
    """What the model runs on."""

    mixed_precision: Literal["off", "float16", "bfloat16"] = "off"
    is_deterministic: Switch = True  # TensorFlow's deterministic kernels: the same seed gives the same weights


@_section
@dataclass(frozen=True)
class Config:
    """Everything that makes a run repeatable. Saved, resolved, with every run and every exported model."""

    task: Task = "sentiment"
    name: str = ""  # of the run directory; empty: the config file's name, else the task
    runs_dir: str = "runs"
    seed: NonNegativeInt = 1
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)


# What a task's settings are where neither file nor command line says.
TASK_DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    "sentiment": {},
    "next_word": {"data": {"split": "blocks", "label_column": ""}, "model": {"is_bidirectional": False}},
    "char_generation": {
        "data": {"source": "tiny_shakespeare", "split": "contiguous", "label_column": ""},
        "tokenizer": {"level": "char", "case": "keep"},
        "model": {"is_bidirectional": False, "tie_embeddings": False},
    },
}


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, with the numbers people write (3e-4) and without `no` and `on` as booleans."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in ("tag:yaml.org,2002:float", "tag:yaml.org,2002:bool")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?$|^[-+]?\.(?:inf|Inf)$|^\.(?:nan|NaN)$"),
    list("-+0123456789."),
)


def load_config(path: str | os.PathLike[str] | None, overrides: list[str] | None = None, *, task: str | None = None) -> Config:
    """Reads a YAML file and command-line overrides into a checked Config.

    Args:
      path: a YAML file, or None for the defaults.
      overrides: `section.key=value` texts; values are read as YAML.
      task: the task of the command that asks; a config of another task is refused.

    Raises:
      ConfigError: naming every mistake, one a line.
    """
    origin = str(path) if path is not None else "defaults"
    tree = _read_yaml(Path(path)) if path is not None else {}
    origins: dict[str, str] = {}
    mistakes: list[str] = []
    for override in overrides or []:
        _apply_override(tree, override, origins, mistakes)
    if path is None and task is not None:
        tree.setdefault("task", task)
    config, found = _validate(_with_task_defaults(tree), origin, origins)
    mistakes += found
    if config is not None and not mistakes:
        mistakes += _check(config, origin, task, origins)
    if mistakes or config is None:
        raise ConfigError("\n".join(mistakes))
    if not config.name:
        config = dataclasses.replace(config, name=Path(path).stem if path is not None else config.task)
    return config


def to_yaml(config: Config) -> str:
    """The resolved config as YAML that `load_config` reads back to an equal Config."""
    tree = dataclasses.asdict(config)
    for section, key in (("data", "patterns"), ("model", "pooling"), ("model", "cutoffs"), ("tokenizer", "reserved")):
        tree[section][key] = list(tree[section][key])
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def differences(first: Config, second: Config) -> list[str]:
    """The settings that make two configs different runs; folders that only say where things lie do not."""
    ignored = {"runs_dir", "data.dir", "data.cache_dir", "training.checkpoint_seconds", "training.tensorboard"}
    left, right = _flatten(dataclasses.asdict(first)), _flatten(dataclasses.asdict(second))
    return [f"{key} is {right[key]!r} and was {left[key]!r}" for key in left if key not in ignored and left[key] != right[key]]


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(str(path), [str(p) for p in path.parent.glob("*.yaml")], n=1)
        hint = f"did you mean {near[0]}?" if near else "give the path of a YAML file, such as configs/sentiment.yaml"
        raise ConfigError(f"--config is {path}, but there is no such file; {hint}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"--config is {path}, but it cannot be read ({error.strerror}); give a readable YAML file") from None
    try:
        tree = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with other number patterns
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{path}: {place}not readable as YAML ({getattr(error, 'problem', None) or error}); mend that line") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds a {type(tree).__name__}, but a config is sections of `key: value`; see configs/sentiment.yaml")
    return tree


def _apply_override(tree: dict[str, Any], override: str, origins: dict[str, str], mistakes: list[str]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"\w+(\.\w+)*", key):
        mistakes.append(f"command line: {override!r} is not of the form section.key=value, such as training.epochs=5")
        return
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506
    except yaml.YAMLError:
        value = text
    if key in TEXT_SETTINGS:
        value = text
    elif value is None:
        value = ""
    *sections, name = key.split(".")
    for section in sections:
        child = tree.setdefault(section, {})
        if not isinstance(child, dict):
            mistakes.append(f"command line: {key} is not a setting; {section} is not a section")
            return
        tree = child
    tree[name] = value
    origins[key] = "command line"


def _with_task_defaults(tree: dict[str, Any]) -> dict[str, Any]:
    defaults = TASK_DEFAULTS.get(tree.get("task", Config.task), {})
    whole = dict(tree)
    for section, settings in defaults.items():
        given = whole.get(section, {})
        whole[section] = settings | given if isinstance(given, dict) else given
    return whole


def _validate(tree: dict[str, Any], origin: str, origins: dict[str, str]) -> tuple[Config | None, list[str]]:
    try:
        return TypeAdapter(Config).validate_python(tree), []
    except ValidationError as errors:
        mistakes = []
        for error in errors.errors():
            key = ".".join(str(part) for part in error["loc"])
            mistakes.append(f"{_origin_of(key, origin, origins)}: {_explain(key, error)}")
        return None, list(dict.fromkeys(mistakes))


def _origin_of(key: str, origin: str, origins: dict[str, str]) -> str:
    """Where a setting was given, or, of a section, one of its settings."""
    inside = [place for name, place in origins.items() if name.startswith(f"{key}.")]
    return origins.get(key) or next(iter(inside), origin)


def _explain(key: str, error: Any) -> str:
    value, kind, context = error["input"], error["type"], error.get("ctx", {})
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{key} is not a setting; {_suggest(key)}"
    if kind == "literal_error":
        near = difflib.get_close_matches(str(value), re.findall(r"'([^']*)'", context["expected"]), n=1)
        return f"{key} is {value!r}, but must be one of {context['expected']}" + (f"; did you mean {near[0]}?" if near else "")
    if kind == "dataclass_type":
        return f"{key or 'the file'} is {value!r}, but must be a section of `key: value`"
    reason = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if kind == "bool_type":
        reason = "true or false"
    return f"{key} is {value!r}, but must be {reason}"


def _suggest(key: str) -> str:
    sections = {setting.split(".")[0]: None for setting in ALL_SETTINGS}
    near = difflib.get_close_matches(key, [*ALL_SETTINGS, *sections], n=1, cutoff=0.75)
    last = key.rsplit(".", 1)[-1]
    if not near:  # the right name in the wrong section
        near = [setting for setting in ALL_SETTINGS if setting.rsplit(".", 1)[-1] == last]
    if near:
        return f"did you mean {near[0]}?"
    section = key.rsplit(".", 1)[0] if "." in key else ""
    siblings = [setting for setting in ALL_SETTINGS if setting.rpartition(".")[0] == section]
    return f"allowed are {', '.join(siblings if section else sections)}"


def _check(config: Config, origin: str, task: str | None, origins: dict[str, str]) -> list[str]:
    """Rules between settings."""
    data, model, training = config.data, config.model, config.training
    mistakes = []

    def refuse(key: str, text: str) -> None:
        mistakes.append(f"{_origin_of(key, origin, origins)}: {text}")

    if task is not None and config.task != task:
        refuse("task", f"task is {config.task!r}, but this command is {task}; run python -m pipelines.{config.task} instead")
    if data.source in FILE_SOURCES and not data.train:
        refuse("data.train", f"data.train is empty, but data.source {data.source} reads files; set data.train=PATH")
    if data.source not in FILE_SOURCES and (data.train or data.validation or data.test):
        allowed = ", ".join(FILE_SOURCES)
        refuse("data.source", f"data.source is {data.source!r}, which reads no files of yours; set data.source to one of {allowed}")
    if data.validation_fraction + data.test_fraction >= 1:
        total = data.validation_fraction + data.test_fraction
        refuse("data.test_fraction", f"data.validation_fraction and data.test_fraction add up to {total:g}; leave something to train on")
    if not data.validation and not data.validation_fraction:
        refuse("data.validation_fraction", "data.validation_fraction is 0 and data.validation empty; models are chosen on it: set one")
    if not model.pooling or len(set(model.pooling)) != len(model.pooling):
        refuse("model.pooling", f"model.pooling is {list(model.pooling)}, but must name some of last, max, mean, attention, each once")
    for key in ("recurrent_dropout", "weight_dropout"):
        if model.cell.startswith("min_") and getattr(model, key):
            found = f"model.{key} is {getattr(model, key)}, but the gates of model.cell {model.cell} do not look at the state"
            refuse(f"model.{key}", f"{found}; set model.{key}=0")
    if training.weight_decay and training.optimizer != "adamw":
        found = f"training.weight_decay is {training.weight_decay}, but training.optimizer is {training.optimizer}"
        refuse("training.weight_decay", f"{found}; only the optimizer adamw decays weights")
    if config.task != "sentiment":
        _check_language_model(config, refuse)
    if not re.fullmatch(r"[\w.-]*", config.name) or config.name in (".", ".."):
        refuse("name", f"name is {config.name!r}, but names a folder: use letters, digits, '.', '-' and '_'")
    _check_tokenizer(config.tokenizer, refuse)
    return mistakes


def _check_language_model(config: Config, refuse: Callable[[str, str], None]) -> None:
    model, training = config.model, config.training
    if model.is_bidirectional:
        refuse("model.is_bidirectional", "model.is_bidirectional is true, but a language model may not see what it predicts; use false")
    if model.softmax == "adaptive" and (not model.cutoffs or list(model.cutoffs) != sorted(set(model.cutoffs))):
        refuse("model.cutoffs", f"model.cutoffs is {list(model.cutoffs)}, but model.softmax adaptive needs rising numbers of words there")
    if model.softmax == "adaptive" and model.tie_embeddings:
        found = "model.tie_embeddings is true, but the clusters of model.softmax adaptive have fewer features than the embedding"
        refuse("model.tie_embeddings", f"{found}; use false")
    if config.task == "next_word" and config.tokenizer.level == "char":
        refuse("tokenizer.level", "tokenizer.level is char, but next_word proposes words; use word or subword")
    if config.task == "char_generation" and model.softmax == "adaptive":
        refuse("model.softmax", "model.softmax is adaptive, which is for vocabularies of 10,000 and more; for characters use full")
    if config.task == "char_generation" and config.tokenizer.level != "char":
        refuse("tokenizer.level", f"tokenizer.level is {config.tokenizer.level}, but char_generation writes characters; use char")
    if config.tokenizer.case == "markers":
        refuse("tokenizer.case", "tokenizer.case is markers, of which a language model would propose one by one; use lower or keep")
    if training.monitor == "val_accuracy":
        refuse("training.monitor", "training.monitor is val_accuracy, but language models are chosen by val_cross_entropy")


_BUILT_IN_SYMBOLS = re.compile(r"</?s>|<(?:pad|unk|title|upper)>|<0x[0-9A-F]{2}>")


def _check_tokenizer(tokenizer: TokenizerConfig, refuse: Callable[[str, str], None]) -> None:
    level = tokenizer.level
    for key, levels, off in (("splitter", "word", "unicode"), ("oov_buckets", "word", 0), ("sampling", "subword", 0)):
        value = getattr(tokenizer, key)
        if level != levels and value != off:
            refuse(f"tokenizer.{key}", f"tokenizer.{key} is {value}, but is for tokenizer.level={levels} (it is {level}); use {off}")
    if level != "word" and tokenizer.case == "markers":
        refuse("tokenizer.case", f"tokenizer.case is markers, but is for tokenizer.level=word (it is {level}); use lower or keep")
    if level == "subword" and tokenizer.vocab_size <= 260 and not tokenizer.vocabulary:
        found = f"tokenizer.vocab_size is {tokenizer.vocab_size}"
        refuse("tokenizer.vocab_size", f"{found}, but special pieces and bytes alone are 260; use 1000 or more")
    if not tokenizer.vocabulary and tokenizer.oov_buckets + len(tokenizer.reserved) + 8 > tokenizer.vocab_size:
        refuse(
            "tokenizer.vocab_size", f"tokenizer.vocab_size is {tokenizer.vocab_size}, all of it special pieces and hash buckets; raise it"
        )
    for symbol in tokenizer.reserved:
        if (
            tokenizer.reserved.count(symbol) > 1
            or not re.fullmatch(r"[^\s\u2581\ufffd\ud800-\udfff\U0010f7f0-\U0010ffff]+", symbol)
            or _BUILT_IN_SYMBOLS.fullmatch(symbol)
        ):
            found = f"tokenizer.reserved holds {symbol!r}"
            refuse("tokenizer.reserved", f"{found}; give symbols without white space, each once, other than the built-in ones")
            break


FILE_SOURCES = ("csv", "tsv", "jsonl", "folders", "text", "documents")
_DEFAULTS = _flatten(dataclasses.asdict(Config()))
ALL_SETTINGS = list(_DEFAULTS)
TEXT_SETTINGS = {key for key, value in _DEFAULTS.items() if isinstance(value, str)}
