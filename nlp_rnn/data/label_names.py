"""The class names of a classifier: the labels of a corpus, checked."""

import math
from collections import Counter
from collections.abc import Iterable

from nlp_rnn.data import label_checks, labels
from nlp_rnn.data.corpus import Corpus
from nlp_rnn.errors import ConfigError


def label_names(corpus: Corpus, *, allows_unlabelled: bool = False) -> list[str]:
    """The labels of a surveyed corpus: of train, sorted (as numbers where all are); the last of two is "positive".

    Args:
      allows_unlabelled: whether texts of train may have no label (training.teacher, virtual_adversarial).

    Raises:
      ConfigError: if there are no labels, a single one, or others in validation or test; or if they are not what
        data.multi_label and data.labels_are say.
    """
    counts, data = Counter(corpus.facts["train"].labels), corpus._data
    if allows_unlabelled:
        del counts[""]
    if data.multi_label:
        if not counts:
            raise ConfigError(
                "data.multi_label is true, but no text of data.train has a label; check data.label_column, "
                "data.label_columns or the __label__ of the lines"
            )
    elif any(labels.JOINT in label for label in counts):
        raise ConfigError("data.train has texts with several labels; set data.multi_label=true")
    elif "" in counts:
        raise ConfigError(
            f"data.train has {counts['']} examples without a label, the first begins "
            f"{corpus.facts['train'].first_texts['']!r}; a classifier needs one on each: set data.label_column, use a "
            "labelled source, name classifiers that label them in training.teacher, or set "
            "training.virtual_adversarial=5, which learns from such texts too"
        )
    elif len(counts) < 2:
        raise ConfigError(
            f"data.train has {f'one label only, {next(iter(counts))!r}' if counts else 'no labels'}; "
            "a classifier needs two or more: check data.label_column"
        )
    for name in ("validation", "test"):
        if name in corpus.facts:
            check_labels(corpus, name, list(counts))
    if data.labels_are == "ordinal":
        _check_scale(counts)
    try:
        numbers = [float(label) for label in counts]
    except ValueError:
        return sorted(counts)
    return sorted(counts, key=float) if all(map(math.isfinite, numbers)) else sorted(counts)


def check_labels(corpus: Corpus, split: str, known: list[str]) -> None:
    """Checks that a split has no labels but those of training.

    Raises:
      ConfigError: naming the others, with counts, first texts and the labels that they resemble.
    """
    facts = corpus.facts[split]
    if (count := facts.labels[""]) and "" not in known and not corpus._data.multi_label:
        raise ConfigError(
            f"data.{split} has {count:,} examples without a label, the first begins {facts.first_texts['']!r}; "
            "leave them out: only texts of data.train may have none, with training.teacher or "
            "training.virtual_adversarial"
        )
    if unknown := label_checks.unknown(facts.labels, facts.first_texts, known):
        raise ConfigError(
            f"data.{split} has labels that training did not have: {unknown}; "
            f"its labels are {label_checks.shown(known)}: correct them, leave those examples out, or add such examples "
            "to data.train and train again"
        )


def _check_scale(names: Iterable[str]) -> None:
    """Raises ConfigError unless the labels are distinct numbers, three or more."""
    values = set()
    for label in names:
        value = _number_of(label)
        values.add(value)
        if not math.isfinite(value):
            raise ConfigError(
                f"data.labels_are is ordinal, but data.train has the label {label!r}, which is no number; "
                "write the labels as numbers in their order, or use data.labels_are=classes"
            )
    if len(values) < 3 or len(values) < len(set(names)):
        shown = ", ".join(map(repr, sorted(names)[:10]))
        raise ConfigError(
            f"data.labels_are is ordinal, but data.train has the labels {shown}; "
            "a scale has three different numbers or more: use data.labels_are=classes"
        )


def _number_of(label: str) -> float:
    """The number that a label is; nan for another one."""
    try:
        return float(label)
    except ValueError:
        return math.nan
