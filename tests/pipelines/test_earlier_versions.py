"""Run directories and exports that an earlier version wrote load, and give the same answers.

tests/fixtures/version_0_1_0.tar.xz holds the runs and exports of the four tasks' small corpora, as the last commit
before the packages (5f13479) wrote them, and what that commit answered.
"""

import json
import tarfile

import pytest

from tests.conftest import ROOT, ask

QUESTIONS = {
    "sentiment": ["sentiment", "a good lovely film", "the story was dull"],
    "next_word": ["next_word", "My neighbour likes "],
    "char_generation": ["char_generation", "The cat", "--length", "40", "--seed", "3"],
    "translation": ["translation_en_de", "the old king sees the green garden today"],
}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(ROOT / "tests" / "fixtures" / "version_0_1_0.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    answers = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    return folder, {name.replace("characters", "char_generation"): answer for name, answer in answers.items()}


def same(one, other):
    """Whether two answers are equal, numbers to rounding."""
    if isinstance(one, dict):
        return all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == pytest.approx(other, rel=1e-4, abs=1e-5) if isinstance(one, float) else one == other


@pytest.mark.parametrize("task", list(QUESTIONS))
def test_a_run_gives_the_same_figures(earlier, task):
    folder, answers = earlier
    found = json.loads(
        ask("evaluate", "--run", "runs/small", "--split", "validation", "--json", cwd=folder / task, task=task)
    )
    expected = answers[f"{task}_validation"]
    assert len(expected) >= 5
    if task == "next_word":  # keystrokes and recall are counted otherwise since: punctuation is no word
        expected = {name: expected[name] for name in ("num_tokens", "cross_entropy", "perplexity", "word_perplexity")}
    assert same(expected, found.get("metrics", found))


@pytest.mark.parametrize("task", list(QUESTIONS))
def test_an_export_gives_the_same_answers(earlier, task):
    folder, answers = earlier
    name, *question = QUESTIONS[task]
    found = ask("predict", "--model", f"saved_models/{name}", *question, "--json", cwd=folder / task, task=task)
    expected = answers[task]
    if task == "sentiment":  # the probability was that of the second label
        expected = [
            {"text": each["text"], "label": each["label"], "probabilities": {"pos": each["probability"]}}
            for each in expected
        ]
    if task == "translation":
        for each in expected:
            each["translations"] = [{"text": one["translation"], "score": one["score"]} for one in each["translations"]]
    assert same(expected, [json.loads(line) for line in found.splitlines()])


@pytest.mark.slow  # that old runs load, and what an export holds, faster tests show
@pytest.mark.parametrize("task", list(QUESTIONS))
def test_a_run_is_exported_anew(earlier, task):
    folder, answers = earlier
    name, *question = QUESTIONS[task]
    ask("export", "--run", "runs/small", "--to", "again", cwd=folder / task, task=task)
    found = ask("predict", "--model", f"again/{name}", *question, "--json", cwd=folder / task, task=task)
    assert same(answers[task], [json.loads(line) for line in found.splitlines()])
