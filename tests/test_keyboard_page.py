"""The keyboard page in headless Chromium, with LiteRT's files for browsers, and a small model."""

import contextlib
import functools
import http.server
import importlib.util
import shutil
import threading

import pytest

from nlp_rnn.ondevice.litert_model import OnDeviceModel
from nlp_rnn.ondevice.typing_session import TypingSession
from tests.conftest import ROOT

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra dev is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
MODULES = ROOT / "build" / "npm" / "node_modules"
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium on this machine")


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(folder):
    """Serves a folder while the context lasts; gives its address."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def exported(next_word_trained):
    return next_word_trained / "saved_models" / "next_word_litert" / "1"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(address, folder) of the page without a model."""
    if not (MODULES / "@litertjs" / "core").is_dir():
        pytest.skip("LiteRT for browsers is missing; run make keyboard-page")
    spec = importlib.util.spec_from_file_location("assemble", ROOT / "docs" / "keyboard" / "assemble.py")
    assemble = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(assemble)
    folder = tmp_path_factory.mktemp("keyboard")
    assemble.assemble(MODULES, folder)
    with serving(folder) as address:
        yield address, folder


@pytest.fixture
def browser_page():
    """A page of the size of a phone."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 390, "height": 800})
        browser.close()


@pytest.fixture
def open_page(browser_page, served):
    """A function that opens the page. Fails at the end if the page asked another server, or had an error."""
    page, asked, errors = browser_page, [], []
    page.on("request", lambda each: asked.append(each.url))
    page.on("pageerror", lambda each: errors.append(str(each)))

    def visit():
        page.goto(served[0])
        page.get_by_text("Model: ").or_(page.get_by_text("Choose a model.")).and_(page.locator("#status")).wait_for()
        return page

    yield visit
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert len(asked) > 5
    assert not [url for url in asked if not url.startswith((served[0], "data:"))]
    assert not errors


def choose(page, *paths):
    page.locator("#files").set_input_files([str(path) for path in paths])


def suggested(page, text):
    """The suggestions for a text that is typed key by key."""
    field = page.locator("#text")
    field.fill("")
    field.press_sequentially(text)
    page.wait_for_function("text => document.getElementById('words').dataset.text === text", arg=text)
    buttons = page.locator("#words button").all()
    return [(button.inner_text(), float(button.get_attribute("title").rstrip(" %")) / 100) for button in buttons]


def test_the_page_suggests_what_the_console_suggests(open_page, exported):
    page = open_page()
    choose(page, exported / "model_int8.tflite", exported / "vocabulary.json")
    page.get_by_text("Model: model_int8.tflite, ").wait_for()
    requests = []
    page.on("request", lambda each: requests.append(each.url))
    for text in ("the cat likes the ", "a dog sees a shiny ki", "My neighbour remembers AN e", "nobody ", "zzz", "k."):
        session = TypingSession(OnDeviceModel(exported), count=3)
        expected = session.suggest(text)
        found = suggested(page, text)
        assert [probability for _, probability in found] == pytest.approx(
            [each.probability for each in expected], abs=0.02
        ), text
        if len(expected) == 1 or (expected and expected[0].probability > expected[1].probability + 0.04):
            assert found[0][0] == expected[0].word, text
    session = TypingSession(OnDeviceModel(exported), count=3)
    session.finish_line("the cat likes the green garden .")
    found = suggested(page, "the cat likes the green garden .\nA dog sees a ")
    assert found[0][0] == session.suggest("A dog sees a ")[0].word == "shiny"
    assert not requests


def test_suggestions_are_accepted_by_key_and_click(open_page, exported, served):
    for name in ("model_int8.tflite", "vocabulary.json"):  # a folder beside the page
        (served[1] / "model").mkdir(exist_ok=True)
        shutil.copyfile(exported / name, served[1] / "model" / name)
    page = open_page()
    page.get_by_text("Model: model/model_int8.tflite").wait_for()
    shutil.rmtree(served[1] / "model")
    field = page.locator("#text")
    word = suggested(page, "The cat likes the ")[0][0]
    field.press("Alt+1")
    assert field.input_value() == f"The cat likes the {word} "
    field.press_sequentially("ga")
    page.get_by_role("button", name="garden").click()
    assert field.input_value() == f"The cat likes the {word} garden "


def test_wrong_files_are_one_line(open_page, exported, tmp_path):
    page = open_page()
    choose(page, exported / "vocabulary.json")
    page.get_by_text("Choose two files together: model_int8.tflite and vocabulary.json.").wait_for()
    (tmp_path / "vocabulary.json").write_text('{"words": []}')
    choose(page, exported / "model_int8.tflite", tmp_path / "vocabulary.json")
    page.get_by_text("vocabulary.json is not that of a next-word model").wait_for()
    assert page.locator("#text").is_disabled()


def test_without_litert_the_page_says_what_is_missing(browser_page):
    with serving(ROOT / "docs" / "keyboard") as address:
        browser_page.goto(address)
        browser_page.get_by_text(
            "LiteRT's files are not beside this page; put them there with: make keyboard-page"
        ).wait_for()


TEXTS = [
    "Don't you'll WE'VE it’s 3.5 1,000 10:30 <br />x<BR>y", "\u0130stanbul \u03a3\u039f\u03a6\u039f\u03a3 stra\u00dfe",
    "\u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u05e9\u05dc\u05d5\u05dd \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "日本語 👨‍👩‍👧",
    " a\x85b\u200bc\xa0d\t", "", "n't 's a_b-c/d ...", "👍🏽❤️🇩🇪🇫🇷 1️⃣ ©→ ☎",
    "cafe\u0301 \u0928\u092e\u0938\u094d\u0924\u0947",
]  # fmt: skip


def test_the_page_splits_texts_as_in_training(open_page, exported):
    page = open_page()
    split = """async ([texts, splitter]) => {
        const {Model} = await import("./model.js");
        const settings = {splitter, lowercase: true, html_breaks: true, whole_emoji: splitter === "unicode"};
        return texts.map((text) => Model.prototype.split.call({settings}, text));
    }"""
    model = OnDeviceModel(exported)
    assert page.evaluate(split, [TEXTS, "unicode"]) == [model.split(text) for text in TEXTS]
    model._splitting |= {"splitter": "whitespace", "whole_emoji": False}
    assert page.evaluate(split, [TEXTS, "whitespace"]) == [model.split(text) for text in TEXTS]
