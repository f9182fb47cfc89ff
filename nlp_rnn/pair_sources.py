"""Pairs of a sentence and its translation: the sources that only the task translation reads.

As in `sources`, a source is a function of the data settings that returns its splits. An example's text is the source
sentence, its label the target sentence.
"""

import datetime
import functools
import gzip
import logging
import os
import random
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nlp_rnn.config import ConfigError, DataConfig
from nlp_rnn.files import read_lines
from nlp_rnn.sources import SPLIT_NAMES, Example, Splits, require_package, tfds_rows

logger = logging.getLogger(__name__)

_TATOEBA = {"es": "spa", "fr": "fra", "de": "deu"}
_TED = (
    ("az", "en"), ("az_tr", "en"), ("be", "en"), ("be_ru", "en"), ("es", "pt"), ("fr", "pt"), ("gl", "en"), ("gl_pt", "en"), ("he", "pt"),
    ("it", "pt"), ("pt", "en"), ("ru", "en"), ("ru", "pt"), ("tr", "en"),
)  # fmt: skip
_XML_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


def _load_multi30k(data: DataConfig) -> Splits:
    """Multi30k, task 1 (Elliott et al. 2016, 2017): captions in en, de and fr; splits train, val and test_2016_flickr."""
    folder = _prepared("multi30k", data)
    _require_languages(data, ("en", "de", "fr"))
    names = {"train": "train", "validation": "val", "test": "test_2016_flickr"}
    return {split: functools.partial(_aligned_lines, *_sides(folder / name, data), f"multi30k, {name}") for split, name in names.items()}


def _load_tatoeba(data: DataConfig) -> Splits:
    """Pairs of the Tatoeba project as manythings.org/anki gives them, en to or from es, fr or de. One split: data.split=hash keeps all
    translations of a sentence together."""
    folder = _prepared("tatoeba", data)
    other = data.target_language if data.source_language == "en" else data.source_language
    if "en" not in (data.source_language, data.target_language) or other not in _TATOEBA:
        raise ConfigError(
            f"data.source is tatoeba, but data.source_language is {data.source_language} and data.target_language {data.target_language}; "
            f"give en and one of {', '.join(_TATOEBA)}"
        )
    path = folder / f"{_TATOEBA[other]}.txt"
    return {"train": lambda: _tatoeba_pairs(path, is_from_english=data.source_language == "en")}


def _tatoeba_pairs(path: Path, *, is_from_english: bool) -> Iterator[Example]:
    for number, line in read_lines(path):
        columns = line.split("\t")
        if len(columns) < 2:
            raise ConfigError(f"{path}: line {number} has no tab; a line is English, a tab and the other language")
        yield Example(columns[0], columns[1]) if is_from_english else Example(columns[1], columns[0])


def _load_ted_hrlr(data: DataConfig) -> Splits:
    """TED talks (Qi et al. 2018) through TFDS; see _TED for the pairs, in either direction."""
    languages = (data.source_language, data.target_language)
    found = next((pair for pair in _TED if set(pair) == set(languages)), None)
    if found is None:
        known = ", ".join(" and ".join(pair) for pair in _TED)
        raise ConfigError(f"data.source is ted_hrlr, which does not have {' and '.join(languages)}; give one of the pairs {known}")
    rows = tfds_rows(data, f"ted_hrlr_translate/{found[0].replace('_', '')}_to_{found[1]}", "data.source=cldr")

    def stream(split: str) -> Callable[[], Iterator[Example]]:
        return lambda: (Example(*(row[column].decode("utf-8") for column in languages)) for row in rows(split))

    return {split: stream(split) for split in SPLIT_NAMES}


def _load_aligned(data: DataConfig) -> Splits:
    """Two files whose lines belong together: data.train=corpus/train reads corpus/train.en and corpus/train.de."""
    splits: Splits = {}
    for name in SPLIT_NAMES:
        setting = getattr(data, name)
        if setting:
            paths = _sides(Path(setting), data)
            for path in paths:
                if not path.is_file():
                    raise ConfigError(
                        f"data.{name} is {setting}, but there is no file {path}; give what stands before "
                        f".{data.source_language} and .{data.target_language}, or change data.source_language and data.target_language"
                    )
            splits[name] = functools.partial(_aligned_lines, *paths, f"data.{name} is {setting}")
    return splits


