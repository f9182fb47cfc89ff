"""Segmentations drawn without TensorFlow are those that the Tokenizer layer draws."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.data.bucketing import padded, text_reader
from nlp_rnn.data.datasets import write_cache
from nlp_rnn.data.token_cache import TokenCache
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


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_a_word_is_drawn_as_often_as_by_the_tokenizer_layer(tokenizer, folder, temperature):
    segmentations, count = Segmentations(folder, temperature, 1), 5000
    for word in ("performance", "ordinarily"):
        (pieces,) = tokenizer.tokenize([word]).to_list()
        found, cumulative = segmentations.of_word(tuple(pieces))
        assert len(set(found)) == len(found) > 4
        expected = Counter(map(tuple, tokenizer.sample([word] * count, temperature=temperature, seed=[1, 2]).to_list()))
        shares = dict(zip(found, np.diff([0, *cumulative]), strict=True))
        distance = sum(abs(expected[each] / count - shares.get(each, 0)) for each in {*expected, *shares}) / 2
        assert distance < (0.03 if temperature == 1 else 0.06)  # of 5,000 draws; the 64 likeliest of each
        rows = segmentations(np.array([[*pieces, EOS_ID]] * count, np.int32), 0, 0)
        drawn = Counter(tuple(row[(row != PAD_ID) & (row != EOS_ID)].tolist()) for row in rows)
        assert sum(abs(drawn[each] / count - shares[each]) for each in shares) / 2 < 0.04


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


def test_batches_of_drawn_segmentations_have_the_asked_lengths(tokenizer, folder, tmp_path):
    write_cache(tmp_path, ((text, 0) for text in TEXTS), lambda each: encode(tokenizer, each, 100, "start"))
    cache = TokenCache.load(tmp_path)
    reader = text_reader(cache, slice(0, 4), 8, Segmentations(folder, 5.0, 1))
    times = {ids.shape[1] for (ids,) in reader([np.arange(4)] * 8)}
    assert len(times) > 1  # as drawn; the streams pad them
    assert {padded(np.ones((2, time), np.int32), 8).shape[1] % 8 for time in times} == {0}
