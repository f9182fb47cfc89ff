"""A typing session: what is suggested while a text is typed, accepted and learnt."""

import base64

import numpy as np
import pytest

from nlp_rnn.ondevice.litert_model import OnDeviceModel, StepOutput
from nlp_rnn.ondevice.typing_session import TypingSession


@pytest.fixture
def model(next_word_trained):
    return OnDeviceModel(next_word_trained / "saved_models" / "next_word_litert", precision="float")


def words(session, text):
    return [suggestion.word for suggestion in session.suggest(text)]


def test_typing_key_by_key_suggests_what_the_whole_line_suggests(model):
    line = "The cat likes the green garden . a dog sees"
    session, calls = TypingSession(model), []
    for end in range(len(line) + 1):
        found = session.suggest(line[:end])
        fresh = TypingSession(model).suggest(line[:end])
        assert [each.word for each in found] == [each.word for each in fresh]
        np.testing.assert_allclose(
            [each.probability for each in found], [each.probability for each in fresh], atol=1e-4
        )
        calls.append(found)
    assert calls[-1][0].word == "sees"


def test_corrections_are_read_from_where_they_stand(model):
    session = TypingSession(model)
    session.suggest("the cat likes the green garden")
    assert words(session, "the dog sees a ")[0] == "shiny"
    assert words(session, "the dog sees a shiny kingdom . " * 100 + "a dog sees a ")[0] == "shiny"
    assert words(session, "the cat likes the ")[0] == "green"


def test_a_key_costs_one_step_however_long_the_text_is(model, monkeypatch):
    session, count = TypingSession(model), []
    monkeypatch.setattr(model, "step", lambda *a, real=model.step: count.append(1) or real(*a))
    monkeypatch.setattr(model, "prefill", lambda ids, *a, real=model.prefill: count.append(len(ids)) or real(ids, *a))
    text = "the cat likes the green garden . " * 40
    session.suggest(text)
    for end in range(12):
        count.clear()
        session.suggest(text + "a dog sees a"[:end])
        assert sum(count) <= 1
    count.clear()
    session.suggest("the cat likes the green garden . " * 30_000)  # a pasted book: its end is read
    assert sum(count) <= 512


def test_the_cache_learns_nothing_from_addresses_and_digits(model):
    learnt = []
    for line in ("the cat sees a garden", "the cat sees cat@dog.org www.kingdom.dog/green 4711 garden7 a garden"):
        session = TypingSession(model, adapts=True)
        session.finish_line(line)
        content = session.memory.to_json()
        learnt.append(np.frombuffer(base64.b64decode(content["ids"]), "<i8")[: content["count"]].tolist())
    assert learnt[0] == learnt[1]
    assert len(learnt[0]) == 6  # with the end of the line


def test_lines_carry_the_text_on_and_reset_ends_it(model):
    session = TypingSession(model)
    first = session.suggest("")
    session.finish_line("the cat likes the green garden .")
    steps = [StepOutput(*model.step(3, model.zero_states()))]
    for token in [*model.ids(model.split("the cat likes the green garden .")), 3]:
        steps.append(model.step(token, steps[-1].states))
    np.testing.assert_allclose(session._start.states, steps[-1].states, atol=1e-5)
    session.reset()
    assert session.suggest("") == first


def test_accepting_counts_the_keys_saved(model):
    session = TypingSession(model)
    suggestion = session.suggest("the cat likes the gr")[0]
    assert session.accept(suggestion) == "een "
    session.finish_line("the cat likes the green ")
    assert (session.statistics.saved, session.statistics.characters, session.statistics.accepted) == (3, 24, 1)


def test_learning_makes_what_was_typed_likelier(model):
    plain, learning = TypingSession(model), TypingSession(model, adapts=True)
    line = "nobody remembers a shiny kitchen ."
    for session in (plain, learning):
        for _ in range(5):
            session.finish_line(line)
    probability = [
        {each.word: each.probability for each in session.suggest("nobody remembers a shiny ki")}["kitchen"]
        for session in (plain, learning)
    ]
    assert probability[1] > probability[0]
    assert len(plain.memory) == 0


def test_unknown_words_are_suggested_after_their_second_use(model):
    plain, learning = TypingSession(model), TypingSession(model, adapts=True)
    for session in (plain, learning):
        session.finish_line("nobody remembers a shiny Zofia .")
        assert words(session, "the cat likes zo") == []
        session.finish_line("every child sees Zofia 4711 .")
    assert words(plain, "the cat likes zo") == []
    (found,) = learning.suggest("the cat likes zo")
    assert (found.word, found.rest, found.probability) == ("Zofia", "fia", 1)
    learning.count = 9
    after = learning.suggest("nobody remembers a shiny ")
    assert "Zofia" in [each.word for each in after]
    assert sum(each.probability for each in after) <= 1.001
    learning.is_private = True
    for _ in range(2):
        learning.finish_line("the old king follows Wanda")
    assert words(learning, "the cat likes wa") == []


def test_profanity_is_suggested_on_request_only(model):
    place = model.words.index("garden")
    model.decent[place] = False
    assert words(TypingSession(model), "the cat likes the green ga") == []
    assert words(TypingSession(model, allows_profanity=True), "the cat likes the green ga") == ["garden"]
