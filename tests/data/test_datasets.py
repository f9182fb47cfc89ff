import os
import subprocess
import sys

import numpy as np
import pytest

from nlp_rnn.config.loading import load_config
from nlp_rnn.config.settings import TrainingConfig
from nlp_rnn.data import datasets
from nlp_rnn.data.bucketing import (
    Batches,
    classification_stream,
    labelled_batch,
    padding_waste,
    plan_batches,
    plan_ordered_batches,
    text_reader,
)
from nlp_rnn.data.corpus import load_corpus
from nlp_rnn.data.datasets import make_dataset, prepare_split, prepare_tokenizer, write_cache
from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.errors import ConfigError
from nlp_rnn.tokenization.encoding import encode
from nlp_rnn.tokenization.tokenizer import Tokenizer
from tests.conftest import ROOT, write_csv

LENGTHS = np.random.default_rng(0).integers(1, 400, 1003)


@pytest.fixture
def cache(tmp_path):
    tokenizer = Tokenizer("word", vocabulary=["a", "b", "c"])
    texts = [("a b c", 1), ("", 0), ("c", 1), ("a a a a a a", 0), ("z b", 0)]
    write_cache(tmp_path, texts, lambda each: encode(tokenizer, each, 4, "start"))
    return TokenCache.load(tmp_path)


def test_cached_ids_are_those_of_the_texts(cache):
    assert [row.tolist() for row in cache.rows(range(5))] == [[4, 5, 6], [1], [6], [4, 4, 4, 4], [1, 5]]
    assert cache.labels.tolist() == [1, 0, 1, 0, 0]
    assert cache.lengths.tolist() == [3, 1, 1, 4, 2]


def test_batches_are_right_padded_and_filled_at_weight_zero(cache):
    indices, rows = np.array([4, 0]), slice(0, 3)
    ((token_ids,),) = text_reader(cache, rows)([indices])
    token_ids, labels, weights = labelled_batch(cache, indices, rows, token_ids)
    assert token_ids.tolist() == [[1, 5, 0], [4, 5, 6], [1, 0, 0]]
    assert labels.tolist() == [0, 1, 0]
    assert weights.tolist() == [1, 1, 0]


def test_ids_that_lost_their_end_are_named(cache):
    os.truncate(cache.path / "ids.bin", 20)
    reader = text_reader(cache, slice(0, 1))
    assert next(reader([np.array([0])]))[0].tolist() == [[4, 5, 6]]
    with pytest.raises(ConfigError, match=r"is damaged: .* in data\.cache_dir, remove the folder"):
        next(reader([np.array([4])]))


def test_workers_read_their_rows_of_the_same_batches(cache):
    config = TrainingConfig(batch_size=4)
    whole, *workers = (
        list(classification_stream(cache, text_reader(cache, rows), config, 1)())
        for rows in (slice(0, 4), slice(0, 2), slice(2, 4))
    )
    for batch, *own in zip(whole, *workers, strict=True):
        for column, *parts in zip(batch, *own, strict=True):
            assert np.concatenate(parts).tolist() == column.tolist()


@pytest.mark.parametrize("epoch", [0, 7])
def test_every_example_is_in_exactly_one_batch(epoch):
    batches = plan_batches(LENGTHS, 64, seed=3, epoch=epoch)
    assert sorted(np.concatenate(batches)) == list(range(1003))
    assert sorted(len(batch) for batch in batches) == [1003 % 64] + [64] * 15


def test_order_depends_on_seed_and_epoch_only():
    def order(seed, epoch):
        return np.concatenate(plan_batches(LENGTHS, 64, seed=seed, epoch=epoch)).tolist()

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


def test_sorting_pools_saves_padding():
    random = [np.arange(i, min(i + 64, 1003)) for i in range(0, 1003, 64)]
    assert padding_waste(np.array([1, 3, 2]), [np.array([0, 1]), np.array([2])]) == 1 - 6 / 8
    assert padding_waste(LENGTHS, plan_batches(LENGTHS, 64, seed=0, epoch=0)) < 0.1 < padding_waste(LENGTHS, random)


def test_ordered_batches_go_from_short_to_long():
    order = np.concatenate(plan_ordered_batches(LENGTHS, 64))
    assert sorted(order) == list(range(1003))
    assert (np.diff(LENGTHS[order]) >= 0).all()


def test_dataset_yields_anew_for_each_epoch(cache):
    times_read = []

    def read():
        times_read.append(True)
        return iter((cache.labels[i : i + 1],) for i in range(5))

    dataset = make_dataset(Batches(read, 5))
    for _ in range(2):
        assert [int(labels[0]) for (labels,) in dataset] == [1, 0, 1, 0, 0]
    assert len(times_read) == 2
    assert int(dataset.cardinality()) == 5


def prepare(path, cache_dir):
    config = load_config(
        None, ["data.source=csv", f"data.train={path}", f"data.cache_dir={cache_dir}", "tokenizer.min_count=1"]
    )
    corpus = load_corpus(config.data, config.seed)
    tokenizer = prepare_tokenizer(corpus, config.data, config.tokenizer)
    return tokenizer, prepare_split(corpus, "train", config.data, tokenizer, {"0": 0, "1": 1})


def test_cache_is_keyed_by_texts_and_tokenizer(tmp_path, monkeypatch):
    path = write_csv(tmp_path / "a.csv", [(f"word{i} same", str(i % 2)) for i in range(60)])
    first = prepare(path, tmp_path / "cache")
    names = {entry.name for entry in (tmp_path / "cache").iterdir()}
    assert len(names) == 2
    monkeypatch.setattr("nlp_rnn.data.datasets.write_cache", None)  # would fail if it were called again
    monkeypatch.setattr("nlp_rnn.data.datasets.build_tokenizer", None)
    again = prepare(path, tmp_path / "cache")
    assert again[0].vocabulary == first[0].vocabulary
    monkeypatch.undo()
    write_csv(path, [(f"word{i} other", str(i % 2)) for i in range(60)])
    assert "other" in prepare(path, tmp_path / "cache")[0].vocabulary
    assert {entry.name for entry in (tmp_path / "cache").iterdir()} > names


@pytest.mark.further
def test_runs_that_start_at_once_share_one_cache(tmp_path):
    path = write_csv(tmp_path / "a.csv", [(f"word{i} same", str(i % 2)) for i in range(60)])
    code = f"""
from tests.data.test_datasets import prepare
tokenizer, cache = prepare({str(path)!r}, {str(tmp_path / "cache")!r})
print(tokenizer.vocabulary, cache.offsets.tolist())
"""
    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0] for process in processes]
    assert printed[0] == printed[1]
    assert b"same" in printed[0]
    assert len(list((tmp_path / "cache").iterdir())) == 2  # and no temporary folder


# --- scripts without spaces ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "vocabulary", "is_told"),
    [
        ("word", ["我", "们", "。", "ok", "的"], True),
        ("word", ["the", "我", "cat", ",", "."], False),
        ("char", ["我", "们"], False),
    ],
)
def test_words_of_single_characters_are_told(level, vocabulary, is_told, caplog):
    datasets._advise_subwords(Tokenizer(level, vocabulary=vocabulary))
    assert ("tokenizer.level=subword finds words" in caplog.text) == is_told
