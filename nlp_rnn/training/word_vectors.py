"""Reads text files of pretrained word vectors, and initializes embeddings (model.vectors)."""

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from nlp_rnn import files, text_files
from nlp_rnn.config.settings import ModelConfig
from nlp_rnn.data.token_cache import PairCache, TokenCache
from nlp_rnn.errors import ConfigError
from nlp_rnn.special_ids import BOS_ID, EOS_ID, PAD_ID, SPECIAL_PIECES
from nlp_rnn.tokenization.vocabulary_file import read_pieces

logger = logging.getLogger(__name__)

VECTORS_FILE = "vectors.npz"  # in a run directory: the initial vectors of the embedding
_LONGEST_LINE = 2**20  # bytes; a file without line ends is not read into memory
_NUMBER = re.compile(rb"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|nan|inf(?:inity)?)", re.IGNORECASE)
_NOT_READ = (
    "give a text file of GloVe, word2vec or fastText (.vec), plain or .gz, with one word and its numbers per line"
)


@dataclass(frozen=True)
class Match:
    """The entries of a vocabulary that a file of vectors contains.

    Attributes:
      rows: int64 [matched], ids of the vocabulary, each once.
      vectors: float32 [matched, embedding_dim].
      num_by_case: number of entries matched by a word in another letter case.
      left_out: reason -> number of lines that were not used.
    """

    rows: np.ndarray
    vectors: np.ndarray
    num_by_case: int
    left_out: dict[str, int]

    def save(self, path: Path) -> None:
        """Writes an .npz file."""
        facts = json.dumps({"num_by_case": self.num_by_case, "left_out": self.left_out}).encode()
        with files.atomic_file(path) as temporary, open(temporary, "wb") as file:
            np.savez(
                file, allow_pickle=False, rows=self.rows, vectors=self.vectors, facts=np.frombuffer(facts, np.uint8)
            )

    @classmethod
    def load(cls, path: Path) -> "Match":
        """Reads a file that `save` wrote."""
        with np.load(path) as arrays:
            return cls(arrays["rows"], arrays["vectors"], **json.loads(arrays["facts"].tobytes()))


class _Header(NamedTuple):
    """The beginning of a file of vectors: its dimension, and the number of words in its header (None: no header)."""

    dimension: int
    num_words: int | None


def check_file(model: ModelConfig) -> None:
    """Checks the first line of the file model.vectors, so that mistakes are reported before the data are read.

    Raises:
      ConfigError: if the file does not exist, does not hold vectors, or its dimension is not model.embedding_dim.
    """
    path = Path(model.vectors)
    if not path.is_file():
        raise ConfigError(f"model.vectors is {path}, but there is no such file; {_NOT_READ}, or a trained model")
    with text_files.opened_bytes(path) as file:
        _read_header(path, file, model.embedding_dim)


def initialize(embeddings: list[Any], run: Path, train: TokenCache | PairCache) -> None:
    """Assigns a run directory's vectors to embeddings, and logs their share of the vocabulary and the training text.

    Args:
      embeddings: built Keras Embedding layers, one row per vocabulary entry; entries without a vector keep their random
        values.
      run: the run directory, with the saved result of `initial_vectors.match_vocabulary`.
      train: the ids of the training split.
    """
    match, num_words = Match.load(run / VECTORS_FILE), len(read_pieces(run / "tokenizer")) - len(SPECIAL_PIECES)
    for layer in embeddings:
        table = np.array(layer.embeddings.numpy())
        table[match.rows] = match.vectors
        layer.embeddings.assign(table)
    logger.info("model.vectors: %s", _describe(match, num_words, _token_share(match.rows, train)))


def read_vectors(path: Path, pieces: list[str], dimension: int) -> Match:
    """Streams a file of vectors and keeps those of a vocabulary.

    If a word is repeated, its first vector is used. A piece that the file does not contain takes the first vector of a
    word that differs only in letter case.

    Args:
      path: a text file, plain or .gz.
      pieces: all pieces by id, special pieces first.
      dimension: the dimension that the vectors must have.

    Raises:
      ConfigError: if a line is not a word and `dimension` finite numbers (the message names the line), or the number of
        words is not that of the header.
    """
    by_piece = {piece: number for number, piece in enumerate(pieces) if number != PAD_ID}
    by_lower: dict[str, list[int]] = {}
    for number, piece in enumerate(pieces[len(SPECIAL_PIECES) :], start=len(SPECIAL_PIECES)):
        by_lower.setdefault(piece.lower(), []).append(number)
    exact: dict[int, np.ndarray] = {}
    by_case: dict[int, np.ndarray] = {}
    left_out: Counter[str] = Counter()
    for place, word, numbers in _lines(path, dimension, left_out):
        row, others = by_piece.get(word), by_lower.get(word.lower(), ())
        if row in exact:
            left_out["repeated"] += 1
        elif row is not None or any(other not in by_case for other in others):
            vector = _parse(numbers, place)
            for other in others:
                by_case.setdefault(other, vector)
            if row is not None:
                exact[row] = vector
    by_id = by_case | exact
    vectors = np.array(list(by_id.values()), np.float32).reshape(len(by_id), dimension)
    return Match(np.array(list(by_id), np.int64), vectors, len(by_id) - len(exact), dict(left_out))