def _sides(prefix: Path, data: DataConfig) -> tuple[Path, Path]:
    return tuple(prefix.with_name(f"{prefix.name}.{tag}") for tag in (data.source_language, data.target_language))  # type: ignore[return-value]


def _aligned_lines(source: Path, target: Path, what: str) -> Iterator[Example]:
    """Pairs of lines; the line numbers of both files must agree to the end."""
    left, right = read_lines(source), read_lines(target)
    end = object()
    count = 0
    while True:
        first, second = next(left, end), next(right, end)
        if first is end and second is end:
            return
        if first is end or second is end:
            longer, shorter = (target, source) if first is end else (source, target)
            more = 1 + sum(1 for _ in (right if first is end else left))
            raise ConfigError(
                f"{what}: {longer} has {count + more:,} lines, {more:,} more than {shorter}; "
                "lines with the same number must belong together"
            )
        count += 1
        yield Example(first[1], second[1])  # type: ignore[index]


def _load_tmx(data: DataConfig) -> Splits:
    """Translation memories (TMX 1.4): of each unit the segments of the two languages; en also finds en-GB."""
    splits: Splits = {}
    for name in SPLIT_NAMES:
        setting = getattr(data, name)
        if setting:
            if not Path(setting).is_file():
                raise ConfigError(f"data.{name} is {setting}, but there is no such file; give the path of a TMX file")
            splits[name] = functools.partial(_tmx_units, Path(setting), data)
    return splits


def _tmx_units(path: Path, data: DataConfig) -> Iterator[Example]:
    languages: set[str] = set()
    found = 0
    try:
        for unit in _elements(path, "tu"):
            segments: dict[str, str] = {}
            for variant in unit.iterfind("{*}tuv"):
                tag = (variant.get(_XML_LANGUAGE) or variant.get("lang") or "").lower()
                languages.add(tag)
                segment = variant.find("{*}seg")
                text = "" if segment is None else " ".join(_text(segment).split())
                segments.setdefault(tag, text)
                segments.setdefault(tag.split("-")[0], text)
            pair = [segments.get(tag.lower()) for tag in (data.source_language, data.target_language)]
            if pair[0] is not None and pair[1] is not None:
                found += 1
                yield Example(pair[0], pair[1])
    except (ElementTree.ParseError, gzip.BadGzipFile, EOFError) as error:
        raise ConfigError(f"{path}: not readable as TMX ({error}); mend the file or export it again") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    if not found:
        shown = ", ".join(sorted(languages)) or "none"
        raise ConfigError(
            f"{path}: no unit has both {data.source_language} and {data.target_language} (its languages: {shown}); "
            "change data.source_language and data.target_language"
        )


def _elements(path: Path, name: str) -> Iterator[ElementTree.Element]:
    """The elements of a name, in any namespace; memory stays constant."""
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        # Expat refuses entities that grow, and loads nothing.
        events = ElementTree.iterparse(file, events=("start", "end"))  # noqa: S314
        _, root = next(events)
        for event, element in events:
            if event == "end" and element.tag.rpartition("}")[2] == name:
                yield element
                root.clear()


def _text(element: ElementTree.Element) -> str:
    """An element's text without the codes of other programs, which stand in elements of their own; <hi> holds text."""
    inner = "".join((_text(child) if child.tag.rpartition("}")[2] == "hi" else "") + (child.tail or "") for child in element)
    return (element.text or "") + inner


def _prepared(name: str, data: DataConfig) -> Path:
    setting = data.dir or os.environ.get("NLP_RNN_DATA", "")
    folder = Path(setting) / name
    if not setting or not folder.is_dir():
        raise ConfigError(
            f"data.source is {name}, but there is no folder {folder}; set data.dir, or NLP_RNN_DATA, to the folder that holds {name}, "
            "or use data.source=cldr, which needs no files"
        )
    return folder


def _require_languages(data: DataConfig, allowed: tuple[str, ...]) -> None:
    for key in ("source_language", "target_language"):
        if getattr(data, key) not in allowed:
            raise ConfigError(
                f"data.{key} is {getattr(data, key)}, but data.source {data.source} has {', '.join(allowed)}; give one of them"
            )


