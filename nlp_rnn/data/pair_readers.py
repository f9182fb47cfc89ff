"""Readers of the user's files of pairs. An example's text is the source sentence; its label is the target sentence."""

import functools
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from nlp_rnn.config.settings import DataConfig
from nlp_rnn.data.readers import SPLIT_NAMES, Example, Splits, existing_path, tell_once
from nlp_rnn.errors import ConfigError
from nlp_rnn.text_files import opened_bytes, read_lines

_XML_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


def load_aligned(data: DataConfig) -> Splits:
    """Two files with parallel lines: data.train=corpus/train reads corpus/train.en and corpus/train.de."""
    splits: Splits = {}
    for name in SPLIT_NAMES:
        setting = getattr(data, name)
        if setting:
            paths = sides(Path(setting), data)
            for path in paths:
                if not path.is_file():
                    raise ConfigError(
                        f"data.{name} is {setting}, but there is no file {path}; give the path without the endings "
                        f".{data.source_language} and .{data.target_language}, or change data.source_language and "
                        "data.target_language"
                    )
            splits[name] = functools.partial(aligned_lines, *paths, f"data.{name} is {setting}", data.encoding)
    return splits


def sides(prefix: Path, data: DataConfig) -> tuple[Path, Path]:
    """The paths of the source and the target file, which end with the languages' tags.

    Raises:
      ConfigError: if the prefix has no name, such as ".".
    """
    if not prefix.name:
        raise ConfigError(
            f"the path of aligned files is {prefix}, which names no file; give their path without the endings "
            f".{data.source_language} and .{data.target_language}"
        )
    source, target = (prefix.with_name(f"{prefix.name}.{tag}") for tag in (data.source_language, data.target_language))
    return source, target


def aligned_lines(source: Path, target: Path, what: str, encoding: str | None = None) -> Iterator[Example]:
    """Yields the pairs of lines with the same number.

    Args:
      source, target: the two files.
      what: the setting and its value, for the message.
      encoding: the setting data.encoding; None: UTF-8.

    Raises:
      ConfigError: if the files have different numbers of lines.
    """
    left, right = read_lines(source, encoding), read_lines(target, encoding)
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


def load_tmx(data: DataConfig) -> Splits:
    """Translation memories (TMX 1.4): the segments of both languages of each unit. en also reads en-GB, en_US etc."""
    splits: Splits = {}
    for name in SPLIT_NAMES:
        setting = getattr(data, name)
        if setting:
            path = existing_path(f"data.{name}", setting)
            if path.is_dir():
                raise ConfigError(f"data.{name} is {setting}, a folder, but data.source tmx reads a file")
            splits[name] = functools.partial(_tmx_pairs, path, data)
    return splits


def _tmx_pairs(path: Path, data: DataConfig) -> Iterator[Example]:
    languages: set[str] = set()
    pairs = without_segment = 0
    for unit in _elements(path, "tu"):
        segments: dict[str, str] = {}
        for variant in unit.iterfind("{*}tuv"):
            tag = _tag(variant.get(_XML_LANGUAGE) or variant.get("lang") or "")
            languages.add(tag)
            segment = variant.find("{*}seg")
            if segment is None:
                without_segment += 1
            else:
                segments.setdefault(tag, " ".join(_visible_text(segment).split()))
        pair = [_segment_of(segments, _tag(language)) for language in (data.source_language, data.target_language)]
        if pair[0] is not None and pair[1] is not None:
            pairs += 1
            yield Example(pair[0], pair[1])
    if without_segment:
        tell_once(f"{path}: {without_segment} variants have no <seg> and are left out")
    if not pairs:
        shown = ", ".join(sorted(languages)) or "none"
        raise ConfigError(
            f"{path}: no unit has both {data.source_language} and {data.target_language} (its languages: {shown}); "
            "change data.source_language and data.target_language"
        )


def _tag(language: str) -> str:
    return language.lower().replace("_", "-")


def _segment_of(segments: dict[str, str], tag: str) -> str | None:
    """The segment in the language itself, otherwise in its first variant."""
    variants = (text for other, text in segments.items() if other.startswith(f"{tag}-"))
    return segments[tag] if tag in segments else next(variants, None)


def _elements(path: Path, name: str) -> Iterator[ElementTree.Element]:
    """Yields the elements with a name, in any namespace, in constant memory.

    Raises:
      ConfigError: if the file is not well-formed, or cannot be read.
    """
    try:
        with opened_bytes(path) as file:
            # Expat rejects entities that expand without limit, and loads no files.
            parents: list[ElementTree.Element] = []
            for event, element in ElementTree.iterparse(file, events=("start", "end")):  # noqa: S314
                if event == "start":
                    parents.append(element)
                    if len(parents) > _MAX_DEPTH:
                        raise ConfigError(
                            f"{path}: elements are nested more than {_MAX_DEPTH} deep, so this is not a TMX file; "
                            "give another file"
                        )
                    continue
                parents.pop()
                if element.tag.rpartition("}")[2] == name:
                    yield element
                if parents and not any(each.tag.rpartition("}")[2] == name for each in parents):
                    parents[-1].remove(element)  # otherwise it stays in memory to the end of the file
    except ElementTree.ParseError as error:
        raise ConfigError(f"{path}: not readable as TMX ({error}); repair the file or export it again") from None
    except (ValueError, LookupError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: not readable as TMX ({error}); save it as UTF-8 or UTF-16") from None


_MAX_DEPTH = 100
_CODES = ("bpt", "ept", "it", "ph", "ut", "x", "bx", "ex", "note", "prop", "sub")  # their content is not text
_ALONE = ("ph", "x", "it", "ut")  # these separate two texts; a pair of bpt and ept encloses a text


def _visible_text(element: ElementTree.Element) -> str:
    """The text of an element without its formatting codes. Source: TMX 1.4b, section "Content markup"."""
    text = element.text or ""
    is_cut = False  # by a code, since the last character
    for child in element:
        name = child.tag.rpartition("}")[2]
        inner = "" if name in _CODES else _visible_text(child)
        is_cut = is_cut or name in _ALONE
        for part in (inner, child.tail or ""):
            if part:
                text += " " + part if is_cut and _are_words(text[-1:], part[0]) else part
                is_cut = False
    return text


def _are_words(left: str, right: str) -> bool:
    """Whether both characters belong to words of scripts that separate words with spaces."""
    return all(each.isalnum() and not unicodedata.name(each, "").startswith(_WITHOUT_SPACES) for each in (left, right))


_WITHOUT_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


def why_unfit(pair: Example, length_ratio: float, *, is_trained_on: bool = True) -> str:
    """The reason why a pair is left out; "" if it is kept.

    Args:
      pair: source and target sentence.
      length_ratio: the setting data.length_ratio.
      is_trained_on: whether the pair is in train; only then its lengths are compared.
    """
    lengths = sorted((len(pair.text.strip()), len(pair.label.strip())))
    if not lengths[0]:
        return "with an empty side"
    is_uneven = is_trained_on and lengths[1] > length_ratio * lengths[0] + 10
    return "of too different lengths" if is_uneven else ""
