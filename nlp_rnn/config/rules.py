"""Rules between settings, which the types of single settings cannot express."""

import codecs
import os
import re
from collections.abc import Callable

from nlp_rnn import files
from nlp_rnn.config.kind_rules import check_kind
from nlp_rnn.config.label_rules import check_labels
from nlp_rnn.config.model_rules import (
    check_chunks,
    check_language_model,
    check_partial_shuffle,
    check_r_drop,
    check_transfer,
    check_translation,
)
from nlp_rnn.config.settings import FILE_SOURCES, PAIR_SOURCES, Config, DataConfig, TokenizerConfig
from nlp_rnn.config.tables import CELLS
from nlp_rnn.errors import ConfigError


def broken_rules(config: Config, task: str | None) -> list[tuple[str, str]]:
    """Lists the mistakes of a config.

    Args:
      config: whose single settings have valid types and ranges.
      task: the task of the command that reads the config; None: any task.

    Returns:
      (key of the setting to change, message) of each mistake.
    """
    data, model, training = config.data, config.model, config.training
    mistakes: list[tuple[str, str]] = []

    def report(key: str, text: str) -> None:
        mistakes.append((key, text))

    if task is not None and config.task != task:
        report(
            "task",
            f"task is {config.task!r}, but this command is {task}; run nlp-rnn {config.task} instead",
        )
        return mistakes  # the rules of another task would mislead
    if data.source in FILE_SOURCES and not data.train:
        report("data.train", f"data.train is empty, but data.source {data.source} reads files; set data.train=PATH")
    if data.source not in FILE_SOURCES and (data.train or data.validation or data.test):
        allowed = ", ".join(FILE_SOURCES)
        report(
            "data.source",
            f"data.source is {data.source!r}, which does not read files of yours; set data.source to one of {allowed}",
        )
    _check_format(data, report)
    if data.validation_fraction + data.test_fraction >= 1:
        total = data.validation_fraction + data.test_fraction
        report(
            "data.test_fraction",
            f"data.validation_fraction and data.test_fraction add up to {total:g}, which leaves no training data; "
            "lower one",
        )
    if not data.validation and not data.validation_fraction:
        report(
            "data.validation_fraction",
            "data.validation_fraction is 0 and data.validation is empty, but training needs validation data; "
            "set one of them",
        )
    if not model.pooling or len(set(model.pooling)) != len(model.pooling):
        report(
            "model.pooling",
            f"model.pooling is {list(model.pooling)}, but must name some of last, max, mean, attention, each once",
        )
    for key in ("recurrent_dropout", "weight_dropout"):
        if not CELLS[model.cell].reads_state and getattr(model, key):
            fault = (
                f"model.{key} is {getattr(model, key)}, but the gates of model.cell {model.cell} do not read the state"
            )
            report(f"model.{key}", f"{fault}; set model.{key}=0")
    if training.weight_decay and training.optimizer != "adamw":
        fault = f"training.weight_decay is {training.weight_decay}, but training.optimizer is {training.optimizer}"
        report("training.weight_decay", f"{fault}; only the optimizer adamw decays weights")
    if training.schedule == "flat_cosine" and training.warmup_fraction > 0.5:
        fault = f"training.warmup_fraction is {training.warmup_fraction}, but training.schedule is flat_cosine"
        report("training.warmup_fraction", f"{fault}, which falls from the middle on; use 0.5 at most")
    check_kind(config, report)
    check_chunks(config, report)
    check_partial_shuffle(config, report)
    if training.teacher_share != type(training).teacher_share and not training.teacher:
        fault = f"training.teacher_share is {training.teacher_share}, but training.teacher is empty"
        report("training.teacher_share", f"{fault}; name trained models there, or leave the share out")
    if training.teacher and not training.teacher_share and config.kind == "language_model":
        fault = "training.teacher_share is 0, but a language model learns nothing else from training.teacher"
        report("training.teacher_share", f"{fault}; use a share above 0, or no teacher")
    if len(set(training.teacher)) < len(training.teacher):
        report("training.teacher", f"training.teacher is {list(training.teacher)}; name each run once")
    if training.ema_ramp and not training.ema_momentum:
        report(
            "training.ema_ramp",
            "training.ema_ramp is true, but training.ema_momentum is 0, so no average is kept; set "
            "training.ema_momentum=0.999, or use training.ema_ramp=false",
        )
    check_r_drop(config, report)
    if config.hardware.num_replicas and config.hardware.strategy != "mirrored":
        fault = (
            f"hardware.num_replicas is {config.hardware.num_replicas}, "
            f"but hardware.strategy is {config.hardware.strategy}"
        )
        report("hardware.num_replicas", f"{fault}; only mirrored takes a number; use 0, or hardware.strategy=mirrored")
    service = config.hardware.input_service
    if service and not re.fullmatch(r"[^/\s]+:[0-9]{1,5}", service):
        report(
            "hardware.input_service",
            f"hardware.input_service is {service!r}, but must be HOST:PORT, such as reader.local:5000",
        )
    if service and config.kind == "language_model":
        fault = (
            f"hardware.input_service is {service}, but language models read one long text, "
            "which a service cannot speed up"
        )
        report("hardware.input_service", f"{fault}; leave it empty")
    reads_unlabeled = config.kind == "language_model" or config.trains_on_unlabelled
    if data.use_unlabeled and (data.source != "imdb" or not reads_unlabeled):
        fault = f"data.use_unlabeled is true, but data.source is {data.source} and the task is {config.task}"
        report(
            "data.use_unlabeled",
            f"{fault}; unlabeled texts are in the source imdb only, for language models and for classifiers with "
            "training.teacher or training.virtual_adversarial; use false",
        )
    check_transfer(config, report)
    check_labels(config, report)
    if config.kind == "translator":
        check_translation(config, report)
    elif data.source in PAIR_SOURCES:
        report(
            "data.source",
            f"data.source is {data.source}, which holds pairs for the task translation; use another source",
        )
    if config.kind == "language_model":
        check_language_model(config, report)
    if not re.fullmatch(r"[\w.-]*", config.name) or config.name in (".", ".."):
        report("name", f"name is {config.name!r}, but names a folder; use letters, digits, '.', '-' and '_'")
    if len(os.fsencode(config.name)) > _LONGEST_NAME:
        report("name", f"name is {config.name[:80]}..., but may have at most {_LONGEST_NAME} bytes; shorten it")
    _check_paths(config, report)
    _check_tokenizer(config.tokenizer, report)
    return mistakes


