"""Damaged, exchanged and hostile files: one line that names the file, never another answer."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn import api, files
from nlp_rnn.data.record_source import records_folder
from nlp_rnn.errors import ConfigError
from tests.conftest import ROOT, SMALL, ask, refused, run_pipeline, write_csv


def settings_of(reviews):
    return [*SMALL, "training.epochs=6", "data.source=csv", f"data.train={reviews}", "data.test_fraction=0.2"]


@pytest.fixture
def run(trained, tmp_path):
    """A copy of a finished run."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    return tmp_path / "runs" / "small"


def swap_letters(path):
    text = path.read_bytes()
    place = text.index(b"film")
    path.write_bytes(text[:place] + b"mlif" + text[place + 4 :])


DAMAGES = {
    "vocabulary with two lines exchanged": ("tokenizer/vocabulary.txt", lambda path: swap_letters(path)),
    "vocabulary with CRLF": (
        "tokenizer/vocabulary.txt", lambda path: path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    ),
    "vocabulary cut": ("tokenizer/vocabulary.txt", lambda path: path.write_bytes(path.read_bytes()[:-9])),
    "labels reversed": (
        "labels.json", lambda path: path.write_text(json.dumps(json.loads(path.read_text())[::-1]) + "\n")
    ),
    "labels gone": ("labels.json", lambda path: path.unlink()),
    "config cut at a line end": (
        "config.yaml", lambda path: path.write_text("\n".join(path.read_text().splitlines()[:9]) + "\n")
    ),
    "config empty": ("config.yaml", lambda path: path.write_text("")),
    "tokenizer settings": ("tokenizer/tokenizer.json", lambda path: path.write_text("{")),
    "temperature": (
        "calibration.json",
        lambda path: path.write_text(path.read_text().replace('"temperature": ', '"temperature": 1')),
    ),
    "manifest": ("manifest.json", lambda path: path.write_text(path.read_text()[:-30])),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_a_run_is_named_and_nothing_is_answered(run, tmp_path, damage):
    name, spoil = DAMAGES[damage]
    spoil(run / name)
    told = refused("evaluate", "--run", "runs/small", cwd=tmp_path).split("\n")[-1]
    assert told.startswith(f"runs/small/{name}: ")


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-400], lambda data: b"", lambda data: data[:200] + b"\xff" + data[201:]]
)
def test_a_damaged_checkpoint_is_named(run, tmp_path, spoil):
    path = run / "checkpoints" / "best.npz"
    path.write_bytes(spoil(path.read_bytes()))
    assert (
        refused("evaluate", "--run", "runs/small", cwd=tmp_path)
        .split("\n")[-1]
        .startswith("runs/small/checkpoints/best.npz: is damaged (")
    )


def test_weights_of_another_run_are_refused(run, reviews, tmp_path):
    path = run / "checkpoints" / "best.npz"
    with np.load(path) as arrays:
        weights = dict(arrays)
    weights["run"] = np.frombuffer(b"0" * 32, np.uint8)
    np.savez(path, **weights)
    told = refused("evaluate", "--run", "runs/small", cwd=tmp_path).split("\n")[-1]
    assert "belongs to a run with another vocabulary or other labels" in told


