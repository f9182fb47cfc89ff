"""The scorecard trains, scores once, and writes one row for each task."""

import json
import shutil

import pytest

import nlp_rnn
from benchmarks import scorecard
from nlp_rnn.config.loading import load_config
from tests.conftest import ROOT

SMALL = """
data: {source: csv, train: reviews.csv, test_fraction: 0.2, max_length: 20}
tokenizer: {vocab_size: 60}
model: {units: 8, embedding_dim: 6, num_layers: 2, last_units: 6, is_bidirectional: false}
training: {batch_size: 16, epochs: 1}
"""
WORDS = SMALL.replace("last_units: 6, is_bidirectional: false", "softmax: full").replace(
    "data:", "task: next_word\ndata:"
)
LABELS = SMALL.replace("last_units", "init_from: runs/words, last_units")


@pytest.fixture
def folder(reviews, tmp_path, monkeypatch):
    """A checkout with two small configs, of which the second begins with the first."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "words.yaml").write_text(WORDS, encoding="utf-8")
    (tmp_path / "configs" / "labels.yaml").write_text(LABELS, encoding="utf-8")
    shutil.copy(reviews, tmp_path / "reviews.csv")
    shutil.copy(ROOT / "RESULTS.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scorecard, "_ROOT", tmp_path)
    monkeypatch.setattr(scorecard, "_RESULTS", tmp_path / "RESULTS.md")
    card = scorecard.CARDS["sentiment"]._replace(configs=("words", "labels"))
    monkeypatch.setitem(scorecard.CARDS, "sentiment", card)
    return tmp_path


@pytest.mark.further  # trains six models
def test_a_row_is_trained_scored_once_and_written(folder, monkeypatch, capsys):
    evaluate, scored = nlp_rnn.Run.evaluate, []

    def counted(run, split):
        scored.append(split)
        return evaluate(run, split)

    monkeypatch.setattr(nlp_rnn.Run, "evaluate", counted)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["scorecard", "sentiment", *arguments])
        status = scorecard.main()
        return status, capsys.readouterr()

    status, told = run("training.learning_rate=0.01")
    assert status == 0, told.err
    row = told.out.strip()
    text = (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert row in text.splitlines()
    metrics = folder / "runs" / "scorecard_labels_1" / "metrics.json"
    assert "init_from: runs/scorecard_words_1" in (metrics.parent / "config.yaml").read_text(encoding="utf-8")
    assert len(scored) == 1
    assert run("training.learning_rate=0.01")[1].out.strip() == row
    assert len(scored) == 1  # not scored again
    status, told = run("--seeds", "1,2", "training.learning_rate=0.01")
    assert status == 0
    text = (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert row not in text.splitlines()
    assert told.out.strip() in text.splitlines()
    assert "±" in told.out
    assert "--seeds 1,2 training.learning_rate=0.01`" in told.out
    assert text.count("| sentiment |") == 1
    status, told = run("training.units=3")
    assert status == 2
    assert "training.units" in told.err


def test_the_published_student_learns_from_the_run_of_its_seed():
    config = load_config(ROOT / "configs" / "sentiment_student.yaml")
    assert scorecard._earlier_runs(config, {"runs/sentiment_pretrained": "runs/a"}) == [
        "training.start_from=runs/a",
        "training.teacher=[runs/a]",
    ]
    assert scorecard._earlier_runs(load_config(ROOT / "configs" / "sentiment_pretrained.yaml"), {}) == []


@pytest.mark.further  # two trainings
def test_operations_count_matrices_and_each_token_of_each_epoch(folder, monkeypatch):
    before, run = scorecard.train("sentiment", 1, [])
    matrices = 6 * 32 + 8 * 32 + 8 * 24 + 6 * 24 + 18 * 2
    tokens = run.metrics["training"]["tokens"]
    assert tokens > 1000
    assert scorecard.num_operations(run) == 6 * matrices * tokens
    once = scorecard.num_operations(run)
    num_examples = json.loads((run.path / "data.json").read_text(encoding="utf-8"))["train"]["examples"]
    for settings, factor in (
        (["training.max_steps_per_epoch=2"], 2 * 16 / num_examples),
        (["training.adversarial=3"], 2),
        (["training.virtual_adversarial=3"], 3),
        (["training.r_drop=0.5", "training.adversarial=3"], 4),
    ):
        run.config = load_config("configs/labels.yaml", ["model.init_from=runs/x", *settings])
        assert scorecard.num_operations(run) == pytest.approx(factor * once)
    before.config = load_config("configs/words.yaml", ["training.max_steps_per_epoch=1", "training.window=8"])
    share = 16 * 8 / before.metrics["training"]["tokens"]
    assert share < 1
    assert scorecard._share_read(before) == share
    before, run = scorecard.train("sentiment", 1, [])
    both = scorecard.num_operations(before) + scorecard.num_operations(run)
    assert f"{both / 1e15:.2g} PFLOP" in scorecard.row_of("sentiment", [[before, run]], [1], [])
