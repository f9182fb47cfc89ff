"""Draws the splits that a source does not give from its train split, by a seed.

With data.split=hash, the split of a text depends on the seed and the text alone, so texts that are added change no
other's split. With blocks and contiguous it depends on the text's place in the file.
"""

import functools
import hashlib
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

from nlp_rnn.config.settings import DataConfig
from nlp_rnn.data.readers import Example, WeightedExample

logger = logging.getLogger(__name__)


class DrawnSplits:
    """The splits of a source: those that it gives, and those drawn from its train split.

    Args:
      given: the splits of the source: name -> a function that reads the examples from the start.
      trains_on_unlabelled: whether examples without a label are for training only.

    Attributes:
      fractions: the shares of the drawn splits. test is first, so that validation_fraction does not change its
        examples.
    """

    def __init__(
        self, data: DataConfig, seed: int, given: Mapping[str, Callable[[], Iterator[Example]]], *,
        trains_on_unlabelled: bool,
    ) -> None:  # fmt: skip
        self._data, self._seed, self._given = data, seed, given
        self._trains_on_unlabelled = trains_on_unlabelled
        self._block_size = data.block_size
        self._of_few: dict[bytes | int, str] | None = None  # of small corpora: the split of each text or block
        shares = {"test": data.test_fraction, "validation": data.validation_fraction}
        self.fractions = {split: share for split, share in shares.items() if split not in given and share}

    def examples(self, split: str) -> Iterator[Example]:
        """Yields a split's examples from the start, in a fixed order; none if it is neither given nor drawn."""
        if split in self._given and split != "train":
            yield from self._given[split]()
            return
        if split != "train" and split not in self.fractions:
            return
        if self._data.split == "contiguous":
            yield from self._part(split)
            return
        for row, example in enumerate(self._given["train"]()):
            if self._split_of(row, example) == split:
                yield example

    def draw_of_few(self, lacking: Sequence[str]) -> bool:
        """Draws again where splits have no examples, so that each gets at least one text or block.

        Assigns the texts, or smaller blocks, in the order of their places.

        Args:
          lacking: the splits that have no examples.

        Returns:
          whether the splits are new: False if there are too few texts, none is drawn, or this was done before.
        """
        can_draw = self._of_few is None and self._data.split != "contiguous" and "train" in self._given
        if not can_draw or not self.fractions or not {*self.fractions, "train"} & set(lacking):
            return False
        num_rows = sum(1 for _ in self._given["train"]())
        before, self._block_size = self._block_size, min(self._data.block_size, max(1, num_rows // 20))
        rows = (pair for pair in enumerate(self._given["train"]()) if not self._is_for_training(pair[1]))
        units = sorted({self._unit(row, example) for row, example in rows}, key=self._place)
        if len(units) <= len(self.fractions):
            self._block_size = before
            return False
        drawn, rest = dict.fromkeys(units, "train"), iter(units)
        for split, share in self.fractions.items():
            for unit in itertools.islice(rest, max(1, round(share * len(units)))):
                drawn[unit] = split
        self._of_few = drawn
        logger.info(
            "data.train has %s examples only: each split that is drawn from it gets one or more", f"{num_rows:,}"
        )
        return True

    def _is_for_training(self, example: Example) -> bool:
        return self._trains_on_unlabelled and not example.label

    def _split_of(self, row: int, example: Example) -> str:
        if self._is_for_training(example):
            return "train"
        unit = self._unit(row, example)
        if self._of_few is not None:
            return self._of_few[unit]
        place, start = self._place(unit), 0.0
        for split, share in self.fractions.items():
            start += share
            if place < start:
                return split
        return "train"

    def _unit(self, row: int, example: Example) -> bytes | int:
        """The unit that stays in one split: the key of equal texts, or the number of a block of rows."""
        return text_key(example.text) if self._data.split == "hash" else row // self._block_size

    def _place(self, unit: bytes | int) -> float:
        """A number in [0, 1) that determines the split."""
        if isinstance(unit, bytes):
            return unit_hash(f"{self._seed}:".encode() + unit)
        # Multiples of the golden ratio spread evenly over [0, 1): any sequence of blocks gets its share of each split.
        return (unit_hash(f"{self._seed}".encode()) + unit * 0.6180339887498949) % 1.0

    def _part(self, split: str) -> Iterator[Example]:
        """Yields the split's part of all texts in order; a text at its boundary is cut.

        What is for training only belongs to train as a whole, and does not count.
        """
        total = self._num_characters
        validation, test = self.fractions.get("validation", 0.0), self.fractions.get("test", 0.0)
        ends = {"train": int(total * (1 - validation - test)), "validation": int(total * (1 - test)), "test": total}
        first = {"train": 0, "validation": ends["train"], "test": ends["validation"]}[split]
        start = 0
        for example in self._given["train"]():
            if self._is_for_training(example):
                if split == "train":
                    yield example
                continue
            part = example.text[max(first - start, 0) : max(ends[split] - start, 0)]
            if part and isinstance(example, WeightedExample):
                yield WeightedExample.of(part, example.label, example.weight)
            elif part:
                yield Example(part, example.label)
            start += len(example.text)

    @functools.cached_property
    def _num_characters(self) -> int:
        return sum(len(each.text) for each in self._given["train"]() if not self._is_for_training(each))


def text_key(text: str) -> bytes:
    """A key of a text, without the white space around it."""
    return hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=12).digest()


def unit_hash(value: bytes) -> float:
    """A number in [0, 1) from a hash."""
    return int.from_bytes(hashlib.blake2b(value, digest_size=7).digest(), "big") / 2**56
