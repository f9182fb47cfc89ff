import numpy as np
import pytest

from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.evaluation.kneser_ney import KneserNey
from nlp_rnn.evaluation.mixtures import NGramText, mixed_rows


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
