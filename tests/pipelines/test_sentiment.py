"""The commands as a user runs them: from files to answers, and one line each for what goes wrong."""

import json
import os
import random
import shutil
import subprocess
import sys

import pytest

from nlp_rnn import __version__
from pipelines.__main__ import TASKS
from tests.conftest import (
    BAD,
    GOOD,
    ROOT,
    SMALL,
    ask,
    make_review,
    pipeline_environment,
    refused,
    run_pipeline,
    write_csv,
)


def test_train_writes_everything_a_run_needs(trained):
    run = trained / "runs" / "small"
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert names - {"confusion_test.png", "confusion_validation.png"} == {  # other tests evaluate the run
        ".lock",
        "calibration.json",
        "checkpoints/best.npz",
        "checkpoints/last.npz",
        "config.yaml",
        "curves.png",
        "data.json",
        "history.csv",
        "labels.json",
        "log.txt",
        "manifest.json",
        "metrics.json",
        "tokenizer/tokenizer.json",
        "tokenizer/vocabulary.txt",
    }
    assert json.loads((run / "metrics.json").read_text())["validation"]["accuracy"] > 0.9
    assert "training on" in (run / "log.txt").read_text()


@pytest.mark.parametrize("of", [["--run", "runs/small"], ["--model", "sentiment"]])
def test_any_file_can_be_evaluated_without_the_training_texts(trained, tmp_path, of):
    mine = write_csv(tmp_path / "mine.csv", [("a good film", "pos"), ("a dull film", "neg")] * 5)
    settings = ["data.source=csv", "data.train=", f"data.test={mine}"]
    found = json.loads(ask("evaluate", "--json", *of, "--split", "test", *settings, cwd=trained))
    assert found["metrics"]["num_examples"] == 10


def test_evaluate_scores_run_and_model_alike_beside_the_baseline(trained):
    run = json.loads(ask("evaluate", "--json", "--run", "runs/small", "--split", "test", "--baseline", cwd=trained))
    model = json.loads(ask("evaluate", "--json", "--model", "sentiment", "--split", "test", cwd=trained))
    assert run["metrics"]["confusion_matrix"] == model["metrics"]["confusion_matrix"]
    assert run["metrics"]["cross_entropy"] == pytest.approx(model["metrics"]["cross_entropy"], abs=1e-5)
    assert run["metrics"]["accuracy"] > 0.9
    assert run["baseline"]["accuracy"] > 0.9
    assert (trained / "runs" / "small" / "confusion_test.png").exists()
    kept = json.loads((trained / "runs" / "small" / "metrics.json").read_text())
    assert (kept["test"], kept["test_baseline"]) == (run["metrics"], run["baseline"])
    text = ask("evaluate", "--run", "runs/small", cwd=trained)
    assert text.startswith("validation: ")
    assert "accuracy" in text.splitlines()[1]


def test_predict_answers_arguments_and_pipes(trained):
    model = ("--model", "saved_models/sentiment")
    lines = ask("predict", *model, "a good great film", "a dull awful film", cwd=trained).splitlines()
    assert [line.split("\t")[0] for line in lines] == ["pos", "neg"]
    told = ask("predict", "--json", *model, text="\ufeffa good great film\n\nschön 😀\n", cwd=trained)
    answers = [json.loads(line) for line in told.splitlines()]
    assert [answer["text"] for answer in answers] == ["a good great film", "", "schön 😀"]
    assert answers[0]["label"] == "pos"
    for answer in answers:  # the same as in Python, unlike the column above
        assert answer["probability"] == max(answer["probabilities"].values())
        assert answer["probability"] == answer["probabilities"][answer["label"]]
    broken = b"\xff\xfe broken\n".decode("utf-8", "surrogateescape")
    assert refused("predict", *model, text=broken, cwd=trained) == (
        "standard input: line 1, byte 0: not UTF-8; convert it, for example: iconv -f UTF-16 -t UTF-8"
    )


def test_explain_and_tokenizer_show_their_work(trained, tmp_path):
    model = ("--model", "saved_models/sentiment")
    pictures = ("--html", tmp_path / "a.html", "--png", tmp_path / "a.png")
    found = json.loads(ask("explain", "--json", *model, "the film was awful", *pictures, cwd=trained))
    assert found["label"] == "neg"
    assert found["tokens"][found["scores"].index(max(found["scores"]))] == "awful"  # towards the answer
    assert (tmp_path / "a.html").exists()
    assert (tmp_path / "a.png").exists()
    shown = json.loads(ask("tokenizer", "--json", *model, "The film, unheard-of", cwd=trained))
    assert shown["pieces"] == ["the", "film", ",", "unheard", "-", "of"]
    assert shown["ids"][2:] == [1, 1, 1, 1]
    assert shown["text"].startswith("the film \ufffd")


