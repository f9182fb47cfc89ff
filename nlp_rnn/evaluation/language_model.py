"""Scores a language model on a split: perplexity, keyboard metrics, an n-gram baseline, and what adaptation brings."""

import itertools
import math
import sys
from typing import Any, Literal

import numpy as np

from nlp_rnn.config.settings import Config
from nlp_rnn.data import datasets
from nlp_rnn.data.corpus import Corpus, corpus_with
from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.decoding.suggestible_words import Vocabulary
from nlp_rnn.errors import ConfigError
from nlp_rnn.evaluation.dynamic import DynamicEvaluation
from nlp_rnn.evaluation.mixtures import (
    ORDER,
    NGramText,
    cached_rows,
    mixed_rows,
    tune_cache,
    tune_ngram_share,
)
from nlp_rnn.evaluation.run_model import check_seeds, load_language_models
from nlp_rnn.evaluation.scored_text import score_text
from nlp_rnn.evaluation.typing_metrics import KeyboardMeter, PerplexityMeter
from nlp_rnn.models.language_model import LanguageModel
from nlp_rnn.ondevice.continuous_cache import ContinuousCache
from nlp_rnn.ondevice.litert_model import OnDeviceModel
from nlp_rnn.progress import track
from nlp_rnn.special_ids import BOS_ID, EOS_ID, PAD_ID
from nlp_rnn.tokenization.tokenizer import Tokenizer
from nlp_rnn.training.run_directory import Run

Adaptation = Literal["", "cache", "dynamic"]

_MAX_NATS = 700  # exp of more is no float64


def evaluate_runs(
    runs: list[Run], split: str, *, has_baseline: bool, adapts: Adaptation, max_examples: int = 0
) -> dict[str, Any]:
    """Scores the best weights of a run, or an ensemble of runs, on a split that is read as one text.

    Of a single run, adds the figures to metrics.json.

    Args:
      runs: one run, or the members of an ensemble; the config of the first one names the data.
      has_baseline: whether an n-gram model is trained on the same ids and scored too, alone and mixed with the model.
      adapts: how the model is also scored while it learns from the text that it has read: with a continuous cache, or
        by dynamic evaluation. The settings of both are chosen on the validation split.
      max_examples: scores the first so many texts of the split; 0: all. metrics.json says it as `num_texts`.

    Returns:
      split, metrics and, if requested, baseline, mixture and adapted: each the result of a `KeyboardMeter`, for subword
      models of a `PerplexityMeter`. The mixture is of the n-gram model and the model, with its cache if there is one.
      metrics also has word_perplexity, which models with different tokenizers can be compared by: the perplexity per
      word between white space, counting each end of a text as a word.

    Raises:
      ConfigError: if an ensemble cannot be adapted that way, or its runs do not fit together: see
        `load_language_models` and `check_seeds`.
    """
    config = runs[0].config
    if adapts == "dynamic" and len(runs) > 1:
        raise ConfigError(f"--adapt is dynamic, but there are {len(runs)} runs; adapt one, or use --adapt cache")
    also = (*(("train",) if has_baseline else ()), *(("validation",) if adapts or has_baseline else ()))
    corpus = corpus_with(config, split, also=also)
    check_seeds(runs, corpus, split)
    model, tokenizer = load_language_models(runs)

    def ids_of(name: str) -> TokenCache:
        return datasets.prepare_stream(corpus, name, config.data, tokenizer, is_reversed=config.model.is_reversed)

    evaluated = ids_of(split).first(max_examples)
    meters = {"metrics": make_meter(tokenizer)}
    memory = ngram = None
    share = 0.0
    if adapts:
        meters["adapted"] = make_meter(tokenizer)
    if adapts == "cache":
        settings = tune_cache(model, ids_of("validation"))
        memory = ContinuousCache(settings, vocab_size=model.vocab_size, features=model.features)
    if has_baseline:
        ngram = NGramText.fit(ids_of("train"), model.vocab_size)
        cache = memory.settings if memory is not None else None
        share = tune_ngram_share(model, ngram, ids_of("validation"), cache).share
        meters |= {"baseline": make_meter(tokenizer), "mixture": make_meter(tokenizer)}
    for scored in score_text(model, evaluated, title=f"scoring {split}"):
        rows, targets = scored.log_probabilities, scored.targets
        meters["metrics"].update(rows, targets)
        if memory is not None:  # it has a length, 0 at first
            rows = cached_rows(memory, scored)
            meters["adapted"].update(rows, targets)
        if ngram:
            other = ngram.rows(targets)
            meters["baseline"].update(other, targets)
            meters["mixture"].update(mixed_rows(rows, other, share), targets)
    facts = {}
    if memory is not None:
        facts["adapted"] = vars(memory.settings)
        _keep(runs, cache=vars(memory.settings))
    if adapts == "dynamic" and isinstance(model, LanguageModel):
        learner = DynamicEvaluation(model, ids_of("validation"))
        chosen = learner.tune()
        facts["adapted"] = chosen._asdict()
        for scored in learner.score_text(evaluated, chosen, title=f"adapting to {split}"):
            meters["adapted"].update(scored.log_probabilities, scored.targets)
    if ngram:
        name = f"interpolated modified Kneser-Ney, {ORDER}-grams"
        facts |= {
            "baseline": {"name": name, "seconds": round(ngram.seconds, 1)},
            "mixture": {"ngram_share": share},
        }
    results = {name: meter.result() | facts.get(name, {}) for name, meter in meters.items()}
    num_words = _num_words(corpus, split, len(evaluated))
    results["metrics"] |= {
        # Text without spaces, such as Chinese, has few words by this count.
        "word_perplexity": math.exp(min(meters["metrics"].nats / num_words, _MAX_NATS)),
        "num_texts": len(evaluated),
    }
    _keep(
        runs,
        **{split: results["metrics"]},
        **{f"{split}_{name}": value for name, value in results.items() if name != "metrics"},
    )
    return {"split": split, **results}


