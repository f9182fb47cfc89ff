"""Claim: a keyboard that learns the user's own words saves keystrokes, most of all the names of a text.

Somebody types a text through the console's session, without its window: at each letter the three best suggestions are
looked at; the right one is taken with one key, which also types the space after it. All else costs a key per character.
Punctuation is typed, and takes the place of a space that a suggestion brought. WikiText's spaces around signs and its
`@-@` are undone, and sentences with `<unk>` are left out, since nobody types them.

With --typos RATE, so many of the letters are mistyped, at most one in a word: 28 % each are wrong (a neighbouring key),
left out or exchanged with the next one, 15 % doubled (the kinds and shares of MULTYPO, PyPI, version 0.1.1); 2.3 % is
the rate that Palin et al. 2019 found on phones. A mistake is seen at the end of the word, and corrected with the
backspace key unless a suggestion does it. Savings are shares of the keys that the same mistakes cost without
suggestions.

FILE holds one text per line, before the first tab if there is one; or it is the config of a training (.yaml), whose
test split is typed. With --draw N, so many different lines of 4 to 25 words are drawn from it with seed 1.

With --presage, the same text is typed with Presage (Debian's presage; its own English n-grams and recency); with
--ngram FILE, with a Kneser-Ney model of 5-grams of that text, or of the training split of that config.

    python -m benchmarks.typing_words --model saved_models/next_word_litert --file valid.txt [--words 20000]
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import regex

from benchmarks.kneser_ney_rival import NGramKeyboard
from benchmarks.presage_rival import Presage
from nlp_rnn.config.loading import load_config
from nlp_rnn.data.corpus import load_corpus
from nlp_rnn.ondevice.litert_model import OnDeviceModel
from nlp_rnn.ondevice.typing_session import TypingSession
from nlp_rnn.ondevice.typos import neighbours

_COUNT = 3
_FEWEST_WORDS, _MOST_WORDS = 4, 25  # of a line that is drawn
_PARTS = regex.compile(r"\p{L}[\p{L}\p{M}'’]*|\s+|.")
_NEAR = neighbours("qwerty")
_KINDS, _SHARES = ("wrong", "left out", "exchanged", "doubled"), (28, 28, 28, 15)

Suggest = Callable[[str], list[str]]  # the text before the cursor -> words


class Typed(NamedTuple):
    """What a text cost.

    Attributes:
      keys: with suggestions.
      keys_without: with the same mistakes, and no suggestions.
    """

    keys: int
    keys_without: int


def main() -> None:
    """Types the file plain, and with what the console learns; prints the savings and the time of a key."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--draw", type=int, metavar="N", help="types N lines of it, drawn at random")
    parser.add_argument("--words", type=int, default=20_000, help="typed at most (default: %(default)s)")
    parser.add_argument("--typos", type=float, default=0.0, metavar="RATE", help="share of letters that are mistyped")
    parser.add_argument("--presage", action="store_true", help="type it with Presage too")
    parser.add_argument("--ngram", type=Path, metavar="FILE", help="type it with an n-gram model of this text too")
    options = parser.parse_args()
    texts = texts_of(options.file, "test")
    lines = list(_lines(drawn(texts, options.draw) if options.draw else texts, options.words))
    if not lines:
        parser.error(f"--file {options.file} has no line to type, or its data no test split")
    model = OnDeviceModel(options.model)
    print(f"{len(lines)} lines, {sum(map(len, lines)):,} characters; mistyped letters: {options.typos:.1%}")
    for name, adapts, learns_words, corrects in (
        ("plain", False, False, False),
        ("cache", True, False, False),
        ("cache and own words", True, True, False),
        ("plain, corrections", False, False, True),
        ("cache, own words, corrections", True, True, True),
    ):
        session = TypingSession(model, count=_COUNT, adapts=adapts, corrects=corrects)
        if not learns_words:
            session.words.learn = _learn_nothing  # type: ignore[method-assign]
        _report(name, lines, _words_of(session), session.finish_line, options.typos)
        if learns_words:
            print(f"  {len(session.words)} own words: {', '.join(word for word, _ in session.words.words()[:12])} ...")
    if options.ngram:
        keyboard = NGramKeyboard(model, texts_of(options.ngram, "train"), count=_COUNT)
        _report("Kneser-Ney", lines, keyboard.suggest, keyboard.finish_line, options.typos)
    if options.presage:
        with Presage(_COUNT) as presage:
            _report("Presage", lines, presage.suggest, presage.finish_line, options.typos)


