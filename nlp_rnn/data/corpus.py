"""Splits a source's examples into train, validation and test.

Validation and test parts that the source does not give are drawn from train by a seed, and no text is in two splits.
Examples are streamed: only a key of each evaluation text is held in memory.
"""

import dataclasses
import functools
import hashlib
import heapq
import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlp_rnn.config.settings import FILE_SOURCES, Config, DataConfig
from nlp_rnn.data import label_checks, labels
from nlp_rnn.data.languages import check_order
from nlp_rnn.data.pair_readers import why_unfit
from nlp_rnn.data.readers import SPLIT_NAMES, Example, WeightedExample
from nlp_rnn.data.sources import PAIR_SOURCES, SOURCES
from nlp_rnn.errors import ConfigError

logger = logging.getLogger(__name__)

_NUM_PROBED = 500  # pairs of each split, for the order of the languages
_ABOVE = {"train": ("validation", "test"), "validation": ("test",), "test": ()}  # splits that keep a text both have


@dataclass
class SplitFacts:
    """The counts of one pass over a split.

    Attributes:
      num_read: number of examples of the source.
      num_examples: number of examples that are kept.
      dropped: reason -> number of examples that are not kept.
      num_empty: number of texts that are only white space.
      labels: label -> number of examples; empty for pairs.
      first_places: label -> number, from 1, of its first example.
      digest: digest of texts, labels and weights, in order.
      first: the first example.
    """

    num_read: int = 0
    num_examples: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    num_empty: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    first_places: dict[str, int] = field(default_factory=dict)
    digest: str = ""
    first: Example | None = None

    def describe(self) -> str:
        """The counts, the reasons of dropped examples, the labels and the first example, as one line."""
        of_all = f" of {self.num_read:,} read" if self.num_read != self.num_examples else ""
        parts = [f"{self.num_examples:,} examples{of_all}"]
        if self.dropped:
            parts.append(f"left out: {', '.join(f'{count:,} {reason}' for reason, count in self.dropped.items())}")
        if set(self.labels) - {""}:
            parts.append(f"labels {label_checks.counts(self.labels)}")
        if self.num_empty:
            parts.append(f"{self.num_empty:,} texts are empty")
        if self.first is not None:
            text = " ".join(self.first.text[:200].split())
            parts.append(f"first: {text[:50] + '...' if len(text) > 50 else text!r}")
        return "; ".join(parts)


