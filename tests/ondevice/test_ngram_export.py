"""A next-word export with an n-gram model beside the neural one."""

import json
import re
import shutil

import numpy as np
import pytest

import nlp_rnn
from nlp_rnn.errors import ConfigError
from nlp_rnn.evaluation import model_health
from nlp_rnn.evaluation.kneser_ney import KneserNey
from nlp_rnn.evaluation.mixtures import mixed_rows
from nlp_rnn.ondevice.litert_model import OnDeviceModel
from nlp_rnn.ondevice.ngram_model import NGramModel
from nlp_rnn.ondevice.suggester import OnDeviceSuggester
from nlp_rnn.ondevice.typing_session import TypingSession
from nlp_rnn.special_ids import EOS_ID
from tests.conftest import ask, make_lines, refused, run_pipeline

LINE = "The cat likes the green garden . a dog sees"


@pytest.fixture(scope="module")
def exported(next_word_trained, tmp_path_factory):
    """The version's folder, and what export told."""
    folder = tmp_path_factory.mktemp("models")
    command = ("export", "--run", "runs/small", "--format", "litert", "--ngrams", "0.1", "--to", folder, "--json")
    told = json.loads(ask(*command, cwd=next_word_trained, task="next_word"))
    return folder / "next_word_litert" / "1", told


def rows_of(device, text):
    """Log-probabilities before each of the text's ids, by steps, and after all of them at once."""
    ids, step, rows = device.ids(device.split(text)), device.step(EOS_ID, device.zero_states()), []
    start = step
    for token in ids:
        rows.append(step.log_probabilities)
        step = device.step(token, step.states)
    return [*rows, step.log_probabilities], device.prefill(ids, start.states).log_probabilities


def test_its_probabilities_are_those_of_both_models(exported, next_word_trained):
    path, told = exported
    device, plain = OnDeviceModel(path), OnDeviceModel(next_word_trained / "saved_models" / "next_word_litert")
    ids = np.array([EOS_ID, *device.ids(device.split(LINE))])
    assert told["bytes"]["ngrams"] == (path / "ngrams.npz").stat().st_size <= 100_000
    ngrams = NGramModel.from_bytes((path / "ngrams.npz").read_bytes())
    share = json.loads((path / "vocabulary.json").read_text(encoding="utf-8"))["ngrams"]["share"]
    (found, at_once), (own, _) = rows_of(device, LINE), rows_of(plain, LINE)
    for place in range(len(ids)):
        ngram = ngrams.probabilities(ids[max(place - 1, 0) : place + 1])
        expected = mixed_rows(own[place], np.log(ngram / ngram.sum()), share)
        np.testing.assert_allclose(found[place], expected, atol=1e-4)
    np.testing.assert_allclose(at_once, found[-1], atol=1e-4)
    # The n-grams are those of the training text.
    texts = (next_word_trained / "train.txt").read_text(encoding="utf-8").splitlines()
    train = np.array([token for text in texts for token in (*plain.ids(plain.split(text)), EOS_ID)])
    exact = KneserNey(train, vocab_size=len(plain.words), order=3).model().probabilities(ids[:2])
    np.testing.assert_allclose(ngrams.probabilities(ids[:2]), exact, rtol=0.065)


def test_a_session_suggests_key_by_key_what_the_whole_line_suggests(exported):
    device = OnDeviceModel(exported[0])
    session = TypingSession(device)
    for end in range(len(LINE) + 1):
        fresh = TypingSession(device).suggest(LINE[:end])
        found = session.suggest(LINE[:end])
        assert [each.word for each in found] == [each.word for each in fresh]
        np.testing.assert_allclose(
            [each.probability for each in found], [each.probability for each in fresh], atol=1e-4
        )
    session.finish_line(LINE)
    after = TypingSession(device)
    after.finish_line(LINE)
    assert session.suggest("the ") == after.suggest("the ")
    scores = OnDeviceSuggester(exported[0]).answer("score", [LINE.encode()])["log_probabilities"][0]
    rows, _ = rows_of(device, LINE)
    ids = [*device.ids(device.split(LINE)), EOS_ID]
    np.testing.assert_allclose(scores, [row[token] for row, token in zip(rows, ids, strict=True)], atol=1e-4)


def test_the_mixture_is_what_is_evaluated(exported, next_word_trained):
    command = ("evaluate", "--json", "--split", "test", "--model", exported[0])
    found = json.loads(ask(*command, cwd=next_word_trained, task="next_word"))["metrics"]["perplexity"]
    device, nats, count = OnDeviceModel(exported[0]), 0.0, 0
    step = device.step(EOS_ID, device.zero_states())
    for text in (next_word_trained / "test.txt").read_text(encoding="utf-8").splitlines():
        for token in [*device.ids(device.split(text)), EOS_ID]:
            nats, count = nats - float(step.log_probabilities[token]), count + 1
            step = device.step(token, step.states)
    assert found == pytest.approx(np.exp(nats / count), rel=1e-5)


