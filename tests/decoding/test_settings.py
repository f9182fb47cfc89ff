import pytest

from nlp_rnn.decoding.settings import GenerationSettings, SearchSettings
from nlp_rnn.errors import ConfigError


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (
            GenerationSettings,
            {"min_length": 9, "max_length": 5},
            "min_length is 9, but max_length is 5; lower the first",
        ),
        (SearchSettings, {"min_length": 9, "max_length": 5}, "min_length is 9, but max_length is 5; lower the first"),
        (
            SearchSettings,
            {"min_ratio": 2.0, "max_ratio": 1.5},
            "min_ratio is 2.0, but max_ratio is 1.5; lower the first",
        ),
    ],
)
def test_the_least_is_at_most_the_most(kind, settings, message):
    with pytest.raises(ConfigError, match=message):
        kind.checked(**settings)
    least, low = next(iter(settings.items()))
    assert getattr(kind.checked(**{least: low}), least) == low


@pytest.mark.parametrize(
    ("kind", "settings"), [(GenerationSettings, {"stop": ("a", "\ud800")}), (SearchSettings, {"prefix": "\ud800"})]
)
def test_half_of_a_surrogate_pair_is_no_text(kind, settings):
    with pytest.raises(ConfigError, match=r"is '\\ud800', which has half of a surrogate pair; give valid Unicode"):
        kind.checked(**settings)
