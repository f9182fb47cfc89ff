"""Generates pairs with the Unicode CLDR and num2words: dates, times, quantities, money, numbers in words."""

import datetime
import random
from collections.abc import Callable, Iterator
from typing import Any

from nlp_rnn import extras
from nlp_rnn.config.settings import DataConfig
from nlp_rnn.data.readers import Example, Splits
from nlp_rnn.errors import ConfigError


def load_cldr(data: DataConfig) -> Splits:
    """Generates data.num_pairs pairs in two languages of the Unicode CLDR, without a download.

    The pairs are dates, times, quantities, money and, in languages of num2words, numbers in words. The seed is fixed.

    Raises:
      ConfigError: if the CLDR does not have a language, or a package is not installed.
    """
    for package in ("babel", "num2words"):
        extras.require("translation", "data.source is cldr", package)
    import babel

    for key in ("source_language", "target_language"):
        try:
            babel.Locale.parse(getattr(data, key), sep="-")
        except (ValueError, babel.UnknownLocaleError):
            raise ConfigError(
                f"data.{key} is {getattr(data, key)!r}, which is not in CLDR; give a BCP 47 tag such as en, fr or pt-BR"
            ) from None
    return {"train": lambda: _cldr_pairs(data)}


def _cldr_pairs(data: DataConfig) -> Iterator[Example]:
    import babel

    locales = [babel.Locale.parse(tag, sep="-") for tag in (data.source_language, data.target_language)]
    kinds = [_date, _time, _quantity, _money, *([_number_words] if all(map(_has_number_words, locales)) else [])]
    generator, seen = random.Random(0), set[str]()  # noqa: S311 - data, no secrets
    for _ in range(20 * data.num_pairs):
        write = generator.choice(kinds)(generator)
        source, target = (" ".join(write(locale).split()) for locale in locales)  # no-break spaces become spaces
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
        ("length-kilometer", "length-meter", "mass-kilogram", "volume-liter", "duration-hour", "duration-minute",
         "duration-day", "speed-kilometer-per-hour", "temperature-celsius", "digital-megabyte",
         "area-square-meter", "duration-week")
    )  # fmt: skip
    value = generator.choice(
        (generator.randrange(1, 100), generator.randrange(1000) / 10, generator.randrange(1000, 100000))
    )
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
