"""Any bytes in a file of the user's give examples or a ConfigError of one line, never another exception.

20,000 files in all: `make slow`.
"""

import gzip

import hypothesis
import pytest
from hypothesis import strategies as st

from nlp_rnn.config.loading import load_config
from nlp_rnn.data.sources import PAIR_SOURCES, SOURCES
from nlp_rnn.errors import ConfigError

ALPHABETS = {
    "csv": [
        b"text", b"label", b",", b'"', b'""', b"\n", b"\r", b"\r\n", b";", b"\t", b"a", b"1", b"\xe9", b"\0",
        b"\xef\xbb\xbf",
    ],
    "tsv": [b"text\tlabel\n", b"\t", b'"', b'""', b"\n", b"\r", b"a", b"b\tc\n", b"\xff\xfe", b"\xc3"],
    "jsonl": [
        b'{"text": "a", "label": "b"}', b"\n", b"[", b"]", b"{", b"}", b'"text"', b": ", b", ", b'"a"', b"1",
        b"1e999", b"NaN",
        b"true", b"null", b"\\ud800", b'"\\ud800"', b"9" * 5000, b"[" * 3000, b"\xff",
    ],
    "text": [b"__label__a ", b"__label__", b"a", b"\n", b"\r", b"\x85", b"\xe2\x80\xa8", b"\0", b"\xff"],
    "tmx": [
        b"<tmx>", b"</tmx>", b"<body>", b"</body>", b"<tu>", b"</tu>", b'<tuv xml:lang="en">',
        b'<tuv xml:lang="de">', b"</tuv>",
        b"<seg>", b"</seg>", b"a", b"<ph/>", b"<bpt>", b"</bpt>", b"&amp;", b"&x;", b"<!-- c -->",
        b"<![CDATA[x]]>", b"<x>" * 200,
        b'<?xml version="1.0" encoding="utf-16"?>', b'<?xml version="1.0" encoding="nope"?>', b"\xff\xfe", b"\0",
        b'<!DOCTYPE tmx [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]>', b"&b;",
    ],
}  # fmt: skip
WHOLE = b'<tmx><body><tu><tuv xml:lang="en"><seg>a</seg></tuv><tuv xml:lang="de"><seg>b</seg></tuv></tu></body></tmx>'


def contents(source):
    parts = st.lists(st.sampled_from(ALPHABETS[source]) | st.binary(max_size=4), max_size=25).map(b"".join)
    headed = {"csv": b"text,label\n", "tsv": b"text\tlabel\n"}.get(source, b"")
    whole = parts.map(lambda content: headed + content)
    if source == "tmx":
        whole = st.tuples(st.integers(0, len(WHOLE)), parts).map(lambda cut: WHOLE[: cut[0]] + cut[1] + WHOLE[cut[0] :])
    plain = parts | whole
    return (
        plain
        | plain.map(gzip.compress)
        | st.tuples(plain, st.integers(0, 40)).map(lambda cut: gzip.compress(cut[0])[: cut[1]])
    )


def check(source, path, content):
    path.write_bytes(content)
    settings = [f"data.source={source}", f"data.train={path}"]
    config = load_config(None, settings, task="translation" if source in PAIR_SOURCES else "sentiment")
    try:
        for example in (SOURCES | PAIR_SOURCES)[source](config.data)["train"]():
            example.text.encode(), example.label.encode()
    except ConfigError as error:
        told = str(error)
    else:
        told = "read"
    assert told
    assert "\n" not in told


@pytest.mark.parametrize("source", ALPHABETS)
def test_any_bytes_are_examples_or_one_line(tmp_path, source):
    @hypothesis.settings(max_examples=60, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(contents(source))
    def run(content):
        check(source, tmp_path / "a", content)

    run()


@pytest.mark.slow
@pytest.mark.parametrize("source", ALPHABETS)
def test_any_bytes_are_examples_or_one_line_in_4000_files(tmp_path, source):
    @hypothesis.settings(max_examples=4000, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(contents(source))
    def run(content):
        check(source, tmp_path / "a", content)

    run()
