"""Segmentations drawn without TensorFlow are those that the Tokenizer layer draws."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.config.loading import load_config
from nlp_rnn.data.bucketing import classification_stream, pair_reader, pair_stream, text_reader
from nlp_rnn.data.datasets import write_cache
from nlp_rnn.data.token_cache import PairCache, TokenCache
from nlp_rnn.special_ids import EOS_ID, PAD_ID, UNK_ID
from nlp_rnn.tokenization.encoding import encode
from nlp_rnn.tokenization.segmentations import Segmentations
from nlp_rnn.tokenization.sentencepiece_files import BYTE_PIECES
from nlp_rnn.tokenization.tokenizer import Tokenizer

TEXTS = ["an extraordinary performance", "the old performers perform <sep> ordinarily", "a formal form", "normal"]
PIECES = {
    "\u2581perform": -5.0, "\u2581per": -5.5, "form": -4.5, "ance": -5.0, "an": -4.0, "ce": -4.6, "for": -4.2,
    "man": -6.0, "ers": -4.4, "er": -3.9, "\u2581ordin": -7.0, "\u2581or": -4.1, "din": -6.5, "ar": -4.3, "ily": -5.2,
    "ly": -4.0, "al": -4.1, "\u2581": -2.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    pieces = PIECES | {letter: -4.0 - number / 8 for number, letter in enumerate("etaoinsrhldcumfpgwybvkxjqz")}
    scores = [0.0] * len(BYTE_PIECES) + list(pieces.values())
    return Tokenizer("subword", reserved=["<sep>"], vocabulary=[*BYTE_PIECES, *pieces], scores=scores)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(path)
    return path


def ids_of(tokenizer, texts):
    ids = tokenizer.tokenize(texts)
    return tf.concat([ids, tf.fill([ids.nrows(), 1], EOS_ID)], axis=1).to_tensor(PAD_ID).numpy()


def probabilities(tokenizer, word, temperature):
    """The probability of each segmentation of a word, found by trying all."""
    scores = dict(zip(tokenizer.all_pieces(), [0.0] * 5 + tokenizer.scores, strict=True))
    numbers = {piece: number for number, piece in enumerate(tokenizer.all_pieces())}

    def ways(rest):
        if not rest:
            return [((), 0.0)]
        heads = [rest[:end] for end in range(1, len(rest) + 1) if rest[:end] in scores]
        return [
            ((numbers[head], *tail), scores[head] + score) for head in heads for tail, score in ways(rest[len(head) :])
        ]

    weights = {pieces: np.exp(score / temperature) for pieces, score in ways("\u2581" + word)}
    return {pieces: weight / sum(weights.values()) for pieces, weight in weights.items()}


@pytest.mark.parametrize("temperature", [1.0, 5.0])
@pytest.mark.parametrize("word", ["performance", "ordinarily"])
def test_a_word_is_drawn_as_by_the_tokenizer_layer(tokenizer, folder, word, temperature):
    count = 20_000
    expected = probabilities(tokenizer, word, temperature)
    assert len(expected) >= 30
    of_layer = tokenizer.sample([word] * count, temperature=temperature, seed=[1, 2]).to_list()
    (pieces,) = tokenizer.tokenize([word]).to_list()
    rows = Segmentations(folder, temperature, 1)(np.array([[*pieces, EOS_ID]] * count, np.int32), 0, 0)
    for drawn in (of_layer, [row[row > EOS_ID].tolist() for row in rows]):
        shares = Counter(map(tuple, drawn))
        assert set(shares) <= set(expected)
        distance = sum(abs(shares[each] / count - expected[each]) for each in expected) / 2
        noise = sum(np.sqrt(each * (1 - each) / count) for each in expected.values()) / 2
        assert distance < 1.5 * noise


def test_texts_stay_and_a_draw_depends_on_seed_epoch_and_step(tokenizer, folder):
    texts = [*TEXTS[:4], "日本 performance", "", "x"]
    token_ids = _with_odd_rows(ids_of(tokenizer, texts))
    drawn = {
        (epoch, step): Segmentations(folder, 5.0, 1)(token_ids, epoch, step).tolist()
        for epoch in range(2)
        for step in range(2)
    }
    assert drawn[1, 1] == Segmentations(folder, 5.0, 1)(token_ids, 1, 1).tolist()
    assert len({str(each) for each in drawn.values()}) == 4
    for each in drawn.values():
        ids = np.array(each, np.int32)
        found = [text.decode() for text in tokenizer.detokenize(tf.constant(ids)).numpy()]
        assert found == [*texts, "\ufffd", ""]
        ends = (ids == EOS_ID).sum(axis=1).tolist()
        assert ends == [1] * len(texts) + [0, 0]
        assert ids[-1].tolist() == [PAD_ID] * ids.shape[1]
        assert ids[4, :7].tolist() == token_ids[4, :7].tolist()  # a word with bytes


def _with_odd_rows(rows):
    """Adds the row of a text without tokens, and one that is not there."""
    odd = np.full((2, rows.shape[1]), PAD_ID, np.int32)
    odd[0, 0] = UNK_ID
    return np.concatenate([rows, odd])


def test_near_temperature_zero_the_best_segmentation_is_certain(tokenizer, folder):
    token_ids = ids_of(tokenizer, TEXTS[:4])
    np.testing.assert_array_equal(Segmentations(folder, 0.01, 1)(token_ids, 0, 0), token_ids)


@pytest.mark.parametrize("kind", ["texts", "pairs"])
def test_batches_of_drawn_segmentations_are_padded_to_a_multiple(tokenizer, folder, tmp_path, kind):
    write_cache(tmp_path, ((text, 0) for text in TEXTS), lambda each: encode(tokenizer, each, 100, "start"))
    cache, training = TokenCache.load(tmp_path), load_config(None, ["training.batch_size=2"]).training
    resample = Segmentations(folder, 5.0, 1)
    if kind == "texts":
        reader = text_reader(cache, slice(0, 2), 8, resample)
        stream = classification_stream(cache, reader, training, 1)
    else:
        pairs = PairCache(cache, cache, np.arange(len(cache)))
        reader = pair_reader(pairs, slice(0, 2), 8, resample)
        stream = pair_stream(pairs, reader, training, 1)
    assert any(ids.shape[1] % 8 for sides in reader([np.arange(2)] * 8) for ids in sides)  # as drawn
    for inputs, *_ in stream():
        assert all(ids.shape[1] % 8 == 0 for ids in (inputs if kind == "pairs" else [inputs]))


def test_long_words_are_redrawn_and_take_memory_in_proportion_to_their_length(folder, tokenizer):
    (pieces,) = tokenizer.tokenize(["perform" * 300]).to_list()
    segmentations = Segmentations(folder, 5.0, 1)
    (drawn,) = segmentations(np.array([pieces], np.int32), 0, 0)
    assert len(drawn) > 1.1 * len(pieces)  # far from the best segmentation
    found = segmentations._find_ends(tuple(pieces))
    assert sum(len(ends.pieces) for ends in found) < 5 * len(found)