def _lines(path: Path, dimension: int, left_out: Counter[str]) -> Iterator[tuple[str, str, bytes]]:
    """Yields (place for messages, word, its numbers) of each line whose word a vocabulary can contain."""
    with text_files.opened_bytes(path) as file:
        header = _read_header(path, file, dimension)
        num_words, first = 0, 1 + (header.num_words is not None)
        for number, line in enumerate(iter(lambda: _read_line(path, file), b""), start=first):
            text = line.rstrip(b" \t\r\n").replace(b"\t", b" ")
            if not text:
                continue
            place = f"model.vectors is {path}, whose line {number}"
            num_words += 1
            # Words may contain spaces, as in GloVe's 840B file.
            word, numbers = _cut(text, dimension, place)
            if b" " in word or not word:
                left_out["with a space in the word"] += 1
                continue
            try:
                yield place, word.decode("utf-8"), numbers
            except UnicodeDecodeError:
                left_out["not UTF-8"] += 1
    if header.num_words is not None and num_words != header.num_words:
        raise ConfigError(
            f"model.vectors is {path}, whose first line says {header.num_words:,} words, "
            f"but the file has {num_words:,}; "
            "download or write it again"
        )


def _cut(text: bytes, dimension: int, place: str) -> tuple[bytes, bytes]:
    """Splits a line into its word and its numbers."""
    num_spaces = text.count(b" ")
    if num_spaces == dimension:
        word, _, numbers = text.partition(b" ")
        return word, numbers
    parts = text.rsplit(b" ", dimension)
    word = parts[0]
    if num_spaces < dimension or _NUMBER.fullmatch(word.rpartition(b" ")[2]):
        raise ConfigError(f"{place} has {num_spaces} numbers instead of {dimension}; correct or remove that line")
    return word, b" ".join(parts[1:])


def _parse(numbers: bytes, place: str) -> np.ndarray:
    """float32 [dimension]."""
    parts = numbers.split(b" ")
    wrong = next((part for part in parts if not _NUMBER.fullmatch(part)), None)
    vector = np.array(parts, "S").astype(np.float32) if wrong is None else np.zeros(0)
    if wrong is None and not np.isfinite(vector).all():
        wrong = parts[int(np.flatnonzero(~np.isfinite(vector))[0])]
    if wrong is not None:
        shown = wrong[:40].decode("utf-8", "replace")
        raise ConfigError(f"{place} contains {shown!r}, which is not a finite number; correct or remove that line")
    return vector


def _read_header(path: Path, file: BinaryIO, dimension: int) -> _Header:
    """Reads the first line of a file of vectors. Leaves the file at its first word."""
    parts = _read_line(path, file).rstrip().replace(b"\t", b" ").split(b" ")
    if len(parts) == 2 and all(part.isdigit() for part in parts):
        header = _Header(int(parts[1]), int(parts[0]))
    else:
        # If the first line has the right number of columns, its numbers are checked later, like those of other lines.
        header = _Header(dimension if len(parts) == dimension + 1 else _num_numbers(parts), None)
        file.seek(0)
    if not header.dimension:
        raise ConfigError(f"model.vectors is {path}, whose first line is not a word and its numbers; {_NOT_READ}")
    if header.dimension != dimension:
        raise ConfigError(
            f"model.embedding_dim is {dimension}, but the vectors of model.vectors, {path}, have {header.dimension} "
            f"numbers; set model.embedding_dim={header.dimension}"
        )
    return header


def _num_numbers(parts: list[bytes]) -> int:
    """The number of numbers at the end of a line; its first part is the word."""
    count = 0
    for part in reversed(parts[1:]):
        if not _NUMBER.fullmatch(part):
            break
        count += 1
    return count


def _read_line(path: Path, file: BinaryIO) -> bytes:
    line = file.readline(_LONGEST_LINE)
    if len(line) == _LONGEST_LINE or b"\0" in line:
        raise ConfigError(f"model.vectors is {path}, which is not text; {_NOT_READ}")
    return line


def _token_share(rows: np.ndarray, train: TokenCache | PairCache) -> float:
    """The share (0-1) of training tokens with ids in `rows`, not counting padding and the ends of texts."""
    counts = np.zeros(0, np.int64)
    for cache in [train.source, train.target] if isinstance(train, PairCache) else [train]:
        with open(cache.path / "ids.bin", "rb") as file:
            while len(ids := np.frombuffer(file.read(2**22), np.int32)):
                block_counts = np.bincount(ids, minlength=len(counts))
                block_counts[: len(counts)] += counts
                counts = block_counts
    counts[[id_ for id_ in (PAD_ID, BOS_ID, EOS_ID) if id_ < len(counts)]] = 0
    return float(counts[rows[rows < len(counts)]].sum() / max(counts.sum(), 1))


def _describe(match: Match, num_words: int, token_share: float) -> str:
    num_found = int((match.rows >= len(SPECIAL_PIECES)).sum())
    text = f"{num_found:,} of {num_words:,} vocabulary entries ({100 * num_found / num_words:.1f} %), "
    text += f"{100 * token_share:.1f} % of training tokens"
    if match.num_by_case:
        text += f"; {match.num_by_case:,} of them by a word in another letter case"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in match.left_out.items())
    return text + (f"; lines left out: {reasons}" if reasons else "")
