"""The playground in headless Chromium, at the sizes of a phone and of a desk."""

import re
import shutil

import pytest

from tests.serving.conftest import listening, part_of, wait_until

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra dev is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium on this machine"),
    pytest.mark.further,
]
SIZES = {"phone": (390, 800), "desk": (1280, 900)}


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(exports):
    with listening(exports) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(params=["phone", "desk"])
def page(browser, address, request):
    """A page of the playground. Fails if it asks another server, or writes an error to its console."""
    width, height = SIZES[request.param]
    context = browser.new_context(viewport={"width": width, "height": height})
    page, asked, errors = context.new_page(), [], []
    page.on("request", lambda each: asked.append(each.url))
    page.on("console", lambda each: errors.append(each.text) if each.type == "error" else None)
    page.on("pageerror", lambda each: errors.append(str(each)))
    page.goto(address)
    page.get_by_text("Models: ").wait_for()
    assert page.get_by_label("Token of this server").is_hidden()
    yield page
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    context.close()
    assert not [url for url in asked if not url.startswith((address, "data:"))]
    assert not errors


def panel(page, name):
    page.get_by_role("tab", name=name).click()
    return page.get_by_role("tabpanel")


def test_a_text_is_classified_and_its_words_are_marked(page):
    tab = panel(page, "Sentiment")
    tab.get_by_label("A text to classify").fill("a good , lovely film . <b>warm</b>")
    tab.get_by_role("button", name="Classify").click()
    assert tab.locator(".label").inner_text() == "pos"
    marks = {mark.inner_text(): float(mark.get_attribute("title")) for mark in tab.locator("mark").all()}
    assert marks["lovely"] > 0
    colour = "mark => getComputedStyle(mark).backgroundColor"
    assert len({mark.evaluate(colour) for mark in tab.locator("mark").all()}) > 1
    assert tab.locator(".words").inner_text() == "a good , lovely film . <b>warm</b>"
    curl, code = tab.locator("pre").all_inner_texts()
    assert curl.startswith("curl http://127.0.0.1")
    assert "nlp_rnn.load(" in code


def test_suggestions_follow_the_keys(page):
    tab = panel(page, "Next word")
    field = tab.get_by_label("Type; suggestions follow each key")
    field.press_sequentially("The cat likes the ")
    buttons = tab.get_by_role("group", name="Suggestions").get_by_role("button")
    tab.get_by_text("suggestions in").wait_for()

    def are_settled():  # none of an earlier key
        words = buttons.all_inner_texts()
        page.wait_for_timeout(500)
        return words == buttons.all_inner_texts()

    wait_until(are_settled)
    word = buttons.first.inner_text()
    field.press("Alt+1")
    assert field.input_value() == f"The cat likes the {word} "
    field.press_sequentially("ga")
    tab.get_by_role("button", name="garden").click()
    assert field.input_value().endswith(f"{word} garden ")


def test_a_text_is_written_piece_by_piece_and_can_be_stopped(page):
    tab = panel(page, "Generation")
    tab.get_by_label("The beginning of a text").fill("The cat ")
    tab.get_by_label("Characters").fill("60")
    tab.get_by_role("button", name="Generate").click()
    written = tab.locator(".written")
    wait_until(lambda: len(written.inner_text()) == 68)
    first = written.inner_text()
    tab.get_by_role("button", name="Generate").click()
    wait_until(lambda: len(written.inner_text()) == 68)
    assert written.inner_text() == first  # the same seed
    tab.get_by_label("Characters").fill("2000")
    tab.get_by_role("button", name="Generate").click()
    wait_until(lambda: len(written.inner_text()) > 20)
    tab.get_by_role("button", name="Stop").click()
    assert tab.get_by_role("button", name="Generate").is_enabled()
    assert len(written.inner_text()) < 2000


def test_a_sentence_is_translated_with_its_attention(page):
    tab = panel(page, "Translation")
    tab.get_by_label("A sentence to translate").fill("the old king sees the green garden today")
    tab.get_by_label("Beam size").fill("99")
    tab.get_by_role("button", name="Translate").click()
    assert tab.locator(".label").inner_text().startswith("heute der alte König")
    assert tab.get_by_label("Beam size").input_value() == "20"
    tokens = tab.locator("thead th").all_inner_texts()
    assert tokens[:3] == ["the", "old", "king"]
    rows = tab.locator("tbody tr").all()
    assert all(row.locator("td").count() == len(tokens) for row in rows)


def test_the_keyboard_is_enough(page):
    page.get_by_role("tab", name="Sentiment").focus()
    page.keyboard.press("ArrowLeft")
    assert page.get_by_role("tabpanel").get_by_label("A sentence to translate").is_visible()
    page.keyboard.press("Home")
    page.keyboard.press("Tab")
    page.keyboard.type("awful")
    page.keyboard.press("Control+Enter")
    assert page.get_by_role("tabpanel").locator(".label").inner_text() == "neg"


@pytest.mark.further
def test_a_server_with_a_token_asks_for_it(browser, exports, tmp_path):
    folder = part_of(exports, tmp_path, "sentiment", "translation_en_de")
    with listening(folder, token="secret", is_strict=True) as port:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}")
        page.get_by_label("Token of this server").fill("secret")
        page.get_by_role("button", name="Use it").click()
        page.get_by_text("Models: sentiment 1, translation_en_de 1").wait_for()
        page.get_by_role("button", name=re.compile("^A warm, funny")).click()
        assert page.locator("#sentiment .label").inner_text() in ("neg", "pos")
        page.get_by_role("tab", name="Translation").click()
        page.get_by_role("tabpanel").get_by_label("A sentence to translate").fill("the old king")
        page.get_by_role("button", name="Translate").click()
        page.locator("#translation table").wait_for()
        page.get_by_role("tab", name="Generation").click()
        assert "No model of this task is served" in page.get_by_role("tabpanel").inner_text()
        page.close()
