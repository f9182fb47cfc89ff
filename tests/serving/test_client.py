"""`nlp_rnn.load("http://...")` answers like the model in a folder."""

import io
import itertools
import subprocess
import sys

import pytest

import nlp_rnn
from nlp_rnn.serving.client import Connection
from nlp_rnn.serving.limits import Limits
from tests.conftest import ROOT, ask, free_port, refused
from tests.serving.conftest import listening, part_of

pytestmark = pytest.mark.further  # tests/serving/test_exports.py asks for the same answers
NAMES = ("sentiment", "next_word", "char_generation", "translation_en_de")


@pytest.fixture(scope="module")
def url(exports):
    with listening(exports, limits=Limits(max_rows=8)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def local(exports):
    return {name: nlp_rnn.load(exports / name) for name in NAMES}


def test_a_classifier_answers_alike(url, local):
    remote = nlp_rnn.load(f"{url}/sentiment")
    assert isinstance(remote, nlp_rnn.TextClassifier)
    assert (remote.labels, remote.path) == (["neg", "pos"], f"{url}/sentiment")
    for text in ("a good film", "", "Ünbekannt 🎬", b"not \xff UTF-8"):
        one, other = remote(text), local["sentiment"](text)
        assert (one.label, list(one.probabilities)) == (other.label, list(other.probabilities))
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
        assert remote.tokenize(text) == local["sentiment"].tokenize(text)
    texts = ["good", "bad", "dull and cold"]
    assert [each.label for each in remote(texts, batch_size=2)] == [each.label for each in local["sentiment"](texts)]
    one, other = remote.explain("a good film"), local["sentiment"].explain("a good film")
    assert (one.label, one.tokens) == (other.label, other.tokens)
    assert one.scores == pytest.approx(other.scores, abs=1e-5)


def test_suggestions_are_alike(url, local):
    remote = nlp_rnn.load(f"{url}/next_word", task="next_word")
    one, other = remote.score("A dog sees"), local["next_word"].score("A dog sees")
    assert one.tokens == other.tokens
    assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-5)
    for text, count in (("The cat likes ", 3), ("A do", 5)):
        one, other = remote.suggest(text, count=count), local["next_word"].suggest(text, count=count)
        assert [each.word for each in one] == [each.word for each in other]
        assert [each.probability for each in one] == pytest.approx([each.probability for each in other], abs=1e-6)


def test_generated_texts_are_alike(url, local):
    remote = nlp_rnn.load(f"{url}/char_generation")
    settings = {"max_length": 60, "seed": 3, "stop": ["king", "garden"]}
    one, other = remote.generate("The old ", **settings), local["char_generation"].generate("The old ", **settings)
    assert (one.prompt, one.text) == (other.prompt, other.text)
    assert one.log_probability == pytest.approx(other.log_probability, abs=1e-3)
    assert "".join(remote.stream("The old ", **settings)) == other.text
    assert next(itertools.islice(remote.stream("A", max_length=500), 1))  # left early


def test_translations_are_alike(url, local):
    remote = nlp_rnn.load(f"{url}/translation_en_de")
    texts = ["the old king sees the green garden today", "a song"]
    assert [each.text for each in remote.translate(texts, beam_size=3)] == [
        each.text for each in local["translation_en_de"].translate(texts, beam_size=3)
    ]
    assert [len(each) for each in remote.translate_all(texts, n_best=4, beam_size=2)] == [
        len(each) for each in local["translation_en_de"].translate_all(texts, n_best=4, beam_size=2)
    ]


def test_mistakes_are_told(url):
    port = free_port()
    for model, message in (
        (f"{url}/none", f"{url}/none: the server has no model 'none'; models there: {', '.join(sorted(NAMES))}"),
        (f"{url}/", "must be http://HOST:PORT/NAME, such as http://localhost:8501/sentiment"),
        (f"http://127.0.0.1:{port}/sentiment", "is nlp-rnn serve running there?"),
        ("http://a..b:8501/sentiment", "is nlp-rnn serve running there?"),
        (f"{url}/präfix/sentiment", "Not found (status 404)"),
        ("http://[::1/sentiment", "must be http://HOST:PORT/NAME, such as http://localhost:8501/sentiment"),
    ):
        with pytest.raises(nlp_rnn.ConfigError) as caught:
            nlp_rnn.load(model)
        assert message in str(caught.value)
    with pytest.raises(nlp_rnn.ConfigError, match="is a model of sentiment, but translation is wanted"):
        nlp_rnn.load(f"{url}/sentiment", task="translation")
    with pytest.raises(
        nlp_rnn.ConfigError, match=r"the request has 9 rows, .* at most 8 rows per request \(status 413\)"
    ):
        nlp_rnn.load(f"{url}/sentiment")(["a"] * 9)
    with pytest.raises(nlp_rnn.ConfigError, match="on a server; this needs a model in a folder"):
        _ = nlp_rnn.load(f"{url}/sentiment").signatures
    with pytest.raises(nlp_rnn.ConfigError, match="top_p is 2"):
        nlp_rnn.load(f"{url}/char_generation").generate("a", top_p=2)


@pytest.mark.parametrize(
    ("sent", "pieces"),
    [
        (b'data: {"text": "a"}\n\ndata: {"text": "b"}\n\n', ["a", "b"]),
        (b'data: {"text": "a"}\n\nevent: error\n', ["a"]),
        (b'data: {"text": "a"}\n\ndata: {"te', ["a"]),
        (b"\xff\n", []),
        (b"", []),
    ],
)
def test_a_text_that_ends_early_is_told(url, monkeypatch, sent, pieces):
    model = nlp_rnn.load(f"{url}/char_generation")
    answer, closed = io.BytesIO(sent), io.BytesIO()
    monkeypatch.setattr(Connection, "_send", lambda *_: (closed, answer))
    found = []
    with pytest.raises(nlp_rnn.ConfigError, match="the server ended the text early; try again"):
        for piece in model.stream("a"):
            found.append(piece)
    assert found == pieces
    assert closed.closed


def test_commands_take_the_url_of_a_model(url, tmp_path):
    assert ask("predict", "--model", f"{url}/sentiment", "a good film", cwd=tmp_path).startswith(("neg", "pos"))
    told = refused("tokenizer", "--model", f"{url}/sentiment", "a", cwd=tmp_path)
    assert told.splitlines()[-1] == f"the model is {url}/sentiment, on a server; this needs a model in a folder"


def test_a_token_is_sent(exports, tmp_path, monkeypatch):
    with listening(part_of(exports, tmp_path, "sentiment"), token="schlüssel 🔑") as port:
        monkeypatch.delenv("NLP_RNN_TOKEN", raising=False)
        with pytest.raises(nlp_rnn.ConfigError, match=r"send the header Authorization: Bearer TOKEN \(status 401\)"):
            nlp_rnn.load(f"http://127.0.0.1:{port}/sentiment")
        monkeypatch.setenv("NLP_RNN_TOKEN", "schlüssel 🔑")
        assert nlp_rnn.load(f"http://127.0.0.1:{port}/sentiment")("good").label in ("neg", "pos")


def test_the_client_needs_no_tensorflow(url):
    code = (
        f"import sys, nlp_rnn; model = nlp_rnn.load('{url}/sentiment'); model(['good']); model.explain('good'); "
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'starlette')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
