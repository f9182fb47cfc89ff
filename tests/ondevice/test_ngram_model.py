import io
import zipfile

import numpy as np
import pytest

from nlp_rnn.errors import ConfigError
from nlp_rnn.evaluation.kneser_ney import KneserNey
from nlp_rnn.ondevice.ngram_model import NGramModel, mix

VOCAB_SIZE = 300  # ids need two bytes


@pytest.fixture(scope="module")
def ids():
    return (np.random.default_rng(1).zipf(1.4, 8000) % VOCAB_SIZE).astype(np.int32)


@pytest.fixture(scope="module")
def model(ids):
    return KneserNey(ids, vocab_size=VOCAB_SIZE, order=3).model(min_counts=(1, 2))


def test_a_file_holds_the_probabilities_to_a_few_percent(model, ids):
    again = NGramModel.from_bytes(model.to_bytes())
    assert (again.order, again.vocab_size) == (3, VOCAB_SIZE)
    for place in range(10, 400):
        exact, rounded = model.probabilities(ids[:place]), again.probabilities(ids[:place])
        np.testing.assert_allclose(rounded, exact, rtol=0.065)
        assert exact.sum() == pytest.approx(1, abs=1e-5)
    assert model.to_bytes() == model.to_bytes()
    assert len(model.to_bytes()) < 4 * sum(len(ngrams.words) for ngrams in model.higher_orders) + 4 * VOCAB_SIZE


def test_a_mixture_is_a_distribution():
    own = np.log(np.array([0.5, 0.25, 0.25], np.float32))
    found = mix(own, np.array([0.2, 0.2, 1.6], np.float32), 0.25)  # its sum is 2
    np.testing.assert_allclose(np.exp(found), [0.4, 0.2125, 0.3875], rtol=1e-5)
    assert found.dtype == np.float32


DAMAGES = {
    "an array is missing": lambda arrays: arrays.pop("followers_3"),
    "no n-grams": lambda arrays: [arrays.pop(name) for name in list(arrays) if name != "unigrams"],
    "another array": lambda arrays: arrays.update(words_4=arrays["words_3"]),
    "an array is cut off": lambda arrays: arrays.update(words_2=arrays["words_2"][:-1]),
    "fewer contexts": lambda arrays: arrays.update(backoffs_3=arrays["backoffs_3"][:-1]),
    "other followers": lambda arrays: arrays.update(followers_2=arrays["followers_2"][::-1]),
    "more followers": lambda arrays: arrays.update(followers_3=arrays["followers_3"] + np.uint16(1)),
    "unknown ids": lambda arrays: arrays.update(words_3=arrays["words_3"] + np.uint16(VOCAB_SIZE)),
    "unsorted ids": lambda arrays: arrays.update(words_2=arrays["words_2"][::-1].copy()),
    "negative ids": lambda arrays: arrays.update(words_2=-arrays["words_2"].astype(np.int16)),
    "fractions": lambda arrays: arrays.update(followers_2=arrays["followers_2"].astype(np.float32)),
    "a table": lambda arrays: arrays.update(words_2=arrays["words_2"][:, None]),
    "wide levels": lambda arrays: arrays.update(probabilities_2=arrays["probabilities_2"].astype(np.uint16)),
    "texts": lambda arrays: arrays.update(unigrams=np.full(VOCAB_SIZE, "word")),
    "no numbers": lambda arrays: arrays.update(unigrams=np.full(VOCAB_SIZE, np.nan, np.float32)),
    "below 0": lambda arrays: arrays.update(unigrams=-arrays["unigrams"]),
    "no words": lambda arrays: arrays.update(unigrams=np.zeros(0, np.float32)),
    "objects": lambda arrays: arrays.update(unigrams=np.full(VOCAB_SIZE, None)),
    "far larger than the file": lambda arrays: arrays.update(unigrams=np.zeros(10**7, np.float32)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_refused(model, damage):
    with np.load(io.BytesIO(model.to_bytes())) as arrays:
        changed = dict(arrays)
    DAMAGES[damage](changed)
    content = io.BytesIO()
    np.savez_compressed(content, **changed)
    with pytest.raises(ConfigError, match="not readable as an n-gram model"):
        NGramModel.from_bytes(content.getvalue())


def test_a_claimed_shape_takes_no_memory(model):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**14,)})
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as parts:
        parts.writestr("unigrams.npy", header.getvalue())
        parts.writestr("words_2.npy", bytes(10_000))
    with pytest.raises(ConfigError, match="not readable as an n-gram model"):
        NGramModel.from_bytes(content.getvalue())


def test_changed_bytes_are_refused_or_change_little(model, ids):
    content, generator = model.to_bytes(), np.random.default_rng(5)
    for _ in range(500):
        changed = bytearray(content)
        changed[generator.integers(len(content))] = generator.integers(256)
        try:
            again = NGramModel.from_bytes(bytes(changed))
        except ConfigError:
            continue
        found = again.probabilities(ids[:50])  # where zip's checksum covers nothing
        assert found.shape == (VOCAB_SIZE,)
        assert np.isfinite(found).all()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", bytes(1000)])
def test_other_files_are_refused(content):
    with pytest.raises(ConfigError, match="not readable as an n-gram model"):
        NGramModel.from_bytes(content)


@pytest.mark.parametrize("vocab_size", [256, 257, 65_536, 65_537, 70_000])
def test_ids_are_kept_in_the_smallest_type(vocab_size):
    ids = np.array([vocab_size - 1, 4, vocab_size - 1, 4, vocab_size - 1, 5])
    content = KneserNey(ids, vocab_size=vocab_size, order=3).model().to_bytes()
    with np.load(io.BytesIO(content)) as arrays:
        assert arrays["words_2"].itemsize == (1 if vocab_size <= 256 else 2 if vocab_size <= 65_536 else 4)
    found = NGramModel.from_bytes(content).probabilities(ids[:2])
    assert found.argmax() == vocab_size - 1


@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_short_texts_make_models(length):
    model = KneserNey(np.arange(4, 4 + length), vocab_size=9, order=3).model()
    if length < 3:  # no triples
        assert not len(model.higher_orders[1].words)
    again = NGramModel.from_bytes(model.to_bytes())
    for history in (np.zeros(0, int), np.array([4]), np.array([4, 5, 6])):
        found = again.probabilities(history)
        assert (found > 0).all()
        assert found.sum() == pytest.approx(1, rel=0.1)
