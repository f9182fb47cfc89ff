"""The values of settings that a request to an exported model may leave out."""

from dataclasses import asdict
from typing import Any

from nlp_rnn.config.tables import Answers
from nlp_rnn.decoding.settings import GenerationSettings, SearchSettings
from nlp_rnn.export.next_word import NUM_WORDS


def signature_defaults(answers: Answers, signature: str) -> dict[str, Any]:
    """The default of each setting among a signature's inputs, for one row.

    They equal those of Python and the command line. Inputs that are not named must be given.

    Args:
      answers: of the model's task; see `TASKS`.
    """
    table: dict[tuple[str, str], dict[str, Any]] = {
        ("words", "suggest"): {"count": NUM_WORDS, "allow_profanity": False},
        ("characters", "generate"): asdict(GenerationSettings()),
        ("characters", "extend"): asdict(GenerationSettings()),
        ("translations", "translate"): asdict(SearchSettings()),
        ("translations", "explain"): {"translation": ""},
    }
    return table.get((answers, signature), {})
