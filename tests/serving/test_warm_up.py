"""The requests by which exports are warmed up, as TensorFlow Serving reads them."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn import manifest
from nlp_rnn.errors import ConfigError
from nlp_rnn.export.warm_up import NAME, read_warm_up
from nlp_rnn.serving.served_model import load_served

MODELS = ["sentiment", "next_word", "char_generation", "translation_en_de"]


@pytest.mark.parametrize(
    "model", [*MODELS[:2], *(pytest.param(each, marks=pytest.mark.further) for each in MODELS[2:])]
)
def test_stock_messages_hold_requests_that_every_signature_answers(exports, model):
    from tensorflow_serving.apis import prediction_log_pb2

    path = exports / model / "1"
    loaded = tf.saved_model.load(str(path))
    asked = []
    for record in tf.data.TFRecordDataset(str(path / "assets.extra" / NAME)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(tensor)) for name, tensor in request.inputs.items()}
        outputs = loaded.signatures[request.model_spec.signature_name](**inputs)
        rows = {len(tensor) for tensor in inputs.values()}
        assert {len(tensor) for tensor in outputs.values()} == rows
        asked.append((request.model_spec.signature_name, *rows))
    assert sorted(asked) == sorted((name, rows) for name in loaded.signatures for rows in (1, 16))


def test_we_read_what_we_write(exports):
    requests = list(read_warm_up(exports / "next_word" / "1"))
    assert {name for name, _ in requests} == {"serving_default", "suggest", "step", "score", "tokenize"}
    suggest = next(inputs for name, inputs in requests if name == "suggest")
    assert suggest["count"].tolist() == [5]
    assert suggest["allow_profanity"].dtype == np.bool_


def test_damaged_requests_are_told(exports, tmp_path):
    version = tmp_path / "sentiment" / "1"
    shutil.copytree(exports / "sentiment" / "1", version)
    (version / "manifest.json").unlink()
    (version / "assets.extra" / NAME).write_bytes(b"no records" * 10)
    manifest.write(version)
    with pytest.raises(ConfigError, match=r"warm-up requests are damaged .*; export it again"):
        load_served("sentiment", 1, version)
