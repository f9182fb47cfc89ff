import pytest

from nlp_rnn.config.loading import load_config
from nlp_rnn.data.readers import can_be_cut, tell_once
from nlp_rnn.data.sources import SOURCES
from nlp_rnn.data.tables import TableFormat, is_quoted_by_doubling
from nlp_rnn.errors import ConfigError


def rows_of(path, source="csv", *settings):
    data = load_config(None, [f"data.source={source}", f"data.train={path}", *settings]).data
    return [tuple(example) for example in SOURCES[source](data)["train"]()]


def error_of(path, source="csv", *settings):
    with pytest.raises(ConfigError) as caught:
        rows_of(path, source, *settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("delimiter", "setting"), [(";", ";"), ("\t", "tab"), ("\t", r"\t"), ("|", "|")])
def test_delimiters_are_proposed_and_then_read(tmp_path, delimiter, setting):
    path = tmp_path / "a.csv"
    path.write_text(f"text{delimiter}label\na, b{delimiter}pos\n")
    shown = {"\t": "tab"}.get(delimiter, f"'{delimiter}'")
    assert error_of(path) == (
        f"{path}: has no column 'text'; its first line is one field, {f'text{delimiter}label'!r}, "
        "so its columns seem to be "
        f"separated by {shown}: set data.delimiter={shown}"
    )
    assert rows_of(path, "csv", f"data.delimiter={setting}") == [("a, b", "pos")]


def test_columns_without_a_header_have_numbers(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("5,good film\n1,bad film\n")
    assert "set data.has_header=false data.text_column=1 data.label_column=2" in error_of(path)
    settings = ("data.has_header=false", "data.text_column=2", "data.label_column=1")
    assert rows_of(path, "csv", *settings) == [("good film", "5"), ("bad film", "1")]
    assert error_of(path, "csv", "data.has_header=false") == (
        f"{path}: has no column 'text': data.has_header is false, so columns are numbered from 1 to 2; "
        "set data.text_column and "
        "data.label_column to numbers"
    )
    assert "numbered from 1 to 2" in error_of(path, "csv", *settings[:2], "data.label_column=3")


def test_a_column_named_twice_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label,text\na,b,c\n")
    assert error_of(path) == (
        f"{path}: has 2 columns named 'text'; rename one, or set data.text_column and data.label_column to others"
    )


PANDAS = 'text\tlabel\n"she wrote ""no"""\tbad\nplain\tgood\n'


@pytest.mark.parametrize(
    ("content", "is_quoted"),
    [
        (PANDAS, True),
        ('"text"\t"label"\n"a b"\t"good"\n', True),  # as R writes
        ('text\tlabel\n"two\nlines"\tgood\n', True),
        ('text\tlabel\n"a stray mark\tgood\n', False),
        ('"text\tlabel\n' + "plain\tgood\n" * 1200, False),  # a mark that stays open in the header
        ('text\tlabel\nhe said "no"\tbad\n"yes" he said\tgood\n', False),
        ("text\tlabel\nplain\tgood\n", False),
    ],
)
def test_quoting_of_tab_separated_files_is_recognised(tmp_path, content, is_quoted):
    path = tmp_path / "a.tsv"
    path.write_text(content)
    assert is_quoted_by_doubling(path, TableFormat("\t")) == is_quoted


def test_a_field_that_goes_on_after_the_probed_lines_does_not_hide_the_quoting(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("text\tlabel\n" + "plain\tgood\n" * 998 + '"she ""said""\nno"\tbad\n' + '"a ""b"""\tgood\n')
    assert not is_quoted_by_doubling(path, TableFormat("\t"))  # nothing of it in the first lines is evidence
    path.write_text('text\tlabel\n"a ""b"""\tgood\n' + "plain\tgood\n" * 997 + '"she\nsaid"\tbad\n')
    assert is_quoted_by_doubling(path, TableFormat("\t"))
    assert rows_of(path, "tsv")[-1] == ("she\nsaid", "bad")


def test_quoted_tab_separated_files_are_read_and_told(tmp_path, caplog):
    path = tmp_path / "a.tsv"
    path.write_text(PANDAS)
    tell_once.cache_clear()
    with caplog.at_level("INFO"):
        assert rows_of(path, "tsv") == [('she wrote "no"', "bad"), ("plain", "good")]
        rows_of(path, "tsv")
    assert caplog.text.count("its fields are quoted, and read without their quotes; data.quoting=none keeps them") == 1
    assert rows_of(path, "tsv", "data.quoting=none")[0] == ('"she wrote ""no"""', "bad")
    assert not can_be_cut(path, load_config(None, ["data.source=tsv", f"data.train={path}"]).data)
    path.write_text("text\tlabel\nplain\n")
    assert "a line end or the delimiter; correct the line, or set data.quoting=double" in error_of(path, "tsv")


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("data.encoding=rot13", "data.encoding is 'rot13', but must be an encoding of Python"),
        ("data.encoding=nope", "data.encoding is 'nope', but must be an encoding of Python"),
        ("data.delimiter=ab", "data.delimiter is 'ab', but must be one character"),
        ("data.quoting=single", "data.quoting is 'single', but must be one of"),
    ],
)
def test_wrong_formats_are_refused(tmp_path, setting, told):
    assert told in error_of(tmp_path / "a.csv", "csv", setting)