# --- CLDR ----------------------------------------------------------------------------------------------------------


def _load_cldr(data: DataConfig) -> Splits:
    """Dates, times, numbers in words, quantities and money, written in two languages as the Unicode CLDR and num2words say.

    data.num_pairs of them, drawn with a fixed seed: real text in any two of CLDR's languages, without a download.
    """
    for package in ("babel", "num2words"):
        require_package(package, "translation", "data.source is cldr")
    import babel

    for key in ("source_language", "target_language"):
        try:
            babel.Locale.parse(getattr(data, key), sep="-")
        except (ValueError, babel.UnknownLocaleError):
            raise ConfigError(
                f"data.{key} is {getattr(data, key)!r}, which CLDR does not know; give a BCP 47 tag such as en, fr or pt-BR"
            ) from None
    return {"train": lambda: _cldr_pairs(data)}


def _cldr_pairs(data: DataConfig) -> Iterator[Example]:
    import babel

    locales = [babel.Locale.parse(tag, sep="-") for tag in (data.source_language, data.target_language)]
    kinds = [_date, _time, _quantity, _money, *([_number_words] if all(map(_has_number_words, locales)) else [])]
    generator, seen = random.Random(0), set[str]()  # noqa: S311 - data, no secrets
    for _ in range(20 * data.num_pairs):
        write = generator.choice(kinds)(generator)
        source, target = (" ".join(write(locale).split()) for locale in locales)  # no-break spaces become plain ones
        if source not in seen:
            seen.add(source)
            yield Example(source, target)
        if len(seen) == data.num_pairs:
            return


Writer = Callable[[Any], str]  # of a babel.Locale


def _date(generator: random.Random) -> Writer:
    from babel import dates

    day = datetime.date(1950, 1, 1) + datetime.timedelta(days=generator.randrange(36525))
    length = generator.choice(("full", "long"))
    return lambda locale: dates.format_date(day, length, locale=locale)


def _time(generator: random.Random) -> Writer:
    from babel import dates

    moment = datetime.time(generator.randrange(24), generator.randrange(60))
    return lambda locale: dates.format_time(moment, "short", locale=locale)


def _quantity(generator: random.Random) -> Writer:
    from babel import units

    unit = generator.choice(
        ("length-kilometer", "length-meter", "mass-kilogram", "volume-liter", "duration-hour", "duration-minute", "duration-day",
         "speed-kilometer-per-hour", "temperature-celsius", "digital-megabyte", "area-square-meter", "duration-week")
    )  # fmt: skip
    value = generator.choice((generator.randrange(1, 100), generator.randrange(1000) / 10, generator.randrange(1000, 100000)))
    return lambda locale: units.format_unit(value, unit, "long", locale=locale)


def _money(generator: random.Random) -> Writer:
    from babel import numbers

    currency = generator.choice(("EUR", "USD", "GBP", "JPY", "CHF", "SEK", "INR"))
    value = generator.randrange(100, 1000000) / 100
    return lambda locale: numbers.format_currency(value, currency, format_type="name", locale=locale)


def _number_words(generator: random.Random) -> Writer:
    from num2words import num2words

    value = generator.randrange(10 ** generator.randrange(2, 6))
    return lambda locale: num2words(value, lang=locale.language)


def _has_number_words(locale: Any) -> bool:
    from num2words import CONVERTER_CLASSES

    return locale.language in CONVERTER_CLASSES


def why_unfit(pair: Example, length_ratio: float) -> str:
    """Why a pair is left out of training; "" where it is not."""
    lengths = sorted((len(pair.text.strip()), len(pair.label.strip())))
    if not lengths[0]:
        return "with an empty side"
    return "of too different lengths" if lengths[1] > length_ratio * lengths[0] + 10 else ""


PAIR_SOURCES: dict[str, Callable[[DataConfig], Splits]] = {
    "multi30k": _load_multi30k,
    "tatoeba": _load_tatoeba,
    "ted_hrlr": _load_ted_hrlr,
    "cldr": _load_cldr,
    "aligned": _load_aligned,
    "tmx": _load_tmx,
}
