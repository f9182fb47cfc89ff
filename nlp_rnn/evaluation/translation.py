"""Scores of translators on a split: BLEU, chrF, perplexity and accuracy of the given targets, exact match."""

import logging
import math
from typing import Any

import keras
import tensorflow as tf

from nlp_rnn import files
from nlp_rnn.errors import ConfigError
from nlp_rnn.evaluation.classifier import corpus_with
from nlp_rnn.evaluation.translation_metrics import best_and_worst, corpus_scores, require_sacrebleu, scores_by_length
from nlp_rnn.export.saved_model import ExportedModel
from nlp_rnn.export.translation import TranslationModule
from nlp_rnn.models.build import build_translator
from nlp_rnn.models.translator import Translator
from nlp_rnn.progress import track
from nlp_rnn.tokenization.tokenizer import Tokenizer
from nlp_rnn.training.checkpoints import load_checkpoint
from nlp_rnn.training.run_directory import Run

logger = logging.getLogger(__name__)

_ROWS = 32  # sentences at a time


def load_module(runs: list[Run]) -> TranslationModule:
    """What is exported of one run's best weights, or of several runs that vote.

    Raises:
      ConfigError: if the runs do not share languages and vocabulary.
    """
    tokenizers = [Tokenizer.load(run.path / "tokenizer") for run in runs]
    first = runs[0].config.data
    for run, tokenizer in zip(runs, tokenizers, strict=True):
        data = run.config.data
        if (data.source_language, data.target_language) != (first.source_language, first.target_language):
            raise ConfigError(f"--run {run.path} is from {data.source_language} to {data.target_language}; runs that vote share languages")
        if tokenizer.vocabulary_text() != tokenizers[0].vocabulary_text() or tokenizer.settings() != tokenizers[0].settings():
            raise ConfigError(f"--run {run.path} has another vocabulary than {runs[0].path}; train both on the same data and tokenizer.*")
    keras.config.set_dtype_policy("float32")
    return TranslationModule([_load_model(run, tokenizers[0].vocab_size) for run in runs], tokenizers[0], runs[0].config)


def _load_model(run: Run, vocab_size: int) -> Translator:
    model = build_translator(run.config.model, vocab_size=vocab_size)
    load_checkpoint(run.best_checkpoint, model.weights)
    return model


def evaluate_runs(runs: list[Run], split: str, *, beam_size: int, length_penalty: float) -> dict[str, Any]:
    """Scores a run's best weights, or several runs that vote; writes translations_<split>.txt, and of a single run metrics.json.

    Returns:
      split, metrics (its digest is of the split's texts, to tell one split from another), by_length, best and worst.
    """
    require_sacrebleu()  # before minutes of work
    config = runs[0].config
    corpus = corpus_with(config, split)
    seeds = {run.config.seed for run in runs}
    if len(seeds) > 1 and corpus.is_drawn(split):
        raise ConfigError(
            f"--run: the runs have the seeds {', '.join(map(str, sorted(seeds)))}, which draw different splits: one has trained on what "
            "another is judged by; give the splits as files, or train them with one seed"
        )
    module = load_module(runs)
    pairs = list(corpus.examples(split))
    sources, references = [pair.text for pair in pairs], [pair.label for pair in pairs]
    hypotheses = translate_all(module, sources, beam_size=beam_size, length_penalty=length_penalty)
    with files.atomic_file(runs[0].path / f"translations_{split}.txt") as temporary:
        temporary.write_text("".join(f"{hypothesis}\n" for hypothesis in hypotheses), encoding="utf-8", newline="\n")
    metrics = corpus_scores(hypotheses, references) | _teacher_forced(module, sources, references)
    metrics |= {"num_sentences": len(pairs), "digest": corpus.facts[split].digest, "beam_size": beam_size, "length_penalty": length_penalty}
    if len(runs) == 1:
        runs[0].write_metrics(**{split: metrics})
    facts = {"split": split, "metrics": metrics, "by_length": scores_by_length(sources, hypotheses, references)}
    return facts | best_and_worst(sources, hypotheses, references)


