"""Which ids are words that a keyboard may suggest."""

import numpy as np

from nlp_rnn.errors import ConfigError
from nlp_rnn.special_ids import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from nlp_rnn.tokenization.tokenizer import UNKNOWN_TEXT, Tokenizer
from nlp_rnn.word_kinds import is_word

# English words that are not suggested by default. Users who type them are not corrected.
_PROFANE_STEMS = (
    "arsehole", "asshole", "bastard", "bitch", "blowjob", "bollock", "bullshit", "cock", "cocksuck", "cunt", "dick",
    "dickhead", "dildo",
    "dumbass", "fag", "faggot", "fuck", "goddamn", "horseshit", "jackass", "jerkoff", "kike", "motherfuck",
    "nigga", "nigger", "piss",
    "prick", "pussy", "shit", "slut", "tits", "tranny", "twat", "wank", "whore",
)  # fmt: skip
_ENDINGS = ("", "s", "ted", "ting", "ty", "es", "ed", "er", "ers", "in", "ing", "y", "face", "head", "hole")
_WITHOUT_ENDINGS = ("spic", "spics")
_ORDINARY = ("cocked", "cocker", "cockers", "cocking", "cocky", "dicker", "dickers", "pricked", "pricking")
PROFANE_WORDS = tuple(
    word
    for word in (*(stem + ending for stem in _PROFANE_STEMS for ending in _ENDINGS), *_WITHOUT_ENDINGS)
    if word not in _ORDINARY
)


class Vocabulary:
    """The words of a tokenizer of level word.

    Attributes:
      words: the text of each id.
      is_symbol: bool [vocabulary], True for symbols that nobody types, such as the end of a text.
      is_suggestible: bool [vocabulary], True for known words and emoji, not for punctuation.
      is_profane: bool [vocabulary], True for words that are suggested only if allow_profanity is set.

    Raises:
      ConfigError: if the tokenizer is of another level.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        if tokenizer.level != "word":
            raise ConfigError(
                f"tokenizer.level is {tokenizer.level}, but keyboard metrics need words; use tokenizer.level=word"
            )
        self.words = tokenizer.texts()
        ids = np.arange(len(self.words))
        self.is_symbol = np.isin(ids, (PAD_ID, BOS_ID, EOS_ID)) | np.array(
            [word in tokenizer.reserved for word in self.words]
        )
        is_known = np.array([bool(word) and UNKNOWN_TEXT not in word for word in self.words])
        is_typed = np.array([is_word(word) for word in self.words])
        self.is_suggestible = is_known & is_typed & ~self.is_symbol & (ids != UNK_ID)
        profane = set(PROFANE_WORDS)
        self.is_profane = np.array([word.lower() in profane for word in self.words])
