"""Describes the labels of a corpus and warns of suspicious ones."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

_MAX_SHOWN = 8
_NUMBERS = 20  # more labels than this that are all numbers look like scores or ids
_MISSING = ("nan", "null", "none", "n/a", "na", "?", "-")


def counts(labels: Counter[str]) -> str:
    """Formats the labels with their counts, the most frequent first."""
    parts = [f"{label!r} {count:,}" for label, count in sorted(labels.items(), key=lambda item: (-item[1], item[0]))]
    more = f", ... ({len(parts)} labels)" if len(parts) > _MAX_SHOWN else ""
    return ", ".join(parts[:_MAX_SHOWN]) + more


def shown(labels: Iterable[str]) -> str:
    """Formats at most 8 of the labels."""
    names = list(labels)
    return ", ".join(map(repr, names[:_MAX_SHOWN])) + (f", ... ({len(names)})" if len(names) > _MAX_SHOWN else "")


def unknown(labels: Counter[str], first_texts: Mapping[str, str], known: list[str]) -> str:
    """Formats the labels that are not known, each with its count, first text and a similar known label.

    Args:
      labels: number of examples of each label.
      first_texts: the beginning of the first text of each label.
      known: the labels of training.

    Returns:
      the text; "" if all labels are known.
    """
    others = {_plain(label): label for label in known}
    parts = []
    for label, count in labels.items():
        if label in known:
            continue
        near = others.get(_plain(label))
        hint = f", {near!r} except for case or spaces" if near is not None else ""
        what = repr(label) if label else "the empty label"
        parts.append(f"{what} ({count:,} examples, the first begins {first_texts[label]!r}{hint})")
    return ", ".join(parts[:_MAX_SHOWN]) + (f", ... ({len(parts)})" if len(parts) > _MAX_SHOWN else "")


def warnings(labels: Mapping[str, Counter[str]]) -> Iterator[str]:
    """Yields one line per suspicious property of the labels.

    Args:
      labels: split -> number of examples of each label; "" for examples without a label.
    """
    train = labels.get("train", Counter())
    names = [label for label in train if label]
    if len(names) < 2:
        return
    if len(names) > _NUMBERS and all(_is_number(label) for label in names):
        yield f"data.train has {len(names)} labels that are all numbers; is data.label_column the column of the labels?"
    if once := [label for label in names if train[label] == 1]:
        yield f"data.train has labels with one example only: {shown(once)}; nothing can be learned about them"
    if missing := [label for label in names if label.lower() in _MISSING]:
        missing_counts = counts(Counter({each: train[each] for each in missing}))
        yield f"data.train has labels that look like missing values: {missing_counts}"
    for group in (group for group in _groups(names) if len(group) > 1):
        yield (
            f"data.train has labels that differ only by case, spaces or the writing of a number: {shown(group)}; "
            "are they one?"
        )
    for split in ("validation", "test"):
        if split in labels and (lacking := [label for label in names if not labels[split][label]]) and labels[split]:
            yield f"data.{split} has no examples of the labels {shown(lacking)}; its metrics do not cover them"


def _groups(names: list[str]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_plain(name), []).append(name)
    return list(groups.values())


def _plain(label: str) -> str:
    """A form that labels share if they are probably meant to be the same."""
    plain = "".join(label.casefold().split())
    return {"true": "1", "false": "0"}.get(plain, f"{float(plain):g}" if _is_number(plain) else plain)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return len(text) < 30
