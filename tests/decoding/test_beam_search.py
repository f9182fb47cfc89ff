"""Beam search against exhaustive search, on models small enough to try every text."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.decoding.beam_search import Search, beam_search
from nlp_rnn.layers.masking import IMPOSSIBLE
from nlp_rnn.special_ids import EOS_ID

VOCAB_SIZE = 7  # ids 4, 5 and 6 are words
WORDS = (4, 5, 6)


def make_table(seed):
    """log P(next | the two ids before) of a random model, [vocabulary, vocabulary, vocabulary]."""
    logits = np.random.default_rng(seed).normal(size=(VOCAB_SIZE,) * 3) * 1.5
    return (logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(np.float32)


def make_step(tables):
    tables = tf.constant(tables)

    def step(ids, states):
        before, number = states
        found = tf.gather_nd(tables, tf.stack([number, before, ids], axis=1))
        return found, (ids, number), tf.one_hot(ids % 3, 3)

    return step


def search_of(rows=1, **settings):
    defaults = {
        "beam_size": 4,
        "min_length": [0] * rows,
        "max_length": [4] * rows,
        "no_repeat": 0,
        "prefix": np.zeros((rows, 0), np.int32),
    }
    floats = {"length_penalty": [0.0] * rows, "coverage_penalty": [0.0] * rows}
    given = {name: tf.constant(settings.get(name, value), tf.int32) for name, value in defaults.items()}
    return Search(
        **given,
        **{name: tf.constant(settings.get(name, value), tf.float32) for name, value in floats.items()},
        never=(0, 1, 2),
    )


def run(seeds, search):
    rows = len(seeds)
    states = (tf.zeros([rows], tf.int32), tf.range(rows))
    found = beam_search(
        make_step(np.stack([make_table(seed) for seed in seeds])), states, tf.ones([rows, 3], bool), search
    )
    return [
        [
            (tuple(int(id) for id in ids if id), float(score), float(log_probability))
            for ids, score, log_probability in zip(*(each.numpy()[row] for each in found), strict=True)
            if score > IMPOSSIBLE
        ]
        for row in range(rows)
    ]


def all_texts(seed, max_length=4, length_penalty=0.0, coverage_penalty=0.0):
    """(ids, score, log-probability) of every text, the best first."""
    table, found = make_table(seed), []
    for length in range(max_length + 1):
        for ids in itertools.product(WORDS, repeat=length):
            before, last, total, coverage = 0, 2, 0.0, np.zeros(3)
            for each in (*ids, EOS_ID):
                coverage[last % 3] += 1
                total += table[before, last, each]
                before, last = last, each
            score = total / ((5 + length + 1) / 6) ** length_penalty
            score += coverage_penalty * np.log(np.clip(coverage, 1e-6, 1)).sum()
            found.append((ids, score, total))
    return sorted(found, key=lambda each: -each[1])


@pytest.mark.parametrize("penalties", [{}, {"length_penalty": 1.0}, {"length_penalty": 0.6, "coverage_penalty": 0.2}])
@pytest.mark.parametrize("seed", range(4))
def test_a_beam_wide_enough_finds_what_exhaustive_search_finds(seed, penalties):
    (found,) = run([seed], search_of(beam_size=130, **{name: [value] for name, value in penalties.items()}))
    expected = all_texts(seed, **penalties)
    assert len(found) == len(expected) == 121
    np.testing.assert_allclose([score for _, score, _ in found], [score for _, score, _ in expected], atol=1e-4)
    assert [ids for ids, *_ in found[:20]] == [ids for ids, *_ in expected[:20]]
    np.testing.assert_allclose([total for *_, total in found], [total for *_, total in expected], atol=1e-4)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, -0.5])
@pytest.mark.parametrize("beam_size", [1, 2, 3, 5])
def test_what_is_sure_is_found_however_many_unlikely_texts_end_before_it(beam_size, length_penalty):
    probabilities = np.full((1, VOCAB_SIZE, VOCAB_SIZE, VOCAB_SIZE), 1e-4, np.float32)
    probabilities[..., EOS_ID] = 1e-3  # at each step the second best
    text = (4, 5, 6, 6, 4, 4, 6, 5, 5)
    for before, last, each in zip((0, 2, *text), (2, *text), (*text, EOS_ID), strict=False):
        probabilities[0, before, last, each] = 0.998
    states = (tf.zeros([1], tf.int32), tf.zeros([1], tf.int32))
    search = search_of(beam_size=beam_size, max_length=[12], length_penalty=[length_penalty])
    found = beam_search(make_step(np.log(probabilities)), states, tf.ones([1, 3], bool), search)
    best = int(np.argmax(found.log_probabilities[0]))
    assert [int(id) for id in found.ids[0, best].numpy() if id] == list(text)
    assert length_penalty < 0 or best == 0


def test_a_beam_of_one_is_greedy():
    for seed in range(30):
        table, before, last, ids = make_table(seed), 0, 2, []
        while len(ids) < 4:
            best = max((EOS_ID, *WORDS), key=lambda each: table[before, last, each])
            if best == EOS_ID:
                break
            ids.append(best)
            before, last = last, best
        ((found,),) = run([seed], search_of(beam_size=1))
        assert found[0] == tuple(ids)


def test_sentences_do_not_depend_on_their_batch():
    settings = {
        "max_length": [4, 2, 7, 0, 3], "beam_size": [3, 1, 4, 2, 2], "no_repeat": [0, 2, 1, 0, 2],
        "length_penalty": [0, 1, 0.5, 0, 1],
    }  # fmt: skip
    together = run(range(5), search_of(rows=5, **settings))
    for seed in range(5):
        row = search_of(**{name: [values[seed]] for name, values in settings.items()})
        (alone,) = run([seed], row)
        assert [each[0] for each in alone] == [each[0] for each in together[seed]]
        np.testing.assert_allclose([each[1:] for each in alone], [each[1:] for each in together[seed]], rtol=1e-5)
    assert together[3][0][0] == ()


def test_lengths_prefix_and_repetitions_are_kept():
    for seed in range(5):
        (found,) = run([seed], search_of(min_length=[2], max_length=[5], beam_size=20))
        assert len(found) == 20
        assert {len(ids) for ids, *_ in found} <= {2, 3, 4, 5}
        (found,) = run([seed], search_of(prefix=[[6, 5, 0]], max_length=[5], beam_size=8))
        assert len(found) == 8
        assert all(ids[:2] == (6, 5) for ids, *_ in found)
        for n in (1, 2, 3):
            (found,) = run([seed], search_of(min_length=[3], max_length=[9], beam_size=12, no_repeat=n))
            assert found
            for ids, *_ in found:
                grams = [ids[i : i + n] for i in range(len(ids) - n + 1)]
                assert len(grams) == len(set(grams))


def test_a_prefix_may_repeat_itself():
    (found,) = run([1], search_of(prefix=[[5, 5, 5]], max_length=[5], beam_size=3, no_repeat=1))
    assert found
    assert all(ids[:3] == (5, 5, 5) for ids, *_ in found)


def test_a_prefix_longer_than_allowed_is_cut():
    (found,) = run([1], search_of(prefix=[[5, 6, 5]], max_length=[2], beam_size=3))
    assert [ids for ids, *_ in found] == [(5, 6)]


def test_no_repeated_bigrams_leaves_all_texts_without_them():
    (found,) = run([3], search_of(beam_size=130, no_repeat=2))
    expected = [
        each for each in all_texts(3) if len(set(zip(each[0], each[0][1:], strict=False))) == max(len(each[0]) - 1, 0)
    ]
    assert {ids for ids, *_ in found} == {ids for ids, *_ in expected}
