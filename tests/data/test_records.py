"""Corpora as sharded record files: nothing lost, nothing twice, in order; whole or not there."""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from nlp_rnn.cli import main as cli
from nlp_rnn.cli import records as command
from nlp_rnn.config.settings import DataConfig
from nlp_rnn.data import records
from nlp_rnn.data.corpus import Corpus
from nlp_rnn.data.readers import PART_READERS
from nlp_rnn.data.record_source import records_folder
from nlp_rnn.data.sources import PAIR_SOURCES, SOURCES
from nlp_rnn.errors import ConfigError
from nlp_rnn.text_files import decoded_lines, parts_of, read_lines
from tests.conftest import SMALL, ask, differences, pipeline_environment, refused, write_csv

NUM_SHARDS = 12  # more than ten, whose numbers sort otherwise than as texts


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines of very different lengths, labels pos and neg."""
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    kinds = [("neg", "bad"), ("pos", "good")]
    path.write_text(
        "".join(f"__label__{kinds[i % 2][0]} {kinds[i % 2][1]} film {i} {'é ' * (i % 97)}\n" for i in range(700))
    )
    return path


@pytest.fixture(scope="module")
def written(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    records.write_records(DataConfig(source="text", train=str(texts)), folder, num_shards=NUM_SHARDS)
    return folder


# --- parts of files ------------------------------------------------------------------------------------------------


@given(st.lists(st.text(st.sampled_from("ab\r\né\ufeff"), max_size=8), max_size=12), st.integers(1, 9))
def test_the_parts_of_a_file_are_its_lines(pieces: list[str], count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lines.txt"
        path.write_bytes("\n".join(pieces).encode())
        parts = parts_of(path, count)
        assert len(parts) <= count
        assert [line for part in parts for line in decoded_lines(part)] == list(decoded_lines(path))


def test_parts_are_of_like_size(texts: Path) -> None:
    sizes = [(part.end or 0) - part.start for part in parts_of(texts, 8)]
    assert len(sizes) == 8
    assert max(sizes) < 1.2 * min(sizes)


def test_every_part_of_a_table_knows_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "reviews.tsv"
    path.write_text("label\ttext\n" + "".join(f"pos\ta film, number {i}\n" for i in range(100)))
    data = DataConfig(source="tsv", train=str(path))
    parts = parts_of(path, 5)
    assert len(parts) == 5
    assert [row for part in parts for row in PART_READERS["tsv"](part, data)] == list(SOURCES["tsv"](data)["train"]())


def test_a_mistake_in_a_part_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "reviews.tsv"
    path.write_text("text\tlabel\n" + "a film\tpos\n" * 90 + "a film\n")
    *_, last = parts_of(path, 5)
    with pytest.raises(ConfigError, match=r"reviews\.tsv: line 92 has 1 fields"):
        list(PART_READERS["tsv"](last, DataConfig(source="tsv", train=str(path))))
    path.write_bytes(b"a film\n" * 90 + b"\xff\n")
    with pytest.raises(ConfigError, match=r"reviews\.tsv: line 91, byte 630: not UTF-8"):
        list(read_lines(parts_of(path, 5)[-1]))


# --- records -------------------------------------------------------------------------------------------------------


def test_records_are_the_source_in_its_order(texts: Path, written: Path) -> None:
    assert len(list(records_folder(written).glob("*.tfrecord*"))) == NUM_SHARDS
    source = Corpus(DataConfig(source="text", train=str(texts)), seed=1).survey()
    read = Corpus(DataConfig(source="records", dir=str(written)), seed=1).survey()
    assert read.facts == source.facts  # digests of texts and labels, in order


@pytest.mark.slow
def test_two_processes_write_the_same(texts: Path, written: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pipelines",
        "records",
        "--to",
        "two",
        "--shards",
        str(NUM_SHARDS),
        "--workers",
        "2",
    ]
    settings = ["data.source=text", f"data.train={texts}"]
    done = subprocess.run(
        [*command, *settings],
        cwd=tmp_path,
        env=pipeline_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "train 700 examples; read them with data.source=records data.dir=two\n"
    assert not done.stderr
    one, two = (
        Corpus(DataConfig(source="records", dir=str(folder)), seed=1).survey() for folder in (written, tmp_path / "two")
    )
    assert one.facts == two.facts


@pytest.mark.further
def test_a_model_trained_from_records_is_the_same(texts: Path, written: Path, tmp_path: Path) -> None:
    ask("train", "name=lines", *SMALL, "data.source=text", f"data.train={texts}", cwd=tmp_path)
    ask("train", "name=records", *SMALL, "data.source=records", f"data.dir={written}", cwd=tmp_path)
    assert differences(tmp_path / "runs" / "lines", tmp_path / "runs" / "records") == (0, 0)


def test_pairs_become_records(tmp_path: Path) -> None:
    data = DataConfig(source="cldr", target_language="fr", num_pairs=30)
    assert records.write_records(data, tmp_path, num_shards=3) == {"train": 30}
    read = SOURCES["records"](DataConfig(source="records", dir=str(tmp_path)))
    assert list(read["train"]()) == list(PAIR_SOURCES["cldr"](data)["train"]())


def test_all_splits_become_records_and_one_may_be_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, count in (("train", 30), ("validation", 5), ("test", 0)):
        rows = [(f'{name} {i}, "{i}"\nline', "pos") for i in range(count)]
        write_csv(tmp_path / f"{name}.csv", rows)
    monkeypatch.chdir(tmp_path)
    files = {name: f"{name}.csv" for name in ("train", "validation", "test")}
    data = DataConfig(source="csv", **files)
    assert records.write_records(data, tmp_path / "set", num_shards=3) == {"train": 30, "validation": 5, "test": 0}
    read = SOURCES["records"](DataConfig(source="records", dir=str(tmp_path / "set")))
    for name, stream in SOURCES["csv"](data).items():
        assert list(read[name]()) == list(stream())
    assert sorted(entry.name for entry in (tmp_path / "set").rglob("*") if "1.0.0" not in entry.parts) == [
        ".lock",
        "records",
    ]


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_and_the_next_a_whole_set(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"line {i} of a longer text that takes a while to write\n" for i in range(60_000)))
    arguments = ["--to", str(tmp_path / "set"), "--shards", "11", "data.source=text", f"data.train={path}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "records", *arguments],
        env=pipeline_environment(tmp_path),
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and len(list((tmp_path / "set").rglob("*.tfrecord*"))) < 2:
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL  # it was not over
    assert not records_folder(tmp_path / "set").exists()
    assert cli.guarded(lambda: command.main(arguments)) == 0
    data = DataConfig(source="records", dir=str(tmp_path / "set"))
    assert [text for text, _ in SOURCES["records"](data)["train"]()] == path.read_text().splitlines()
    assert not list((tmp_path / "set").rglob("*incomplete*"))


# --- mistakes ------------------------------------------------------------------------------------------------------


def test_records_are_not_written_over(texts: Path, written: Path) -> None:
    with pytest.raises(ConfigError, match="already holds records"):
        records.write_records(DataConfig(source="text", train=str(texts)), written, num_shards=2)


@pytest.mark.further  # a process of its own, with Beam
def test_a_mistake_in_the_source_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"a film\n" * 90 + b"caf\xe9\n")
    command = [
        sys.executable,
        "-m",
        "pipelines",
        "records",
        "--to",
        "set",
        "--shards",
        "4",
        "data.source=text",
        f"data.train={path}",
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=pipeline_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"\S+latin\.txt: line 91, byte 633: not UTF-8; it looks like[^\n]*\n", done.stderr), done.stderr
    assert not records_folder(tmp_path / "set").exists()


def test_two_commands_do_not_write_into_one_folder(texts: Path, tmp_path: Path) -> None:
    folder = records_folder(tmp_path).parent
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"), pytest.raises(ConfigError, match="another process is writing records"):
        records.write_records(DataConfig(source="text", train=str(texts)), tmp_path, num_shards=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.source=text"], "required: --to"),
        (["--to", "x", "--shards", "0"], "--shards is 0"),
        (["--to", "x", "model.units=3"], "only data"),
        (["--to", "x", "data.source=text"], "data.train is empty"),
        (
            ["--to", "x", "data.source=cldr", "data.test_fraction=0.1"],
            "'data.test_fraction=0.1' does not change the records",
        ),
        (["--to", "x", "data.source=records"], "which are written already"),
        (
            ["--to", "x", "--runner", "FlinkRuner", "data.source=cldr", "data.num_pairs=5"],
            "--runner is FlinkRuner: .*FlinkRunner",
        ),
        (
            ["--to", "x", "--runner", "SparkRunner", "--workers", "2", "data.source=cldr"],
            "--workers is 2, but applies to this machine only",
        ),
        (["--to", "gs://x", "data.source=cldr"], "--to is gs://x"),
        (
            ["--to", "x", "data.source=cldr", "data.num_pairs=5", "--", "--direct_num_wokers=2"],
            "direct_num_wokers=2 is not an option",
        ),
        (
            ["--to", "x", "data.source=cldr", "data.num_pairs=5", "--", "--direct_num_workers=x"],
            "invalid int value: 'x'",
        ),
    ],
)
def test_a_command_that_is_not_understood_is_refused(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        command.main(arguments)


def test_records_that_are_not_there_are_named(tmp_path: Path) -> None:
    for folder in ("", str(tmp_path)):
        with pytest.raises(ConfigError, match=r"data\.source is records, but data.dir is"):
            SOURCES["records"](DataConfig(source="records", dir=folder))


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "*00001-of*"])
def test_damaged_records_are_told_in_one_line(name: str, texts: Path, written: Path, tmp_path: Path) -> None:
    shutil.copytree(written, tmp_path / "set")
    (path,) = records_folder(tmp_path / "set").glob(name)
    path.write_bytes(path.read_bytes()[:-20])
    told = refused("train", "name=bad", *SMALL, "data.source=records", f"data.dir={tmp_path / 'set'}", cwd=tmp_path)
    damaged = {"features.json": f"{path}: is damaged"}.get(name, f"the records in {path.parent} are damaged")
    assert damaged in told
