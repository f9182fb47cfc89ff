"""The Python API, on the small models that the tests of the pipelines train."""

import http.server
import json
import math
import os
import subprocess
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import nlp_rnn
from nlp_rnn import api
from nlp_rnn.config.loading import load_config
from nlp_rnn.config.settings import Config, DataConfig
from nlp_rnn.decoding.settings import GenerationSettings, SearchSettings
from nlp_rnn.results import Translation
from nlp_rnn.special_ids import EOS_ID
from nlp_rnn.training.run_directory import load_run
from nlp_rnn.training.trained_models import load_language_model
from tests.conftest import ROOT, SMALL, ask


@pytest.fixture
def inside(monkeypatch, tmp_path):
    """Works in a folder, as a user does."""

    def enter(folder):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("NLP_RNN_CACHE", str(tmp_path / "cache"))

    return enter


def test_importing_it_is_quick_and_imports_no_tensorflow():
    code = (
        "import sys, nlp_rnn; dir(nlp_rnn); "
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'numpy', 'pydantic')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    assert set(nlp_rnn.__all__) <= set(dir(nlp_rnn))
    assert all(getattr(nlp_rnn, name) is not None for name in nlp_rnn.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'laod'"):
        _ = nlp_rnn.laod


def test_a_classifier_labels_a_text_a_list_and_a_stream(trained, inside):
    inside(trained)
    classify = nlp_rnn.load("sentiment")  # found in ./saved_models
    one = classify("a good lovely film")
    assert (one.label, set(one.probabilities)) == ("pos", {"neg", "pos"})
    assert one.probability == one.probabilities["pos"] > 0.5
    assert one.probabilities["neg"] + one.probability == pytest.approx(1, abs=1e-6)
    many = classify(["a good lovely film", b"the story was awful", ""], batch_size=2)
    assert [found.label for found in many][:2] == ["pos", "neg"]
    assert many[0].probability == pytest.approx(one.probability, abs=1e-6)

    read = []

    def endless():
        while True:
            read.append(1)
            yield "a good film"

    stream = classify(endless(), batch_size=3)
    assert isinstance(stream, types.GeneratorType)
    assert next(stream).label == "pos"
    assert len(read) == 3
    with pytest.raises(TypeError, match="a text is a str or bytes, not a int"):
        classify([3])
    for texts in (["a"], iter(["a"])):
        with pytest.raises(nlp_rnn.ConfigError, match="batch_size is 0, but must be a whole number from 1 to"):
            classify(texts, batch_size=0)
    assert classify("a film \ud83d").probabilities == classify("a film \ufffd").probabilities  # half an emoji


def test_a_classifier_explains_and_shows_its_tokens(trained, inside):
    inside(trained)
    classify = nlp_rnn.load("saved_models/sentiment/1", task="sentiment")
    found = classify.explain("the film was good")
    assert found.label == "pos"
    assert found.tokens[max(range(4), key=found.scores.__getitem__)] == "good"
    tokens = classify.tokenize("The film")
    assert (tokens.pieces, tokens.text, len(tokens.ids)) == (["the", "film"], "the film", 2)


def test_names_and_defaults_are_those_of_the_command_line(trained, inside):
    inside(trained)
    told = json.loads(ask("predict", "--model", "saved_models/sentiment", "a good film", "--json", cwd=trained))
    found = nlp_rnn.load("sentiment")("a good film")
    assert (told["label"], told["probability"]) == (found.label, pytest.approx(found.probabilities["pos"], abs=1e-7))


def test_a_run_answers_as_its_export_does(trained, next_word_trained, characters_trained, inside):
    inside(trained)
    texts = ["a good lovely film", "the story was awful"]
    for one, other in zip(nlp_rnn.load("runs/small")(texts), nlp_rnn.load("sentiment")(texts), strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-5)
    inside(next_word_trained)
    one, other = (nlp_rnn.load(name).suggest("My neighbour likes ", count=2) for name in ("runs/small", "next_word"))
    assert [each.word for each in one] == [each.word for each in other]
    assert one[0].probability == pytest.approx(other[0].probability, abs=1e-5)
    inside(characters_trained)
    one, other = (
        nlp_rnn.load(name).generate("The cat", max_length=30, seed=3).text for name in ("runs/small", "char_generation")
    )
    assert one == other


@pytest.mark.parametrize("task", ["next_word", "char_generation"])
def test_texts_are_scored_as_the_model_scores_them(task, next_word_trained, characters_trained, inside):
    folder = {"next_word": next_word_trained, "char_generation": characters_trained}[task]
    inside(folder)
    scorer, run = nlp_rnn.load(task), nlp_rnn.Run.open("runs/small")
    text = "The cat likes the green garden ."
    found = scorer.score(text)
    assert found.tokens[-1] == "</s>"
    assert found.tokens[:-1] == scorer.tokenize(text).pieces
    model, tokenizer = load_language_model(run._directory)
    ids = [EOS_ID, *tokenizer.tokenize([text])[0].numpy(), EOS_ID]
    hidden, _ = model.run(np.array([ids[:-1]]), model.zero_states(1))
    expected = np.array(model.head(hidden))[0][np.arange(len(ids) - 1), ids[1:]]
    np.testing.assert_allclose(found.log_probabilities, expected, atol=1e-4)
    assert found.perplexity == pytest.approx(np.exp(-expected.mean()), rel=1e-4)
    # Rows of a batch do not change each other, and padding has no cost.
    rows = scorer.signatures.score(tf.constant([text, "", "The cat"]))
    np.testing.assert_allclose(rows["log_probabilities"][0], found.log_probabilities, atol=1e-5)
    assert rows["tokens"][1].numpy().tolist()[:2] == [b"</s>", b""]
    assert rows["log_probabilities"][1][1:].numpy().tolist() == [0] * (len(found.tokens) - 1)
    assert scorer.signatures.score(tf.constant([], tf.string))["tokens"].shape[0] == 0


def test_the_keyboard_suggests(next_word_trained, inside):
    inside(next_word_trained)
    found = nlp_rnn.load("next_word").suggest("My neighbour likes ", count=3)
    assert len(found) == 3
    assert found[0].probability >= found[1].probability
    assert isinstance(found[0], nlp_rnn.Suggestion)


def test_text_is_generated_whole_and_streamed(characters_trained, inside):
    inside(characters_trained)
    model = nlp_rnn.load("char_generation")
    found = model.generate("The cat", max_length=60, temperature=0.5, seed=2, stop=["."])
    assert len(found.text) <= 60
    assert "." not in found.text
    assert math.isfinite(found.log_probability)
    assert "".join(model.stream("The cat", max_length=60, temperature=0.5, seed=2, stop=["."])) == found.text
    with pytest.raises(nlp_rnn.ConfigError) as told:
        model.generate("x", temprature=1.0, top_p=2.0)
    assert str(told.value).splitlines() == [
        "temprature is not a setting; did you mean temperature?",
        "top_p is 2.0, but must be less than or equal to 1",
    ]


def test_sentences_are_translated(translation_trained, inside):
    inside(translation_trained)
    translator = nlp_rnn.load("translation_en_de")
    sentence = "the old king sees the green garden today"
    one = translator.translate(sentence)
    assert one.text.startswith("heute")
    assert [found.text for found in translator.translate([sentence], beam_size=2)] == [one.text]
    best = next(translator.translate_all([sentence], n_best=3))
    assert len(best) == 3
    with pytest.raises(nlp_rnn.ConfigError, match="n_best is 0, but must be a whole number from 1 to 100"):
        next(translator.translate_all([sentence], n_best=0))
    with pytest.raises(nlp_rnn.ConfigError, match="n_best is not a setting of translate"):
        translator.translate(sentence, n_best=2)
    with pytest.raises(TypeError, match="the texts are one str; give a list of texts"):
        next(translator.translate_all(sentence))
    impossible = {"beam_size": 1, "no_repeat_ngram": 1, "min_length": 3000, "max_length": 3000}
    assert translator.translate(sentence, **impossible) == Translation("", -math.inf)
    assert best[0].score >= best[1].score >= best[2].score
    assert best[0].text == one.text


def test_a_run_is_trained_evaluated_and_exported(reviews, tmp_path, inside):
    inside(tmp_path)
    Path("mine.yaml").write_text("data: {source: csv, test_fraction: 0.2}\n", encoding="utf-8")
    settings = dict(each.split("=", 1) for each in SMALL)
    settings = {key: json.loads(value) for key, value in settings.items()} | {
        "data.train": str(reviews),
        "training.epochs": 6,
    }
    run = nlp_rnn.train("mine.yaml", settings)
    assert isinstance(run, nlp_rnn.Run)
    assert (run.path, run.config.training.epochs, run.config.name) == (Path("runs/mine"), 6, "mine")
    assert run.metrics["training"]["epochs"] == 6
    found = run.evaluate("test", baseline=True)
    assert isinstance(found, nlp_rnn.Evaluation)
    assert found.metrics["accuracy"] > 0.8
    assert found.details["baseline"]["accuracy"] > 0.5
    assert run.metrics["test"] == json.loads(json.dumps(found.metrics))
    with ThreadPoolExecutor() as threads:  # as of two processes that evaluate at once
        list(threads.map(lambda number: load_run(run.path).write_metrics(**{f"figure_{number}": number}), range(50)))
    assert [run.metrics[f"figure_{number}"] for number in range(50)] == list(range(50))
    with pytest.raises(nlp_rnn.ConfigError, match="format is 'tflite', but must be savedmodel or litert for sentiment"):
        run.export(format="tflite")
    path = run.export()
    assert path == Path("saved_models/sentiment/1")
    assert run.load()("a good film").label == nlp_rnn.load(path)("a good film").label == "pos"
    again = nlp_rnn.train("mine.yaml", settings)  # it is finished
    assert again.metrics["training"]["epochs"] == 6
    assert nlp_rnn.Run.open("runs/mine", "sentiment").config == run.config
    for wrong in ({"format": "savedmodel", "weights": "float16"}, {"format": "litert", "weights": "Int8"}):
        with pytest.raises(nlp_rnn.ConfigError, match=r"weights is '\w+', but must be float32, int8 or int4"):
            run.export(**wrong)
    for wrong, message in (
        ({"min_probability": 2.0}, "min_probability is 2.0, but must be a number from 0 to 1"),
        ({"min_probability": "0.5"}, "min_probability is '0.5', but must be a number from 0 to 1"),
        ({"baseline": "no"}, "baseline is 'no', but must be true or false"),
    ):
        with pytest.raises(nlp_rnn.ConfigError, match=message):
            run.evaluate("test", **wrong)
    with pytest.raises(nlp_rnn.ConfigError, match="adapt is not an option of evaluating sentiment; it has baseline"):
        run.evaluate("test", adapt=True)
    with pytest.raises(nlp_rnn.ConfigError, match="split is 'tset', but must be validation or test"):
        run.evaluate("tset")


def test_mistakes_are_exceptions_with_the_messages_of_the_command_line(inside, tmp_path):
    inside(tmp_path)
    (tmp_path / "a.yaml").write_text("model: {unit: 3}\n", encoding="utf-8")
    with pytest.raises(nlp_rnn.ConfigError) as told:
        nlp_rnn.train("a.yaml", {"training.epochs": -1})
    assert sorted(str(told.value).splitlines()) == [
        "a.yaml: model.unit is not a setting; did you mean model.units?",
        "command line: training.epochs is -1, but must be greater than 0",
    ]
    with pytest.raises(nlp_rnn.ConfigError, match=r"data\.train is empty, but data\.source csv reads files"):
        nlp_rnn.train(Config(data=DataConfig(source="csv")))
    with pytest.raises(nlp_rnn.ConfigError, match="settings are given in addition to a Config"):
        nlp_rnn.train(load_config(None, ["data.source=csv", "data.train=x"]), {"seed": 2})


def test_models_are_found_by_name(trained, inside, tmp_path, monkeypatch):
    inside(tmp_path)
    with pytest.raises(
        nlp_rnn.ConfigError, match=r"the model is absent, but there is no such folder, nor one in saved_models"
    ):
        nlp_rnn.load("absent")
    monkeypatch.setenv("NLP_RNN_MODELS", str(trained / "saved_models"))
    assert nlp_rnn.load("sentiment").path == trained / "saved_models" / "sentiment" / "1"
    with pytest.raises(nlp_rnn.ConfigError, match=r"models there: .*sentiment"):
        nlp_rnn.load("sentimnt")
    with pytest.raises(nlp_rnn.ConfigError, match="task is 'sentiment', but this command is translation"):
        nlp_rnn.load("sentiment", task="translation")


@pytest.mark.parametrize("kind", [GenerationSettings, SearchSettings])
def test_settings_have_a_description_each_and_defaults_that_are_allowed(kind):
    assert kind.checked() == kind()
    for annotation in kind.__annotations__.values():
        assert any(getattr(note, "description", None) for note in annotation.__metadata__)


# --- a hub ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(trained, tmp_path, monkeypatch):
    """A local server that answers as the hub does, with one model: team/reviews."""
    pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")
    folder, commit = trained / "saved_models" / "sentiment" / "1", "0123456789" * 4
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    asked = []

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(with_body=True)

        def do_HEAD(self):
            self.answer(with_body=False)

        def answer(self, *, with_body):
            asked.append(self.path)
            body, headers, status = b"", {}, 200
            if self.path.startswith("/api/models/team/reviews/revision/"):
                siblings = [{"rfilename": name} for name in names]
                body = json.dumps({"_id": "1", "id": "team/reviews", "sha": commit, "siblings": siblings}).encode()
                headers["Content-Type"] = "application/json"
            elif self.path.startswith("/api/models/team/reviews/tree/"):
                files = [
                    {"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": "0" * 40}
                    for name in names
                ]
                body = json.dumps(files).encode()
                headers["Content-Type"] = "application/json"
            elif self.path.startswith(f"/team/reviews/resolve/{commit}/"):
                name = self.path.removeprefix(f"/team/reviews/resolve/{commit}/")
                body = (folder / name).read_bytes()
                headers = {"X-Repo-Commit": commit, "ETag": f'"{name}"'}
            else:
                status, headers = 404, {"X-Error-Code": "RepoNotFound"}
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *_):
            """Says nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_DISABLE_XET": "1",
    }
    yield types.SimpleNamespace(asked=asked, environment=environment)
    server.shutdown()


def answer_of(code, environment):
    """What a new process prints: the hub's library reads its environment when it is imported."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip(), done.stderr


