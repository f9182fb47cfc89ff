import dataclasses
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.config.settings import HardwareConfig
from nlp_rnn.data.bucketing import pair_reader, plan_batches, text_reader
from nlp_rnn.data.datasets import Resampling, write_cache
from nlp_rnn.data.excerpts import Excerpts
from nlp_rnn.data.input_service import served
from nlp_rnn.data.token_cache import PairCache, TokenCache
from nlp_rnn.errors import ConfigError
from nlp_rnn.special_ids import EOS_ID
from nlp_rnn.tokenization.tokenizer import Tokenizer
from tests.conftest import ROOT, SMALL, ask, differences, free_port, run_pipeline

WORDS = ("the", "old", "cat", "sat", "an", "extraordinary", "performance", "really")


def serve(*arguments):
    """A process of `nlp-rnn serve-inputs`, and the address that it tells."""
    command = [sys.executable, "-m", "pipelines", "serve-inputs", "--host", "localhost", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    told = re.fullmatch(
        r"serving inputs; train with hardware\.input_service=(localhost:\d+)\n", process.stdout.readline()
    )
    return process, told[1]


@pytest.fixture(scope="module")
def service():
    """The address of a dispatcher with two workers, which SIGTERM ends."""
    first, address = serve("--port", str(free_port()))
    second, _ = serve("--join", address)
    yield address
    for process in (second, first):
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


@pytest.fixture
def dispatcher():
    """The address of a dispatcher with one worker, of this test alone."""
    process, address = serve("--port", str(free_port()))
    yield address
    process.kill()


def make_cache(folder, tokenizer, seed, is_ended=False):
    folder.mkdir()
    draw = np.random.default_rng(seed)
    texts = [" ".join(draw.choice(WORDS, draw.integers(1, 12))) for _ in range(50)]

    def encode(batch):
        ids = tokenizer.tokenize(batch)
        return tf.concat([ids, tf.fill([ids.nrows(), 1], EOS_ID)], axis=1) if is_ended else ids

    write_cache(folder, ((text, 0) for text in texts), encode)
    return TokenCache.load(folder)


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = Tokenizer("subword")
    tokenizer.adapt([" ".join(WORDS)] * 5, vocab_size=280)
    return tokenizer


def hardware(address, seconds=60):
    return HardwareConfig(input_service=address, connect_seconds=seconds)


def assert_equal(one, other):
    for sides, same in zip(one, other, strict=True):
        for ids, equal in zip(sides, same, strict=True):
            np.testing.assert_array_equal(ids, equal)
            assert ids.dtype == equal.dtype == np.int32


@pytest.mark.further  # two processes serve
def test_texts_are_those_that_are_read_here(service, tokenizer, tmp_path, monkeypatch):
    cache = make_cache(tmp_path / "texts", tokenizer, 1)
    monkeypatch.setattr(
        "nlp_rnn.data.input_service._NUM_ORDERED", 3
    )  # 50 texts are seven batches, asked for in three parts
    plan = plan_batches(cache.lengths, 8, seed=1, epoch=0)
    for rows in (slice(0, 8), slice(4, 8)):  # the last batch has two texts
        reader = text_reader(cache, rows, multiple=5)
        assert_equal(served(reader, hardware(service))(plan, 0, 0), reader(plan))


@pytest.mark.further  # two processes serve
def test_excerpts_are_those_that_are_read_here(service, tokenizer, tmp_path):
    cache = make_cache(tmp_path / "texts", tokenizer, 1)
    excerpts = Excerpts(cache.offsets, 1.0, 1)
    plan = plan_batches(excerpts.draw(2)[1], 8, seed=1, epoch=2)
    reader = text_reader(cache, slice(0, 8), excerpts=excerpts)
    assert_equal(served(reader, hardware(service))(plan, 2, 0), reader(plan, 2))


@pytest.mark.further
def test_pairs_are_drawn_as_here(service, tokenizer, tmp_path):
    source, target = (
        make_cache(tmp_path / side, tokenizer, seed, is_ended=True) for seed, side in enumerate(("source", "target"))
    )
    cache = PairCache(source, target, np.arange(3, 50))
    plan = plan_batches(cache.lengths[:, 0], 8, seed=1, epoch=0)
    drawing = pair_reader(cache, slice(0, 8), resample=Resampling(tokenizer, 5.0, 7))
    through_service = list(served(drawing, hardware(service))(plan[2:], 3, 2))
    assert_equal(through_service, drawing(plan[2:], 3, 2))
    plain = list(pair_reader(cache, slice(0, 8))(plan[2:]))
    assert any(one[0].tolist() != other[0].tolist() for one, other in zip(through_service, plain, strict=True))
    with_predictions = dataclasses.replace(target, targets=np.zeros((target.num_tokens, 2), np.float32))
    cache = dataclasses.replace(cache, target=with_predictions)  # so targets are not drawn
    drawing = pair_reader(cache, slice(4, 8), 5, resample=Resampling(tokenizer, 5.0, 7))
    through_service = list(served(drawing, hardware(service))(plan[2:], 3, 2))
    assert_equal(through_service, drawing(plan[2:], 3, 2))
    for _, targets in through_service:
        assert not targets.shape[1] % 5


def test_nothing_answers(tokenizer, tmp_path):
    reader = text_reader(make_cache(tmp_path / "texts", tokenizer, 1), slice(0, 8))
    with pytest.raises(ConfigError, match=r"hardware\.input_service is localhost:\d+, but no server responds there"):
        served(reader, hardware(f"localhost:{free_port()}"))


def test_a_dispatcher_without_workers_is_waited_for_no_longer_than_told(tokenizer, tmp_path):
    port, api = free_port(), tf.data.experimental.service
    dispatcher = api.DispatchServer(api.DispatcherConfig(port=port))
    reader = text_reader(make_cache(tmp_path / "texts", tokenizer, 1), slice(0, 8))
    with pytest.raises(ConfigError, match="from which no batch came in 1 seconds"):
        next(served(reader, hardware(f"localhost:{port}", seconds=1))([np.arange(8)], 0, 0))
    del dispatcher


@pytest.mark.further  # two processes serve
def test_ids_that_a_worker_cannot_read_are_told(service, tokenizer, tmp_path):
    cache = make_cache(tmp_path / "texts", tokenizer, 1)
    os.truncate(cache.path / "ids.bin", 40)
    with pytest.raises(ConfigError, match=r"whose worker failed: .*data\.cache_dir"):
        list(served(text_reader(cache, slice(0, 8)), hardware(service))([np.arange(40, 48)], 0, 0))


@pytest.fixture
def settings(reviews, tmp_path):
    """Of a small training."""
    return [*SMALL, "data.source=csv", f"data.train={reviews}", f"runs_dir={tmp_path / 'runs'}"]


@pytest.mark.further  # two processes serve
def test_training_is_the_same_with_and_without_the_service(service, settings, tmp_path):
    ask("train", "name=alone", *settings, cwd=tmp_path)
    ask("train", "name=served", *settings, f"hardware.input_service={service}", cwd=tmp_path)
    assert differences(tmp_path / "runs" / "alone", tmp_path / "runs" / "served") == (0, 0)


def test_a_training_without_its_service_is_told_in_one_line(settings, tmp_path):
    address = f"localhost:{free_port()}"
    ask("train", "name=ended", *settings, cwd=tmp_path)
    ask("train", "name=ended", *settings, f"hardware.input_service={address}", cwd=tmp_path)  # reads no batch any more
    done = run_pipeline("train", *settings, f"hardware.input_service={address}", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"hardware.input_service is {address}, but no server responds there")


@pytest.mark.further
def test_batches_of_a_worker_that_is_lost_are_read_here(dispatcher, tokenizer, tmp_path, caplog):
    other, joined = serve("--join", dispatcher)
    assert joined == dispatcher
    cache = make_cache(tmp_path / "texts", tokenizer, 1)
    plan = [batch for epoch in range(60) for batch in plan_batches(cache.lengths, 8, seed=1, epoch=epoch)]
    reader = text_reader(cache, slice(0, 8))
    arriving = served(reader, hardware(dispatcher, seconds=3))(plan, 0, 0)
    arrived = [next(arriving)]
    other.kill()
    assert_equal([*arrived, *arriving], reader(plan))
    assert "the trainer read them" in caplog.text
