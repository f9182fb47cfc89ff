"""The texts that a command reads."""

import argparse
import os
import threading

import pytest

from nlp_rnn.cli.texts import input_texts, utf8
from nlp_rnn.errors import ConfigError


def texts_of(path):
    batches = input_texts(argparse.Namespace(text=[], file=str(path)), batch_size=2)
    return [text for batch in batches for text in batch]


@pytest.mark.skipif(os.name == "nt", reason="named pipes of Unix")
@pytest.mark.parametrize(("content", "expected"), [(b"one\ntwo\nthree\n", [b"one", b"two", b"three"]), (b"", [])])
def test_a_pipe_is_read_once_and_whole(tmp_path, content, expected):
    """As the shell's <(command) gives it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(content))
    writer.start()
    assert texts_of(pipe) == expected
    writer.join()


def test_a_damaged_file_gives_no_text_at_all(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_bytes(b"one\ntwo\n\xff\n")
    with pytest.raises(ConfigError, match=r"--file is .*texts\.txt: line 3"):
        texts_of(path)
    path.write_bytes(b"one\ntwo\n")
    assert texts_of(path) == [b"one", b"two"]


def test_an_argument_in_another_encoding_is_told():
    assert utf8("caf\u00e9") == "caf\u00e9".encode()
    with pytest.raises(ConfigError, match=r"TEXT is 'caf\\udce9', which is not UTF-8; set the terminal to UTF-8$"):
        utf8("caf\udce9")
