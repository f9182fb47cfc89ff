"""The models in saved_models/ answer, are small and have cards; their figures are those of the documentation."""

import json
import re

import pytest

import nlp_rnn
from nlp_rnn.ondevice import console
from nlp_rnn.ondevice.litert_model import OnDeviceModel
from nlp_rnn.ondevice.typing_session import TypingSession
from tests.conftest import ROOT

FOLDER = ROOT / "saved_models"
FIGURES = json.loads((FOLDER / "figures.json").read_text(encoding="utf-8"))
VERSIONS = [FOLDER / name / "1" for name in FIGURES]  # demos put models of their own beside them


def card_of(name):
    """The path of its card below saved_models/: its own, or that of the SavedModel of the same weights."""
    own = f"{name}/README.md"
    return own if (FOLDER / own).is_file() else f"{name.removesuffix('_litert')}/README.md"


def size_of(version):
    return sum(path.stat().st_size for path in version.rglob("*") if path.is_file())


def test_all_models_of_the_repository_have_figures():
    listed = re.findall(r"(?m)^!saved_models/(\w+)/$", (ROOT / ".gitignore").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(FIGURES)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.parent.name)
def test_a_model_is_small_and_has_a_card(version):
    path = card_of(version.parent.name)
    assert size_of(version) <= 15e6
    assert f"({path})" in (FOLDER / "README.md").read_text(encoding="utf-8")
    card = (FOLDER / path).read_text(encoding="utf-8")
    for part in ("## How it was trained", "## Data and licence", "## Intended use and limits"):
        assert part in card
    assert f"{size_of(version) / 1e6:.1f} MB" in card


@pytest.mark.parametrize("name", FIGURES)
def test_its_figure_is_that_of_its_card_and_of_the_results(name):
    for page in (FOLDER / card_of(name), FOLDER / "README.md", ROOT / "RESULTS.md"):
        assert FIGURES[name]["full"] in re.sub(r"\*", "", page.read_text(encoding="utf-8")), page


def test_no_file_names_the_machine_that_trained_it():
    for version in VERSIONS:
        for path in version.rglob("*"):
            if path.suffix in (".yaml", ".json", ".md"):
                assert not re.search(r"(?m)^ *\w+: /", path.read_text(encoding="utf-8")), path


def test_the_translators_translate(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # the checkout's models are found from anywhere
    assert "libro" in nlp_rnn.load("translation_en_es").translate("Where did you buy that book?").text
    assert nlp_rnn.load("translation_en_de").translate("A man is reading a book.").text == "Ein Mann liest ein Buch."


def test_the_classifier_is_right_about_reviews_and_not_too_sure_of_short_texts(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    classify = nlp_rnn.load("sentiment")
    long = (
        "I saw it twice. " * 5
        + "The actors are wonderful and the story is moving; one of the best films of the year. " * 5
    )
    assert classify(long).probability > 0.9
    for text, label in (("I hated it.", "neg"), ("Boring.", "neg"), ("I loved it.", "pos"), ("Great film!", "pos")):
        found = classify(text)
        assert found.label == label
        assert 0.2 < found.probability < 0.8


def test_the_model_of_characters_writes(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    written = nlp_rnn.load("char_generation").generate("ROMEO:", max_length=200, min_length=200, seed=1).text
    assert len(written) == 200
    assert len(set(written.lower().split()) & {"the", "and", "i", "to", "of", "my", "you", "is", "that", "a"}) >= 3


def test_the_keyboard_suggests(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = [each.word for each in nlp_rnn.load("next_word").suggest("I really enj", count=3)]
    assert words[:2] == ["enjoyed", "enjoy"]
    session = TypingSession(OnDeviceModel(FOLDER / "next_word_litert"), count=3)
    assert [each.word for each in session.suggest("I really enj")][:2] == ["enjoyed", "enjoy"]


def test_the_spanish_keyboard_suggests_and_the_console_finds_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = [each.word for each in nlp_rnn.load("next_word_es_litert").suggest("Tengo mucha ham", count=3)]
    assert words[0] == "hambre"
    session = TypingSession(OnDeviceModel(FOLDER / "next_word_litert"))
    console._language(session, "es")
    assert session.suggest("Buenas no")[0].word == "noches"


def test_no_card_has_a_placeholder():
    for path in FOLDER.glob("*/README.md"):
        assert not re.search(r"(?m)\| [A-Z]{4,} \|$", path.read_text(encoding="utf-8")), path
