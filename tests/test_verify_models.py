"""Exports answer with TensorFlow or LiteRT alone, and have the figures that `evaluate` gives."""

import json

import pytest

from benchmarks import verify_models
from tests.conftest import ask


@pytest.mark.further  # a process and an evaluation for each task
@pytest.mark.parametrize("task", ["sentiment", "next_word", "char_generation", "translation"])
def test_the_figure_of_an_export_is_that_of_its_run(
    task, trained, next_word_trained, characters_trained, translation_trained, monkeypatch, tmp_path
):
    folder = {
        "sentiment": trained, "next_word": next_word_trained, "char_generation": characters_trained,
        "translation": translation_trained,
    }[task]  # fmt: skip
    metrics = json.loads(ask("evaluate", "--json", "--run", "runs/small", "--split", "test", cwd=folder, task=task))[
        "metrics"
    ]
    ask("export", "--run", "runs/small", "--to", tmp_path, cwd=folder, task=task)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NLP_RNN_CACHE", str(folder / "cache"))
    (version,) = tmp_path.glob("*/1")
    found, name, seconds = verify_models.verify(version, is_short=False)
    value = 100 * metrics[name] if "%" in found else metrics[name]
    printed = found.removesuffix(" %")
    assert float(printed) == pytest.approx(value, abs=0.7 * 0.1 ** len(printed.partition(".")[2]))
    assert seconds["load"] > 0
    assert verify_models.verify(version, is_short=True)[0]
    assert verify_models.verify(version, is_short=False, num_texts=1)[0]


@pytest.mark.further
@pytest.mark.parametrize("task", ["sentiment", "next_word", "char_generation"])
def test_the_figure_of_a_litert_export_is_about_that_of_the_float32_model(
    task, trained, next_word_trained, characters_trained, monkeypatch, tmp_path
):
    folder = {"sentiment": trained, "next_word": next_word_trained, "char_generation": characters_trained}[task]
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NLP_RNN_CACHE", str(folder / "cache"))
    figures = []
    for form in ("savedmodel", "litert"):
        ask("export", "--run", "runs/small", "--format", form, "--to", tmp_path / form, cwd=folder, task=task)
        (version,) = (tmp_path / form).glob("*/1")
        figures.append(float(verify_models.verify(version, is_short=False)[0].removesuffix(" %")))
    assert figures[1] == pytest.approx(figures[0], rel=0.02)


def test_another_figure_and_a_missing_model_are_found(trained, monkeypatch, capsys, tmp_path):
    (tmp_path / "sentiment").symlink_to(trained / "saved_models" / "sentiment")
    monkeypatch.setattr(verify_models, "_MODELS", tmp_path)
    monkeypatch.setattr(verify_models, "_FIGURES_FILE", tmp_path / "figures.json")
    measured = ["91.00 %"]
    monkeypatch.setattr(
        verify_models, "verify", lambda *_, **__: (measured[0], "accuracy", {"load": 0.1, "answer": 0.1})
    )

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["verify_models", *arguments])
        return verify_models.main()

    assert run() == 2  # there are no figures at all
    (tmp_path / "figures.json").write_text('{"other": {"full": "1"}}', encoding="utf-8")
    assert run() == 2  # a model is missing
    (tmp_path / "figures.json").write_text("{}", encoding="utf-8")
    assert run("sentiment") == 1  # asked for by name
    assert run("sentiment", "--write") == 0
    (tmp_path / "demo").symlink_to(tmp_path / "sentiment")
    capsys.readouterr()
    assert run() == 0  # one of the user's own beside those of the repository, such as a demo's
    assert capsys.readouterr().out.startswith("demo: has no figure in figures.json; left out\nsentiment: accuracy")
    assert run("--short") == 1
    measured[0] = "91.01 %"
    assert run() == 1
    assert "accuracy 91.01 %, PROMISED: 91.00 %" in capsys.readouterr().out
    assert run("next_word") == 2
    (tmp_path / "sentiment").unlink()
    assert run() == 2  # a promise without its model
    assert "no version 1 of sentiment" in capsys.readouterr().err