def _keep(runs: list[Run], **figures: Any) -> None:
    if len(runs) == 1:
        runs[0].write_metrics(**figures)


def make_meter(tokenizer: Tokenizer) -> PerplexityMeter:
    """A meter of perplexity; for models over words, of the keyboard too."""
    if tokenizer.level != "word":
        return PerplexityMeter()
    words = Vocabulary(tokenizer)
    return KeyboardMeter(words.words, words.is_suggestible, words.is_symbol, splitter=tokenizer.splitter)


def _num_words(corpus: Corpus, split: str, num_texts: int) -> int:
    texts = itertools.islice(corpus.examples(split), num_texts)
    return sum(len(example.text.split()) + 1 for example in texts)  # one end per text


def evaluate_device(device: OnDeviceModel, config: Config, split: str, *, max_examples: int = 0) -> dict[str, Any]:
    """Like `evaluate_runs`, for a LiteRT file: one step per word, as on a phone."""
    corpus = corpus_with(config, split)
    meter = KeyboardMeter(
        device.words,
        device.suggestible,
        np.isin(np.arange(len(device.words)), (PAD_ID, BOS_ID, EOS_ID)),
        splitter=device.splitter,
    )
    step = device.step(EOS_ID, device.zero_states())
    count = min(max_examples or sys.maxsize, corpus.facts[split].num_examples)
    for example in track(itertools.islice(corpus.examples(split), count), f"scoring {split}", count):
        for token in [*device.ids(device.split(example.text)), EOS_ID]:
            meter.update(step.log_probabilities[None], np.array([token]))
            step = device.step(token, step.states)
    return {"split": split, "metrics": meter.result() | {"num_texts": count}}


def describe(facts: dict[str, Any]) -> str:
    """Formats the evaluation: one line per model."""
    rows = [("model", facts["metrics"])]
    if "adapted" in facts:
        rows.append(("with cache" if "theta" in facts["adapted"] else "adapting", facts["adapted"]))
    if "baseline" in facts:
        rows += [("Kneser-Ney", facts["baseline"]), ("both, mixed", facts["mixture"])]
    metrics = facts["metrics"]
    of_words = f", of which {metrics['num_words']:,} are words" if "num_words" in metrics else ""
    per_word = f"; perplexity per word {metrics['word_perplexity']:.2f}" if "word_perplexity" in metrics else ""
    lines = [f"{facts['split']}: {metrics['num_tokens']:,} tokens{of_words}{per_word}"]
    has_words = "recall_at_1" in metrics
    titles = f"{'top 1':>9}{'top 3':>9}{'top 5':>9}{'MRR':>8}{'keystrokes saved':>18}" if has_words else ""
    lines.append(f"{'':<12}{'perplexity':>11}{titles}")
    for name, scores in rows:
        lines.append(f"{name:<12}{scores['perplexity']:>11.2f}")
        if has_words:
            lines[-1] += "".join(f"{100 * scores[f'recall_at_{count}']:>7.2f} %" for count in (1, 3, 5))
            lines[-1] += f"{scores['mean_reciprocal_rank']:>8.4f}{100 * scores['keystroke_savings']:>16.2f} %"
    return "\n".join(lines)
