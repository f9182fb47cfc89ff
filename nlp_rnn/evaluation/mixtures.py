"""Mixes a language model's probabilities with those of a continuous cache and of an n-gram model.

The settings are chosen on validation text.
"""

import logging
import math
import time
from typing import NamedTuple

import numpy as np

from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.errors import ConfigError
from nlp_rnn.evaluation.kneser_ney import KneserNey
from nlp_rnn.evaluation.scored_text import Scored, score_text
from nlp_rnn.models.language_ensemble import LanguageEnsemble
from nlp_rnn.models.language_model import LanguageModel
from nlp_rnn.ondevice.continuous_cache import LOWEST, CacheSettings, ContinuousCache
from nlp_rnn.ondevice.ngram_model import NGramModel
from nlp_rnn.special_ids import EOS_ID

logger = logging.getLogger(__name__)

ORDER = 5  # of the baseline's n-gram model
_EXPORTED_ORDER = 3
_TUNING_TOKENS = 50_000  # of the validation split
_THETAS = (0.03, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
_SHARES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
_NGRAM_SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def tune_cache(model: LanguageModel | LanguageEnsemble, validation: TokenCache) -> CacheSettings:
    """Chooses the cache settings with the lowest perplexity on the first tokens of the validation split."""
    memory = ContinuousCache(CacheSettings(0, 0), vocab_size=model.vocab_size, features=model.features)
    own, cached = [], []
    for scored in score_text(model, validation, title="tuning the cache", num_tokens=_TUNING_TOKENS):
        costs = scored.log_probabilities[np.arange(len(scored.targets)), scored.targets]
        own.append(np.exp(costs.astype(np.float64)))
        for hidden, target in zip(scored.hidden, scored.targets, strict=True):
            row = np.zeros(len(_THETAS))
            if len(memory):
                for column, theta in enumerate(_THETAS):
                    weights, ids = memory.weights(hidden, theta)
                    row[column] = weights[ids == target].sum()
            cached.append(row)
            memory.add(hidden, int(target))
    losses = {
        (share, theta): -np.log(
            np.maximum((1 - share) * np.concatenate(own) + share * np.array(cached)[:, column], LOWEST)
        ).mean()
        for share in _SHARES
        for column, theta in enumerate(_THETAS)
    }
    share, theta = min(losses, key=losses.__getitem__)
    logger.info("cache: share %g, theta %g: validation perplexity %.2f", share, theta, math.exp(losses[share, theta]))
    return CacheSettings(share=share, theta=theta)


def cached_rows(memory: ContinuousCache, scored: Scored) -> np.ndarray:
    """The window's log-probabilities mixed with the cache's. Each token is added to the cache after it is scored."""
    rows = []
    for target, log_probabilities, hidden in zip(*scored, strict=True):
        rows.append(memory.mix(log_probabilities, hidden))
        memory.add(hidden, int(target))
    return np.stack(rows)


class NGramText:
    """Scores a text window by window with an n-gram model.

    Attributes:
      seconds: spent on it so far.
    """

    def __init__(self, model: NGramModel) -> None:
        self._model, self.seconds = model, 0.0
        self.begin()

    @classmethod
    def fit(cls, train: TokenCache, vocab_size: int) -> "NGramText":
        """With the baseline's model of a training text, of which `train` holds the token ids."""
        start = time.monotonic()
        ids = np.fromfile(train.path / "ids.bin", np.int32)
        fitted = cls(KneserNey(ids, vocab_size=vocab_size, order=ORDER).model())
        fitted.seconds = time.monotonic() - start
        return fitted

    def begin(self) -> None:
        """Begins a text."""
        self._context = np.array([EOS_ID])

    def rows(self, targets: np.ndarray) -> np.ndarray:
        """Log-probabilities float32 [time, vocabulary] of the next tokens, int [time]."""
        start = time.monotonic()
        ids = np.concatenate([self._context, targets])
        first, length = len(self._context), self._model.order - 1
        rows = np.stack(
            [self._model.probabilities(ids[max(0, place - length) : place]) for place in range(first, len(ids))]
        )
        self._context = ids[max(len(ids) - length, 0) :]
        self.seconds += time.monotonic() - start
        return np.log(rows / rows.sum(axis=1, keepdims=True))  # those of files add up to 1 only nearly


def mixed_rows(own: np.ndarray, ngram: np.ndarray, share: float) -> np.ndarray:
    """Log-probabilities of the mixture in which the n-gram model has a share, 0-1."""
    return np.logaddexp(own + np.float32(math.log1p(-share)), ngram + np.float32(math.log(share)))


class TunedShare(NamedTuple):
    """The n-gram model's share in the mixture.

    Attributes:
      share: with the lowest perplexity on the first tokens of the validation split, 0-1.
      perplexity: of the mixture there.
      without: of the model without the n-gram model.
    """

    share: float
    perplexity: float
    without: float


def tune_ngram_share(
    model: LanguageModel | LanguageEnsemble, ngram: NGramText, validation: TokenCache, cache: CacheSettings | None
) -> TunedShare:
    """Chooses the n-gram model's share on validation text.

    Args:
      cache: of the cache that is mixed in first; None: none is.
    """
    memory = ContinuousCache(cache, vocab_size=model.vocab_size, features=model.features) if cache else None
    ngram.begin()
    rows_of_text, others = [], []
    for scored in score_text(model, validation, title="tuning the mixture", num_tokens=_TUNING_TOKENS):
        places = np.arange(len(scored.targets)), scored.targets
        rows = scored.log_probabilities if memory is None else cached_rows(memory, scored)
        rows_of_text.append(rows[places])
        others.append(ngram.rows(scored.targets)[places])
    ngram.begin()
    own, other = np.concatenate(rows_of_text), np.concatenate(others)
    losses = {share: -float(mixed_rows(own, other, share).mean()) for share in _NGRAM_SHARES}
    share = min(losses, key=losses.__getitem__)
    tuned = TunedShare(share, math.exp(losses[share]), math.exp(-float(own.mean())))
    logger.info("n-gram: share %g: validation perplexity %.2f, without %.2f", share, tuned.perplexity, tuned.without)
    return tuned


class ExportedNGrams(NamedTuple):
    """An n-gram model for an export.

    Attributes:
      content: of its file.
      share: in the mixture with the neural model, 0-1.
    """

    content: bytes
    share: float


def ngrams_within(max_bytes: int, model: LanguageModel, train: TokenCache, validation: TokenCache) -> ExportedNGrams:
    """The n-gram model of up to three words, with as many n-grams as a file of `max_bytes` holds.

    Those that were seen least often are left out. The share is chosen on validation text.

    Raises:
      ConfigError: if the file cannot be that small, or the mixture is no better than the neural model.
    """
    ids = np.fromfile(train.path / "ids.bin", np.int32)
    counted = KneserNey(ids, vocab_size=model.vocab_size, order=_EXPORTED_ORDER)

    def pruned(level: int) -> NGramModel:
        return counted.model(min_counts=(level // 2 + 1, (level + 1) // 2 + 1))

    setting = f"--ngrams (ngram_megabytes) is {max_bytes / 1e6:g}"
    too_large, fits = -1, 0  # levels of pruning
    while len((smallest := pruned(fits)).to_bytes()) > max_bytes:
        if not len(smallest.higher_orders[0].words):
            raise ConfigError(
                f"{setting}, but the vocabulary alone takes {math.ceil(len(smallest.to_bytes()) / 1e3) / 1e3:g} MB; "
                "give more, or leave it out"
            )
        too_large, fits = fits, 2 * fits + 1
    while fits - too_large > 1:
        middle = (too_large + fits) // 2
        too_large, fits = (middle, fits) if len(pruned(middle).to_bytes()) > max_bytes else (too_large, middle)
    content = pruned(fits).to_bytes()
    logger.info(
        "n-gram: pairs seen at least %d times, triples %d times, %.2f MB",
        fits // 2 + 1, (fits + 1) // 2 + 1, len(content) / 1e6,
    )  # fmt: skip
    tuned = tune_ngram_share(model, NGramText(NGramModel.from_bytes(content)), validation, None)  # as in the file
    if tuned.perplexity >= tuned.without:
        raise ConfigError(
            f"{setting}, but an n-gram model does not improve the validation perplexity ({tuned.perplexity:.2f}, "
            f"without it {tuned.without:.2f}); leave it out"
        )
    return ExportedNGrams(content, tuned.share)
