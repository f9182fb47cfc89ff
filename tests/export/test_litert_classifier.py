"""Classifiers as LiteRT files: the answers of the SavedModel, from texts, without TensorFlow."""

import dataclasses
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import nlp_rnn
from nlp_rnn.config.settings import Config, DataConfig, ModelConfig
from nlp_rnn.errors import ConfigError
from nlp_rnn.export.classifier import ClassifierModule
from nlp_rnn.export.litert_classifier import check, export_classifier
from nlp_rnn.models.calibration import Calibration
from nlp_rnn.models.classifier import build_classifier
from nlp_rnn.ondevice.classifier import OnDeviceClassifier, shortened
from nlp_rnn.ondevice.litert_model import OnDeviceModel
from nlp_rnn.tokenization.tokenizer import Tokenizer
from tests.conftest import BAD, FILLER, GOOD, ROOT, SMALL, ask, pipeline_environment, refused

TEXTS = [
    "a good , lovely film . warm", "The bad, AWFUL story!<br />dull", "", "it's", "word " * 60, "naïve 日本語 👩‍👩‍👧",
    " \x85the\u200b film\xa0wasn't\tgood", "1,000 good films at 10:30 👍🏽❤️🇩🇪🇫🇷 1️⃣ ©",
]  # fmt: skip


@pytest.fixture(scope="module")
def exported(trained):
    """A folder with runs/small, saved_models/sentiment and saved_models/sentiment_litert."""
    command = ("export", "--run", "runs/small", "--format", "litert", "--json")
    return trained, json.loads(ask(*command, cwd=trained))


# --- the command ------------------------------------------------------------------------------------------------------


def test_an_export_is_measured_on_validation_texts(exported):
    folder, facts = exported
    assert facts["model"] == "saved_models/sentiment_litert/1"
    assert facts["texts"] == 25  # the validation split
    assert facts["same_answers"] == {"float": 1.0, "int8": 1.0}
    assert facts["largest_difference"]["float"] < 1e-5
    assert {path.name for path in (folder / facts["model"]).iterdir()} == {
        "model_float.tflite", "model_int8.tflite", "vocabulary.json", "config.yaml", "README.md", "manifest.json",
    }  # fmt: skip


@pytest.mark.parametrize(("precision", "tolerance"), [("float", 1e-5), ("int8", 0.02)])
def test_the_phone_answers_like_the_savedmodel(exported, precision, tolerance):
    folder, _ = exported
    saved = tf.saved_model.load(str(folder / "saved_models" / "sentiment" / "1"))
    expected = {name: value.numpy() for name, value in saved.classify(tf.constant(TEXTS)).items()}
    device = OnDeviceClassifier(folder / "saved_models" / "sentiment_litert", precision=precision)
    found = device.answer("classify", [text.encode() for text in TEXTS])
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], atol=tolerance)
    if precision == "float":
        assert found["label"] == expected["label"].tolist()
        ids = saved.tokenize(tf.constant(TEXTS))["token_ids"].numpy()
        assert [device.ids(text) for text in TEXTS] == [row[row > 0].tolist() for row in ids]


