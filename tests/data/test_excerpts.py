"""Excerpts: parts of texts, drawn anew in each epoch, and read by training."""

import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.config.loading import load_config
from nlp_rnn.config.settings import TrainingConfig
from nlp_rnn.data.bucketing import classification_stream, text_reader
from nlp_rnn.data.datasets import write_cache
from nlp_rnn.data.excerpts import Excerpts
from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.errors import ConfigError
from nlp_rnn.training.checkpoints import load_arrays
from tests.conftest import run_pipeline

OFFSETS = np.concatenate([[0], np.random.default_rng(5).integers(1, 300, 4000).cumsum()])


@pytest.fixture
def cache(tmp_path):
    """32 texts; the ids of text n are 1000 n + 4, 1000 n + 5 and so on."""
    texts = [range(1000 * number + 4, 1000 * number + 5 + 3 * number) for number in range(32)]

    def encode_texts(numbers):
        return tf.ragged.constant([list(texts[int(number)]) for number in numbers.numpy()], dtype=tf.int32)

    write_cache(tmp_path, [(str(number), number) for number in range(32)], encode_texts)
    return TokenCache.load(tmp_path)


def test_an_excerpt_lies_within_its_text():
    starts, lengths = Excerpts(OFFSETS, 0.7, 1).draw(3)
    assert (starts >= OFFSETS[:-1]).all()
    assert (starts + lengths <= OFFSETS[1:]).all()
    assert (lengths >= 1).all()


def test_lengths_and_places_are_equally_likely():
    offsets = np.arange(0, 40_001 * 8, 8)
    starts, lengths = Excerpts(offsets, 1.0, 1).draw(0)
    assert np.bincount(lengths, minlength=9)[1:] == pytest.approx(np.full(8, 5000), abs=300)
    places = (starts - offsets[:-1])[lengths == 5]
    assert np.bincount(places) == pytest.approx(np.full(4, len(places) / 4), abs=120)


def test_the_share_of_texts_is_that_of_the_setting():
    whole = OFFSETS[:-1], np.diff(OFFSETS)
    for share in (0.0, 0.3, 1.0):
        starts, lengths = Excerpts(OFFSETS, share, 2).draw(0)
        is_shorter = lengths < whole[1]
        assert is_shorter.mean() == pytest.approx(share, abs=0.03)
        assert (starts[~is_shorter] == whole[0][~is_shorter]).all()


def test_epochs_draw_anew_and_a_draw_can_be_repeated():
    first, again, other = (Excerpts(OFFSETS, 1.0, 1).draw(epoch) for epoch in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_training_reads_excerpts_in_batches_of_similar_length(cache):
    config, rows = TrainingConfig(batch_size=4), slice(0, 4)
    excerpts = Excerpts(cache.offsets, 1.0, 1)
    stream = classification_stream(cache, text_reader(cache, rows, excerpts=excerpts), config, 1)
    shapes = []
    for epoch in (0, 1):
        stream.start_at(epoch, 0)
        _, lengths = excerpts.draw(epoch)
        batches, seen = list(stream()), []
        for token_ids, labels, _ in batches:
            for ids, label in zip(token_ids, labels, strict=True):
                ids = ids[ids != 0]
                assert len(ids) == lengths[label]
                assert (ids // 1000 == label).all()
                assert (np.diff(ids) == 1).all()
                seen.append(int(label))
        assert sorted(seen) == list(range(32))
        shapes.append(sorted(token_ids.shape[1] for token_ids, *_ in batches))
        ordered = np.sort(lengths)[3::4]  # the longest of each batch, as all texts are sorted together
        assert shapes[-1] == ordered.tolist()
    assert shapes[0] != shapes[1]


def test_an_epoch_goes_on_with_the_same_excerpts(cache):
    def read(step):
        reader = text_reader(cache, slice(0, 4), excerpts=Excerpts(cache.offsets, 0.5, 1))
        stream = classification_stream(cache, reader, TrainingConfig(batch_size=4), 1)
        stream.start_at(2, step)
        return [token_ids.tolist() for token_ids, *_ in stream()]

    assert read(5) == read(0)[5:]


def test_a_training_reads_them(reviews, tmp_path):
    settings = [
        "data.source=csv", f"data.train={reviews}", "data.max_length=20", "model.units=6", "model.embedding_dim=6",
        "training.batch_size=64", "training.epochs=1",
    ]  # fmt: skip
    weights = []
    for share in (0, 1):
        done = run_pipeline("train", f"name=share{share}", *settings, f"training.excerpts={share}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        weights.append(load_arrays(tmp_path / "runs" / f"share{share}" / "checkpoints" / "best.npz"))
    assert any(not np.array_equal(weights[0][key], value) for key, value in weights[1].items())


def test_only_classifiers_have_them():
    with pytest.raises(ConfigError, match=r"training\.excerpts is 0\.5, but applies only to classifiers"):
        load_config(None, ["training.excerpts=0.5"], task="translation")
    with pytest.raises(ConfigError, match=r"training\.excerpts"):
        load_config(None, ["training.excerpts=1.5"], task="sentiment")
