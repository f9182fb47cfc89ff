import types

import numpy as np
import pytest

from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.evaluation import mixtures
from nlp_rnn.evaluation.kneser_ney import KneserNey
from nlp_rnn.evaluation.mixtures import NGramText, mixed_rows, tune_cache, tune_ngram_share
from nlp_rnn.evaluation.scored_text import Scored

VOCAB_SIZE = 9
MODEL = types.SimpleNamespace(vocab_size=VOCAB_SIZE, features=4)


def text(folder, ids):
    np.array(ids, np.int32).tofile(folder / "ids.bin")
    return TokenCache(folder, np.array([0, len(ids)]), np.zeros(1, np.int32))


def test_a_mixture_is_a_distribution_between_both():
    own, other = np.log([[0.5, 0.25, 0.25]]), np.log([[0.1, 0.1, 0.8]])
    np.testing.assert_allclose(np.exp(mixed_rows(own, other, 0.25)), [[0.4, 0.2125, 0.3875]], rtol=1e-6)


@pytest.mark.parametrize("window", [1, 3, 50])
def test_windows_of_any_length_score_as_the_whole_text(tmp_path, window):
    generator = np.random.default_rng(0)
    train, held_out = generator.integers(3, 9, 300), generator.integers(3, 9, 50)
    ngram = NGramText.fit(text(tmp_path, train), vocab_size=9)
    rows = np.concatenate([ngram.rows(held_out[start : start + window]) for start in range(0, 50, window)])
    model, ids = KneserNey(train, vocab_size=9).model(), np.concatenate([[3], held_out])
    expected = [np.log(model.probabilities(ids[max(0, place - 4) : place])) for place in range(1, len(ids))]
    np.testing.assert_allclose(rows, expected, rtol=1e-5)


@pytest.fixture
def scored(monkeypatch):
    """Made-up scores of sixty validation tokens, in two windows, as a model would give them."""
    generator = np.random.default_rng(1)
    targets = np.tile([3, 5, 4, 8, 6], 12)
    scores = 2 * generator.normal(size=(60, VOCAB_SIZE))
    scores[np.arange(60), targets] += generator.normal(2, 2, 60)
    rows = np.log(np.exp(scores) / np.exp(scores).sum(1, keepdims=True)).astype(np.float32)
    hidden = (generator.normal(size=(60, 4)) + np.eye(VOCAB_SIZE, 4)[targets - 3]).astype(np.float32)
    whole = Scored(targets, rows, hidden)
    windows = [Scored(*(each[:25] for each in whole)), Scored(*(each[25:] for each in whole))]
    monkeypatch.setattr(mixtures, "score_text", lambda *_, **__: iter(windows))
    return whole


def test_the_share_of_the_n_grams_is_the_best_one(scored, tmp_path):
    train = np.random.default_rng(0).choice([*[3, 5, 4, 8, 6] * 8, 7], 300)
    found = tune_ngram_share(MODEL, NGramText.fit(text(tmp_path, train), VOCAB_SIZE), None, None)
    model, ids = KneserNey(train, vocab_size=VOCAB_SIZE).model(), np.concatenate([[3], scored.targets])
    other = np.array([model.probabilities(ids[max(0, place - 4) : place])[ids[place]] for place in range(1, len(ids))])
    own = np.exp(scored.log_probabilities[np.arange(60), scored.targets])
    perplexities = {
        share: np.exp(-np.log((1 - share) * own + share * other).mean()) for share in mixtures._NGRAM_SHARES
    }
    best = min(perplexities, key=perplexities.__getitem__)
    assert best not in (mixtures._NGRAM_SHARES[0], mixtures._NGRAM_SHARES[-1])
    assert found.share == best
    assert found.perplexity == pytest.approx(perplexities[best], rel=1e-5)
    assert found.without == pytest.approx(np.exp(-np.log(own).mean()), rel=1e-5)


def test_the_settings_of_the_cache_are_the_best_ones(scored):
    own, perplexities = np.exp(scored.log_probabilities[np.arange(60), scored.targets]), {}
    for theta in mixtures._THETAS:
        cached = np.zeros(60)
        for place in range(1, 60):
            weights = np.exp(theta * scored.hidden[:place] @ scored.hidden[place])
            cached[place] = weights[scored.targets[:place] == scored.targets[place]].sum() / weights.sum()
        for share in mixtures._SHARES:
            perplexities[share, theta] = np.exp(-np.log((1 - share) * own + share * cached).mean())
    found = tune_cache(MODEL, None)
    assert perplexities[found.share, found.theta] == pytest.approx(min(perplexities.values()), rel=1e-6)
    assert max(perplexities.values()) > 1.02 * min(perplexities.values())


def test_one_token_that_the_model_excludes_does_not_decide_on_the_cache(scored, monkeypatch):
    chosen = tune_cache(MODEL, None)
    rows = scored.log_probabilities.copy()
    rows[0, scored.targets[0]] = -120  # before the cache has anything
    monkeypatch.setattr(mixtures, "score_text", lambda *_, **__: iter([scored._replace(log_probabilities=rows)]))
    assert tune_cache(MODEL, None) == chosen
