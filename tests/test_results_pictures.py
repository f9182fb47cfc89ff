"""The pictures of RESULTS.md show the figures of its tables."""

import importlib.util

import PIL.Image
import pytest

from tests.conftest import ROOT

specification = importlib.util.spec_from_file_location("draw_results", ROOT / "docs" / "draw_results.py")
draw_results = importlib.util.module_from_spec(specification)
specification.loader.exec_module(draw_results)


@pytest.mark.parametrize("name", draw_results.PICTURES)
def test_a_picture_shows_the_rows_of_its_table(name):
    rows = draw_results.rows_of(draw_results.PICTURES[name], (ROOT / "RESULTS.md").read_text(encoding="utf-8"))
    assert len(rows) >= 3
    assert any(row.name.startswith("ours") for row in rows)
    with PIL.Image.open(ROOT / "docs" / name) as picture:
        assert picture.text["Description"] == draw_results.describe(rows), "run python docs/draw_results.py"


def test_the_curve_shows_the_figures_of_its_table():
    points = draw_results.points_of((ROOT / "docs" / "results.md").read_text(encoding="utf-8"))
    assert len(points) == 9
    with PIL.Image.open(ROOT / "docs" / draw_results.CURVE) as picture:
        assert picture.text["Description"] == repr(points), "run python docs/draw_results.py"
