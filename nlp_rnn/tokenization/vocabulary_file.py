"""The file of a tokenizer's vocabulary, one piece per line; no TensorFlow."""

import re
from pathlib import Path

VOCABULARY_FILE = "vocabulary.txt"


def read_pieces(folder: Path) -> list[str]:
    """All pieces by id, special ones first, of the folder that `Tokenizer.save` wrote; hash buckets have none."""
    return [unescape(line.partition("\t")[0]) for line in _lines(folder)]


def read_scored_pieces(folder: Path) -> list[tuple[str, float]]:
    """All pieces of a subword tokenizer by id, with their log-probabilities in nats: 0 of special pieces and bytes."""
    parts = [line.rsplit("\t", 1) for line in _lines(folder)]
    return [(unescape(piece), float(score)) for piece, score in parts]


def _lines(folder: Path) -> list[str]:
    """One per piece: the escaped piece, and of subwords behind it a tab and their score."""
    return (folder / VOCABULARY_FILE).read_bytes().decode("utf-8").split("\n")[:-1]


def escape(piece: str) -> str:
    return piece.replace("\\", "\\\\").replace("\n", "\\n")


def unescape(line: str) -> str:
    return re.sub(r"\\([\\n])", lambda escape: "\n" if escape[1] == "n" else "\\", line)