def _learn_nothing(text: str, insisted: object = ()) -> None:
    pass


def _words_of(session: TypingSession) -> Suggest:
    return lambda text: [each.word for each in session.suggest(text)]


def _report(name: str, lines: list[str], suggest: Suggest, finish: Callable[[str], None], rate: float) -> None:
    generator, times = random.Random(1), list[float]()
    keys = without = 0
    for line in lines:
        typed = _type(suggest, line, rate, generator, times)
        keys, without = keys + typed.keys, without + typed.keys_without
        finish(line)
    median, p99 = 1000 * statistics.median(times), 1000 * sorted(times)[int(0.99 * len(times))]
    print(
        f"{name}: {100 * (1 - keys / without):.2f} % of the keys saved; a key {median:.2f} ms, p99 {p99:.2f} ms",
        flush=True,
    )


def texts_of(path: Path, split: str) -> Iterator[str]:
    """The texts of a file, one per line; or of a config's data, those of a split."""
    if path.suffix == ".yaml":
        config = load_config(path)
        corpus = load_corpus(config.data, config.seed)
        return (" ".join(example.text.replace("<br />", " ").split()) for example in corpus.examples(split))
    return (line.split("\t")[0] for line in path.read_text(encoding="utf-8").splitlines())


def drawn(texts: Iterable[str], count: int) -> list[str]:
    """Some of the different texts of 4 to 25 words, drawn with seed 1."""
    fitting = [text for text in dict.fromkeys(texts) if _FEWEST_WORDS <= len(text.split()) <= _MOST_WORDS]
    return random.Random(1).sample(fitting, min(count, len(fitting)))


def _lines(texts: Iterable[str], words: int) -> Iterator[str]:
    """Lines of running text, as somebody would type them."""
    for raw in texts:
        if words <= 0:
            return
        text = " ".join(part for part in regex.split(r"(?<= \.) ", raw.strip()) if "<unk>" not in part)
        if not text or text.startswith("="):
            continue
        text = regex.sub(r" @(.)@ ", r"\1", text)
        text = regex.sub(r" ([.,;:!?)\]'%])", r"\1", regex.sub(r"([(\[$]) ", r"\1", text))
        text = regex.sub(r'" ([^"]*) "', r'"\1"', text)
        words -= len(text.split())
        yield text


def _type(suggest: Suggest, line: str, rate: float, generator: random.Random, times: list[float]) -> Typed:
    keys = without = place = number = 0
    parts = _PARTS.findall(line)
    while number < len(parts):
        part, before = parts[number], line[:place]
        number, place = number + 1, place + len(part)
        if not part[0].isalpha():
            keys, without = keys + len(part), without + len(part)
            continue
        letters = _mistyped(part, rate, generator)
        mend = keys_to_mend(letters, part)
        without += len(letters) + mend
        for typed in range(len(letters)):
            start = time.perf_counter()
            words = suggest(before + letters[:typed])
            times.append(time.perf_counter() - start)
            if any(word.lower() == part.lower() for word in words):
                keys += 1
                if number < len(parts) and parts[number] == " ":
                    number, place, without = number + 1, place + 1, without + 1
                break
            keys += 1
        else:
            keys += mend
    return Typed(keys, without)


def keys_to_mend(typed: str, word: str) -> int:
    """Backspaces to the first wrong letter, and the letters from there on again."""
    shorter = min(len(typed), len(word))
    same = next((place for place in range(shorter) if typed[place] != word[place]), shorter)
    return len(typed) + len(word) - 2 * same


def _mistyped(word: str, rate: float, generator: random.Random) -> str:
    """The letters that are typed for a word; at most one mistake."""
    for place, letter in enumerate(word):
        if generator.random() >= rate:
            continue
        kind = generator.choices(_KINDS, _SHARES)[0]
        before, behind = word[:place], word[place + 1 :]
        if kind == "wrong":
            return before + generator.choice(_NEAR.get(letter.lower(), letter)) + behind
        if kind == "left out":
            return before + behind
        if kind == "doubled":
            return before + letter + letter + behind
        return before + behind[:1] + letter + behind[1:]
    return word


if __name__ == "__main__":
    main()
