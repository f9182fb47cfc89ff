import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.config.loading import load_config
from nlp_rnn.config.settings import TrainingConfig
from nlp_rnn.data import datasets
from nlp_rnn.data.corpus import Corpus
from nlp_rnn.errors import ConfigError
from nlp_rnn.export import classifier as classifier_export
from nlp_rnn.export import saved_model
from nlp_rnn.models.calibration import probabilities_of
from nlp_rnn.training import trained_models
from nlp_rnn.training.fit import predict_logits
from nlp_rnn.training.run_directory import load_run

TEXTS = [
    b"a good great lovely film",
    b"an awful dull boring film",
    b"",
    b"word " * 20_000,  # 100,000 characters
    b"x" * 100_000,
    "😀 emoji 👩‍👩‍👧 film".encode(),
    b"invalid \xff\xfe\x00 utf-8",
    "فيلم جميل".encode(),
    b"<br /><br />",
]


@pytest.fixture(scope="module")
def loaded(trained):
    return saved_model.load_model(trained / "saved_models" / "sentiment", "sentiment").loaded


def test_a_fresh_process_with_tensorflow_alone_agrees_with_predict(trained, loaded, tmp_path):
    model = trained / "saved_models" / "sentiment" / "1"
    (tmp_path / "texts.json").write_text(json.dumps([text.hex() for text in TEXTS]))
    code = f"""
import sys
class Blocker:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("nlp_rnn", "pipelines", "tensorflow_text", "sklearn", "pydantic"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocker())
import json
import tensorflow as tf
texts = [bytes.fromhex(text) for text in json.load(open({str(tmp_path / "texts.json")!r}))]
model = tf.saved_model.load({str(model)!r})
answer = model.signatures["serving_default"](text=tf.constant(texts))
print(json.dumps([answer["probability"].numpy().tolist(), [label.decode() for label in answer["label"].numpy()]]))
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    probabilities, labels = json.loads(done.stdout)
    answer = loaded.classify(tf.constant(TEXTS))
    np.testing.assert_allclose(probabilities, answer["probability"].numpy(), atol=1e-5)
    assert labels == [label.decode() for label in answer["label"].numpy()]
    assert labels[:2] == ["pos", "neg"]
    assert np.isfinite(probabilities).all()


def test_the_export_answers_as_the_run_does(trained, loaded):
    run = load_run(trained / "runs" / "small", "sentiment")
    model, tokenizer = trained_models.load_classifier(run)
    corpus = Corpus(run.config.data, run.config.seed).survey()
    cache = datasets.prepare_split(corpus, "test", run.config.data, tokenizer, {"neg": 0, "pos": 1})
    expected = probabilities_of(
        predict_logits(model, cache, TrainingConfig(batch_size=16)), "classes", run.calibration.temperature
    )
    texts = [example.text for example in corpus.examples("test")]
    np.testing.assert_allclose(loaded.classify(tf.constant(texts))["probabilities"].numpy(), expected, atol=1e-5)


def test_an_answer_does_not_depend_on_its_batch(loaded):
    texts = (TEXTS * 8)[:64]
    together = loaded.classify(tf.constant(texts))["probability"].numpy()
    alone = [loaded.classify(tf.constant([text]))["probability"].numpy()[0] for text in TEXTS]
    np.testing.assert_allclose(together[: len(TEXTS)], alone, atol=1e-6)
    explained = loaded.explain(tf.constant(texts))
    for row in (0, 1, 5):
        single = loaded.explain(tf.constant([texts[row]]))
        length = single["tokens"].shape[1]
        assert single["tokens"].numpy()[0].tolist() == explained["tokens"].numpy()[row, :length].tolist()
        np.testing.assert_allclose(
            single["attributions"].numpy()[0], explained["attributions"].numpy()[row, :length], atol=1e-5
        )
        assert not explained["attributions"].numpy()[row, length:].any()


def test_attributions_add_up_to_the_change_in_log_odds(trained, loaded):
    run = load_run(trained / "runs" / "small", "sentiment")
    model, tokenizer = trained_models.load_classifier(run)
    text = tf.constant(["a good lovely film was dull"])
    ids = tokenizer(text)
    encoder, vectors, mask = model.get_layer("encoder"), model.get_layer("embedding")(ids), ids != 0
    end, start = encoder([vectors, mask]).numpy()[0], encoder([vectors * 0, mask]).numpy()[0]
    found = loaded.explain(text)["attributions"].numpy().sum()
    change = (end[1] - end[0]) - (start[1] - start[0])
    assert found == pytest.approx(change / run.calibration.temperature, rel=0.02)


def test_telling_words_carry_the_attribution(loaded):
    found = loaded.explain(tf.constant(["the film was good . the story was awful ."]))
    scores = dict(zip(found["tokens"].numpy()[0].tolist(), found["attributions"].numpy()[0].tolist(), strict=True))
    assert max(scores, key=scores.get) == b"good"
    assert min(scores, key=scores.get) == b"awful"


def test_log_odds_of_three_classes_worked_out_by_hand():
    logits = tf.math.log(tf.constant([[0.5, 0.3, 0.2]]))
    np.testing.assert_allclose(
        classifier_export.log_odds(logits, tf.constant([1], tf.int64)).numpy(), [np.log(0.3 / 0.7)], rtol=1e-5
    )


def test_the_graph_holds_core_operations_only_and_the_extras_are_there(trained):
    model = trained / "saved_models" / "sentiment" / "1"
    saved_model._check_core_ops(model)
    names = {path.name for path in (model / "assets.extra").iterdir()} - {"tf_serving_warmup_requests"}
    extras = {name: (model / "assets.extra" / name).read_text(encoding="utf-8") for name in names}
    assert names == {
        "MODEL_CARD.md",
        "calibration.json",
        "config.yaml",
        "labels.json",
        "metrics.json",
        "tokenizer.json",
        "vocabulary",
    }
    assert "bidirectional lstm text classifier" in extras["MODEL_CARD.md"]
    assert extras["vocabulary"].splitlines()[:4] == ["<pad>", "<unk>", "<s>", "</s>"]
    assert load_config(model / "assets.extra" / "config.yaml").name == "small"
    signatures = tf.saved_model.load(str(model)).signatures
    assert set(signatures) == {"serving_default", "explain", "tokenize"}


def test_a_graph_with_a_platform_operation_is_refused(tmp_path):
    module = tf.Module()
    module.run = tf.function(lambda x: x + 1, input_signature=[tf.TensorSpec([None], tf.float32)], jit_compile=False)
    tf.saved_model.save(module, str(tmp_path))
    graph = (tmp_path / "saved_model.pb").read_bytes()
    (tmp_path / "saved_model.pb").write_bytes(graph.replace(b"AddV2", b"XlaV2"))
    with pytest.raises(RuntimeError, match="XlaV2"):
        saved_model._check_core_ops(tmp_path)


def test_models_that_are_none_or_of_another_task_are_refused(tmp_path, trained):
    with pytest.raises(ConfigError, match="holds no exported model"):
        saved_model.load_model(tmp_path, "sentiment")
    with pytest.raises(ConfigError, match="holds no exported model"):
        saved_model.load_model(tmp_path / "nowhere", "sentiment")
    model = trained / "saved_models" / "sentiment" / "1"
    with pytest.raises(ConfigError, match="task is 'sentiment', but this command is translation"):
        saved_model.load_model(model, "translation")
    broken = tmp_path / "sentiment" / "3"
    (broken / "assets.extra").mkdir(parents=True)
    for name in ("config.yaml", "labels.json"):
        (broken / "assets.extra" / name).write_bytes((model / "assets.extra" / name).read_bytes())
    (broken / "saved_model.pb").write_bytes(b"not a graph")
    with pytest.raises(ConfigError, match=r"saved_model.pb: is damaged \(it is not a SavedModel\)"):
        saved_model.load_model(Path(broken), "sentiment")