def test_predict_takes_the_litert_folder_and_needs_no_tensorflow(exported):
    folder, _ = exported
    code = (
        "import sys; from pipelines import sentiment; from nlp_rnn.cli import main as cli; "
        "status = cli.main(sentiment, ['predict', '--model', sys.argv[1], 'a good , lovely film']); "
        "print(status, 'tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "saved_models/sentiment_litert"], cwd=folder,
        env=pipeline_environment(folder) | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    first, last = done.stdout.splitlines()
    label, probability, text = first.split("\t")
    assert (label, text, last) == ("pos", "a good , lovely film", "0 False")
    saved = ask("predict", "--model", "saved_models/sentiment", "a good , lovely film", cwd=folder)
    assert float(probability) == pytest.approx(float(saved.split("\t")[1]), abs=0.02)


def test_what_needs_the_savedmodel_says_so(exported, next_word_trained):
    folder, _ = exported
    model = ("--model", "saved_models/sentiment_litert")
    path = "saved_models/sentiment_litert/1"
    assert refused("tokenizer", *model, "a", cwd=folder) == (
        f"the model is {path}, a LiteRT export; this needs the SavedModel"
    )
    with pytest.raises(ConfigError, match="which only classifies; explain needs the SavedModel"):
        nlp_rnn.load(folder / "saved_models" / "sentiment_litert").explain("a good film")
    with pytest.raises(ConfigError, match="holds a classifier for LiteRT, but must hold a next-word model"):
        OnDeviceModel(folder / path)
    with pytest.raises(ConfigError, match="holds a next-word model for LiteRT, but must hold a classifier"):
        OnDeviceClassifier(next_word_trained / "saved_models" / "next_word_litert")


def test_a_damaged_file_is_one_line(exported, tmp_path):
    folder, _ = exported
    for path in (folder / "saved_models" / "sentiment_litert" / "1").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    settings = json.loads((tmp_path / "vocabulary.json").read_text())
    (tmp_path / "manifest.json").unlink()
    del settings["labels"]
    (tmp_path / "vocabulary.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=r"vocabulary.json: is damaged \(KeyError\('labels'\)\); export it again"):
        OnDeviceClassifier(tmp_path)


def test_the_readme_beside_the_files_runs(exported):
    folder = exported[0] / "saved_models" / "sentiment_litert"
    code = (folder / "1" / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    code += f"print([token_ids(text) for text in {TEXTS!r}])\nprint([answer(text) for text in {TEXTS!r}])\n"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder / "1", capture_output=True, text=True, check=True, timeout=60
    )
    device = OnDeviceClassifier(folder)
    one, ids, labels = done.stdout.splitlines()
    assert one in ("neg", "pos")
    assert ids == str([device.ids(text) for text in TEXTS])
    found = device.answer("classify", [text.encode() for text in TEXTS])["label"]
    assert labels == str([label.decode() for label in found])


def test_without_validation_texts_nothing_is_exported(trained, tmp_path):
    command = ("export", "--run", trained / "runs" / "small", "--format", "litert")
    told = refused(*command, "data.train=gone.csv", cwd=tmp_path)
    assert told.startswith("--format is litert, whose files are checked on validation texts: data.train is gone.csv")
    assert told.endswith("if the data are elsewhere now, give data.* settings as for evaluate")
    told = refused("export", "--run", trained / "runs" / "small", "data.train=gone.csv", cwd=tmp_path)
    assert told == "command line: 'data.train=gone.csv': only --format litert reads data; leave it out"
    told = refused(*command, "model.units=3", cwd=tmp_path)
    assert "only data.* settings can be changed for a trained model" in told


@pytest.mark.further
def test_words_that_cannot_be_split_without_tensorflow_are_refused(reviews, tmp_path):
    settings = [*SMALL, "data.source=csv", f"data.train={reviews}", "training.epochs=1", "tokenizer.case=markers"]
    ask("train", "name=markers", *settings, cwd=tmp_path)
    told = refused("export", "--run", "runs/markers", "--format", "litert", cwd=tmp_path)
    assert "it needs tokenizer.level=word" in told
    assert "without nfkc, case=markers, reserved and oov_buckets; use --format savedmodel" in told


# --- every kind of model ----------------------------------------------------------------------------------------------


def make(outputs="classes", num_classes=2, **settings):
    """A classifier with random weights, its tokenizer and config."""
    tokenizer = Tokenizer("word", whole_emoji=True, vocabulary=[*GOOD, *BAD, *FILLER])
    model_config = ModelConfig(units=9, embedding_dim=7, fast="off", **settings)
    data = DataConfig(
        max_length=15, keep="both", multi_label=outputs == "label_sets",
        labels_are="ordinal" if outputs == "ordinal" else "classes",
    )  # fmt: skip
    config = dataclasses.replace(Config(), model=model_config, data=data, name="small")
    keras.utils.set_random_seed(0)
    model = build_classifier(
        model_config, vocab_size=tokenizer.vocab_size, num_classes=num_classes, outputs=outputs
    )  # fmt: skip
    generator = np.random.default_rng(0)
    for weight in model.weights:  # also those that begin with zeros
        if weight.dtype == "int8":
            weight.assign(generator.integers(-127, 128, weight.shape))
        else:
            weight.assign(generator.normal(scale=0.4, size=weight.shape))
    labels = [str(number) for number in range(num_classes)]
    return model, tokenizer, config, labels


WIDE_OF_THREE = {"num_classes": 3, "ngrams": 3}
KINDS = {
    "lstm": {"num_layers": 2, "layer_norm": True, "pooling": ("last", "max", "mean", "attention"), "ngrams": 2},
    "gru": {"cell": "gru", "is_bidirectional": False, "is_residual": True, "num_layers": 2, **WIDE_OF_THREE},
    "ordinal": {"outputs": "ordinal", "num_classes": 5, "cell": "min_gru"},
    "label_sets": {"outputs": "label_sets", "num_classes": 4, "cell": "min_lstm", "ngrams": 2},
    "reversed": {"is_bidirectional": False, "is_reversed": True, "cell": "simple_rnn", "weight_dropout": 0.1},
}


@pytest.mark.parametrize(
    "kind",
    ["label_sets", *(pytest.param(each, marks=pytest.mark.further) for each in ("lstm", "gru", "ordinal", "reversed"))],
)
def test_every_kind_of_model_answers_as_before(kind, tmp_path):
    model, tokenizer, config, labels = make(**KINDS[kind])
    thresholds = (0.3, 0.5, 0.6, 0.7) if kind == "label_sets" else ()
    calibration = Calibration(1.7, thresholds)
    path, facts = export_classifier(model, tokenizer, config, labels, calibration, TEXTS, tmp_path)
    assert facts["largest_difference"]["float"] < 1e-5
    assert facts["largest_difference"]["int8"] < 0.05
    module = ClassifierModule([model], tokenizer, config, labels, [calibration])
    expected = module.classify(tf.constant(TEXTS))
    found = OnDeviceClassifier(path, precision="float").answer("classify", [text.encode() for text in TEXTS])
    for name, values in found.items():
        if name in ("label", "chosen"):
            np.testing.assert_array_equal(values, expected[name].numpy(), err_msg=name)
        else:
            np.testing.assert_allclose(values, expected[name].numpy(), atol=1e-5, err_msg=name)
    assert set(found) == set(expected) - {"probability", "labels"}


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """The folder of a classifier with n-grams, and what `check` takes."""
    model, tokenizer, config, labels = make(**KINDS["lstm"])
    folder = tmp_path_factory.mktemp("wide")
    path, _ = export_classifier(model, tokenizer, config, labels, Calibration(), TEXTS, folder)
    return path, ClassifierModule([model], tokenizer, config, labels, [Calibration()]), config


@pytest.mark.parametrize("precision", ["float", "int8"])
def test_padding_changes_nothing(wide, precision):
    classify = Interpreter(str(wide[0] / f"model_{precision}.tflite")).get_signature_runner("classify")
    ids = np.array([[5, 9, 4, 9, 4, 1]], np.int32)
    for padding in (1, 9):
        np.testing.assert_array_equal(
            classify(token_ids=np.pad(ids, ((0, 0), (0, padding))))["probabilities"],
            classify(token_ids=ids)["probabilities"],
        )


def test_int8_files_hold_int8_weights_by_row(wide):
    """One scale for each row of the embedding and for each output of a matrix."""
    interpreter = Interpreter(str(wide[0] / "model_int8.tflite"))
    operations = {each["op_name"] for each in interpreter._get_ops_details()}
    assert not [name for name in operations if name.startswith("Flex") or "CUSTOM" in name.upper()]
    tensors = interpreter.get_tensor_details()
    vocab_size = len(json.loads((wide[0] / "vocabulary.json").read_text())["words"])
    (table,) = [each for each in tensors if tuple(each["shape"]) == (vocab_size, 7)]
    (scales,) = [each for each in tensors if tuple(each["shape"]) == (vocab_size, 1)]
    assert (table["dtype"], scales["dtype"]) == (np.int8, np.float32)


def test_files_of_other_weights_are_not_kept(wide, tmp_path):
    path, module, config = wide
    other = make(**KINDS["lstm"])
    for weight in other[0].weights:
        if weight.dtype != "int8":
            weight.assign(-weight)
    other_module = ClassifierModule([other[0]], *other[1:], [Calibration()])
    with pytest.raises(ConfigError) as caught:
        check(path, other_module, config, TEXTS)
    told = str(caught.value)
    assert told.startswith("--format is litert, but the float file's probabilities differ from the model's by ")
    assert told.endswith(
        "on validation texts, where at most 0.001 is allowed; nothing was written: export with --format savedmodel"
    )
    tokenizer = Tokenizer("word", vocabulary=[*BAD, *GOOD, *FILLER])
    other_module = ClassifierModule(module.holders_of_weights, tokenizer, *other[2:], [Calibration()])
    with pytest.raises(ConfigError, match=r"the text 'a good , lovely film . warm' has other token ids there"):
        check(path, other_module, config, TEXTS)


def test_texts_are_shortened_as_in_training():
    assert shortened([1, 2, 3, 4, 5], 5, "start") == [1, 2, 3, 4, 5]
    assert shortened([1, 2, 3, 4, 5], 3, "start") == [1, 2, 3]
    assert shortened([1, 2, 3, 4, 5], 3, "end") == [3, 4, 5]
    assert shortened([1, 2, 3, 4, 5], 3, "both") == [1, 2, 5]
    assert shortened([1, 2, 3, 4, 5], 1, "both") == [1]
