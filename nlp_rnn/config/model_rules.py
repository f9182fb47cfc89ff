"""Rules of single parts: transfer, regularisers, word vectors, language models and translation. `rules` calls them."""

import re
from collections.abc import Callable

from nlp_rnn.config.settings import PAIR_SOURCES, Config
from nlp_rnn.config.tables import CELLS, TASKS

Report = Callable[[str, str], None]  # key of the setting to change, message


def check_transfer(config: Config, report: Report) -> None:
    model, training = config.model, config.training
    if model.init_from and training.start_from:
        fault = f"model.init_from is {model.init_from}, but training.start_from is {training.start_from}"
        report("model.init_from", f"{fault}; a model starts from one of the two; leave the other empty")
    check_vectors(config, report)
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
    if model.ngrams and config.tokenizer.vocab_size > 2**20:
        fault = f"tokenizer.vocab_size is {config.tokenizer.vocab_size}, but model.ngrams allows at most {2**20:,} ids"
        report("tokenizer.vocab_size", f"{fault}; lower it or use model.ngrams=0")
    for key, off in (("unfreeze", ()), ("layer_decay", 1.0)):
        if getattr(training, key) == off:
            continue
        shown = getattr(training, key) if key == "layer_decay" else list(training.unfreeze)
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


def check_chunks(config: Config, report: Report) -> None:
    model = config.model
    if model.chunk_length and model.is_bidirectional and config.kind == "classifier":
        report(
            "model.chunk_length",
            f"model.chunk_length is {model.chunk_length}, but model.is_bidirectional is true, and a chunk does not "
            "know what follows it; use model.is_bidirectional=false, or model.chunk_length=0",
        )


def check_partial_shuffle(config: Config, report: Report) -> None:
    if config.training.partial_shuffle and (steps := config.training.max_steps_per_epoch):
        report(
            "training.partial_shuffle",
            f"training.partial_shuffle is true, but training.max_steps_per_epoch is {steps}, so that epochs are parts "
            "of one pass over the text; use training.max_steps_per_epoch=0, or training.partial_shuffle=false",
        )


def check_r_drop(config: Config, report: Report) -> None:
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


def check_vectors(config: Config, report: Report) -> None:
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
            f"{fault}, but tokenizer.level is char, and these vectors are of words or subwords; "
            "use word or subword, or leave model.vectors empty"
        )
        report("model.vectors", text)


def check_language_model(config: Config, report: Report) -> None:
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
    if model.tie_embeddings and model.softmax != "adaptive" and model.last_units not in (0, model.embedding_dim):
        fault = (
            f"model.last_units is {model.last_units}, but with model.tie_embeddings the output reads as many features "
            f"as the embedding has ({model.embedding_dim})"
        )
        report("model.last_units", f"{fault}; use model.last_units=0, or model.tie_embeddings=false")
    if model.softmax == "adaptive" and training.teacher:
        fault = f"training.teacher is {list(training.teacher)}, but model.softmax is adaptive"
        report(
            "model.softmax",
            f"{fault}, which computes a cluster only for its own targets; use full or sampled, or no teacher",
        )
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


_LANGUAGE = re.compile(r"[A-Za-z]{1,8}(?:[-_][A-Za-z0-9]{1,8})*")


def check_translation(config: Config, report: Report) -> None:
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
