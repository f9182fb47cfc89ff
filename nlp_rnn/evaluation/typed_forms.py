"""What somebody types for the tokens of a text: without the spaces that tokenizing put around signs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import regex

from nlp_rnn.word_kinds import CONTRACTION, UNSEPARATED, is_word

_CLOSING = regex.compile(
    r"[.,!?;:%)\]}…،؛؟।。、，！？]|''"
)  # no space before these, or before the end of a contraction
_OPENING = regex.compile(r"[(\[{$#£€¿¡]|``")  # none behind
_QUOTE = '"'  # in turn
_MARKED = regex.compile(r"@(.)@")  # WikiText's signs within words and numbers: state @-@ of @-@ the @-@ art
_JOINING = regex.compile(r"[-/]")  # within words that the unicode splitter has cut


class TypedForms(NamedTuple):
    """How each token of a vocabulary is typed.

    Attributes:
      lengths: int [vocabulary], characters.
      is_sign: bool [vocabulary], True for what is typed and not a word: punctuation, ends of contractions.
      joins_left, joins_right: bool [vocabulary], whether there is no space before or behind it.
      is_quote: bool [vocabulary], True for quotation marks that open and close in turn.
    """

    lengths: np.ndarray
    is_sign: np.ndarray
    joins_left: np.ndarray
    joins_right: np.ndarray
    is_quote: np.ndarray


def typed_forms(words: Sequence[str], splitter: str) -> TypedForms:
    """Finds how the tokens of a vocabulary are typed.

    Args:
      words: the text of each id; "" or U+FFFD for what has none.
      splitter: the tokenizer's.
    """
    texts = [_MARKED.sub(r"\1", word) if _MARKED.fullmatch(word) else word for word in words]
    within = [
        bool(
            _MARKED.fullmatch(word)
            or UNSEPARATED.fullmatch(word)
            or (splitter == "unicode" and _JOINING.fullmatch(word))
        )
        for word in words
    ]
    left = [
        each or bool(_CLOSING.fullmatch(word) or CONTRACTION.fullmatch(word))
        for word, each in zip(words, within, strict=True)
    ]
    right = [each or bool(_OPENING.fullmatch(word)) for word, each in zip(words, within, strict=True)]
    return TypedForms(
        lengths=np.array([1 if word in ("``", "''") else len(word) for word in texts]),
        is_sign=np.array([bool(word) and "\ufffd" not in word and not is_word(word) for word in words]),
        joins_left=np.array(left),
        joins_right=np.array(right),
        is_quote=np.array([word == _QUOTE for word in words]),
    )
