"""What somebody may have meant who has typed the beginning of a word with one mistake.

A noisy channel (Kernighan, Church & Gale 1990): the probability of a mistake times that of the word, which the language
model gives. A mistake is a neighbouring key or another wrong letter, a letter too few or too many, or two letters
exchanged. Without TensorFlow, for the console.
"""

import math
from collections import Counter
from collections.abc import Iterable

# The rows of keys; a key's neighbours are beside it, and above and below, where rows are shifted by half a key.
LAYOUTS = {
    "qwerty": ("qwertyuiop", "asdfghjkl", "zxcvbnm"),
    "azerty": ("azertyuiop", "qsdfghjklm", "wxcvbn"),
    "qwertz": ("qwertzuiopü", "asdfghjklöä", "yxcvbnm"),
}
MIN_LETTERS = 3  # of a beginning, before a mistake is looked for
_MAX_LETTERS = 20
_ALPHABET = 60  # most frequent letters of the vocabulary, which may have been left out or mistyped

# Probabilities of one certain mistake at one certain place. About 2.3 % of letters are wrong in what people type on
# phones (Palin et al. 2019, without those that they corrected); most wrong letters are neighbours of the right one.
_MISTAKES = {
    "neighbour": math.log(0.012 / 4),
    "letter": math.log(0.002 / 25),
    "too few": math.log(0.004),
    "doubled": math.log(0.003),
    "too many": math.log(0.001 / 25),
    "exchanged": math.log(0.003),
}


def neighbours(layout: str) -> dict[str, str]:
    """The keys around each key of a layout."""
    rows = LAYOUTS[layout]
    around: dict[str, set[str]] = {}
    for number, row in enumerate(rows):
        for place, key in enumerate(row):
            near = {row[other] for other in (place - 1, place + 1) if 0 <= other < len(row)}
            for other, shifts in ((number - 1, (0, 1)), (number + 1, (-1, 0))):
                if 0 <= other < len(rows):
                    near |= {rows[other][place + shift] for shift in shifts if 0 <= place + shift < len(rows[other])}
            around[key] = near
    return {key: "".join(sorted(near)) for key, near in around.items()}


class TypoModel:
    """The mistakes that people make on a keyboard.

    Args:
      words: the vocabulary, whose letters are those of the language.
      layout: of the keyboard, of LAYOUTS; letters that it lacks have no neighbours.
    """

    def __init__(self, words: Iterable[str], layout: str = "qwerty") -> None:
        counts = Counter(letter for word in words for letter in word if not letter.isascii() or letter.isalpha())
        self._alphabet = [letter for letter, _ in counts.most_common(_ALPHABET)]
        self._near = neighbours(layout)

    def meant(self, typed: str) -> dict[str, float]:
        """The beginnings that somebody may have meant, each with the log-probability of the mistake.

        Args:
          typed: the beginning of a word, with the letter case of the vocabulary. It is not among the results.
        """
        costs: dict[str, float] = {}
        if not MIN_LETTERS <= len(typed) <= _MAX_LETTERS:
            return costs

        def add(text: str, kind: str) -> None:
            if text != typed and _MISTAKES[kind] > costs.get(text, -math.inf):
                costs[text] = _MISTAKES[kind]

        for place, letter in enumerate(typed):
            before, behind = typed[:place], typed[place + 1 :]
            near = self._near.get(letter, "")
            for other in self._alphabet:
                add(before + other + behind, "neighbour" if other in near else "letter")
                add(before + other + letter + behind, "too few")
            is_doubled = place > 0 and (typed[place - 1] == letter or typed[place - 1] in near)
            add(before + behind, "doubled" if is_doubled else "too many")
            if behind:
                add(before + behind[0] + letter + behind[1:], "exchanged")
        return costs
