"""Token ids on disk."""

import errno

import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.data.datasets import write_cache
from nlp_rnn.data.token_cache import TokenCache, write_ids


def test_ids_are_read_as_they_were_written(tmp_path):
    texts = [np.arange(length) for length in (3, 0, 1)]
    write_ids(tmp_path, texts)
    assert [ids.tolist() for ids in TokenCache.load(tmp_path).rows(np.arange(3))] == [[0, 1, 2], [], [0]]


def encode(texts):
    return tf.cast(tf.strings.unicode_decode(texts, "UTF-8"), tf.int32)


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: write_ids(folder, [np.arange(100)]),
        lambda folder: write_cache(folder, [("a text", 0)] * 3, encode),
    ],
)
def test_a_full_disk_is_told_however_little_is_written(tmp_path, write):
    (tmp_path / "ids.bin").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as told:
        write(tmp_path)
    assert told.value.errno == errno.ENOSPC