def translate_all(module: Any, sources: list[str], *, beam_size: int, length_penalty: float) -> list[str]:
    """The best translation of each sentence; batches are of like length."""
    order = sorted(range(len(sources)), key=lambda row: len(sources[row]))
    found = [""] * len(sources)
    batches = [order[start : start + _ROWS] for start in range(0, len(order), _ROWS)]
    for rows in track(batches, "translating", len(batches)):
        answer = module.translate(tf.constant([sources[row] for row in rows]), **search_settings(len(rows), beam_size, length_penalty))
        for row, text in zip(rows, answer["translations"][:, 0].numpy(), strict=True):
            found[row] = text.decode("utf-8")
    return found


def search_settings(
    rows: int, beam_size: int, length_penalty: float, *, coverage_penalty: float = 0.0, min_length: int = 0, max_length: int = 0,
    min_ratio: float = 0.0, max_ratio: float = 0.0, no_repeat_ngram: int = 0, prefix: bytes = b"",
) -> dict[str, tf.Tensor]:  # fmt: skip
    """The arguments of the signature `translate`, the same for all rows."""
    return {
        "beam_size": tf.constant(beam_size), "length_penalty": tf.fill([rows], length_penalty),
        "coverage_penalty": tf.fill([rows], coverage_penalty), "min_length": tf.fill([rows], min_length),
        "max_length": tf.fill([rows], max_length), "min_ratio": tf.fill([rows], min_ratio), "max_ratio": tf.fill([rows], max_ratio),
        "no_repeat_ngram": tf.constant(no_repeat_ngram), "prefix": tf.fill([rows], prefix),
    }  # fmt: skip


def warn_of_long_texts(model: ExportedModel, texts: list[bytes]) -> None:
    """Logs which texts are longer than the model reads."""
    limit = model.config.data.max_length
    for text in texts:
        if len(text) > limit:  # a piece has a byte or more
            count = int(tf.math.count_nonzero(model.loaded.tokenize(tf.constant([text]))["token_ids"]))
            if count > limit:
                shown = text.decode("utf-8", "replace")[:40]
                logger.warning("%r... has %d pieces, of which the first %d are translated (data.max_length)", shown, count, limit)


def _teacher_forced(module: TranslationModule, sources: list[str], references: list[str]) -> dict[str, float]:
    """perplexity and accuracy of the references' pieces, the end of a sentence included, each given those before it."""
    order = sorted(range(len(sources)), key=lambda row: len(references[row]))
    nats, correct, count = 0.0, 0, 0
    for start in range(0, len(order), _ROWS):
        rows = order[start : start + _ROWS]
        found = module.score(*(tf.constant([side[row] for row in rows]) for side in (sources, references)))
        nats, correct, count = nats + float(found["nats"]), correct + int(found["num_correct"]), count + int(found["num_tokens"])
    return {"perplexity": math.exp(nats / count), "accuracy": correct / count, "num_tokens": count}


def describe(facts: dict[str, Any]) -> str:
    """The evaluation for people."""
    metrics = facts["metrics"]
    lines = [
        f"{facts['split']}: {metrics['num_sentences']:,} sentences (digest {metrics['digest']}); beam {metrics['beam_size']}, "
        f"length penalty {metrics['length_penalty']:g}",
        f"BLEU {metrics['bleu']:.2f}   ({metrics['bleu_signature']})",
        f"BLEU, lower case {metrics['lowercased_bleu']:.2f}   ({metrics['lowercased_bleu_signature']})",
        f"chrF {metrics['chrf']:.2f}   ({metrics['chrf_signature']})",
        f"exact match {100 * metrics['exact_match']:.2f} %",
        f"given the reference: perplexity {metrics['perplexity']:.3f} a piece, accuracy {100 * metrics['accuracy']:.2f} %",
        "",
        "words of the source    sentences     BLEU",
    ]
    lines += [f"{row['words']:<21} {row['num_sentences']:>10,} {row['bleu']:>8.2f}" for row in facts["by_length"]]
    for kind in ("worst", "best"):
        for row in facts[kind]:
            lines += ["", f"{kind}, chrF {row['chrf']:.1f}", f"  source       {row['source']}", f"  translation  {row['translation']}"]
            lines.append(f"  reference    {row['reference']}")
    return "\n".join(lines)
