import json
import os
import shutil

import pytest

from nlp_rnn import manifest


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "a"
    (path / "deep").mkdir(parents=True)
    (path / "one.txt").write_text("one")
    (path / "deep" / "two.txt").write_text("two")
    manifest.write(path)
    return path


def test_an_unchanged_folder_passes_also_when_copied_without_its_times(folder, tmp_path):
    assert manifest.check(folder, "mend")
    shutil.copytree(folder, tmp_path / "b", copy_function=shutil.copyfile)
    assert manifest.check(tmp_path / "b", "mend", is_thorough=False)
    assert manifest.identity(folder) == manifest.identity(tmp_path / "b")


def test_a_changed_letter_is_noticed_though_the_size_is_the_same(folder):
    (folder / "deep" / "two.txt").write_text("twp")
    with pytest.raises(manifest.DamagedFileError) as caught:
        manifest.check(folder, "restore it", is_thorough=False)
    assert str(caught.value) == (
        f"{folder}/deep/two.txt: was changed or damaged since it was written (its checksum differs); restore it"
    )


def test_a_change_that_keeps_size_and_time_is_noticed_by_the_thorough_check_alone(folder):
    path = folder / "one.txt"
    stamp = os.stat(path)
    path.write_text("onf")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert manifest.check(folder, "mend", is_thorough=False)
    with pytest.raises(manifest.DamagedFileError, match=r"one\.txt: was changed or damaged"):
        manifest.check(folder, "mend")


def test_sizes_and_missing_files_are_told(folder):
    (folder / "one.txt").write_text("one and more")
    with pytest.raises(manifest.DamagedFileError, match=r"one.txt: has 12 bytes, but had 3 when it was written; mend"):
        manifest.check(folder, "mend")
    (folder / "one.txt").unlink()
    with pytest.raises(manifest.DamagedFileError, match=r"one.txt: cannot be read \(No such file or directory\); mend"):
        manifest.check(folder, "mend")
    assert manifest.check(folder, "mend", names=("deep",))


def test_a_folder_in_place_of_the_manifest_is_no_earlier_version(folder):
    (folder / "manifest.json").unlink()
    assert not manifest.check(folder, "mend")
    assert manifest.identity(folder) is None
    (folder / "manifest.json").mkdir()
    for read in (lambda: manifest.check(folder, "mend"), lambda: manifest.identity(folder)):
        with pytest.raises(manifest.DamagedFileError, match=r"manifest.json: cannot be read \(Is a directory\)"):
            read()


def test_a_damaged_manifest_is_told(folder):
    path = folder / "manifest.json"
    whole = path.read_text()
    for text in (whole[:-20], "[]", '{"files": 3}', whole.replace("blake2b", "blake3b"), whole.replace("one.txt", "")):
        path.write_text(text)
        with pytest.raises(manifest.ConfigError, match=r"; mend$"):
            manifest.check(folder, "mend", names=("one.txt",))


def test_a_folder_without_a_manifest_has_no_identity(tmp_path):
    assert not manifest.check(tmp_path, "mend")
    assert manifest.identity(tmp_path) is None


def test_the_identity_is_of_contents(folder):
    before = manifest.identity(folder)
    (folder / "one.txt").write_text("onf")
    manifest.write(folder)
    assert manifest.identity(folder) != before
    assert set(json.loads((folder / "manifest.json").read_text())["files"]) == {"one.txt", "deep/two.txt"}


@pytest.mark.parametrize("content", ['{"files": []}', '{"files": {"a": 1}}', '{"files": {"a": null}}', "{}"])
def test_a_manifest_that_names_no_files_has_no_identity(folder, content):
    (folder / manifest.NAME).write_text(content, encoding="utf-8")
    with pytest.raises(manifest.DamagedFileError, match="is damaged"):
        manifest.identity(folder)
