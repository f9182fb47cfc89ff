import keras
import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.config.settings import Config, DataConfig, ModelConfig
from nlp_rnn.decoding.suggestible_words import PROFANE_WORDS, Vocabulary
from nlp_rnn.decoding.suggestions import SubwordSuggestions, WordSuggestions
from nlp_rnn.export.next_word import NextWordModule
from nlp_rnn.layers.masking import IMPOSSIBLE
from nlp_rnn.models.build import build_language_model
from nlp_rnn.special_ids import EOS_ID
from nlp_rnn.tokenization.graph_tokenizer import GraphTokenizer
from nlp_rnn.tokenization.tokenizer import Tokenizer
from tests.conftest import make_lines

SMALL = ModelConfig(is_bidirectional=False, embedding_dim=8, units=8, num_layers=2)


@pytest.fixture(scope="module")
def subword():
    keras.utils.set_random_seed(4)
    tokenizer = Tokenizer("subword")
    tokenizer.adapt(make_lines(300, 1), vocab_size=300)
    model = build_language_model(SMALL, vocab_size=tokenizer.vocab_size)
    for weight in model.weights:  # opinions, instead of a nearly uniform distribution
        weight.assign(weight + keras.random.normal(weight.shape, stddev=0.7, seed=2))
    return model, tokenizer, SubwordSuggestions(model, tokenizer)


def behind(model, ids):
    """Log-probabilities and packed states behind ids."""
    hidden, states = model.run(np.array([ids]), model.zero_states(1))
    return model.head(hidden)[:, -1], model.pack_states(states)


def score(model, tokenizer, ids, word):
    """The best log-probability of a word behind ids, over its segmentations found by trying all, and of an end."""
    names = tokenizer.texts()
    ends = [
        n
        for n, name in enumerate(names)
        if name.startswith("\u2581") or n == EOS_ID or (n > 3 and name and not name.isalnum())
    ]
    best, open_ends = -np.inf, [([], "\u2581" + word, 0.0)]
    while open_ends:
        pieces, rest, total = open_ends.pop()
        log_probabilities = behind(model, [*ids, *pieces])[0].numpy()[0]
        if not rest:
            best = max(best, total + np.logaddexp.reduce(log_probabilities[ends]))
            continue
        for number, name in enumerate(names):
            if number > 3 and name and name != "\ufffd" and rest.startswith(name) and number >= 260:
                open_ends.append(([*pieces, number], rest[len(name) :], total + log_probabilities[number]))
    return best


@pytest.mark.further
def test_words_of_subwords_have_the_probability_of_their_pieces(subword):
    model, tokenizer, suggestions = subword
    ids, begun = suggestions.read(tf.constant(["the cat likes "]))
    ids = [EOS_ID, *ids.to_list()[0]]
    words, scores = suggestions.find(*behind(model, ids), begun, tf.constant([False]))
    words, scores = words.numpy()[0], scores.numpy()[0]
    found = [(word.decode(), float(value)) for word, value in zip(words, scores, strict=True) if value > IMPOSSIBLE / 2]
    assert len(found) > 5
    assert len({word for word, _ in found}) == len(found)
    assert [value for _, value in found] == sorted((value for _, value in found), reverse=True)
    for word, value in found[:4]:
        assert value <= score(model, tokenizer, ids, word) + 1e-4
    assert found[0][1] == pytest.approx(score(model, tokenizer, ids, found[0][0]), abs=1e-4)


@pytest.mark.parametrize("typed", ["k", "ki", "kingdo", "gar"])
def test_completions_of_subwords_begin_as_typed(subword, typed):
    model, _, suggestions = subword
    ids, begun = suggestions.read(tf.constant([f"A Dog sees a {typed}"]))
    assert begun.numpy()[0].decode() == typed
    words, scores = suggestions.find(*behind(model, [EOS_ID, *ids.to_list()[0]]), begun, tf.constant([False]))
    found = [
        word.decode() for word, value in zip(words.numpy()[0], scores.numpy()[0], strict=True) if value > IMPOSSIBLE / 2
    ]
    assert found
    assert all(word.startswith(typed) for word in found)
    total = np.exp(scores.numpy()[0][scores.numpy()[0] > IMPOSSIBLE / 2]).sum()
    assert total == pytest.approx(1, abs=1e-4)


def test_a_row_of_a_batch_is_answered_as_alone(subword):
    model, tokenizer, _ = subword
    module = NextWordModule(model, tokenizer, Config(task="next_word", data=DataConfig(max_length=6), model=SMALL))
    texts = ["the cat likes the green garden and a longer text than that ", "a", "", "nobody follows the long riv"]
    together = module.complete(tf.constant(texts))
    for row, text in enumerate(texts):
        alone = module.complete(tf.constant([text]))
        np.testing.assert_array_equal(alone["words"][0], together["words"][row])
        np.testing.assert_allclose(alone["probabilities"][0], together["probabilities"][row], atol=1e-5)


@pytest.mark.parametrize(
    ("splitter", "text", "words", "begun"),
    [
        ("unicode", "Hello wor", ["hello"], "wor"),
        ("unicode", "Hello wor ", ["hello", "wor"], ""),
        ("unicode", "Hello,", ["hello", ","], ""),
        ("unicode", "well-kno", ["well", "-"], "kno"),
        ("unicode", "well\u200c", [], "well\u200c"),
        ("unicode", "hello \u2764\ufe0f", ["hello", "\u2764", "\ufe0f"], ""),
        ("unicode", "", [], ""),
        ("unicode", " \n", [], ""),
        ("treebank", "Hello wor", ["hello"], "wor"),
        ("whitespace", "Hello ,", ["hello"], ","),
    ],
)
def test_a_word_begun_is_told_from_a_whole_one(splitter, text, words, begun):
    vocabulary = ["hello", "wor", ",", "well", "-", "\u2764", "\ufe0f"]
    tokenizer = Tokenizer("word", splitter=splitter, vocabulary=vocabulary)
    ids, found = WordSuggestions(GraphTokenizer(tokenizer)).read(tf.constant([text]))
    assert found.numpy()[0].decode() == begun
    assert ids.to_list()[0] == [vocabulary.index(word) + 4 for word in words]


def test_vocabulary_tells_words_from_symbols():
    tokenizer = Tokenizer(
        "word", vocabulary=["shit", "sheet", "Shitting"], reserved=["<sep>"], oov_buckets=2, case="keep"
    )
    vocabulary = Vocabulary(tokenizer)
    assert [vocabulary.words[number] for number in np.flatnonzero(vocabulary.is_suggestible)] == [
        "shit",
        "sheet",
        "Shitting",
    ]
    assert [vocabulary.words[number] for number in np.flatnonzero(vocabulary.is_profane)] == ["shit", "Shitting"]
    assert not {"spicy", "spices", "spiced", "cocky", "cocker", "dicker", "pricked"} & set(PROFANE_WORDS)
    assert vocabulary.is_symbol.tolist() == [True, False, True, True, True, *[False] * 5]


def test_joiners_and_punctuation_are_not_suggested():
    tokenizer = Tokenizer("word", vocabulary=["cat", '"', ",", "\u200d", "\ufe0f", "\U0001f3fd", "\u26bd", "@-@", "'s"])
    vocabulary = Vocabulary(tokenizer)
    assert [vocabulary.words[number] for number in np.flatnonzero(vocabulary.is_suggestible)] == ["cat", "\u26bd"]
