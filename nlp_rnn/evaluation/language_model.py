"""Scores a language model on a split: perplexity, keyboard metrics, an n-gram baseline, and the gain of a cache."""

import logging
import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from nlp_rnn.config.settings import Config
from nlp_rnn.data import datasets
from nlp_rnn.data.bptt import TokenStream
from nlp_rnn.data.corpus import corpus_with
from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.decoding.suggestible_words import Vocabulary
from nlp_rnn.evaluation.kneser_ney import KneserNey
from nlp_rnn.evaluation.run_model import load_language_model
from nlp_rnn.evaluation.typing_metrics import KeyboardMeter, PerplexityMeter
from nlp_rnn.models.language_model import LanguageModel
from nlp_rnn.ondevice.continuous_cache import CacheSettings, ContinuousCache
from nlp_rnn.ondevice.litert_model import OnDeviceModel
from nlp_rnn.progress import track
from nlp_rnn.special_ids import BOS_ID, EOS_ID, PAD_ID
from nlp_rnn.training.run_directory import Run

logger = logging.getLogger(__name__)

_WINDOW = 200  # tokens per call
_ORDER = 5  # of the n-gram baseline
_TUNING_TOKENS = 50_000  # of the validation split, on which the cache's settings are chosen
_THETAS = (0.03, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
_SHARES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)


class Scored(NamedTuple):
    """A scored window of a text.

    Attributes:
      targets: int [time].
      log_probabilities: float32 [time, vocabulary].
      hidden: float32 [time, features].
    """

    targets: np.ndarray
    log_probabilities: np.ndarray
    hidden: np.ndarray


def evaluate_run(run: Run, split: str, *, has_baseline: bool, adapts: bool) -> dict[str, Any]:
    """Scores the run's best weights on a whole split, read as one text, and adds the figures to metrics.json.

    Args:
      has_baseline: whether an n-gram model is trained on the same ids and scored too.
      adapts: whether the model is also scored with a continuous cache, whose settings are chosen on the validation
        split.

    Returns:
      split, metrics and, if requested, baseline and adapted: each the result of a `KeyboardMeter`, for subword models
        of a
      `PerplexityMeter`. metrics also has word_perplexity, which models with different tokenizers can be compared by:
      the perplexity per word between white space, counting each end of a text as a word.
    """
    config = run.config
    also = (*(("train",) if has_baseline else ()), *(("validation",) if adapts else ()))
    corpus = corpus_with(config, split, also=also)
    model, tokenizer = load_language_model(run)
    words = Vocabulary(tokenizer) if tokenizer.level == "word" else None

    def make_meter() -> PerplexityMeter:
        if words is None:
            return PerplexityMeter()
        return KeyboardMeter(words.words, words.is_suggestible, words.is_symbol, splitter=tokenizer.splitter)

    num_words = sum(len(example.text.split()) + 1 for example in corpus.examples(split))  # one end per text
    is_reversed = config.model.is_reversed
    cache = datasets.prepare_stream(corpus, split, config.data, tokenizer, is_reversed=is_reversed)
    meter, adapted, memory = make_meter(), make_meter(), None
    if adapts:
        settings = tune_cache(
            model, datasets.prepare_stream(corpus, "validation", config.data, tokenizer, is_reversed=is_reversed)
        )
        memory = ContinuousCache(settings, vocab_size=model.vocab_size, features=model.features)
    for scored in score_text(model, cache, title=f"scoring {split}"):
        meter.update(scored.log_probabilities, scored.targets)
        if memory is not None:
            adapted.update(_adapted(memory, scored), scored.targets)
    results = {"metrics": meter.result() | {"word_perplexity": math.exp(meter.nats / num_words)}}
    if memory is not None:
        results["adapted"] = adapted.result() | vars(memory.settings)
        run.write_metrics(cache=vars(memory.settings))
    if has_baseline:
        train = datasets.prepare_stream(corpus, "train", config.data, tokenizer, is_reversed=is_reversed)
        results["baseline"] = evaluate_ngram(train, cache, model.vocab_size, make_meter())
    run.write_metrics(
        **{split: results["metrics"]},
        **{f"{split}_{name}": value for name, value in results.items() if name != "metrics"},
    )
    return {"split": split, **results}


