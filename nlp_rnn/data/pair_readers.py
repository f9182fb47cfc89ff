"""The user's own files of pairs: an example's text is the source sentence, its label the target sentence."""

import functools
import gzip
import logging
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from nlp_rnn.config.settings import DataConfig
from nlp_rnn.data.readers import SPLIT_NAMES, Example, Splits
from nlp_rnn.errors import ConfigError
from nlp_rnn.files import read_lines

logger = logging.getLogger(__name__)

_XML_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


def load_aligned(data: DataConfig) -> Splits:
    """Two files whose lines belong together: data.train=corpus/train reads corpus/train.en and corpus/train.de."""
    splits: Splits = {}
    for name in SPLIT_NAMES:
        setting = getattr(data, name)
        if setting:
            paths = sides(Path(setting), data)
            for path in paths:
                if not path.is_file():
                    raise ConfigError(
                        f"data.{name} is {setting}, but there is no file {path}; give what stands before "
                        f".{data.source_language} and .{data.target_language}, or change data.source_language and data.target_language"
                    )
            splits[name] = functools.partial(aligned_lines, *paths, f"data.{name} is {setting}")
    return splits


def sides(prefix: Path, data: DataConfig) -> tuple[Path, Path]:
    return tuple(prefix.with_name(f"{prefix.name}.{tag}") for tag in (data.source_language, data.target_language))  # type: ignore[return-value]


def aligned_lines(source: Path, target: Path, what: str) -> Iterator[Example]:
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


def load_tmx(data: DataConfig) -> Splits:
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
        raise ConfigError(f"{path}: not readable as TMX ({error}); repair the file or export it again") from None
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
    inner = "".join(
        (_text(child) if child.tag.rpartition("}")[2] == "hi" else "") + (child.tail or "") for child in element
    )
    return (element.text or "") + inner


def why_unfit(pair: Example, length_ratio: float) -> str:
    """Why a pair is left out of training; "" where it is not."""
    lengths = sorted((len(pair.text.strip()), len(pair.label.strip())))
    if not lengths[0]:
        return "with an empty side"
    return "of too different lengths" if lengths[1] > length_ratio * lengths[0] + 10 else ""
