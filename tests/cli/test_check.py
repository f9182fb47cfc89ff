import json

import pytest

from nlp_rnn.cli import check
from nlp_rnn.errors import ConfigError
from nlp_rnn.printable import to_json
from tests.conftest import write_csv

TASKS = ("sentiment", "next_word", "char_generation", "translation")


def test_what_is_in_the_data_is_a_table_and_an_object(tmp_path, monkeypatch):
    monkeypatch.setenv("NLP_RNN_CACHE", str(tmp_path / "cache"))
    rows = [(f"good film number {n % 40}", "pos") for n in range(60)] + [(f"bad film {n}", "neg") for n in range(39)]
    train = write_csv(tmp_path / "train.csv", [*rows, ("odd film", "Pos")])
    test = write_csv(tmp_path / "test.csv", [("good film number 3", "pos"), ("", "neg")])
    arguments = ["data.source=csv", f"data.train={train}", f"data.test={test}", "tokenizer.min_count=1", "--json"]
    result = check.main(arguments, TASKS)
    facts = json.loads(to_json(result.facts))
    splits = facts["splits"]
    assert sum(splits[name]["read"] for name in ("train", "validation")) == 100
    assert splits["test"]["examples"] == 2
    assert splits["test"]["empty"] == 1
    assert sum(splits[name]["dropped"].get("also in test", 0) for name in ("train", "validation")) == 2
    assert splits["train"]["tokens"]["tokens"]["largest"] == 4
    assert any("'Pos', 'pos'" in warning or "'pos', 'Pos'" in warning for warning in facts["warnings"])
    table = result.text.splitlines()
    assert table[0].split() == ["train", "validation", "test"]
    assert table[1].split()[0] == "examples"
    assert any(line.startswith("left out: also in test") for line in table)
    assert any(line.startswith("label 'neg'") for line in table)
    assert not (tmp_path / "runs").exists()


def test_pairs_have_tokens_of_both_sides(tmp_path, monkeypatch):
    monkeypatch.setenv("NLP_RNN_CACHE", str(tmp_path / "cache"))
    for language in ("en", "de"):
        (tmp_path / f"a.{language}").write_text("".join(f"{language} {n}\n" for n in range(60)))
    settings = ["data.source=aligned", f"data.train={tmp_path}/a", "tokenizer.level=char"]
    facts = check.main(["--task", "translation", *settings], TASKS).facts
    assert set(facts["splits"]["train"]["tokens"]) == {"source tokens", "target tokens"}


def test_data_that_cannot_be_trained_on_are_one_line(tmp_path):
    path = write_csv(tmp_path / "a.csv", [(f"text {n}", "one") for n in range(30)])
    with pytest.raises(ConfigError, match=r"data\.train has one label only, 'one'"):
        check.main(["data.source=csv", f"data.train={path}"], TASKS)
    with pytest.raises(ConfigError, match="nlp-rnn check: argument --task: invalid choice"):
        check.main(["--task", "nope", "x=1"], TASKS)


def test_help_is_printed(capsys):
    assert check.main(["--help"], TASKS) is None
    assert capsys.readouterr().out.startswith("usage: nlp-rnn check [--task TASK]")