def evaluate_device(device: OnDeviceModel, config: Config, split: str) -> dict[str, Any]:
    """Like `evaluate_run`, for a LiteRT file: one step per word, as on a phone."""
    corpus = corpus_with(config, split)
    meter = KeyboardMeter(
        device.words,
        device.suggestible,
        np.isin(np.arange(len(device.words)), (PAD_ID, BOS_ID, EOS_ID)),
        splitter=device.splitter,
    )
    step = device.step(EOS_ID, device.zero_states())
    for example in track(corpus.examples(split), f"scoring {split}", corpus.facts[split].num_examples):
        for token in [*device.ids(device.split(example.text)), EOS_ID]:
            meter.update(step.log_probabilities[None], np.array([token]))
            step = device.step(token, step.states)
    return {"split": split, "metrics": meter.result()}


def score_text(model: LanguageModel, cache: TokenCache, *, title: str, num_tokens: int = 0) -> Iterator[Scored]:
    """Yields scores for every token of a split, window by window. The split is read as one text with carried states.

    Args:
      num_tokens: stops after so many tokens; 0: reads all.
    """

    @tf.function(
        input_signature=[tf.TensorSpec([1, None], tf.int32), tf.TensorSpec([1, sum(model.state_sizes)])],
        autograph=False,
    )
    def run(token_ids: tf.Tensor, states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        hidden, after = model.run(token_ids, model.unpack_states(states))
        return model.head(hidden)[0], hidden[0], model.pack_states(after)

    text = TokenStream(cache, 1, drop_remainder=False)
    states = model.pack_states(model.zero_states(1))
    windows = text.windows(_WINDOW)[: -(-num_tokens // _WINDOW) or None]
    for place in track(windows, title, len(windows)):
        token_ids, targets, _ = text.read(*place)
        log_probabilities, hidden, states = run(token_ids, states)
        yield Scored(targets[0], log_probabilities.numpy(), hidden.numpy())


def tune_cache(model: LanguageModel, validation: TokenCache) -> CacheSettings:
    """Chooses the cache settings with the lowest perplexity on the first tokens of the validation split."""
    memory = ContinuousCache(CacheSettings(0, 0), vocab_size=model.vocab_size, features=model.features)
    own, cached = [], []
    for scored in score_text(model, validation, title="tuning the cache", num_tokens=_TUNING_TOKENS):
        own.append(np.exp(scored.log_probabilities[np.arange(len(scored.targets)), scored.targets]))
        for hidden, target in zip(scored.hidden, scored.targets, strict=True):
            row = np.zeros(len(_THETAS))
            if len(memory):
                for column, theta in enumerate(_THETAS):
                    weights, ids = memory.weights(hidden, theta)
                    row[column] = weights[ids == target].sum()
            cached.append(row)
            memory.add(hidden, int(target))
    losses = {
        (share, theta): -np.log((1 - share) * np.concatenate(own) + share * np.array(cached)[:, column]).mean()
        for share in _SHARES
        for column, theta in enumerate(_THETAS)
    }
    share, theta = min(losses, key=losses.__getitem__)
    logger.info("cache: share %g, theta %g: validation perplexity %.2f", share, theta, math.exp(losses[share, theta]))
    return CacheSettings(share=share, theta=theta)


def evaluate_ngram(train: TokenCache, judged: TokenCache, vocab_size: int, meter: PerplexityMeter) -> dict[str, Any]:
    """Trains an interpolated modified Kneser-Ney model on the same ids and scores it on the same text."""
    start = time.monotonic()
    model = KneserNey(vocab_size=vocab_size, order=_ORDER).fit(np.fromfile(train.path / "ids.bin", np.int32))
    ids = np.concatenate([[EOS_ID], np.fromfile(judged.path / "ids.bin", np.int32)])
    for place in track(range(1, len(ids)), "scoring the n-gram", len(ids) - 1):
        probabilities = model.probabilities(ids[max(0, place - _ORDER + 1) : place])
        meter.update(np.log(probabilities)[None], ids[place : place + 1])
    name = f"interpolated modified Kneser-Ney, {_ORDER}-grams"
    return meter.result() | {"name": name, "seconds": round(time.monotonic() - start, 1)}


def describe(facts: dict[str, Any]) -> str:
    """Formats the evaluation: one line per model."""
    rows = [("model", facts["metrics"])]
    rows += [("with cache", facts["adapted"])] if "adapted" in facts else []
    rows += [("Kneser-Ney", facts["baseline"])] if "baseline" in facts else []
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


def _adapted(memory: ContinuousCache, scored: Scored) -> np.ndarray:
    """The window's log-probabilities mixed with the cache's. Each token is added to the cache after it is scored."""
    rows = []
    for target, log_probabilities, hidden in zip(*scored, strict=True):
        rows.append(memory.mix(log_probabilities, hidden))
        memory.add(hidden, int(target))
    return np.stack(rows)
