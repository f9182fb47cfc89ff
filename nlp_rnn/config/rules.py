"""Rules between settings, which the types of single settings cannot express."""

import codecs
import os
import re
from collections.abc import Callable

from nlp_rnn import files
from nlp_rnn.config.label_rules import check_labels
from nlp_rnn.config.settings import FILE_SOURCES, PAIR_SOURCES, Config, DataConfig, TokenizerConfig
from nlp_rnn.config.tables import CELLS, TASKS
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
            f"task is {config.task!r}, but this command is {task}; run python -m pipelines.{config.task} instead",
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
    _check_partial_shuffle(config, report)
    if training.fit_temperature and config.kind != "language_model":
        report(
            "training.fit_temperature",
            f"training.fit_temperature is true, but applies only to language models (the task is {config.task}); "
            "use false",
        )
    if training.ema_ramp and not training.ema_momentum:
        report(
            "training.ema_ramp",
            "training.ema_ramp is true, but training.ema_momentum is 0, so no average is kept; set "
            "training.ema_momentum=0.999, or use training.ema_ramp=false",
        )
    _check_r_drop(config, report)
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
    if data.use_unlabeled and (data.source != "imdb" or config.kind != "language_model"):
        fault = f"data.use_unlabeled is true, but data.source is {data.source} and the task is {config.task}"
        report(
            "data.use_unlabeled",
            f"{fault}; only language models of the source imdb have unlabeled texts to read; use false",
        )
    _check_transfer(config, report)
    check_labels(config, report)
    if config.kind == "translator":
        _check_translation(config, report)
    elif data.source in PAIR_SOURCES:
        report(
            "data.source",
            f"data.source is {data.source}, which holds pairs for the task translation; use another source",
        )
    if config.kind == "language_model":
        _check_language_model(config, report)
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
        if path := getattr(getattr(config, section) if section else config, name):
            try:
                files.check_path(key, path)
            except ConfigError as error:
                report(key, str(error))