def test_formats_are_for_their_sources():
    with pytest.raises(ConfigError, match=r"data.has_header is False, but applies only to the sources csv and tsv"):
        load_config(None, ["data.source=text", "data.train=x", "data.has_header=false"])


def test_parquet_is_read(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"text": ["good", "日本"], "label": [1, 0], "stars": [4.0, 2.5], "list": [[1], [2]]})
    parquet.write_table(table, path)
    assert rows_of(path, "parquet") == [("good", "1"), ("日本", "0")]
    assert rows_of(path, "parquet", "data.label_column=stars") == [("good", "4"), ("日本", "2.5")]
    assert "row 1 has no label that is a string; set data.label_column" in error_of(
        path, "parquet", "data.label_column=list"
    )
    assert "has 0 columns named 'body'; its columns are 'text', 'label'" in error_of(
        path, "parquet", "data.text_column=body"
    )
    path.write_bytes(path.read_bytes()[:50])
    assert "not readable as Parquet" in error_of(path, "parquet")


# --- JSON and other files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        '[{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]',
        '[\n {"text": "a", "label": "x"},\n {"text": "b", "label": "y"}\n]\n',
        '{"version": 1, "data": [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]}',
        '{\n "data": [\n  {"text": "a", "label": "x"},\n  {"text": "b", "label": "y"}]}',
        '{"text": "a", "label": "x"}\n\n{"text": "b", "label": "y"}\n',
    ],
)
def test_json_is_lines_or_one_list_of_objects(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    assert rows_of(path, "jsonl") == [("a", "x"), ("b", "y")]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[" * 200_000, "not readable as JSON (nested too deeply)"),
        ('{"text": "a", "label": ' + "1" * 5001 + "}", "not readable as JSON (Exceeds the limit (4300 digits)"),
        ('{\n"a": [{"text": "x"}],\n "b": [{"text": "y"}]}', "2 lists of objects"),
        ('{"text": "a"\n', "line 1, column 13: not JSON"),
        ('{"text": "a", "label": ["x"]}', "'label' is [\"x\"], but a label is a string, number or boolean"),
    ],
)
def test_json_that_cannot_be_read_is_one_line(tmp_path, content, told):
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    assert told in error_of(path, "jsonl")


def test_labels_are_written_alike_in_all_sources(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"text": "a", "label": " x "}\n{"text": "b", "label": 1.0}\n{"text": "c", "label": true}\n'
    )
    assert [label for _, label in rows_of(tmp_path / "a.jsonl", "jsonl")] == ["x", "1", "true"]
    (tmp_path / "a.txt").write_text("__label__x, a\n__label__y\tb\nc __label__z\n")
    assert rows_of(tmp_path / "a.txt", "text") == [("a", "x"), ("b", "y"), ("c", "z")]


def test_several_labels_on_a_line_are_refused_with_both_ways_on(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("__label__x a\n__label__x __label__y b\n")
    assert (
        "line 2 has 2 labels ('x', 'y'), but a text has one; set data.multi_label=true, keep one label, or set"
        in error_of(path, "text")
    )
    assert rows_of(path, "text", "data.label_column=")[1][0] == "b"


def test_folders_read_the_users_files_alone(tmp_path, caplog):
    for name in (
        "pos/a.TXT",
        "pos/._a.TXT",
        "pos/.DS_Store",
        "neg/b.txt",
        "neg/readme.md",
        "unsup/c.txt",
        "__MACOSX/x.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    tell_once.cache_clear()
    with caplog.at_level("INFO"):
        assert rows_of(tmp_path, "folders") == [("neg/b.txt", "neg"), ("pos/a.TXT", "pos")]
    assert "left out: its folder unsup" in caplog.text
    assert "left out: 1 files that do not end with .txt, such as readme.md" in caplog.text


def test_folders_of_files_without_an_ending_are_read(tmp_path):
    for name in ("pos/1", "neg/2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert rows_of(tmp_path, "folders") == [("neg/2", "neg"), ("pos/1", "pos")]


def test_folders_that_lie_deeper_are_told(tmp_path):
    (tmp_path / "train" / "pos").mkdir(parents=True)
    assert "its texts lie deeper, in pos: give the folder whose folders are the labels" in error_of(tmp_path, "folders")
