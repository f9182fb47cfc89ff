import gzip
import os
import threading
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlp_rnn.errors import ConfigError
from nlp_rnn.text_files import decoded_lines, guess_encoding, is_companion, parts_of, read_lines

QUOTES = "“It doesn’t work” — he paid 5 €, and they won’t help.\n"


def lines_of(path, encoding=None):
    return [line for _, line in read_lines(path, encoding)]


def error_of(path, encoding=None):
    with pytest.raises(ConfigError) as caught:
        lines_of(path, encoding)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"])
def test_lines_are_the_same_in_every_encoding_and_with_every_line_end(tmp_path, encoding, end):
    path = tmp_path / "a.txt"
    path.write_bytes(end.join(["naïve", "", "“x” – y", "last"]).encode(encoding))
    assert lines_of(path, encoding) == ["naïve", "", "“x” – y", "last"]
    assert [number for number, _ in read_lines(path, encoding)] == [1, 2, 3, 4]


def test_carriage_returns_are_part_of_lines_that_end_with_line_feeds(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a\rb\nc\r\n")
    assert lines_of(tmp_path / "a.txt") == ["a\rb", "c"]


def test_the_advice_about_an_encoding_reads_the_file_when_it_is_followed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(QUOTES.encode("cp1252") * 3)
    assert error_of(path, "utf-8") == (
        f"{path}: line 1, byte 0: not UTF-8; it looks like WINDOWS-1252: set data.encoding=cp1252, or convert it, for example: "
        "iconv -f WINDOWS-1252 -t UTF-8"
    )
    assert lines_of(path, "cp1252")[0] + "\n" == QUOTES
    assert "data.encoding" not in error_of(path)  # where no setting changes it


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("これは日本語の文章です。とても短い文です。", "cp932"),
        ("Это предложение написано по-русски, и оно не очень длинное.", "cp1251"),
        (QUOTES, "cp1252"), ("abc", "utf-16"), ("abc def", "utf-16-le"), ("abc def", "utf-16-be"), ("abc", "utf-32"),
    ],
)  # fmt: skip
def test_encodings_are_guessed_for_proposals(text, encoding):
    assert guess_encoding(text.encode(encoding)) == encoding


def test_utf_16_without_a_mark_is_not_read_as_letters_with_gaps(tmp_path):
    (tmp_path / "a.txt").write_bytes("plain words\n".encode("utf-16-le"))
    assert (
        "line 1 contains NUL bytes, so it is not text; it looks like UTF-16-LE: set data.encoding=utf-16-le"
        in error_of(tmp_path / "a.txt", "utf-8")
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"PAR1....", "is a Parquet file, not text; set data.source=parquet"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an old Office document"),
        (b"%PDF-1.7", "is a PDF document"),
        (b"BZh91", "compressed by bzip2"),
        (b"a\0b", "line 1 contains NUL bytes, so it is not text; give a text file"),
    ],
)
def test_other_files_are_told_by_their_kind(tmp_path, content, told):
    (tmp_path / "a.csv").write_bytes(content)
    assert told in error_of(tmp_path / "a.csv")


def test_compressed_files_are_recognised_whatever_their_name(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(gzip.compress(b"one\ntwo\n"))
    assert lines_of(path) == ["one", "two"]
    assert len(parts_of(path, 4)) == 1
    path.write_bytes(gzip.compress(b"one\ntwo\n")[:-6])
    assert "not a whole gzip file" in error_of(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/data.csv", "one\ntwo\n")
        archive.writestr("__MACOSX/folder/._data.csv", b"\0\0")
    assert lines_of(path) == ["one", "two"]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more.csv", "three\n")
    assert error_of(path) == (
        f"{path}: is a zip archive of 2 files (folder/data.csv, more.csv); give an archive of one file, or unpack it"
    )
    path.write_bytes(path.read_bytes()[:60])
    assert "not a readable zip archive" in error_of(path)


def test_a_workbook_is_told(tmp_path):
    path = tmp_path / "a.csv"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", "")
        archive.writestr("xl/workbook.xml", "")
    assert error_of(path) == f"{path}: is an Excel workbook, not text; save it as CSV UTF-8"


def test_a_wrong_encoding_setting_is_told(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"fine\nabc\xff\xff\n")
    assert "a.txt: near line 1: not utf-16, as data.encoding says" in error_of(tmp_path / "a.txt", "utf-16")


def test_companions_of_file_systems_are_not_the_users():
    assert all(map(is_companion, ("._a.txt", "a/.DS_Store", "Thumbs.db", "__MACOSX/a.txt")))
    assert not is_companion("a/b.txt")


def test_a_pipe_is_read_as_a_file(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(b"one\ntwo\n"))
    writer.start()
    assert lines_of(path) == ["one", "two"]
    writer.join()


@given(st.binary(max_size=60))
def test_any_bytes_are_lines_or_one_line_of_advice(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.bin"
    path.write_bytes(content)
    for encoding in (None, "utf-8", "utf-16", "cp1252"):
        try:
            text = "".join(line for _, line in decoded_lines(path, encoding))
        except ConfigError as told:
            assert "\n" not in str(told)  # noqa: PT017
            continue
        if encoding in (None, "utf-8"):
            assert text.encode() == content.removeprefix(b"\xef\xbb\xbf")
