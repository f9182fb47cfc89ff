"""Evaluates translators on a split: BLEU, chrF, exact match, and perplexity and accuracy on the references."""

import math
from typing import Any

import tensorflow as tf

from nlp_rnn import files
from nlp_rnn.data.corpus import corpus_with
from nlp_rnn.decoding.settings import SearchSettings
from nlp_rnn.evaluation.run_model import check_seeds, load_module
from nlp_rnn.evaluation.translation_metrics import best_and_worst, corpus_scores, require_sacrebleu, scores_by_length
from nlp_rnn.export.translation import TranslationModule, search_tensors
from nlp_rnn.printable import one_line
from nlp_rnn.progress import track
from nlp_rnn.training.run_directory import Run

_ROWS = 32  # sentences per batch


def evaluate_runs(runs: list[Run], split: str, **settings: float) -> dict[str, Any]:
    """Evaluates the best weights of a run, or an ensemble of runs.

    Writes translations_<split>.txt into the first run's directory; for a single run also metrics.json.

    Args:
      runs: one run, or the members of an ensemble; the config of the first one names the data.
      split: "validation" or "test".
      settings: beam_size and length_penalty of the search, see `SearchSettings`.

    Returns:
      split; metrics, whose `digest` identifies the texts of the split; by_length; best; worst.

    Raises:
      ConfigError: if sacrebleu is not installed, a setting is wrong, the split cannot be read, or runs with different
        seeds would be evaluated on each other's training data.
    """
    require_sacrebleu()  # before minutes of work
    search = SearchSettings.checked(**settings)
    config = runs[0].config
    corpus = corpus_with(config, split)
    check_seeds(runs, corpus, split)
    module = load_module(runs)
    pairs = list(corpus.examples(split))
    sources, references = [pair.text for pair in pairs], [pair.label for pair in pairs]
    hypotheses = translate_all(module, sources, search)
    with files.atomic_file(runs[0].path / f"translations_{split}.txt") as temporary:
        lines = "".join(f"{one_line(hypothesis)}\n" for hypothesis in hypotheses)
        temporary.write_text(lines, encoding="utf-8", newline="\n")
    metrics = corpus_scores(hypotheses, references, config.data.target_language) | _teacher_forced(
        module, sources, references
    )
    metrics |= {"num_sentences": len(pairs), "digest": corpus.facts[split].digest, "beam_size": search.beam_size}
    metrics["length_penalty"] = search.length_penalty
    if len(runs) == 1:
        runs[0].write_metrics(**{split: metrics})
    facts = {
        "split": split,
        "metrics": metrics,
        "by_length": scores_by_length(sources, hypotheses, references, config.data.target_language),
    }
    return facts | best_and_worst(sources, hypotheses, references)


def translate_all(module: Any, sources: list[str], search: SearchSettings) -> list[str]:
    """Translates sentences in batches of similar length.

    Args:
      module: as exported, with `translate`.
      sources: the sentences.
      search: settings of the beam search.

    Returns:
      the best translation of each sentence, in the order of `sources`.
    """
    order = sorted(range(len(sources)), key=lambda row: len(sources[row]))
    translations = [""] * len(sources)
    batches = [order[start : start + _ROWS] for start in range(0, len(order), _ROWS)]
    for rows in track(batches, "translating", len(batches)):
        outputs = module.translate(tf.constant([sources[row] for row in rows]), **search_tensors(search, len(rows)))
        for row, text in zip(rows, outputs["translations"][:, 0].numpy(), strict=True):
            translations[row] = text.decode("utf-8")
    return translations


def _teacher_forced(module: TranslationModule, sources: list[str], references: list[str]) -> dict[str, float]:
    """cross_entropy (nats), perplexity and accuracy of each reference piece, given the pieces before it.

    Ends of sentences are included.
    """
    order = sorted(range(len(sources)), key=lambda row: len(references[row]))
    nats, correct, count = 0.0, 0, 0
    for start in range(0, len(order), _ROWS):
        rows = order[start : start + _ROWS]
        sums = module.score(*(tf.constant([side[row] for row in rows]) for side in (sources, references)))
        nats, correct, count = (
            nats + float(sums["nats"]),
            correct + int(sums["num_correct"]),
            count + int(sums["num_tokens"]),
        )
    cross_entropy = nats / count
    return {
        "cross_entropy": cross_entropy,
        "perplexity": math.exp(cross_entropy),
        "accuracy": correct / count,
        "num_tokens": count,
    }


def describe(facts: dict[str, Any]) -> str:
    """Formats the result of `evaluate_runs` as text."""
    metrics = facts["metrics"]
    lines = [
        f"{facts['split']}: {metrics['num_sentences']:,} sentences (digest {metrics['digest']}); "
        f"beam {metrics['beam_size']}, length penalty {metrics['length_penalty']:g}",
        f"BLEU {metrics['bleu']:.2f}   ({metrics['bleu_signature']})",
        f"BLEU, lower case {metrics['lowercased_bleu']:.2f}   ({metrics['lowercased_bleu_signature']})",
        f"chrF {metrics['chrf']:.2f}   ({metrics['chrf_signature']})",
        f"exact match {100 * metrics['exact_match']:.2f} %",
        f"given the reference: perplexity {metrics['perplexity']:.3f} per piece, "
        f"accuracy {100 * metrics['accuracy']:.2f} %",
        "",
        "words of the source    sentences     BLEU",
    ]
    lines += [f"{row['words']:<21} {row['num_sentences']:>10,} {row['bleu']:>8.2f}" for row in facts["by_length"]]
    for kind in ("worst", "best"):
        for row in facts[kind]:
            lines += [
                "",
                f"{kind}, chrF {row['chrf']:.1f}",
                *(f"  {side:<12} {one_line(row[side])}" for side in ("source", "translation", "reference")),
            ]
    return "\n".join(lines)
