"""Claim: a keyboard that learns the user's own words saves keystrokes, most of all the names of a text.

Somebody types a text through the console's session, without its window: at each letter the three best suggestions are
looked at; the right one is taken with one key, which also types the space after it. All else costs a key per character.
Punctuation is typed, and takes the place of a space that a suggestion brought. WikiText's spaces around signs and its
`@-@` are undone, and sentences with `<unk>` are left out, since nobody types them.

    python -m benchmarks.typing_words --model saved_models/next_word_litert [--file valid.txt] [--words 20000]
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import regex

from nlp_rnn.ondevice.litert_model import OnDeviceModel
from nlp_rnn.ondevice.typing_session import TypingSession

_COUNT = 3
_PARTS = regex.compile(r"\p{L}[\p{L}\p{M}'’]*|\s+|.")


def main() -> None:
    """Types the file plain, and with what the console learns; prints the savings and the time of a key."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--words", type=int, default=20_000, help="of the file that are typed")
    options = parser.parse_args()
    model = OnDeviceModel(options.model)
    lines = list(_lines(options.file, options.words))
    print(f"{len(lines)} lines, {sum(map(len, lines)):,} characters")
    for name, adapts, words in (("plain", False, False), ("cache", True, False), ("cache and own words", True, True)):
        session = TypingSession(model, count=_COUNT, adapts=adapts)
        if not words:
            session.words.learn = lambda _: None  # type: ignore[assignment,method-assign]
        keys, times = 0, list[float]()
        for line in lines:
            keys += _type(session, line, times)
            session.finish_line(line)
        characters = sum(map(len, lines))
        median, p99 = 1000 * statistics.median(times), 1000 * sorted(times)[int(0.99 * len(times))]
        print(
            f"{name}: {100 * (1 - keys / characters):.2f} % of the keys saved; {len(session.words)} own words; "
            f"a key {median:.2f} ms, p99 {p99:.2f} ms",
            flush=True,
        )


def _lines(path: Path, words: int) -> Iterator[str]:
    """Lines of running text, as somebody would type them."""
    for raw in path.read_text(encoding="utf-8").splitlines():
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


def _type(session: TypingSession, line: str, times: list[float]) -> int:
    """The number of keys for a line."""
    keys, place = 0, 0
    parts = _PARTS.findall(line)
    number = 0
    while number < len(parts):
        part = parts[number]
        if not part[0].isalpha():
            keys, place, number = keys + len(part), place + len(part), number + 1
            continue
        for typed in range(len(part)):
            start = time.perf_counter()
            found = session.suggest(line[: place + typed])
            times.append(time.perf_counter() - start)
            if any(each.word.lower() == part.lower() for each in found):
                keys += 1
                place += len(part)
                if number + 1 < len(parts) and parts[number + 1] == " ":
                    number, place = number + 1, place + 1
                break
            keys += 1
        else:
            place += len(part)
        number += 1
    return keys


if __name__ == "__main__":
    main()
