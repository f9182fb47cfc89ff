import pytest

from nlp_rnn.cli.options import Parser
from nlp_rnn.errors import ConfigError


@pytest.mark.parametrize("words", [["--run", "a", "--run", "b"], ["--run=a", "--run", "b"], ["--run=a", "--run=a"]])
def test_an_option_that_would_replace_itself_is_refused(words):
    parser = Parser(prog="nlp-rnn x", allow_abbrev=False)
    parser.add_argument("--run")
    with pytest.raises(
        ConfigError, match="argument --run: is given 2 times, but only one would count; give it once; see nlp-rnn x"
    ):
        parser.parse_args(words)


def test_paths_may_begin_with_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    parser = Parser(prog="nlp-rnn x", allow_abbrev=False)
    parser.add_argument("--to", metavar="DIR")
    parser.add_argument("--run", metavar="DIR", action="append")
    found = parser.parse_args(["--to=~/models", "--run", "~/a", "--run", "b"])
    assert (found.to, found.run) == ("/home/me/models", ["/home/me/a", "b"])
    with pytest.raises(ConfigError, match="--to"):
        parser.parse_args(["--to", ""])


def test_options_that_may_be_repeated_and_texts_that_look_like_options_stay():
    parser = Parser(prog="nlp-rnn x", allow_abbrev=False)
    parser.add_argument("--run", action="append")
    parser.add_argument("--count", type=int)
    parser.add_argument("text", nargs="*")
    found = parser.parse_args(["--run", "a", "--run", "b", "--count", "1", "--", "--count", "--count=2"])
    assert (found.run, found.count, found.text) == (["a", "b"], 1, ["--count", "--count=2"])
