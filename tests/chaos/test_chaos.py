"""That the trials tell crashes from clear messages. `make chaos` runs them."""

import itertools
import random

import pytest

from tests.chaos import trials
from tests.chaos.commands import Ended, judge


@pytest.mark.parametrize(
    ("ended", "differences", "verdict"),
    [
        (Ended(0, "{}", "", 1.0), [], "ok"),
        (Ended(0, "{}", "", 1.0), ["the answer differs"], "FINDING"),
        (Ended(2, "", "epoch 1\n--run is empty, but must be a path\n", 1.0), None, "refused"),
        (Ended(2, "", "", 1.0), None, "FINDING"),
        (Ended(2, "", "x" * 9000, 1.0), None, "FINDING"),
        (Ended(2, "", "label \x1b[31m\n", 1.0), None, "FINDING"),
        (Ended(1, "", "Traceback (most recent call last):\n  x\nKeyError: 3\n", 1.0), None, "FINDING"),
        (Ended(-6, "", "bad_alloc\n", 1.0), None, "FINDING"),
        (Ended(None, "", "", 180.0), None, "FINDING"),
    ],
)
def test_a_command_ends_well_or_with_one_clear_line(ended, differences, verdict):
    assert judge(ended, differences)[0] == verdict


def test_odd_settings_are_read_or_refused(tmp_path):
    found = list(itertools.islice(trials.config(tmp_path, tmp_path / "work", random.Random("1 config")), 60))
    assert not [each for each in found if each[1] == "FINDING"]
    assert "refused" in {verdict for _, verdict, _ in found}