DAMAGES = {
    "missing": r"ngrams\.npz: cannot be read \(No such file",
    "changed": r"ngrams\.npz: was changed or damaged since it was written",
    "no share": r"vocabulary\.json: is damaged \(KeyError\('share'\)\)",
    "share of 2": r"vocabulary\.json: ngrams\.share is 2\.0, but must be a number between 0 and 1",
    "another model": r"ngrams\.npz: has 9 words, but vocabulary\.json \d+, so it belongs to another model",
    "no n-grams": r"ngrams\.npz: is not readable as an n-gram model",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_in_one_line(exported, tmp_path, damage):
    folder = tmp_path / "1"
    shutil.copytree(exported[0], folder)
    file, settings = folder / "ngrams.npz", json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
    if damage != "changed":
        (folder / "manifest.json").unlink()  # as a folder that was put together by hand
    if damage == "missing":
        file.unlink()
    elif damage == "changed":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "another model":
        file.write_bytes(KneserNey(np.arange(9), vocab_size=9, order=3).model().to_bytes())
    elif damage == "no n-grams":
        file.write_bytes(b"text")
    else:
        settings["ngrams"] = {"share": 2.0} if "2" in damage else {}
        (folder / "vocabulary.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"^{re.escape(str(folder))}/{DAMAGES[damage]}.*; export it again$"):
        OnDeviceModel(folder)
    (found,) = model_health.litert_problems(folder)[:1]  # doctor finds it too
    assert re.search(DAMAGES[damage], found)


@pytest.mark.further  # three exports
def test_a_file_holds_as_many_ngrams_as_fit(next_word_trained, tmp_path):
    def export(megabytes):
        command = ("export", "--run", "runs/small", "--format", "litert", "--ngrams", megabytes, "--to", tmp_path)
        told = json.loads(ask(*command, "--json", cwd=next_word_trained, task="next_word"))
        version = next((tmp_path / "next_word_litert").glob("*"))
        model = NGramModel.from_bytes((version / "ngrams.npz").read_bytes())
        shutil.rmtree(tmp_path / "next_word_litert")
        return told["bytes"]["ngrams"], len(model.higher_orders[1].words)

    size, whole = export(1)
    smaller, pruned = export((size - 1) / 1e6)
    assert smaller < size
    assert 0 < pruned < whole
    told = refused(
        "export", "--run", "runs/small", "--format", "litert", "--ngrams", "0.0001", "--to", tmp_path,
        cwd=next_word_trained, task="next_word",
    )  # fmt: skip
    least = float(re.search(r"the vocabulary alone takes ([\d.]+) MB; give more, or leave it out", told)[1])
    command = ("export", "--run", "runs/small", "--format", "litert", "--ngrams", least, "--to", tmp_path)
    done = run_pipeline(*command, cwd=next_word_trained, task="next_word")
    assert done.returncode == 0 or "does not improve the validation perplexity" in done.stderr  # it fits


def test_what_it_is_not_for_is_refused(next_word_trained, tmp_path):
    command = ("export", "--run", "runs/small", "--to", tmp_path)
    where = {"cwd": next_word_trained, "task": "next_word"}
    assert "only next_word exports for LiteRT have n-grams; add --format litert" in refused(
        *command, "--ngrams", "1", **where
    )
    assert "must be a number of megabytes" in refused(*command, "--format", "litert", "--ngrams", "-1", **where)
    moved = refused(*command, "--format", "litert", "--ngrams", "1", "data.train=nowhere.txt", **where)
    assert "needs the training text" in moved
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="but must be a number from 0 to 1000"):
            nlp_rnn.Run.open(next_word_trained / "runs" / "small").export(tmp_path, "litert", ngram_megabytes=wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.further  # counts another text
def test_an_ngram_model_that_does_not_help_is_refused(next_word_trained, tmp_path):
    # Training text of the same words in random order: its n-grams say nothing about the validation text.
    words = sorted({word for line in make_lines(800, 5) for word in line.split()})
    lines = np.random.default_rng(0).choice(words, (2000, 8))
    (tmp_path / "random.txt").write_text("".join(f"{' '.join(line)}\n" for line in lines), encoding="utf-8")
    told = refused(
        "export", "--run", "runs/small", "--format", "litert", "--ngrams", "1", "--to", tmp_path / "models",
        f"data.train={tmp_path / 'random.txt'}", cwd=next_word_trained, task="next_word",
    )  # fmt: skip
    assert "does not improve the validation perplexity" in told
    assert not (tmp_path / "models").exists()