_LONGEST_NAME = 200  # bytes of the name of a run directory, beside which temporary names are longer
_PATHS = (
    "runs_dir", "data.dir", "data.train", "data.validation", "data.test", "data.cache_dir", "tokenizer.vocabulary",
    "model.init_from", "model.vectors", "training.start_from",
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


def _check_transfer(config: Config, report: Callable[[str, str], None]) -> None:
    model, training = config.model, config.training
    if model.init_from and training.start_from:
        fault = f"model.init_from is {model.init_from}, but training.start_from is {training.start_from}"
        report("model.init_from", f"{fault}; a model starts from one of the two; leave the other empty")
    _check_vectors(config, report)
    if sum(training.unfreeze) >= training.epochs and training.unfreeze:
        fault = (
            f"training.unfreeze is {list(training.unfreeze)}, {sum(training.unfreeze)} epochs, "
            f"but training.epochs is {training.epochs}"
        )
        report(
            "training.unfreeze",
            f"{fault}; at least one epoch must train all layers: raise training.epochs or shorten training.unfreeze",
        )
    if len(training.unfreeze) > model.num_layers + 1:
        fault = (
            f"training.unfreeze has {len(training.unfreeze)} phases, "
            f"but there are {model.num_layers} recurrent layers and the embedding"
        )
        report("training.unfreeze", f"{fault} to keep frozen; use {model.num_layers + 1} phases or fewer")
    if model.ngrams and config.kind != "classifier":
        report(
            "model.ngrams",
            f"model.ngrams is {model.ngrams}, but applies only to classifiers (the task is {config.task}); use 0",
        )
    if model.ngrams and config.tokenizer.vocab_size > 2**20:
        fault = f"tokenizer.vocab_size is {config.tokenizer.vocab_size}, but model.ngrams allows at most {2**20:,} ids"
        report("tokenizer.vocab_size", f"{fault}; lower it or use model.ngrams=0")
    for key, off in (("unfreeze", ()), ("layer_decay", 1.0)):
        if getattr(training, key) == off:
            continue
        shown = getattr(training, key) if key == "layer_decay" else list(training.unfreeze)
        if config.kind != "classifier":
            report(
                f"training.{key}",
                f"training.{key} is {shown}, but applies only to classifiers (the task is {config.task}); leave it out",
            )
        if training.weight_decay:
            fault = (
                f"training.{key} is {shown}, but training.weight_decay is {training.weight_decay}, "
                "which would change frozen layers too"
            )
            report(f"training.{key}", f"{fault}; use 0 and the optimizer adam")
    if model.is_reversed and TASKS[config.task].answers in ("translations", "characters"):
        fault = f"model.is_reversed is true, but the task is {config.task}"
        report(
            "model.is_reversed",
            f"{fault}; only classifiers and next_word models, from which classifiers start, can read backwards",
        )
    if model.is_reversed and model.is_bidirectional and config.kind == "classifier":
        report(
            "model.is_reversed",
            "model.is_reversed is true, but model.is_bidirectional reads in both directions; use one of the two",
        )


def _check_partial_shuffle(config: Config, report: Callable[[str, str], None]) -> None:
    if not config.training.partial_shuffle:
        return
    if config.kind != "language_model":
        report(
            "training.partial_shuffle",
            "training.partial_shuffle is true, but applies only to language models, whose text is one long row "
            f"(the task is {config.task}); use false",
        )
    if steps := config.training.max_steps_per_epoch:
        report(
            "training.partial_shuffle",
            f"training.partial_shuffle is true, but training.max_steps_per_epoch is {steps}, so that epochs are parts "
            "of one pass over the text; use training.max_steps_per_epoch=0, or training.partial_shuffle=false",
        )


def _check_r_drop(config: Config, report: Callable[[str, str], None]) -> None:
    model, fault = config.model, f"training.r_drop is {config.training.r_drop}"
    if not config.training.r_drop:
        return
    if model.softmax == "adaptive" and config.kind == "language_model":
        text = (
            f"{fault}, but model.softmax is adaptive, which computes a cluster only for its own targets; "
            "use model.softmax=full or sampled, or training.r_drop=0"
        )
        report("training.r_drop", text)
    rates = [model.dropout, model.final_dropout, model.embedding_dropout, model.recurrent_dropout]
    if not any([*rates, model.word_dropout if config.kind == "classifier" else 0.0]):
        text = (
            f"{fault}, but without dropout its two passes are the same; set model.dropout, or another dropout that is "
            "drawn per row, or use training.r_drop=0"
        )
        report("training.r_drop", text)


def _check_vectors(config: Config, report: Callable[[str, str], None]) -> None:
    model = config.model
    if not model.vectors and not model.vectors_trainable:
        report(
            "model.vectors_trainable",
            "model.vectors_trainable is false, but model.vectors is empty, so the embedding would stay random; "
            "set model.vectors=FILE "
            "or model.vectors_trainable=true",
        )
    if not model.vectors:
        return
    fault = f"model.vectors is {model.vectors}"
    for key, value in (("model.init_from", model.init_from), ("training.start_from", config.training.start_from)):
        if value:
            text = f"{fault}, but {key} is {value}, which also provides an embedding; leave one of the two empty"
            report("model.vectors", text)
    if config.tokenizer.level == "char":
        text = (
            f"{fault}, but tokenizer.level is char and the file holds vectors of words; "
            "use word or subword, or leave model.vectors empty"
        )
        report("model.vectors", text)
    is_tied = model.tie_embeddings and config.kind != "classifier"
    if is_tied and not model.vectors_trainable:
        report(
            "model.vectors_trainable",
            "model.vectors_trainable is false, but model.tie_embeddings uses the embedding as the output's table, "
            "which must be "
            "trained; set model.tie_embeddings=false or model.vectors_trainable=true",
        )


def _check_language_model(config: Config, report: Callable[[str, str], None]) -> None:
    model, training = config.model, config.training
    if model.is_bidirectional:
        report(
            "model.is_bidirectional",
            "model.is_bidirectional is true, but a language model must not read the words that it predicts; use false",
        )
    if model.softmax == "adaptive" and (not model.cutoffs or list(model.cutoffs) != sorted(set(model.cutoffs))):
        report(
            "model.cutoffs",
            f"model.cutoffs is {list(model.cutoffs)}, but model.softmax adaptive needs increasing word ids, "
            "such as [2000, 10000]",
        )
    if model.softmax == "adaptive" and model.tie_embeddings:
        fault = (
            "model.tie_embeddings is true, but the clusters of model.softmax adaptive have fewer features than the "
            "embedding"
        )
        report("model.tie_embeddings", f"{fault}; use false")
    if TASKS[config.task].answers == "words" and config.tokenizer.level == "char":
        report("tokenizer.level", "tokenizer.level is char, but next_word suggests words; use word or subword")
    if TASKS[config.task].answers == "characters" and model.softmax == "adaptive":
        report(
            "model.softmax",
            "model.softmax is adaptive, which is for vocabularies of 10,000 and more; for characters use full",
        )
    if TASKS[config.task].answers == "characters" and config.tokenizer.level != "char":
        report(
            "tokenizer.level",
            f"tokenizer.level is {config.tokenizer.level}, but char_generation generates characters; use char",
        )
    if config.tokenizer.case == "markers":
        report(
            "tokenizer.case",
            "tokenizer.case is markers, which a language model would suggest as words; use lower or keep",
        )
    if training.monitor == "val_accuracy":
        report("training.monitor", "training.monitor is val_accuracy, but language models need val_cross_entropy")


def _check_translation(config: Config, report: Callable[[str, str], None]) -> None:
    data, model = config.data, config.model
    if data.source not in (*PAIR_SOURCES, "csv", "tsv", "jsonl", "parquet", "records"):
        allowed = ", ".join((*PAIR_SOURCES, "csv", "tsv", "jsonl", "parquet", "records"))
        report(
            "data.source",
            f"data.source is {data.source}, which has no pairs for the task translation; use one of {allowed}",
        )
    if data.split == "contiguous":
        report("data.split", "data.split is contiguous, which would cut sentences; use hash or blocks")
    for key in ("source_language", "target_language"):
        if not _LANGUAGE.fullmatch(getattr(data, key)):
            report(
                f"data.{key}",
                f"data.{key} is {getattr(data, key)[:80]!r}, but must be a BCP 47 language tag, such as en, "
                "pt-BR or zh-Hant",
            )
    if data.source_language == data.target_language:
        report(
            "data.target_language",
            f"data.target_language is {data.target_language}, the same as data.source_language; give two languages",
        )
    if data.keep != "start":
        report("data.keep", f"data.keep is {data.keep}, but translators read the start of a long sentence; use start")
    if not data.label_column:
        report("data.label_column", "data.label_column is empty, but must name the column of the translations; set it")
    if data.source == "tatoeba" and data.split != "hash":
        report(
            "data.split",
            f"data.split is {data.split}, but tatoeba has several translations per sentence; use hash",
        )
    parts = model.num_heads * (2 if model.is_bidirectional else 1)
    if model.units % parts:
        report(
            "model.units",
            f"model.units is {model.units}, but must be a multiple of {parts} (model.num_heads times the number of "
            "directions)",
        )
    if config.tokenizer.oov_buckets or config.tokenizer.case == "markers":
        fault = "tokenizer.oov_buckets and tokenizer.case=markers produce ids that cannot be decoded into text"
        report(
            "tokenizer.oov_buckets" if config.tokenizer.oov_buckets else "tokenizer.case",
            f"{fault}; use 0 and keep or lower",
        )
    if config.training.monitor == "val_accuracy":
        report("training.monitor", "training.monitor is val_accuracy, but translators need val_cross_entropy")
    if model.softmax == "adaptive":
        report("model.softmax", "model.softmax is adaptive, which is for language models; use full or sampled")
    if model.softmax == "sampled" and config.training.label_smoothing:
        fault = (
            f"training.label_smoothing is {config.training.label_smoothing}, which needs all words, "
            "but model.softmax is sampled"
        )
        report("training.label_smoothing", f"{fault}; use 0, or model.softmax=full")
    for key in ("weight_dropout", "recurrent_dropout"):
        if getattr(model, key) and model.input_feeding:
            report(f"model.{key}", f"model.{key} is {getattr(model, key)}, but model.input_feeding is true; use 0")
    if not CELLS[model.cell].reads_state and model.input_feeding:
        report(
            "model.input_feeding",
            f"model.input_feeding is true, but model.cell {model.cell} computes all time steps at once; use false",
        )


_LANGUAGE = re.compile(r"[A-Za-z]{1,8}(?:[-_][A-Za-z0-9]{1,8})*")
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