def test_a_run_without_a_manifest_works_and_says_so(run, tmp_path):
    (run / "manifest.json").unlink()
    (run / "data.json").unlink()
    done = run_pipeline("evaluate", "--run", "runs/small", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "runs/small: has no manifest.json (an earlier version wrote it)" in done.stderr


def test_a_run_does_not_go_on_with_other_data(run, reviews, tmp_path):
    data = tmp_path / "mine.csv"
    rows = [line.rsplit(",", 1) for line in reviews.read_text(encoding="utf-8").splitlines()[1:]]
    write_csv(data, [(f"{text} and more".strip('"'), label) for text, label in rows] * 2)
    before = (run / "metrics.json").read_bytes()
    config = (run / "config.yaml").read_text().replace(str(reviews), str(data))
    (run / "config.yaml").write_text(config)
    from nlp_rnn import manifest

    manifest.write(run)
    told = refused("train", "name=small", *settings_of(data), cwd=tmp_path).split("\n")[-1]
    assert told.startswith("runs/small was trained on other data: data.train has ")
    assert told.endswith(
        "train on these data under another name=..., from the weights of this run with training.start_from=runs/small "
        "if you "
        "like, or bring the earlier data back"
    )
    assert (run / "metrics.json").read_bytes() == before


def test_a_damaged_cache_is_computed_again(trained, reviews, tmp_path):
    shutil.copytree(trained / "cache", tmp_path / "cache")
    (vocabulary,) = (tmp_path / "cache").glob("tokenizer-*/vocabulary.txt")
    vocabulary.write_bytes(vocabulary.read_bytes()[:-30])
    for ids in (tmp_path / "cache").glob("ids-*/ids.bin"):
        content = bytearray(ids.read_bytes())
        content[40] ^= 1
        ids.write_bytes(content)
    done = run_pipeline("prepare", "name=again", *settings_of(reviews), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("damaged cache, computed again") >= 2
    for name in ("tokenizer/vocabulary.txt", "labels.json", "data.json"):
        assert (tmp_path / "runs/again" / name).read_bytes() == (trained / "runs/small" / name).read_bytes()


@pytest.mark.parametrize(
    "name", ["saved_model.pb", "variables/variables.data-00000-of-00001", "assets.extra/labels.json"]
)
def test_a_damaged_export_is_named(trained, tmp_path, name):
    shutil.copytree(trained / "saved_models", tmp_path / "saved_models")
    path = tmp_path / "saved_models/sentiment/1" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    told = refused("predict", "--model", "saved_models/sentiment", "a text", cwd=tmp_path)
    assert told == (
        f"saved_models/sentiment/1/{name}: was changed or damaged since it was written (its checksum differs); "
        "export it "
        "again"
    )


# --- paths -----------------------------------------------------------------------------------------------------------


def test_links_and_pipes_stay_what_they_are(tmp_path):
    target, link = tmp_path / "target.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    with files.atomic_file(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True)
    with files.atomic_file(pipe) as temporary:
        temporary.write_text("through")
    assert reader.communicate()[0] == "through"
    assert not pipe.is_file()
    with files.atomic_file(type(pipe)("/dev/null")) as temporary:
        temporary.write_text("nothing")
    assert not os.path.isfile("/dev/null")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link.txt", "pipe", "target.txt"]


@pytest.mark.parametrize("name", ["..", "a/b", "", "a\0b", "x" * 300, "..\\up"])
def test_names_do_not_lead_out_of_a_folder(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot be the name of a folder"):
        files.child(tmp_path, name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--run", ""], "--run is empty, but must be a path; give the path"),
        (["evaluate", "--run", "r" * 300], f"--run is {'r' * 80}..., but a path has at most"),
        (["predict", "--model", "m" * 300, "x"], f"--model is {'m' * 80}..., but a path has at most"),
        (["train", "--config", "c" * 300], f"--config is {'c' * 80}..., but a path has at most"),
        (["export", "--run", "runs/small", "--to", "a\0b"], "--to is a\\x00b, which contains a NUL character"),
    ],
)
def test_paths_that_cannot_be_are_one_line(tmp_path, arguments, message):
    assert refused(*arguments, cwd=tmp_path).startswith(message)


def test_an_empty_batch_has_an_empty_answer(trained):
    signatures = api.load(trained / "saved_models" / "sentiment").signatures
    for name in ("classify", "explain", "tokenize"):
        answer = getattr(signatures, name)(tf.constant([], tf.string))
        assert {values.shape[0] for values in answer.values()} == {0}


def test_too_little_memory_is_one_line(reviews, tmp_path, monkeypatch):
    from nlp_rnn.training import recipes

    def build(config, inputs):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[40000,10000]")

    monkeypatch.setattr(recipes, "build_model", build)
    done = run_pipeline("train", "name=small", *settings_of(reviews), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "there is too little memory for this training; lower training.batch_size (16), data.max_length (20), "
        "model.units (6) or model.embedding_dim (8), or raise training.gradient_accumulation (1)"
    )


def test_languages_are_language_tags(tmp_path):
    told = refused(
        "train", "data.source=cldr", "data.target_language=x/../../escaped", cwd=tmp_path, task="translation"
    )
    assert "data.target_language is 'x/../../escaped', but must be a BCP 47 language tag, such as en, pt-BR" in told


def test_a_model_is_not_exported_where_it_would_not_load(trained, tmp_path):
    shutil.copytree(trained / "runs", tmp_path / "runs")
    told = refused("export", "--run", "runs/small", "--to", "models[1]", cwd=tmp_path)
    assert told == (
        "--to is models[1]/sentiment, but TensorFlow takes the character '[' in a path for a pattern, "
        "so the model would not load; "
        "use a folder without it"
    )


def test_records_run_no_code(tmp_path):
    """TFDS imports the module that features.json names; here one in the current folder."""
    (tmp_path / "evil.py").write_text("open('ran', 'w').close()\n")
    folder = records_folder(tmp_path / "set")
    folder.mkdir(parents=True)
    (folder / "features.json").write_text(
        json.dumps({"pythonClassName": "evil.Evil", "featuresDict": {"features": {"text": {"type": "evil.Evil"}}}})
    )
    (folder / "dataset_info.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "check", "data.source=records", "data.dir=set"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT!s}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "features.json: names the Python class 'evil.Evil', which reading it would import and run" in done.stderr
    assert not (tmp_path / "ran").exists()


# --- what is printed
# ---------------------------------------------------------------------------------------------------


def test_terminal_escapes_are_shown_not_sent(trained):
    text = ask("predict", "--model", "saved_models/sentiment", "good\x1b[2J\x9b31m film", cwd=trained)
    assert text.endswith("\tgood\\x1b[2J\\x9b31m film\n")
    found = json.loads(ask("predict", "--model", "saved_models/sentiment", "a\nb\x1b\x9b", "--json", cwd=trained))
    assert found["text"] == "a\nb\x1b\x9b"


def test_texts_that_are_not_utf_8_are_told_before_anything_is_answered(trained, tmp_path):
    path = tmp_path / "texts.txt"
    path.write_bytes(b"good film\n" * 100 + "caf\xe9\n".encode("latin-1"))
    told = refused("predict", "--model", "saved_models/sentiment", "--file", path, cwd=trained)
    assert told.endswith("line 101, byte 1003: not UTF-8; convert it, for example: iconv -f WINDOWS-1252 -t UTF-8")
    path.write_text("\ufeffgood film\n", encoding="utf-8")
    (line,) = ask("predict", "--model", "saved_models/sentiment", "--file", path, "--json", cwd=trained).splitlines()
    assert json.loads(line)["text"] == "good film"


@pytest.mark.further
@pytest.mark.parametrize("encoding", ["cp1252", pytest.param("ascii", marks=pytest.mark.further)])
def test_consoles_without_utf_8_get_escapes(trained, encoding):
    arguments = [sys.executable, "-m", "pipelines", "sentiment", "predict", "--model", "saved_models/sentiment"]
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*arguments, "--json", "映画 film"], cwd=trained, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["text"] == "映画 film"
    assert done.stdout.isascii()
