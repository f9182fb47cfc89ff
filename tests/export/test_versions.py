"""Exports take the next number, and end with an error where none can be taken."""

from pathlib import PureWindowsPath

import pytest

from nlp_rnn.errors import ConfigError
from nlp_rnn.export import litert, saved_model


def test_a_file_takes_a_number_too(tmp_path):
    (tmp_path / "1").write_text("not a folder")
    (tmp_path / "02").mkdir()
    assert saved_model.write_next_version(tmp_path, lambda folder: folder.name)[0] == tmp_path / "3"


def test_a_number_that_stays_free_is_not_tried_for_ever(tmp_path):
    def write(temporary):
        raise FileExistsError("from within")

    with pytest.raises(FileExistsError, match="from within"):
        litert.write_version(tmp_path, write, int8_only=False)


def test_a_number_that_another_export_takes_meanwhile_is_left_to_it(tmp_path):
    tried = []

    def write(temporary):
        tried.append(temporary)
        if len(tried) == 1:
            (tmp_path / "1").mkdir()
            (tmp_path / "1" / "model").write_text("of another export")
        (temporary / "model").write_text(str(len(tried)))
        return {"bytes": {}}

    path, _ = litert.write_version(tmp_path, write, int8_only=False)
    assert (path.name, (path / "model").read_text()) == ("2", "2")


def test_the_separators_of_windows_are_no_patterns_and_others_are():
    saved_model._check_path(PureWindowsPath(r"C:\models\sentiment"), "--to is x")
    with pytest.raises(ConfigError, match=r"takes the character '\[' in a path for a pattern"):
        saved_model._check_path(PureWindowsPath(r"C:\models\[old]"), "--to is x")
