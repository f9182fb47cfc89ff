import math

import keras
import numpy as np
import pytest

from nlp_rnn.config.settings import ModelConfig
from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.evaluation import scored_text
from nlp_rnn.evaluation.dynamic import DynamicEvaluation, DynamicSettings
from nlp_rnn.models.language_model import LanguageModel

_VOCAB = 12


@pytest.fixture
def model():
    keras.utils.set_random_seed(1)
    config = ModelConfig(
        cell="lstm", embedding_dim=8, units=8, num_layers=1, softmax="full", dropout=0.0, is_bidirectional=False
    )
    return LanguageModel(config, vocab_size=_VOCAB)


def text(folder, ids):
    np.array(ids, np.int32).tofile(folder / "ids.bin")
    return TokenCache(folder, np.array([0, len(ids)]), np.zeros(1, np.int32))


def nats(windows):
    return np.concatenate([-each.log_probabilities[np.arange(len(each.targets)), each.targets] for each in windows])


def test_it_learns_a_repeated_text_and_forgets_it_afterwards(tmp_path, model):
    cache = text(tmp_path, [4, 7, 5, 9, 6] * 60)
    before = [weight.numpy() for weight in model.weights]
    learner = DynamicEvaluation(model, cache)
    learned = nats(learner.score_text(cache, DynamicSettings(rate=30.0, decay=0.0), title=""))
    plain = nats(scored_text.score_text(model, cache, title=""))
    np.testing.assert_allclose(learned[:20], plain[:20], rtol=1e-5)  # a segment is scored before it is learnt
    assert learned[-50:].mean() < 0.8 * plain[-50:].mean()
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


def test_without_steps_it_is_plain_scoring(tmp_path, model):
    cache = text(tmp_path, np.random.default_rng(0).integers(4, _VOCAB, 90))
    found = nats(DynamicEvaluation(model, cache).score_text(cache, DynamicSettings(0.0, 0.01), title=""))
    np.testing.assert_allclose(found, nats(scored_text.score_text(model, cache, title="")), rtol=1e-5)


@pytest.mark.parametrize(("without", "chosen"), [(6, (1, 0.003)), (4.5, (0, 0))])
def test_the_rate_and_the_decay_grow_while_they_help(tmp_path, model, monkeypatch, without, chosen):
    cache = text(tmp_path, [4, 7, 5, 9, 6] * 60)
    learner = DynamicEvaluation(model, cache)
    losses = {
        (0, 0): without, (0, 0.003): without,
        (0.03, 0): 5, (0.1, 0): 4, (0.3, 0): 3, (1, 0): 2, (3, 0): math.nan, (10, 0): 0,
        (1, 0.003): 1.5, (1, 0.01): 1.6, (1, 0.03): 0,
    }  # fmt: skip
    monkeypatch.setattr(learner, "_loss", lambda settings, num_tokens: losses[settings])
    assert learner.tune() == chosen


def test_a_plain_text_suits_a_high_rate(tmp_path, model):
    cache = text(tmp_path, [4, 7, 5, 9, 6] * 60)
    learner = DynamicEvaluation(model, cache)
    chosen = learner.tune(num_tokens=200)
    assert chosen.rate > 0.3

    def loss(settings):
        return nats(learner.score_text(cache, settings, title="", num_tokens=200)).mean()

    assert loss(chosen) < loss(DynamicSettings(0.3, 0.0)) < loss(DynamicSettings(0.0, 0.0))
