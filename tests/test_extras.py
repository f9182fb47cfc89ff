"""Optional packages."""

import configparser
import importlib.util

import pytest

from nlp_rnn import extras
from nlp_rnn.errors import ConfigError
from tests.conftest import ROOT


def test_they_are_extras_of_the_setup():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    assert set(extras.EXTRAS) <= set(settings["options.extras_require"])


def test_a_missing_one_is_told_with_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("babel", "num2words") else name)
    assert extras.missing("translation") == ["babel", "num2words"]
    extras.require("translation", "translations are scored", "sacrebleu")
    with pytest.raises(ConfigError) as caught:
        extras.require("translation", "data.source is cldr")
    assert str(caught.value) == (
        "data.source is cldr, which needs the packages babel, num2words; install it: pip install 'nlp-rnn[translation]'"
    )
    with pytest.raises(ConfigError, match="which needs the package babel; install it"):
        extras.require("translation", "data.source is cldr", "babel")
