import pytest

from nlp_rnn.decoding.settings import GenerationSettings, SearchSettings
from nlp_rnn.errors import ConfigError


@pytest.mark.parametrize(
    ("kind", "settings"), [(GenerationSettings, {"stop": ("a", "\ud800")}), (SearchSettings, {"prefix": "\ud800"})]
)
def test_half_of_a_surrogate_pair_is_no_text(kind, settings):
    with pytest.raises(ConfigError, match=r"is '\\ud800', which has half of a surrogate pair; give valid Unicode"):
        kind.checked(**settings)
