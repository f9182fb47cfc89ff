"""Mixes a language model's probabilities with those of a continuous cache and of an n-gram model.

The settings are chosen on validation text.
"""

import logging
import math
import time

import numpy as np

from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.evaluation.kneser_ney import KneserNey
from nlp_rnn.evaluation.scored_text import Scored, score_text
from nlp_rnn.models.language_ensemble import LanguageEnsemble
from nlp_rnn.models.language_model import LanguageModel
from nlp_rnn.ondevice.continuous_cache import CacheSettings, ContinuousCache
from nlp_rnn.special_ids import EOS_ID

logger = logging.getLogger(__name__)

ORDER = 5  # of the n-gram model
_TUNING_TOKENS = 50_000  # of the validation split
_THETAS = (0.03, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
_SHARES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
_NGRAM_SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def tune_cache(model: LanguageModel | LanguageEnsemble, validation: TokenCache) -> CacheSettings:
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


def cached_rows(memory: ContinuousCache, scored: Scored) -> np.ndarray:
    """The window's log-probabilities mixed with the cache's. Each token is added to the cache after it is scored."""
    rows = []
    for target, log_probabilities, hidden in zip(*scored, strict=True):
        rows.append(memory.mix(log_probabilities, hidden))
        memory.add(hidden, int(target))
    return np.stack(rows)


class NGramText:
    """Scores a text window by window with an n-gram model of the training text.

    Attributes:
      seconds: spent on it so far.

    Args:
      train: the token ids of the training text.
    """

    def __init__(self, train: TokenCache, vocab_size: int) -> None:
        start = time.monotonic()
        self._model = KneserNey(vocab_size=vocab_size, order=ORDER).fit(np.fromfile(train.path / "ids.bin", np.int32))
        self.seconds = time.monotonic() - start
        self.begin()

    def begin(self) -> None:
        """Begins a text."""
        self._context = np.array([EOS_ID])

    def rows(self, targets: np.ndarray) -> np.ndarray:
        """Log-probabilities float32 [time, vocabulary] of the next tokens, int [time]."""
        start = time.monotonic()
        ids = np.concatenate([self._context, targets])
        first = len(self._context)
        shares = np.stack(
            [self._model.probabilities(ids[max(0, place - ORDER + 1) : place]) for place in range(first, len(ids))]
        )
        self._context = ids[-ORDER + 1 :]
        self.seconds += time.monotonic() - start
        return np.log(shares)


def mixed_rows(own: np.ndarray, ngram: np.ndarray, share: float) -> np.ndarray:
    """Log-probabilities of the mixture in which the n-gram model has a share, 0-1."""
    return np.logaddexp(own + np.float32(math.log1p(-share)), ngram + np.float32(math.log(share)))


def tune_ngram_share(
    model: LanguageModel | LanguageEnsemble, ngram: NGramText, validation: TokenCache, cache: CacheSettings | None
) -> float:
    """Chooses the n-gram model's share with the lowest perplexity on the first tokens of the validation split.

    Args:
      cache: of the cache that is mixed in first; None: none is.
    """
    memory = ContinuousCache(cache, vocab_size=model.vocab_size, features=model.features) if cache else None
    ngram.begin()
    own, other = [], []
    for scored in score_text(model, validation, title="tuning the mixture", num_tokens=_TUNING_TOKENS):
        places = np.arange(len(scored.targets)), scored.targets
        rows = scored.log_probabilities if memory is None else cached_rows(memory, scored)
        own.append(rows[places])
        other.append(ngram.rows(scored.targets)[places])
    ngram.begin()
    losses = {share: -mixed_rows(np.concatenate(own), np.concatenate(other), share).mean() for share in _NGRAM_SHARES}
    share = min(losses, key=losses.__getitem__)
    logger.info("n-gram: share %g: validation perplexity %.2f", share, math.exp(losses[share]))
    return share