@pytest.mark.further
def test_subwords_from_training_to_answers(reviews, tmp_path):
    """Through subword regularisation, an exported model in a fresh process, explanation and the terminal."""
    settings = [
        *SMALL,
        "tokenizer.level=subword",
        "tokenizer.vocab_size=294",
        "tokenizer.sampling=5.0",
        "tokenizer.reserved=[<sep>]",
    ]
    settings += ["data.source=csv", f"data.train={reviews}", "name=subwords", "data.max_length=60", "training.epochs=5"]
    ask("train", *settings, cwd=tmp_path)
    ask("export", "--run", "runs/subwords", cwd=tmp_path)
    model = ("--model", "saved_models/sentiment")
    shown = json.loads(ask("tokenizer", "--json", *model, "The lovely film<sep>日", cwd=tmp_path))
    assert "".join(shown["pieces"]).startswith("\u2581the\u2581lovely\u2581film<sep>")
    assert shown["pieces"][-3:] == ["<0xE6>", "<0x97>", "<0xA5>"]
    assert shown["text"] == "the lovely film<sep>日"
    assert json.loads(ask("predict", "--json", *model, "a good great lovely film", cwd=tmp_path))["label"] == "pos"
    assert json.loads(ask("explain", "--json", *model, "awful dull boring", cwd=tmp_path))["label"] == "neg"


@pytest.mark.further
@pytest.mark.parametrize("cell", ["simple_rnn", pytest.param("gru", marks=pytest.mark.slow)])
def test_three_classes_at_character_level(tmp_path, cell):
    generator = random.Random(1)
    kinds = {"good": GOOD, "bad": BAD, "numbers": ["111", "222", "333"]}
    rows = [(make_review(generator, words), label) for label, words in kinds.items() for _ in range(60)]
    generator.shuffle(rows)
    data = write_csv(tmp_path / "data.csv", rows)
    settings = [
        *SMALL,
        f"model.cell={cell}",
        "tokenizer.level=char",
        "data.source=csv",
        f"data.train={data}",
        "name=three",
    ]
    settings += ["data.max_length=200", "data.test_fraction=0.2", "data.validation_fraction=0.2", "training.epochs=1"]
    ask("train", *settings, cwd=tmp_path)
    ask("export", "--run", "runs/three", cwd=tmp_path)
    found = json.loads(
        ask("evaluate", "--json", "--model", "saved_models/sentiment", "--split", "test", "--baseline", cwd=tmp_path)
    )
    assert found["labels"] == ["bad", "good", "numbers"]
    assert len(found["metrics"]["confusion_matrix"]) == 3
    answer = json.loads(ask("explain", "--json", "--model", "saved_models/sentiment", "ab", cwd=tmp_path))
    assert answer["tokens"] == ["a", "b"]


def test_exports_are_numbered_and_the_newest_is_used(trained, tmp_path):
    shutil.copytree(trained / "runs", tmp_path / "runs")
    for version in (1, 2):
        assert ask("export", "--run", "runs/small", cwd=tmp_path).startswith(f"saved_models/sentiment/{version}: ")
    card = (tmp_path / "saved_models/sentiment/2/assets.extra/MODEL_CARD.md").read_text()
    assert f"exported by nlp-rnn {__version__}" in card


def test_the_installed_command_knows_every_task():
    assert {path.stem for path in (ROOT / "pipelines").glob("[a-z]*.py")} == set(TASKS)


def test_help_lists_the_verbs():
    done = subprocess.run([sys.executable, "-m", "pipelines", "sentiment"], capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")] == [
        "prepare",
        "train",
        "tune",
        "evaluate",
        "export",
        "predict",
        "explain",
        "tokenizer",
    ]


# --- mistakes ------------------------------------------------------------------------------------------------------


def mistake(*arguments, cwd):
    """The last line of what a refused command says."""
    return refused(*arguments, cwd=cwd).split("\n")[-1]


def train_on(data, *settings):
    return ["train", *SMALL, "name=a", "data.source=csv", f"data.train={data}", *settings]


def test_mistakes_in_data_are_one_line_and_leave_nothing(tmp_path):
    assert mistake(*train_on("none.csv"), cwd=tmp_path) == (
        "data.train is none.csv, but there is no such file or folder; give the path of your data"
    )
    write_csv(tmp_path / "empty.csv", [])
    assert mistake(*train_on("empty.csv"), cwd=tmp_path) == (
        "data.train has no examples: empty.csv has 12 bytes, but no row or line with a text; give a file with texts"
    )
    write_csv(tmp_path / "one.csv", [(f"text {i}", "pos") for i in range(30)])
    assert mistake(*train_on("one.csv"), cwd=tmp_path).startswith("data.train has one label only, 'pos'")
    (tmp_path / "latin.csv").write_bytes("text,label\ncafé,pos\n".encode("latin-1"))
    assert mistake(*train_on("latin.csv"), cwd=tmp_path) == (
        "latin.csv: line 2, byte 14: not UTF-8; it looks like WINDOWS-1252: set data.encoding=cp1252, or convert it, "
        "for "
        "example: iconv -f WINDOWS-1252 -t UTF-8"
    )
    write_csv(tmp_path / "wordless.csv", [(chr(0x2000 + i % 8) * i, str(i % 2)) for i in range(1, 60)])
    wordless = ("data.split=blocks", "data.block_size=5")  # all texts are equal once stripped
    assert mistake(*train_on("wordless.csv", *wordless), cwd=tmp_path).startswith("data.train has no examples")