def _check_paths(config: Config, report: Callable[[str, str], None]) -> None:
    for key in _PATHS:
        section, _, name = key.rpartition(".")
        value = getattr(getattr(config, section) if section else config, name)
        for path in value if isinstance(value, tuple) else [value] if value else []:
            try:
                files.check_path(key, path)
            except ConfigError as error:
                report(key, str(error))


_LONGEST_NAME = 200  # bytes of the name of a run directory, beside which temporary names are longer
_PATHS = (
    "runs_dir", "data.dir", "data.train", "data.validation", "data.test", "data.cache_dir", "tokenizer.vocabulary",
    "model.init_from", "model.vectors", "training.start_from",
    "training.teacher",
)  # fmt: skip


def _check_format(data: DataConfig, report: Callable[[str, str], None]) -> None:
    try:
        is_text = getattr(codecs.lookup(data.encoding), "_is_text_encoding", True)
    except (LookupError, ValueError):
        is_text = False
    if not is_text or codecs.lookup(data.encoding).name in _NOT_OF_FILES:
        report(
            "data.encoding",
            f"data.encoding is {data.encoding!r}, but must be an encoding of Python, such as utf-8, cp1252 or utf-16",
        )
    if (len(data.delimiter) > 1 and data.delimiter not in ("tab", r"\t")) or data.delimiter in ('"', "\n", "\r", "\0"):
        report(
            "data.delimiter", f"data.delimiter is {data.delimiter!r}, but must be one character, such as ';', or tab"
        )
    for key, sources in (("delimiter", ("csv", "tsv")), ("quoting", ("csv", "tsv")), ("has_header", ("csv", "tsv"))):
        value, usual = getattr(data, key), getattr(DataConfig, key)
        if value != usual and data.source not in sources:
            report(
                f"data.{key}",
                f"data.{key} is {value!r}, but applies only to the sources {' and '.join(sources)} (data.source is "
                f"{data.source}); leave it out",
            )


_NOT_OF_FILES = ("unicode_escape", "raw_unicode_escape", "idna", "punycode", "undefined", "mbcs", "oem")


_BUILT_IN_SYMBOLS = re.compile(r"</?s>|<(?:pad|unk|title|upper)>|<0x[0-9A-F]{2}>")


def _check_tokenizer(tokenizer: TokenizerConfig, report: Callable[[str, str], None]) -> None:
    level = tokenizer.level
    for key, levels, off in (
        ("splitter", "word", "unicode"),
        ("oov_buckets", "word", 0),
        ("sampling", "subword", 0),
        ("split_digits", "subword", False),
    ):
        value = getattr(tokenizer, key)
        if level != levels and value != off:
            report(
                f"tokenizer.{key}",
                f"tokenizer.{key} is {value}, but applies only to tokenizer.level={levels} (it is {level}); use {off}",
            )
    if level != "word" and tokenizer.case == "markers":
        report(
            "tokenizer.case",
            f"tokenizer.case is markers, but applies only to tokenizer.level=word (it is {level}); use lower or keep",
        )
    if level == "subword" and tokenizer.vocab_size <= 260 and not tokenizer.vocabulary:
        fault = f"tokenizer.vocab_size is {tokenizer.vocab_size}"
        report("tokenizer.vocab_size", f"{fault}, but special pieces and bytes alone are 260; use 1000 or more")
    if not tokenizer.vocabulary and tokenizer.oov_buckets + len(tokenizer.reserved) + 8 > tokenizer.vocab_size:
        report(
            "tokenizer.vocab_size",
            f"tokenizer.vocab_size is {tokenizer.vocab_size}, which special pieces and hash buckets use up; raise it",
        )
    for symbol in tokenizer.reserved:
        if (
            tokenizer.reserved.count(symbol) > 1
            or not re.fullmatch(r"[^\s\u2581\ufffd\ud800-\udfff\U0010f7f0-\U0010ffff]+", symbol)
            or _BUILT_IN_SYMBOLS.fullmatch(symbol)
        ):
            fault = f"tokenizer.reserved holds {symbol!r}"
            report(
                "tokenizer.reserved",
                f"{fault}; give symbols without white space, each once, other than the built-in ones",
            )
            break
