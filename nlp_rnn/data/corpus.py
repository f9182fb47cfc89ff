"""A source's examples, split into train, validation and test.

Validation and test parts that the source does not give are split off by a seed, and no text is in two of them. Examples
are streamed: only the keys of evaluation texts is held in memory.
"""

import functools
import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from nlp_rnn.config.settings import Config, DataConfig
from nlp_rnn.data.languages import check_order
from nlp_rnn.data.pair_readers import why_unfit
from nlp_rnn.data.readers import SPLIT_NAMES, Example
from nlp_rnn.data.sources import PAIR_SOURCES, SOURCES
from nlp_rnn.errors import ConfigError

logger = logging.getLogger(__name__)

_NUM_PROBED = 500  # pairs of each split, for the order of the languages


@dataclass
class SplitFacts:
    """What one pass over a split found. `labels` are not counted in pairs; `digest` is of texts and labels, in order."""

    num_examples: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    digest: str = ""


class Corpus:
    """The examples of a source, split into train, validation and test.

    A text that is in two splits stays in the one that judges: test before validation before train (data.remove_repeated).

    Args:
      is_parallel: whether the examples are pairs of a sentence and its translation; those that are unfit are then left out
        of train.

    Attributes:
      facts: SplitFacts of each split, after `survey`.
      num_removed: how many examples each split lost because an evaluation split holds the same text.
      num_unfit: how many pairs train lost, by the reason.
    """

    def __init__(self, data: DataConfig, seed: int, *, is_parallel: bool = False) -> None:
        self._data, self._seed, self.is_parallel = data, seed, is_parallel
        self._given = (SOURCES | PAIR_SOURCES)[data.source](data)
        self.num_unfit: Counter[str] = Counter()
        self._judged: dict[str, set[bytes]] = {"validation": set(), "test": set()}
        self.facts: dict[str, SplitFacts] = {}
        self.num_removed: Counter[str] = Counter()

    def survey(self) -> "Corpus":
        """Reads everything once: counts, labels, digests, and the texts that two splits share.

        Raises:
          ConfigError: if a split is empty, or files cannot be read.
        """
        for name in ("test", "validation", "train"):
            facts, digest = SplitFacts(), hashlib.blake2b(digest_size=16)
            judged = self._judged.get(name)
            for example, key in self._unique(name):
                facts.num_examples += 1
                if not self.is_parallel:
                    facts.labels[example.label] += 1
                digest.update(f"{example.text}\0{example.label}\0".encode("utf-8", "surrogatepass"))
                if judged is not None:
                    judged.add(key)
            facts.digest = digest.hexdigest()
            self.facts[name] = facts
        for name in ("train", "validation"):
            if not self.facts[name].num_examples:
                place = getattr(self._data, name) or self._data.train or "as packaged"
                if name == "train" and self.num_unfit:
                    raise ConfigError(
                        f"data.train has no pairs that are fit ({self.describe_unfit()}); check data.text_column, "
                        "data.label_column and the languages"
                    )
                raise ConfigError(
                    f"data.{name} has no examples (data.source {self._data.source}, {place}): the corpus is empty or too small "
                    "to split; give more text, or a larger share with data.validation_fraction"
                )
        return self

    def describe_unfit(self) -> str:
        """How many pairs train lost, by the reason."""
        return ", ".join(f"{count:,} pairs {reason}" for reason, count in self.num_unfit.items())

    def examples(self, split: str) -> Iterator[Example]:
        """Streams a split from its start, in a fixed order; `survey` comes first."""
        return (example for example, _ in self._unique(split, count=False))

    def has(self, split: str) -> bool:
        """Whether the split has examples."""
        return bool(self.facts.get(split) and self.facts[split].num_examples)

    def is_drawn(self, split: str) -> bool:
        """Whether the split was taken from train by the seed, instead of given."""
        return split not in self._given

    def _unique(self, split: str, *, count: bool = True) -> Iterator[tuple[Example, bytes]]:
        """Examples whose text is in no split that judges this one, with the text's key."""
        above = {"train": ("validation", "test"), "validation": ("test",), "test": ()}[split]
        if count:
            self.num_removed[split] = 0
            self.num_unfit.clear()
        for example in self._assigned(split):
            if self.is_parallel and split == "train" and (reason := why_unfit(example, self._data.length_ratio)):
                self.num_unfit[reason] += count
                continue
            key = _text_key(example.text)
            if self._data.remove_repeated and any(key in self._judged[name] for name in above):
                self.num_removed[split] += count
            else:
                yield example, key

    def _assigned(self, split: str) -> Iterator[Example]:
        if split in self._given and split != "train":
            yield from self._given[split]()
            return
        validation = 0.0 if "validation" in self._given else self._data.validation_fraction
        test = 0.0 if "test" in self._given else self._data.test_fraction
        if self._data.split == "contiguous":
            yield from self._part(split, validation, test)
            return
        for row, example in enumerate(self._given["train"]()):
            place = self._place(row, example)
            # Test first: its examples stay the same whatever validation takes.
            found = "test" if place < test else "validation" if place < test + validation else "train"
            if found == split:
                yield example

    def _part(self, split: str, validation: float, test: float) -> Iterator[Example]:
        """The split's characters of all texts in order; a text on its edge is cut."""
        total = self._num_characters
        ends = {"train": int(total * (1 - validation - test)), "validation": int(total * (1 - test)), "test": total}
        first = {"train": 0, "validation": ends["train"], "test": ends["validation"]}[split]
        start = 0
        for text, label in self._given["train"]():
            part = text[max(first - start, 0) : max(ends[split] - start, 0)]
            if part:
                yield Example(part, label)
            start += len(text)

    @functools.cached_property
    def _num_characters(self) -> int:
        return sum(len(example.text) for example in self._given["train"]())

    def _place(self, row: int, example: Example) -> float:
        """A number in [0, 1) that decides the split."""
        if self._data.split == "hash":
            return _unit_hash(f"{self._seed}:".encode() + _text_key(example.text))
        # Multiples of the golden ratio spread evenly over [0, 1): any run of blocks gets its share of each split.
        return (_unit_hash(f"{self._seed}".encode()) + (row // self._data.block_size) * 0.6180339887498949) % 1.0


def load_corpus(data: DataConfig, seed: int, *, is_parallel: bool = False) -> Corpus:
    """The surveyed corpus of the settings; logs what it holds and what was removed.

    Raises:
      ConfigError: see `Corpus.survey` and `languages.check_order`.
    """
    corpus = Corpus(data, seed, is_parallel=is_parallel).survey()
    counts = ", ".join(f"{name} {corpus.facts[name].num_examples:,}" for name in SPLIT_NAMES if corpus.has(name))
    removed = ", ".join(f"{count:,} from {name}" for name, count in corpus.num_removed.items() if count)
    logger.info(
        "corpus %s: %s examples%s",
        data.source,
        counts,
        f"; removed as repeated in an evaluation split: {removed}" if removed else "",
    )
    if corpus.num_unfit:
        logger.info("left out of train: %s", corpus.describe_unfit())
    for name in SPLIT_NAMES:
        if is_parallel and corpus.has(name):
            check_order(data, itertools.islice(corpus.examples(name), _NUM_PROBED))
    return corpus


def corpus_with(config: Config, split: str) -> Corpus:
    """The surveyed corpus, which must have the split."""
    corpus = load_corpus(config.data, config.seed, is_parallel=config.kind == "translator")
    if not corpus.has(split):
        raise ConfigError(
            f"--split is {split}, but data.source {config.data.source} has no such split here; set data.{split} or data.{split}_fraction"
        )
    return corpus


def label_names(corpus: Corpus) -> list[str]:
    """The labels of a surveyed corpus: of train, sorted (as numbers where all are); the last of two is "positive".

    Raises:
      ConfigError: if there are no labels, a single one, or others in validation or test.
    """
    found = corpus.facts["train"].labels
    if "" in found:
        raise ConfigError(
            f"data.train has {found['']} examples without a label; a classifier needs one on each: "
            "set data.label_column, or use a labelled source"
        )
    if len(found) < 2:
        raise ConfigError(
            f"data.train has one label only, {next(iter(found))!r}; a classifier needs two or more: check data.label_column"
        )
    for name in ("validation", "test"):
        unknown = sorted(set(corpus.facts[name].labels) - set(found))
        if unknown:
            shown = ", ".join(map(repr, unknown[:5]))
            raise ConfigError(
                f"data.{name} has labels that are not in data.train: {shown}; correct them or add training examples"
            )
    try:
        return sorted(found, key=float)
    except ValueError:
        return sorted(found)


def _text_key(text: str) -> bytes:
    return hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=12).digest()


def _unit_hash(value: bytes) -> float:
    return int.from_bytes(hashlib.blake2b(value, digest_size=7).digest(), "big") / 2**56