class Corpus:
    """The examples of a source, split into train, validation and test.

    A text that is in two splits stays in the one that is evaluated: test before validation before train
    (data.remove_repeated).

    Args:
      is_parallel: whether the examples are pairs of a sentence and its translation; those with an empty side are left
        out, and from train those whose lengths do not fit.
      reads_test: False: the test split is left alone; train and validation keep the texts that they share with it.
      trains_on_unlabelled: whether examples without a label are for training only (training.teacher).

    Attributes:
      facts: SplitFacts of each split, after `survey`.
    """

    def __init__(
        self, data: DataConfig, seed: int, *, is_parallel: bool = False, reads_test: bool = True,
        trains_on_unlabelled: bool = False,
    ) -> None:  # fmt: skip
        self._data, self._seed, self.is_parallel = data, seed, is_parallel
        self._trains_on_unlabelled = trains_on_unlabelled
        self._read_splits = SPLIT_NAMES if reads_test else ("train", "validation")
        self._given = (SOURCES | PAIR_SOURCES)[data.source](data)
        self._evaluated: dict[str, set[bytes]] = {"validation": set(), "test": set()}
        self._kept: set[bytes] | None = None  # the keys of the texts of train that data.max_examples keeps
        self._drawn: dict[bytes | int, str] | None = None  # of small corpora: the split of each text or block
        self.facts: dict[str, SplitFacts] = {}

    def survey(self, splits: tuple[str, ...] = SPLIT_NAMES) -> "Corpus":
        """Reads the splits once: counts, labels, digests, and the texts that two splits share.

        Args:
          splits: those that are needed. All are read where one of these is drawn from train.

        Raises:
          ConfigError: if a split to train on is empty, or files cannot be read.
        """
        wanted = {above for split in splits for above in (split, *_ABOVE[split])}
        is_drawn = bool(wanted & set(self._fractions()))
        names = [name for name in ("test", "validation", "train") if is_drawn or name in wanted]
        names = [name for name in names if name in self._read_splits]
        for name in names:
            self._survey_split(name)
        if self._drawn is None and self._lacks_a_drawn_split(names) and (drawn := self._draw_of_few()):
            self._drawn = drawn
            return self.survey(splits)
        for name in ("train", "validation"):
            if name in splits and not self.facts[name].num_examples:
                raise ConfigError(self._why_empty(name))
        return self

    def _survey_split(self, name: str) -> None:
        facts, digest = SplitFacts(), hashlib.blake2b(digest_size=16)
        evaluated = self._evaluated.get(name, set())
        evaluated.clear()
        for example, key in self._unique(name, facts):
            facts.num_examples += 1
            facts.num_empty += not example.text.strip()
            facts.first = facts.first or example
            if not self.is_parallel:
                for label in labels.split(example.label) if self._data.multi_label else (example.label,):
                    facts.labels[label] += 1
                    facts.first_places.setdefault(label, facts.num_read)
            digest.update(f"{example.text}\0{example.label}\0".encode("utf-8", "surrogatepass"))
            if isinstance(example, WeightedExample):
                digest.update(f"{example.weight}\0".encode())
            if name in self._evaluated:
                evaluated.add(key)
        facts.digest = digest.hexdigest()
        self.facts[name] = facts
        if name == "train" and self._kept is None and 0 < self._data.max_examples < facts.num_examples:
            self._kept = self._draw_kept(Counter() if self._data.multi_label else facts.labels)
            self._survey_split("train")

    def data_facts(self) -> dict[str, dict[str, Any]]:
        """Examples, digest and labels (if any) of train and validation, to identify the data. After `survey`."""
        facts: dict[str, dict[str, Any]] = {}
        for split in ("train", "validation"):
            split_facts = self.facts[split]
            facts[split] = {"examples": split_facts.num_examples, "digest": split_facts.digest}
            if set(split_facts.labels) - {""}:
                facts[split]["labels"] = dict(split_facts.labels)
        return facts

    def examples(self, split: str) -> Iterator[Example]:
        """Yields a split's examples from the start, in a fixed order. Call `survey` first."""
        return (example for example, _ in self._unique(split, SplitFacts()))

    def has(self, split: str) -> bool:
        """Whether the split has examples."""
        return bool(self.facts.get(split) and self.facts[split].num_examples)

    def is_drawn(self, split: str) -> bool:
        """Whether the split is drawn from train using the seed, since the source does not have it."""
        return split not in self._given

    def _unique(self, split: str, facts: SplitFacts) -> Iterator[tuple[Example, bytes]]:
        """Yields the examples that a split keeps, with the keys of their texts. Counts all examples in `facts`."""
        kept = set(self._kept) if self._kept is not None and split == "train" else None
        for example in self._assigned(split):
            facts.num_read += 1
            if self.is_parallel and (
                reason := why_unfit(example, self._data.length_ratio, is_trained_on=split == "train")
            ):
                facts.dropped[reason] += 1
                continue
            key = _text_key(example.text)
            above = (name for name in _ABOVE[split] if self._data.remove_repeated and key in self._evaluated[name])
            if other := next(above, ""):
                facts.dropped[f"also in {other}"] += 1
            elif kept is not None and key not in kept:
                facts.dropped["beyond data.max_examples"] += 1
            else:
                if kept is not None:
                    kept.remove(key)
                yield example, key

    # --- drawing --------------------------------------------------------------------------------------------------

    def _assigned(self, split: str) -> Iterator[Example]:
        if split in self._given and split != "train":
            yield from self._given[split]()
            return
        if split != "train" and split not in self._fractions():
            return
        if self._data.split == "contiguous":
            yield from self._part(split)
            return
        for row, example in enumerate(self._given["train"]()):
            if self._split_of(row, example) == split:
                yield example

    def _fractions(self) -> dict[str, float]:
        """The shares of the drawn splits. test is first, so that validation_fraction does not change its examples."""
        shares = {"test": self._data.test_fraction, "validation": self._data.validation_fraction}
        return {split: share for split, share in shares.items() if split not in self._given and share}

    def _is_for_training(self, example: Example) -> bool:
        return self._trains_on_unlabelled and not example.label

    def _split_of(self, row: int, example: Example) -> str:
        if self._is_for_training(example):
            return "train"
        unit = self._unit(row, example)
        if self._drawn is not None:
            return self._drawn[unit]
        place, start = self._place(unit), 0.0
        for split, share in self._fractions().items():
            start += share
            if place < start:
                return split
        return "train"

    def _unit(self, row: int, example: Example) -> bytes | int:
        """The unit that stays in one split: the key of equal texts, or the number of a block of rows."""
        return _text_key(example.text) if self._data.split == "hash" else row // self._block_size

    @functools.cached_property
    def _block_size(self) -> int:
        return self._data.block_size

    def _place(self, unit: bytes | int) -> float:
        """A number in [0, 1) that determines the split."""
        if isinstance(unit, bytes):
            return _unit_hash(f"{self._seed}:".encode() + unit)
        # Multiples of the golden ratio spread evenly over [0, 1): any sequence of blocks gets its share of each split.
        return (_unit_hash(f"{self._seed}".encode()) + unit * 0.6180339887498949) % 1.0

    def _part(self, split: str) -> Iterator[Example]:
        """Yields the split's part of all texts in order; a text at its boundary is cut."""
        total = self._num_characters
        shares = self._fractions()
        validation, test = shares.get("validation", 0.0), shares.get("test", 0.0)
        ends = {"train": int(total * (1 - validation - test)), "validation": int(total * (1 - test)), "test": total}
        first = {"train": 0, "validation": ends["train"], "test": ends["validation"]}[split]
        start = 0
        for example in self._given["train"]():
            part = example.text[max(first - start, 0) : max(ends[split] - start, 0)]
            if part and isinstance(example, WeightedExample):
                yield WeightedExample.of(part, example.label, example.weight)
            elif part:
                yield Example(part, example.label)
            start += len(example.text)

    @functools.cached_property
    def _num_characters(self) -> int:
        return sum(len(example.text) for example in self._given["train"]())

    def _draw_kept(self, labels: Counter[str]) -> set[bytes]:
        """The keys of data.max_examples texts of train, drawn by the seed; each label keeps its share.

        Args:
          labels: examples of each; empty for pairs and for texts with several labels, which are drawn alike.
        """
        limit, total = self._data.max_examples, labels.total() or 1
        exact = {label: limit * count / total for label, count in labels.items()} or {"": float(limit)}
        quotas = {label: int(share) for label, share in exact.items()}
        for label in sorted(exact, key=lambda each: (quotas[each] - exact[each], each))[: limit - sum(quotas.values())]:
            quotas[label] += 1
        places: dict[str, dict[bytes, float]] = {label: {} for label in quotas}
        for example, key in self._unique("train", SplitFacts()):
            label = example.label if labels else ""
            places[label][key] = _unit_hash(f"{self._seed}:examples:".encode() + key)
        return {
            key
            for label, quota in quotas.items()
            for key in heapq.nsmallest(quota, places[label], key=places[label].__getitem__)
        }

    # --- small corpora --------------------------------------------------------------------------------------------

    def _lacks_a_drawn_split(self, names: list[str]) -> bool:
        shares = self._fractions()
        if self._data.split == "contiguous" or "train" not in self._given:
            return False
        lacking = [name for name in names if name in (*shares, "train") and not self.facts[name].num_examples]
        return bool(shares and lacking)

    def _draw_of_few(self) -> dict[bytes | int, str]:
        """Assigns at least one text or block to each split of a small corpus, in the order of their places."""
        num_rows = sum(1 for _ in self._given["train"]())
        self._block_size = min(self._data.block_size, max(1, num_rows // 20))
        rows = (pair for pair in enumerate(self._given["train"]()) if not self._is_for_training(pair[1]))
        units = sorted({self._unit(row, example) for row, example in rows}, key=self._place)
        if len(units) <= len(self._fractions()):
            return {}
        drawn, rest = dict.fromkeys(units, "train"), iter(units)
        for split, share in self._fractions().items():
            for unit in itertools.islice(rest, max(1, round(share * len(units)))):
                drawn[unit] = split
        logger.info(
            "data.train has %s examples only: each split that is drawn from it gets one or more", f"{num_rows:,}"
        )
        return drawn

    def _why_empty(self, split: str) -> str:
        """The message why train or validation has no examples, with what to do."""
        data, facts = self._data, self.facts[split]
        given = getattr(data, split) or data.train
        name = f"data.{split} has no examples"
        if facts.dropped and facts.num_read > 1:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in facts.dropped.items())
            if any(reason.startswith("also in") for reason in facts.dropped):
                return (
                    f"{name}: all of its {facts.num_read:,} texts are repeated ({reasons}); give other texts, or set "
                    "data.remove_repeated=false"
                )
            return (
                f"data.{split} has no pairs that are fit ({reasons}); "
                "check data.text_column, data.label_column and the languages"
            )
        if split in self._given and split != "train":
            return f"{name}: {given} {_what_is_in(given, data)}; give a file with texts"
        total = sum(1 for _ in self._given["train"]())
        if not total:
            return f"{name}: {given or data.source} {_what_is_in(given, data)}; give a file with texts"
        distinct = len({_text_key(example.text) for example in self._given["train"]()})
        total_texts = f"data.train has {total:,} {'text' if total == 1 else 'texts'}"
        total_texts += f", but {distinct:,} different ones" if distinct < total else ""
        return (
            f"{name}: {total_texts}, to be drawn into {1 + len(self._fractions())} splits; "
            "give more texts, or data.validation (and "
            "data.test), or cut one long text with data.split=contiguous"
        )


def _what_is_in(given: str, data: DataConfig) -> str:
    """A file that gives no examples, in words."""
    path = Path(given)
    if data.source not in FILE_SOURCES or not path.is_file():
        return "gives none"
    size = path.stat().st_size
    return "is empty (0 bytes)" if not size else f"has {size:,} bytes, but no row or line with a text"


def load_corpus(
    data: DataConfig, seed: int, *, is_parallel: bool = False, splits: tuple[str, ...] = SPLIT_NAMES,
    reads_test: bool = True, trains_on_unlabelled: bool = False,
) -> Corpus:  # fmt: skip
    """The surveyed corpus of the settings; logs what looks wrong.

    Args:
      splits: see `Corpus.survey`.
      reads_test, trains_on_unlabelled: see `Corpus`.

    Raises:
      ConfigError: see `Corpus.survey` and `languages.check_order`.
    """
    corpus = Corpus(
        data, seed, is_parallel=is_parallel, reads_test=reads_test, trains_on_unlabelled=trains_on_unlabelled
    ).survey(splits)
    for warning in label_checks.warnings({name: facts.labels for name, facts in corpus.facts.items()}):
        logger.warning("%s", warning)
    for name in SPLIT_NAMES:
        if is_parallel and corpus.has(name):
            check_order(data, itertools.islice(corpus.examples(name), _NUM_PROBED))
    return corpus


def corpus_with(config: Config, split: str, *, also: tuple[str, ...] = ()) -> Corpus:
    """The surveyed corpus for evaluating on a split. Files of other splits are not read and may be missing.

    Args:
      also: other splits that are needed.

    Raises:
      ConfigError: if the corpus does not have the split; see `load_corpus`.
    """
    data = config.data
    needed = {above for each in (split, *also) for above in (each, *_ABOVE[each])}
    are_given = all(getattr(data, name) or (name == "test" != split and not data.test_fraction) for name in needed)
    if are_given and data.source in FILE_SOURCES:
        unread: dict[str, Any] = {name: "" for name in SPLIT_NAMES if name not in needed}
        data = dataclasses.replace(data, **unread)
    corpus = load_corpus(
        data, config.seed, is_parallel=config.kind == "translator", splits=(split, *also),
        trains_on_unlabelled=config.trains_on_unlabelled,
    )  # fmt: skip
    if not corpus.has(split):
        dropped = corpus.facts[split].describe() if split in corpus.facts and corpus.facts[split].num_read else ""
        raise ConfigError(
            f"--split is {split}, but data.source {config.data.source} has no such split here"
            f"{f' ({dropped})' if dropped else ''}; set data.{split} or data.{split}_fraction"
        )
    logger.info("%s: %s", split, corpus.facts[split].describe())
    return corpus


def _text_key(text: str) -> bytes:
    return hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=12).digest()


def _unit_hash(value: bytes) -> float:
    return int.from_bytes(hashlib.blake2b(value, digest_size=7).digest(), "big") / 2**56
