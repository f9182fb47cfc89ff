"""The console's keys and commands, typed into its real prompt."""

import shutil

import pytest
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from nlp_rnn.errors import ConfigError
from nlp_rnn.ondevice import console
from nlp_rnn.ondevice.litert_model import OnDeviceModel
from nlp_rnn.ondevice.typing_session import TypingSession

TAB, RIGHT, UNDO, ENTER = "\t", "\x1b[C", "\x1a", "\r"


@pytest.fixture(scope="module")
def folder(next_word_trained, tmp_path_factory):
    """A folder with the exports next_word_litert and next_word_es_litert."""
    folder = tmp_path_factory.mktemp("languages") / "saved_models"
    for name in ("next_word_litert", "next_word_es_litert"):
        shutil.copytree(next_word_trained / "saved_models" / "next_word_litert", folder / name)
    return folder


@pytest.fixture
def session(folder):
    return TypingSession(OnDeviceModel(folder / "next_word_litert", precision="float"))


def type_keys(session, keys):
    """The line that the prompt returns."""
    with create_pipe_input() as pipe:
        prompt = console.make_prompt(session, InMemoryHistory(), input=pipe, output=DummyOutput())
        pipe.send_text(keys + ENTER)
        return prompt.prompt("> ")


def test_a_new_line_begins_with_suggestions_of_its_own(session):
    with create_pipe_input() as pipe:
        prompt = console.make_prompt(session, InMemoryHistory(), input=pipe, output=DummyOutput())
        pipe.send_text("the cat likes the green \x03")
        with pytest.raises(KeyboardInterrupt):
            prompt.prompt("> ")
        first = session.suggest("")[0].word
        pipe.send_text(RIGHT + ENTER)
        assert prompt.prompt("> ") == f"{first} "
        session.finish_line(f"{first} ")
        following = session.suggest("")[0].word
        pipe.send_text(RIGHT + ENTER)
        assert prompt.prompt("> ") == f"{following} "


# --- corrections ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", ["gardrn", "graden", "garrden", "gaden", "gard"])
def test_one_mistake_is_corrected(session, typed):
    first = session.suggest(f"the cat likes the green {typed}")[0]
    assert first.word == "garden"
    assert first.replaced == (0 if typed == "gard" else len(typed))
    assert type_keys(session, f"the cat likes the green {typed}{TAB}") == "the cat likes the green garden "


@pytest.mark.parametrize(("typed", "word"), [("Gardrn", "Garden"), ("GARDRN", "GARDEN")])
def test_a_correction_has_the_case_of_what_is_typed(session, typed, word):
    assert session.suggest(f"the cat likes the green {typed}")[0].word == word


def test_corrections_are_never_forced_and_can_be_switched_off(session):
    assert type_keys(session, "the gardrn sees") == "the gardrn sees"
    assert console.run_command(session, "/corrections off") == "corrections are off"
    assert session.suggest("the cat likes the green gardrn") == []


def test_own_words_are_corrected_too(session):
    session.adapts = True
    for _ in range(2):
        session.finish_line("the cat likes Zofia")
    first = session.suggest("the cat likes zofja")[0]
    assert (first.word, first.replaced) == ("Zofia", 5)


# --- keys ----------------------------------------------------------------------------------------------------------


def test_tab_takes_all_that_is_grey_and_right_takes_a_word(session):
    text = "the cat "
    phrase = session.phrase(text, session.suggest(text)[0])
    assert [each.word for each in phrase] == ["likes", "the"]
    taken = "".join(each.word + " " for each in phrase)
    assert type_keys(session, text + TAB) == text + taken
    assert session.statistics.saved == len(taken) - 1  # all of it for one key
    assert type_keys(session, text + RIGHT) == text + phrase[0].word + " "


def test_undo_takes_an_accepted_word_back_and_learns_what_is_typed_instead(session):
    session.adapts = True
    line = type_keys(session, f"the cat likes the gre{RIGHT}{UNDO}rza here")
    assert line == "the cat likes the grerza here"
    assert session.statistics.accepted == 0
    assert session.statistics.saved == 0
    session.finish_line(line)
    assert session.words.words() == [("grerza", 2)]  # `here` is new too, but was typed once


def test_undo_goes_on_to_what_was_typed(session):
    assert type_keys(session, f"the cat {UNDO}x").endswith("x")


