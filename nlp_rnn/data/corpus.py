"""Splits a source's examples into train, validation and test.

Splits that the source does not give are drawn, see `drawn_splits`, and no text is in two splits. Examples are streamed:
only a key of each evaluation text is held in memory.
"""

import dataclasses
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
from nlp_rnn.data.drawn_splits import DrawnSplits, text_key, unit_hash
from nlp_rnn.data.languages import check_order
from nlp_rnn.data.pair_readers import why_unfit
from nlp_rnn.data.readers import SPLIT_NAMES, Example, WeightedExample, without_label
from nlp_rnn.data.sources import PAIR_SOURCES, SOURCES
from nlp_rnn.errors import ConfigError

logger = logging.getLogger(__name__)

_NUM_PROBED = 500  # pairs of each split, for the order of the languages
_SHOWN = 40  # characters of a text in messages
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
      num_unlabelled: number of examples without a label.
      first_texts: label -> the beginning of its first text.
      digest: digest of texts, labels and weights, in order.
      first: the first example.
    """

    num_read: int = 0
    num_examples: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    num_empty: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    num_unlabelled: int = 0
    first_texts: dict[str, str] = field(default_factory=dict)
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
      trains_on_unlabelled: whether examples without a label are for training only; see `Config`.

    Attributes:
      facts: SplitFacts of each split, after `survey`.
    """

    def __init__(
        self, data: DataConfig, seed: int, *, is_parallel: bool = False, reads_test: bool = True,
        trains_on_unlabelled: bool = False,
    ) -> None:  # fmt: skip
        self._data, self._seed, self.is_parallel = data, seed, is_parallel
        self._read_splits = SPLIT_NAMES if reads_test else ("train", "validation")
        self._given = (SOURCES | PAIR_SOURCES)[data.source](data)
        self._drawn = DrawnSplits(data, seed, self._given, trains_on_unlabelled=trains_on_unlabelled)
        self._evaluated: dict[str, set[bytes]] = {"validation": set(), "test": set()}
        # What data.max_examples keeps of train: (key of a text, how often it came before).
        self._kept: set[tuple[bytes, int]] | None = None
        self._keeps_rest_unlabelled = trains_on_unlabelled  # beyond data.max_examples, instead of leaving it out
        self.facts: dict[str, SplitFacts] = {}

    def survey(self, splits: tuple[str, ...] = SPLIT_NAMES) -> "Corpus":
        """Reads the splits once: counts, labels, digests, and the texts that two splits share.

        Args:
          splits: those that are needed. All are read where one of these is drawn from train.

        Raises:
          ConfigError: if a split to train on is empty, or files cannot be read.
        """
        wanted = {above for split in splits for above in (split, *_ABOVE[split])}
        is_drawn = bool(wanted & set(self._drawn.fractions))
        names = [name for name in ("test", "validation", "train") if is_drawn or name in wanted]
        names = [name for name in names if name in self._read_splits]
        for name in names:
            self._survey_split(name)
        lacking = [name for name in names if not self.facts[name].num_examples]
        if self._drawn.draw_of_few(lacking):
            self._kept = None  # of another train split
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
            facts.num_unlabelled += not example.label
            facts.first = facts.first or example
            if not self.is_parallel:
                for label in labels.split(example.label) if self._data.multi_label else (example.label,):
                    facts.labels[label] += 1
                    facts.first_texts.setdefault(label, example.text[:_SHOWN])
            digest.update(f"{example.text}\0{example.label}\0".encode("utf-8", "surrogatepass"))
            if isinstance(example, WeightedExample):
                digest.update(f"{example.weight}\0".encode())
            if name in self._evaluated:
                evaluated.add(key)
        facts.digest = digest.hexdigest()
        self.facts[name] = facts
        num_counted = facts.num_examples - (facts.num_unlabelled if self._keeps_rest_unlabelled else 0)
        if name == "train" and self._kept is None and 0 < self._data.max_examples < num_counted:
            counted = Counter() if self._data.multi_label else Counter(facts.labels)
            if self._keeps_rest_unlabelled:
                del counted[""]
            self._kept = self._draw_kept(counted)
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
        kept, seen = self._kept if split == "train" else None, Counter[bytes]()
        for example in self._drawn.examples(split):
            facts.num_read += 1
            if self.is_parallel and (
                reason := why_unfit(example, self._data.length_ratio, is_trained_on=split == "train")
            ):
                facts.dropped[reason] += 1
                continue
            key = text_key(example.text)
            above = (name for name in _ABOVE[split] if self._data.remove_repeated and key in self._evaluated[name])
            if other := next(above, ""):
                facts.dropped[f"also in {other}"] += 1
            elif kept is None:
                yield example, key
            else:
                is_kept = (key, seen[key]) in kept
                seen[key] += 1
                if is_kept and (example.label or not self._keeps_rest_unlabelled):
                    yield example, key
                elif self._keeps_rest_unlabelled:
                    yield without_label(example), key
                else:
                    facts.dropped["beyond data.max_examples"] += 1

    def _draw_kept(self, labels: Counter[str]) -> set[tuple[bytes, int]]:
        """Draws data.max_examples examples of train by the seed; each label keeps its share.

        Args:
          labels: examples of each; empty for pairs and for texts with several labels, which are drawn alike.

        Returns:
          (key of the text, how often it came before) of each. A text that came before is drawn only where too few
          others are left.
        """
        limit, total = self._data.max_examples, labels.total() or 1
        exact = {label: limit * count / total for label, count in labels.items()} or {"": float(limit)}
        quotas = {label: int(share) for label, share in exact.items()}
        for label in sorted(exact, key=lambda each: (quotas[each] - exact[each], each))[: limit - sum(quotas.values())]:
            quotas[label] += 1
        candidates: dict[str, list[tuple[int, float, bytes]]] = {label: [] for label in quotas}
        seen = Counter[bytes]()
        for example, key in self._unique("train", SplitFacts()):
            label = example.label if labels else ""
            if label in candidates:
                place = unit_hash(f"{self._seed}:examples:".encode() + key)
                candidates[label].append((seen[key], place, key))
            seen[key] += 1
        return {
            (key, before)
            for label, quota in quotas.items()
            for before, _, key in heapq.nsmallest(quota, candidates[label])
        }

    def _why_empty(self, split: str) -> str:
        """The message why train or validation has no examples, with what to do."""
        data, facts = self._data, self.facts[split]
        given = getattr(data, split) or data.train
        name = f"data.{split} has no examples"
        if facts.dropped and (facts.num_read > 1 or not self._drawn.fractions):
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in facts.dropped.items())
            if any(reason.startswith("also in") for reason in facts.dropped):
                all_texts = "its only text is" if facts.num_read == 1 else f"all of its {facts.num_read:,} texts are"
                return f"{name}: {all_texts} repeated ({reasons}); give other texts, or set data.remove_repeated=false"
            if self.is_parallel:
                return (
                    f"data.{split} has no pairs that are fit ({reasons}); "
                    "check data.text_column, data.label_column and the languages"
                )
        if split in self._given and split != "train":
            return f"{name}: {given} {_what_is_in(given, data)}; give a file with texts"
        total = sum(1 for _ in self._given["train"]())
        if not any(example.text.strip() for example in self._given["train"]()):
            return f"{name}: {given or data.source} {_what_is_in(given, data)}; give a file with texts"
        distinct = len({text_key(example.text) for example in self._given["train"]()})
        total_texts = f"data.train has {total:,} {'text' if total == 1 else 'texts'}"
        total_texts += f", but {distinct:,} different ones" if distinct < total else ""
        return (
            f"{name}: {total_texts}, to be drawn into {1 + len(self._drawn.fractions)} splits; "
            "give more texts, or data.validation (and data.test)"
            + ("" if data.split == "contiguous" else ", or cut one long text with data.split=contiguous")
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