def test_mistakes_in_settings_are_one_line_and_leave_nothing(tmp_path):
    assert (
        mistake("train", "model.unit=3", cwd=tmp_path)
        == "command line: model.unit is not a setting; did you mean model.units?"
    )
    assert mistake("train", "model.cell=lstmm", cwd=tmp_path).endswith(
        "but must be one of 'simple_rnn', 'lstm', 'gru', 'min_gru' or 'min_lstm'; did you mean lstm?"
    )
    assert (
        mistake("train", "model.units=many", cwd=tmp_path)
        == "command line: model.units is 'many', but must be a valid integer"
    )
    (tmp_path / "c.yaml").write_text("a: [\n")
    assert mistake("train", "--config", "c.yaml", cwd=tmp_path).startswith(
        "c.yaml: line 2, column 1: not readable as YAML"
    )
    assert mistake("train", "--confg", "c.yaml", cwd=tmp_path).startswith(
        "nlp-rnn sentiment train: unrecognized arguments"
    )
    assert mistake("evaluate", "--run", "runs/none", cwd=tmp_path).startswith("runs/none is not a run directory")


def test_a_run_directory_of_another_config_is_refused(trained, reviews, tmp_path):
    shutil.copytree(trained / "runs", tmp_path / "runs")
    settings = [
        *SMALL,
        "training.epochs=6",
        "name=small",
        "data.source=csv",
        f"data.train={reviews}",
        "data.test_fraction=0.2",
    ]
    assert mistake("train", *settings, "model.units=7", cwd=tmp_path) == (
        "name is small, but runs/small holds a run of another config: model.units is 7 and was 6; "
        "choose another name=..., or remove runs/small"
    )


def test_a_model_of_another_task_is_refused(trained, tmp_path):
    shutil.copytree(trained / "saved_models", tmp_path / "saved_models")
    path = tmp_path / "saved_models" / "sentiment" / "1" / "assets.extra" / "config.yaml"
    path.write_text(path.read_text().replace("task: sentiment", "task: translation"))
    (path.parents[1] / "manifest.json").unlink()
    assert "task is 'translation'" in mistake("predict", "--model", "saved_models/sentiment", "text", cwd=tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="dropping root's right to write everywhere is Linux's")
def test_a_folder_without_write_permission_is_refused(reviews, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    command = [sys.executable, "-m", "pipelines.sentiment", *train_on(reviews), f"runs_dir={locked}/runs"]
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root writes everywhere, and setpriv is not there to change that")
        command = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-all", *command]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, check=False, env=pipeline_environment(tmp_path)
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr == f"runs_dir: {locked} is not writable; make it writable or set runs_dir to a folder that is\n"
    assert not list(locked.iterdir())


def test_two_processes_do_not_train_in_one_run_directory(trained, reviews):
    import filelock

    settings = [
        *SMALL,
        "training.epochs=6",
        "name=small",
        "data.source=csv",
        f"data.train={reviews}",
        "data.test_fraction=0.2",
    ]
    with filelock.FileLock(trained / "runs" / "small" / ".lock"):
        done = run_pipeline("train", *settings, cwd=trained)
    assert done.returncode == 2
    assert done.stderr.rstrip().endswith(
        "runs/small: another process is training there; wait for it, or choose another name=..."
    )


@pytest.mark.further
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small tmpfs needs Linux and root")
@pytest.mark.parametrize(
    ("size", "verbs"), [pytest.param("32k", ["train"], marks=pytest.mark.slow), ("200k", ["train", "export"])]
)
def test_a_full_disk_in_training_and_export_leaves_nothing_half_written(trained, reviews, tmp_path, size, verbs):
    full = tmp_path / "full"
    full.mkdir()
    if subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", full], capture_output=True, check=False
    ).returncode:
        pytest.skip("this sandbox does not allow mounts")
    settings = train_on(reviews, f"runs_dir={full}/runs", "training.epochs=3", "model.units=24")
    arguments = {"train": settings, "export": ["export", "--run", f"{trained}/runs/small", "--to", f"{full}/models"]}
    # All commands in one process, which imports TensorFlow once.
    code = f"""
import sys
from nlp_rnn.cli import main as cli
from pipelines import sentiment
for arguments in {[arguments[verb] for verb in verbs]}:
    print("exit", cli.main(sentiment, arguments), file=sys.stderr)
"""
    (tmp_path / "commands.py").write_text(code, encoding="utf-8")
    script = "\n".join(
        [
            f"mount -t tmpfs -o size={size} none {full}",
            f"{sys.executable} {tmp_path / 'commands.py'}",
            f"cd {full} && find . -type f -size +0 | sort",
        ]
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "NLP_RNN_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, env=environment, check=False
    )
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("exit ")] == ["exit 2"] * len(verbs), (
        done.stderr
    )
    message = "cannot be written (No space left on device); no partial file was left; free some space"
    assert done.stderr.count(message) == len(verbs), done.stderr
    left = done.stdout.split()
    assert not [name for name in left if "models" in name or "/." in name[2:].replace("/.lock", "")]
    assert "./runs/a/config.yaml" in left
