"""A next-word LiteRT export in Python and in `predict` answers as the SavedModel of the same weights."""

import numpy as np
import pytest

import nlp_rnn
from nlp_rnn.errors import ConfigError
from nlp_rnn.ondevice.suggester import OnDeviceSuggester
from tests.conftest import ask

TEXTS = [
    "The cat ",
    "A dog se",
    "My neighbour likes the gr",
    "",
    "Nobody sees\nthe ",
    "Every child unheardof ",
    "zzz",
    "The cat<br />",
    "A<br>dog ",
]


@pytest.fixture
def models(next_word_trained):
    folder = next_word_trained / "saved_models"
    device = nlp_rnn.load(folder / "next_word_litert")
    device._calls = OnDeviceSuggester(folder / "next_word_litert", precision="float")
    return nlp_rnn.load(folder / "next_word"), device


@pytest.mark.parametrize("count", [1, 3, 7])
def test_suggestions_are_those_of_the_saved_model(models, count):
    for expected, found in zip(*(model.suggest_all(TEXTS, count) for model in models), strict=True):
        assert [each.word for each in found] == [each.word for each in expected]
        assert [each.probability for each in found] == pytest.approx([each.probability for each in expected], abs=1e-4)


def test_scores_are_those_of_the_saved_model(models):
    for text in TEXTS:
        expected, found = (model.score(text) for model in models)
        assert found.tokens == expected.tokens
        np.testing.assert_allclose(found.log_probabilities, expected.log_probabilities, atol=1e-4)


def test_answers_do_not_depend_on_what_was_asked_before(next_word_trained):
    device = nlp_rnn.load(next_word_trained / "saved_models" / "next_word_litert")
    texts = [*TEXTS, "The cat sees " * 300]
    alone = [device.suggest(text) for text in texts]
    assert list(device.suggest_all(reversed(texts))) == alone[::-1]


@pytest.mark.parametrize("count", [-1, 0, 101, 1.5, "3", None])
def test_from_one_to_100_words_are_suggested(models, count):
    for model in models:
        with pytest.raises(ConfigError, match=f"count is {count!r}, but must be a whole number from 1 to 100"):
            model.suggest("The ", count)
    assert len(models[1].suggest("The ", 100)) == len(models[0].suggest("The ", 100))


def test_other_functions_need_the_saved_model(models):
    with pytest.raises(ConfigError, match=r"a LiteRT export, which suggests and scores; tokenize needs the SavedModel"):
        models[1].tokenize("The cat")


def test_predict_takes_the_folder(next_word_trained):
    told = ask(
        "predict", "--model", "saved_models/next_word_litert", "The cat l", cwd=next_word_trained, task="next_word"
    )
    assert told.startswith("likes ")
