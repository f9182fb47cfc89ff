import numpy as np
import pytest

from nlp_rnn.evaluation import originality
from nlp_rnn.evaluation.originality import TrainingText, report, words_of

RNG = np.random.default_rng(0)


@pytest.fixture
def train(tmp_path, monkeypatch):
    monkeypatch.setattr(originality, "_CHUNK", 700)
    ids = RNG.integers(4, 8, 5000).astype(np.int32)
    ids.tofile(tmp_path / "ids.bin")
    return ids, TrainingText(tmp_path / "ids.bin")


@pytest.mark.parametrize("length", [1, 3, 6, 9, 40, 400])
def test_passages_are_found_wherever_they_stand(train, length):
    ids, text = train
    written = np.concatenate([RNG.integers(4, 8, 60), ids[690:760], RNG.integers(4, 8, 60)]).astype(np.int32)
    inside = {tuple(ids[start : start + length]) for start in range(len(ids) - length + 1)}
    expected = [tuple(written[start : start + length]) in inside for start in range(len(written) - length + 1)]
    np.testing.assert_array_equal(text.contains(written, length), expected)


def test_the_longest_copied_passage_is_found(train):
    ids, text = train
    copied = ids[4900:5000]
    written = np.concatenate([[9, 9], copied, [9]]).astype(np.int32)
    assert text.longest(written) == (2, 100)
    assert text.longest(np.array([9, 9], np.int32)) == (0, 0)
    assert text.longest(np.zeros(0, np.int32)) == (0, 0)


def as_ids(text):
    return np.array([ord(character) for character in text], np.int32)


def test_report_of_texts_that_copy_invent_and_repeat(tmp_path):
    train = "The quick brown fox jumps over the lazy dog, and that's that. " * 3
    as_ids(train).tofile(tmp_path / "ids.bin")
    known = frozenset(words_of(train))
    texts = ["A quick brown fox jumps!", "zq " * 20, ""]
    found = report(texts, [as_ids(text) for text in texts], TrainingText(tmp_path / "ids.bin"), known)
    assert found["copied_passage"] == " quick brown fox jumps"
    assert found["longest_copy"] == 22
    assert found["num_characters"] == 24 + 60
    assert found["seen_20"] == pytest.approx(3 / (5 + 41))
    assert found["seen_40"] == 0
    assert found["invented_words"] == pytest.approx(21 / 25)  # a, and zq twenty times
    assert found["repeated"] == pytest.approx(38 / (5 + 41))
    start = train.index(" ", 60) + 1
    whole = report([train[start:]], [as_ids(train[start:])], TrainingText(tmp_path / "ids.bin"), known)
    assert whole["longest_copy"] == len(train) - start
    assert whole["seen_40"] == 1
    assert whole["invented_words"] == 0


def test_words_hold_apostrophes_and_letters_of_any_script():
    assert words_of("Don't — l’été, 3 x_y Ünïcode") == ["don't", "l’été", "x", "y", "ünïcode"]