@pytest.mark.parametrize("temperature", ["0.01", "100"])
def test_every_temperature_ranks_the_same_words(session, temperature):
    for text in ("", "the cat likes the gr", "the cat likes the z", "nobody "):
        plain = session.suggest(text)
        console.run_command(session, f"/temperature {temperature}")
        found = session.suggest(text)
        assert [each.word for each in found][:1] == [each.word for each in plain][:1]
        assert all(0 <= each.probability <= 1.000001 for each in found)
        console.run_command(session, "/temperature 1")


# --- commands ------------------------------------------------------------------------------------------------------


def test_languages_are_the_exports_beside_the_model(session, folder):
    assert "en, es" in console.run_command(session, "/language")
    session.adapts = True
    for _ in range(2):
        session.finish_line("the cat likes Zofia")
    assert "a new text" in console.run_command(session, "/language es")
    assert session.model.path == folder / "next_word_es_litert" / "1"
    assert session.words.words() == []  # each language has its own words
    assert "a new text" in console.run_command(session, f"/language {folder / 'next_word_litert'}")
    assert session.words.words() == [("Zofia", 2)]
    console.run_command(session, "/language es")
    assert console.run_command(session, "/forget") == "nothing is remembered any more, in any language"
    console.run_command(session, f"/language {folder / 'next_word_litert'}")
    assert session.words.words() == []
    assert not len(session.memory)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("/language xx", "/language xx: xx, but holds no LiteRT model"),
        ("/language a b", "/language takes one argument"),
        ("/layout dvorak", "/layout is dvorak, but must be one of qwerty, azerty, qwertz"),
        ("/layout", "/layout takes one argument"),
        ("/layout azerty", "keyboard azerty"),
        ("/corrections maybe", "/corrections is maybe, but must be on or off"),
    ],
)
def test_commands_say_what_is_allowed(session, command, told):
    assert told in console.run_command(session, command)


def test_a_pasted_text_of_several_lines_is_several_lines(session, capsys, monkeypatch):
    lines = iter(["the cat likes the green garden .\nthe dog sees a shiny kingdom .\n\n/top 3"])
    finished = []
    monkeypatch.setattr(session, "finish_line", finished.append)

    def prompt(_):
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(console, "make_prompt", lambda *_, **__: type("Prompt", (), {"prompt": staticmethod(prompt)}))
    console.run_terminal(session)
    assert finished == ["the cat likes the green garden .", "the dog sees a shiny kingdom .", "/top 3"]


# --- scripts -------------------------------------------------------------------------------------------------------


def test_words_of_other_scripts_are_learnt_completed_and_corrected(session):
    session.adapts = True
    for _ in range(2):
        session.finish_line("नमस्ते दुनिया می‌خواهم שלום")
    for begun, word in (("नमस्", "नमस्ते"), ("می‌", "می‌خواهم"), ("של", "שלום")):
        assert session.suggest(f"the {begun}")[0].word == word
        assert type_keys(session, f"the {begun}{RIGHT}") == f"the {word} "


def test_paths_may_begin_with_the_home_directory(session, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    session.adapts = True
    session.finish_line("the cat likes Zofia")
    assert console.run_command(session, "/save ~/memory.json").endswith("saved to ~/memory.json")
    assert (tmp_path / "memory.json").is_file()
    shutil.copytree(folder / "next_word_litert", tmp_path / "mine")
    assert "a new text" in console.run_command(session, "/language ~/mine")


def test_a_path_with_a_nul_character_is_told(session):
    session.adapts = True
    session.finish_line("the cat likes Zofia")
    assert "which contains a NUL character" in console.run_command(session, "/save a\0b")


def test_a_history_that_cannot_be_kept_is_told_at_once(session, tmp_path):
    with pytest.raises(ConfigError, match=r"--history is .*/none/h, which cannot be opened"):
        console.make_history(session, str(tmp_path / "none" / "h"))


def test_private_lines_are_not_kept(session, tmp_path):
    history = console.make_history(session, str(tmp_path / "h"))
    history.store_string("open")
    session.is_private = True
    history.store_string("secret")
    assert "open" in (tmp_path / "h").read_text(encoding="utf-8")
    assert "secret" not in (tmp_path / "h").read_text(encoding="utf-8")
