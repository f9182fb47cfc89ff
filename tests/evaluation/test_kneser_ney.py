from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest

from nlp_rnn.evaluation.kneser_ney import KneserNey, _estimate_discounts

RNG = np.random.default_rng(3)
VOCAB_SIZE = 12


def text(length=400):
    """A text in which words depend on the two before them."""
    ids = [0, 1]
    for _ in range(length):
        ids.append(int((ids[-1] * 3 + ids[-2] + RNG.choice([0, 1, 2], p=[0.6, 0.3, 0.1])) % (VOCAB_SIZE - 1)))
    return np.array(ids)


def straightforward(ids, order, word, history):
    """Chen & Goodman's formulas, by sets and dictionaries."""
    counts = []
    for length in range(1, order + 1):
        seen = Counter(tuple(ids[i : i + length]) for i in range(len(ids) - length + 1))
        if length < order:
            before = defaultdict(set)
            for i in range(len(ids) - length):
                before[tuple(ids[i + 1 : i + 1 + length])].add(ids[i])
            seen = Counter({ngram: len(before[ngram]) for ngram in seen})
        counts.append(seen)

    def probability(length, context):
        if length == 0:
            return 1 / VOCAB_SIZE
        seen = counts[length - 1]
        discounts = _estimate_discounts(np.array(list(seen.values())))
        here = {ngram[-1]: count for ngram, count in seen.items() if ngram[:-1] == context}
        total = sum(here.values())
        if not total:
            return probability(length - 1, context[1:])
        taken = {other: discounts[min(count, 3) - 1] if count else 0 for other, count in here.items()}
        share = (here.get(word, 0) - taken.get(word, 0)) / total
        return share + sum(taken.values()) / total * probability(length - 1, context[1:])

    return probability(order, tuple(history[len(history) - order + 1 :]))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_are_those_of_the_formulas(order):
    ids = text()
    model = KneserNey(ids, vocab_size=VOCAB_SIZE, order=order).model()
    for history in (ids[50:54], ids[120:124], np.array([3, 3, 3, 3]), np.array([2, VOCAB_SIZE - 1, 4, 1])):
        found = model.probabilities(history)
        assert found.sum() == pytest.approx(1, abs=1e-5)
        expected = [straightforward(ids.tolist(), order, word, history.tolist()) for word in range(VOCAB_SIZE)]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_rare_ngrams_leave_their_probability_to_shorter_ones():
    ids = text()
    counted = KneserNey(ids, vocab_size=VOCAB_SIZE, order=3)
    whole, same, pruned, shorter = (
        counted.model(min_counts=min_counts) for min_counts in ((), (1, 1), (1, 3), (1, 10**6))
    )
    counts = Counter(zip(ids, ids[1:], ids[2:], strict=False))
    often = [ngram for ngram, count in counts.items() if count >= 3]
    assert len(pruned.higher_orders[1].words) == len(often)
    assert len(pruned.higher_orders[0].words) == len(whole.higher_orders[0].words) == len(set(pairwise(ids)))
    for history in (ids[50:54], ids[120:124], np.array([3, 3]), np.array([VOCAB_SIZE - 1, 4])):
        np.testing.assert_array_equal(same.probabilities(history), whole.probabilities(history))
        assert pruned.probabilities(history).sum() == pytest.approx(1, abs=1e-5)
        two = shorter.probabilities(history)  # of two words at most, whatever was before them
        np.testing.assert_allclose(two, shorter.probabilities(np.append(0, history[-1:])), atol=1e-6)
    kept = pruned.probabilities(np.array(often[0][:2]))[often[0][2]]
    assert kept > shorter.probabilities(np.array(often[0][:2]))[often[0][2]]


def test_rare_contexts_take_their_ngrams_with_them():
    ids = text(2000)
    counted, counts = KneserNey(ids, vocab_size=VOCAB_SIZE, order=3), Counter(pairwise(ids))
    rare, often = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    pruned = counted.model(min_counts=(counts[rare] + 1, counts[rare] + 2))
    assert pruned.higher_orders[0].find(*map(int, rare)) == -1
    place = pruned.higher_orders[0].find(*map(int, often))
    assert pruned.higher_orders[0].words[place] == often[1]
    for history in (ids[50:54], np.array(rare), np.array(often)):
        assert pruned.probabilities(history).sum() == pytest.approx(1, abs=1e-5)
    following = Counter(ids[place + 2] for place in range(len(ids) - 2) if tuple(ids[place : place + 2]) == often)
    found = pruned.probabilities(np.array(often))
    assert found.argmax() == max(following, key=following.__getitem__)
    with pytest.raises(ValueError, match="do not become less"):
        counted.model(min_counts=(1000, 1))


def test_probabilities_are_nltks():
    nltk_lm = pytest.importorskip("nltk.lm")
    ids, discount = text(), 0.3
    model = KneserNey(ids, vocab_size=VOCAB_SIZE, order=2).model(discounts=(discount,) * 3)
    words = [str(number) for number in ids]
    bigrams = [tuple(words[i : i + 2]) for i in range(len(words) - 1)]
    theirs = nltk_lm.KneserNeyInterpolated(2, discount=discount)
    theirs.fit([bigrams + [(word,) for word in words]], vocabulary_text=words)
    # NLTK neither discounts the lowest order nor gives unseen words a share of it.
    model.unigrams = np.array([theirs.score(str(word)) for word in range(VOCAB_SIZE)], np.float32)
    for context in range(VOCAB_SIZE - 1):
        expected = [theirs.score(str(word), [str(context)]) for word in range(VOCAB_SIZE - 1)]
        np.testing.assert_allclose(model.probabilities(np.array([context]))[:-1], expected, rtol=1e-4)


def test_a_longer_context_helps():
    ids, other = text(4000), text(500)
    losses = []
    for order in (1, 2, 3):
        model = KneserNey(ids, vocab_size=VOCAB_SIZE, order=order).model()
        losses.append(
            -np.mean([np.log(model.probabilities(other[max(0, i - 4) : i])[other[i]]) for i in range(1, len(other))])
        )
    assert losses[2] < min(losses[:2]) - 0.3


def test_an_empty_history_has_an_answer():
    model = KneserNey(text(), vocab_size=VOCAB_SIZE, order=3).model()
    np.testing.assert_allclose(model.probabilities(np.zeros(0, np.int32)), model.unigrams)


def test_every_word_has_a_probability_however_regular_the_text_is():
    ids = np.random.default_rng(0).choice([*[3, 5, 4, 8, 6] * 8, 7], 300)
    model = KneserNey(ids, vocab_size=9).model()
    for context in ([3], [5, 4], [8, 6, 3]):
        probabilities = model.probabilities(np.array(context))
        assert (probabilities > 0).all()
        np.testing.assert_allclose(probabilities.sum(), 1, rtol=1e-5)