@pytest.mark.further
def test_a_model_of_a_hub_is_downloaded_once_and_answers(hub, tmp_path):
    code = "import nlp_rnn; print(nlp_rnn.load('hf://team/reviews')('a good lovely film').label)"
    label, errors = answer_of(code, hub.environment)
    assert label == "pos", errors
    number = sum("saved_model.pb" in path for path in hub.asked)
    code = "from nlp_rnn import hub; print(hub.download('hf://team/reviews'))"
    path, errors = answer_of(code, hub.environment | {"HF_HUB_OFFLINE": "1"})
    assert nlp_rnn.load(path)("a good lovely film").label == "pos", errors
    assert sum("saved_model.pb" in path for path in hub.asked) == number


def test_what_a_hub_does_not_have_is_one_line(hub):
    code = "import nlp_rnn\ntry: nlp_rnn.load({!r})\nexcept nlp_rnn.ConfigError as error: print(error)"
    told, errors = answer_of(code.format("hf://team/absent"), hub.environment)
    assert told.startswith("the model is hf://team/absent, which the hub does not provide ("), errors
    assert len(told.splitlines()) == 1
    told, errors = answer_of(code.format("hf://team/reviews"), hub.environment | {"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert "the hub does not respond and the model is not in the cache" in told, errors


def test_addresses_of_a_hub_have_owner_and_name():
    with pytest.raises(nlp_rnn.ConfigError, match="a hub address must be hf://owner/name"):
        nlp_rnn.load("hf://reviews")


# --- the model of a command without --model ------------------------------------------------------------------------


def test_without_a_model_commands_use_that_of_the_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NLP_RNN_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(api, "__file__", str(tmp_path / "nlp_rnn" / "api.py"))  # not this checkout's models
    assert api.default_model("sentiment") == "sentiment"
    assert api.default_model("next_word", "_litert") == "next_word_litert"
    (tmp_path / "models" / "translation_en_de").mkdir(parents=True)
    assert api.default_model("translation") == "translation_en_de"
    assert api.find_model("translation_en_de") == tmp_path / "models" / "translation_en_de"
    (tmp_path / "saved_models" / "translation_en_es").mkdir(parents=True)
    with pytest.raises(
        nlp_rnn.ConfigError, match=r"--model is not given, and there are several .* translation_en_de, t"
    ):
        api.default_model("translation")
