"""The token ids of one split's texts or pairs on disk. It does not import TensorFlow."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nlp_rnn import manifest
from nlp_rnn.special_ids import UNK_ID


@dataclass(frozen=True)
class TokenCache:
    """Token ids and labels of one split, on disk.

    Attributes:
      path: folder with ids.bin (int32, one text after the other), offsets.npy, labels.npy and, if the examples have
        them, weights.npy and targets.npy.
      offsets: int64 [examples + 1]; text n is ids[offsets[n]:offsets[n + 1]].
      labels: int32 [examples], -1 of texts without a label; with data.multi_label uint8 [examples, labels], 1 where a
        text has the label.
      weights: float32 [examples], with a mean of 1; None: all alike.
      targets: what a model learns to predict from training.teacher. Classifiers: probabilities, float32 [examples,
        labels]. Language models, and the targets of translators: float32 [tokens, 2 * k], ids of likely tokens and
        their probabilities times training.teacher_share. None: none.
    """

    path: Path
    offsets: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None
    targets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """int64 [examples], in tokens."""
        return np.diff(self.offsets)

    @property
    def labelled_rows(self) -> np.ndarray:
        """int64 [labelled examples], the numbers of the texts that have a label; with data.multi_label all."""
        return np.flatnonzero(self.labels >= 0) if self.labels.ndim == 1 else np.arange(len(self))

    @property
    def num_tokens(self) -> int:
        """The number of tokens of all texts."""
        return int(self.offsets[-1] - self.offsets[0])

    @classmethod
    def load(cls, path: Path) -> "TokenCache":
        """Reads what `datasets.write_cache` or `write_ids` wrote.

        Raises:
          manifest.DamagedFileError: if a file is missing or was changed.
        """
        manifest.check(path, "remove that folder", is_thorough=False)
        weights, targets = (
            load_array(path / name, is_mapped=name == "targets.npy") if (path / name).is_file() else None
            for name in ("weights.npy", "targets.npy")
        )
        return cls(path, load_array(path / "offsets.npy"), load_array(path / "labels.npy"), weights, targets)

    def first(self, count: int) -> "TokenCache":
        """The first `count` texts; 0: all."""
        if not count:
            return self
        weights, targets = (None if each is None else each[:count] for each in (self.weights, self.targets))
        offsets, labels = self.offsets[: count + 1], self.labels[:count]
        return replace(self, offsets=offsets, labels=labels, weights=weights, targets=targets)

    def unknown_share(self) -> float:
        """The share of ids that are UNK_ID, 0-1, computed in constant memory."""
        unknown = 0
        with open(self.path / "ids.bin", "rb") as file:
            while len(ids := np.fromfile(file, np.int32, 2**20)):
                unknown += int((ids == UNK_ID).sum())
        return unknown / max(int(self.offsets[-1]), 1)

    def facts(self) -> dict[str, dict[str, float]]:
        """Returns {"tokens": {"median": length, "largest": length, "unknown": share, 0-1}}; lengths are in tokens."""
        lengths = self.lengths
        median = int(np.median(lengths)) if len(lengths) else 0
        return {
            "tokens": {"median": median, "largest": int(lengths.max(initial=0)), "unknown": self.unknown_share()},
        }

    def describe(self) -> str:
        """The facts, for one line."""
        return _describe(self.facts())

    def rows(self, indices: Iterable[int]) -> list[np.ndarray]:
        """Reads the ids of some texts, each int32 [time]. The file is not memory-mapped, to limit resident memory."""
        with open(self.path / "ids.bin", "rb") as file:
            return [
                ids_at(file, int(self.offsets[index]), int(self.offsets[index + 1] - self.offsets[index]))
                for index in indices
            ]


@dataclass(frozen=True)
class PairCache:
    """The token ids of one split's pairs on disk. Each sentence ends with EOS_ID.

    Attributes:
      source, target: caches of all sentences.
      rows: int64 [pairs], numbers in both caches of the pairs that are not too long.
    """

    source: TokenCache
    target: TokenCache
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> np.ndarray:
        """int64 [pairs, 2], lengths of source and target in ids, including EOS_ID."""
        return np.stack([self.source.lengths, self.target.lengths], axis=1)[self.rows]

    def unknown_share(self) -> float:
        """The larger share of the two sides; see `TokenCache.unknown_share`."""
        return max(self.source.unknown_share(), self.target.unknown_share())

    def facts(self) -> dict[str, dict[str, float]]:
        """Like `TokenCache.facts`, with the keys "source tokens" and "target tokens"."""
        sides = {"source tokens": self.source, "target tokens": self.target}
        return {name: side.facts()["tokens"] for name, side in sides.items()}

    def describe(self) -> str:
        """The facts, for one line."""
        return _describe(self.facts())

    @property
    def num_tokens(self) -> int:
        """The number of target ids, which are predicted."""
        return int(self.lengths[:, 1].sum())


def _describe(facts: dict[str, dict[str, float]]) -> str:
    return "; ".join(
        f"{side['median']:,} {name} at the median, {side['largest']:,} at most, {100 * side['unknown']:.1f} % unknown"
        for name, side in facts.items()
    )


def write_ids(path: Path, texts: Iterable[np.ndarray]) -> None:
    """Writes token ids, each int32 [time], into a folder as those of texts without labels (label 0)."""
    lengths = []
    with open(path / "ids.bin", "wb") as file:
        for ids in texts:
            file.write(ids.astype(np.int32).tobytes())  # `tofile` does not report that a disk is full
            lengths.append(len(ids))
    np.save(path / "offsets.npy", np.concatenate([[0], lengths]).cumsum(dtype=np.int64))
    np.save(path / "labels.npy", np.zeros(len(lengths), np.int32))


def load_array(path: Path, *, is_mapped: bool = False) -> np.ndarray:
    """Loads an .npy file; if `is_mapped`, what is used of it stays on disk until then.

    Raises:
      manifest.DamagedFileError: if it is missing or damaged.
    """
    try:
        return np.load(path, mmap_mode="r" if is_mapped else None)
    except (OSError, ValueError, EOFError) as error:
        raise manifest.DamagedFileError(
            f"{path}: is damaged ({str(error)[:100]}); remove the folder {path.parent}"
        ) from None


def ids_at(file: BinaryIO, start: int, length: int) -> np.ndarray:
    file.seek(4 * start)
    return np.frombuffer(file.read(4 * length), np.int32)
