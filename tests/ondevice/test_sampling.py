import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.decoding import sampling as in_graph
from nlp_rnn.ondevice.sampling import Sampling, draw, random_uniform, restrict


@pytest.mark.parametrize(("seed", "position"), [(1, 0), (0, 7), (2**31 - 1, 999_999)])
def test_the_random_numbers_are_those_of_the_graph(seed, position):
    expected = in_graph.random_uniform(tf.constant([seed]), tf.constant([position]), 300)[0]
    np.testing.assert_array_equal(random_uniform(seed, position, 300), expected)


@pytest.mark.parametrize("top_k", [0, 3, 99])
@pytest.mark.parametrize("top_p", [1.0, 0.6, 0.01])
@pytest.mark.parametrize(("temperature", "penalty"), [(1.0, 1.0), (0.5, 4.0), (0.0, 1.5)])
def test_the_ids_left_are_those_of_the_graph(top_k, top_p, temperature, penalty):
    scores = np.random.default_rng(0).normal(scale=2, size=20).astype(np.float32)
    recent = [3, 3, 5, *[7] * 62, 11]  # 3 is 66 ids before, 5 is 64
    last_seen = np.full(20, -(2**30), np.int32)
    last_seen[[3, 5, 7, 11]] = [35, 36, 98, 99]
    expected = in_graph.restrict(
        tf.constant([scores]),
        in_graph.Sampling(*(tf.constant([each]) for each in (temperature, top_k, top_p, penalty, 1))),
        tf.constant([100]), tf.constant([last_seen]),
    )[0].numpy()  # fmt: skip
    found = restrict(scores, Sampling(temperature, top_k, top_p, penalty, 1), recent)
    np.testing.assert_array_equal(np.isfinite(found), expected > -1e8)
    np.testing.assert_allclose(found[np.isfinite(found)], expected[expected > -1e8], rtol=1e-6)


def test_draws_follow_the_probabilities():
    scores = np.log(
        np.array([0.0, 0.5, 0.3, 0.2], np.float32), where=[False, True, True, True], out=np.full(4, -np.inf)
    )
    plain = Sampling(1.0, 0, 1.0, 1.0, seed=5)
    counts = np.bincount([draw(scores, plain, position, []) for position in range(4000)], minlength=4)
    np.testing.assert_allclose(counts / 4000, [0, 0.5, 0.3, 0.2], atol=0.025)
    assert draw(scores, Sampling(0.0, 0, 1.0, 1.0, seed=5), 0, []) == 1
    assert draw(scores, Sampling(0.0, 0, 1.0, 3.0, seed=5), 0, [1]) == 2  # 0.5 / 3 is less than 0.3
