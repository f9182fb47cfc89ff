"""Builds the tokenizer of a config: trained, or with the user's vocabulary."""

import re
from collections.abc import Iterable
from pathlib import Path

from nlp_rnn import files
from nlp_rnn.config.settings import TokenizerConfig
from nlp_rnn.errors import ConfigError
from nlp_rnn.special_ids import SPECIAL_PIECES
from nlp_rnn.text_files import read_lines
from nlp_rnn.tokenization import sentencepiece_files
from nlp_rnn.tokenization.sentencepiece_files import BYTE_PIECES
from nlp_rnn.tokenization.tokenizer import Tokenizer
from nlp_rnn.tokenization.vocabulary_file import unescape


def build_tokenizer(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    """Builds the config's tokenizer: trained on training texts, or with the vocabulary in the user's file.

    Raises:
      ConfigError: if the texts do not support the vocabulary, or the file is not usable.
    """
    tokenizer = untrained_tokenizer(config)
    if not config.vocabulary:
        tokenizer.adapt(
            texts, vocab_size=config.vocab_size, min_count=config.min_count, split_digits=config.split_digits
        )
    elif config.level == "subword":
        tokenizer.set_vocabulary(*sentencepiece_files.read_model(Path(config.vocabulary), reserved=tokenizer.reserved))
    else:
        tokenizer.set_vocabulary(read_vocabulary(Path(config.vocabulary), tokenizer))
    capital = next(
        (piece for piece in tokenizer.known_vocabulary() if piece != piece.lower() and piece not in BYTE_PIECES), ""
    )
    if capital and config.vocabulary and config.case != "keep":
        raise ConfigError(
            f"tokenizer.vocabulary is {config.vocabulary}, which holds capitals, such as {capital!r}, but "
            f"tokenizer.case is {config.case}: "
            "they would never be found; set tokenizer.case=keep"
        )
    return tokenizer


def tokenizer_of(origin: Path) -> Tokenizer:
    """The tokenizer of a run directory, of an exported model, or of the newest version of one.

    Raises:
      ConfigError: if there is none, or it is damaged.
    """
    version = files.newest_version(origin)
    if (version / "saved_model.pb").is_file():
        return Tokenizer.load(version / "assets.extra", vocabulary_file="vocabulary")
    return Tokenizer.load(origin / "tokenizer")


def untrained_tokenizer(config: TokenizerConfig) -> Tokenizer:
    """Builds the config's tokenizer without a vocabulary: it can `normalize`, and split words and characters."""
    return Tokenizer(
        config.level, case=config.case, nfkc=config.nfkc, html_breaks=config.html_breaks, splitter=config.splitter,
        whole_emoji=config.level == "word" and config.splitter == "unicode",
        oov_buckets=config.oov_buckets, reserved=config.reserved,
    )  # fmt: skip


def read_vocabulary(path: Path, tokenizer: Tokenizer) -> list[str]:
    """Reads the pieces of a user's file, one per line.

    Raises:
      ConfigError: if there is no such file, or a line holds no piece that the tokenizer could find in texts.
    """
    lines: dict[str, int] = dict.fromkeys((*SPECIAL_PIECES, *tokenizer.own_symbols()), 0)
    num_fixed = len(lines)
    if not path.is_file():
        raise ConfigError(
            f"tokenizer.vocabulary is {path}, but there is no such file; give a text file with a piece a line"
        )
    for number, line in read_lines(path):
        piece, mistake = unescape(line), ""
        if piece in lines:
            mistake = (
                f"repeats {piece!r} of line {lines[piece]}"
                if lines[piece]
                else f"holds {piece!r}, which every vocabulary has"
            )
        elif not piece:
            mistake = "is empty"
        elif tokenizer.level == "word" and re.fullmatch(r"(\S+)\s+(-?[0-9.]+(?:[eE]-?[0-9]+)?)", piece):
            mistake = (
                f"is {piece!r}, a word and a number: give the words alone, for example: cut -f 1 (or cut -d ' ' -f 1)"
            )
        elif tokenizer.level == "word" and re.search(r"\s", piece):
            mistake = f"is {piece!r}, which has white space in it: words have none, so it would never be found"
        elif tokenizer.level == "word" and piece.startswith(("\u2581", "##", "\u0120")):
            mistake = f"is {piece!r}, a piece of a subword tokenizer: give its .model file with tokenizer.level=subword"
        elif tokenizer.level == "char" and len(piece) > 1:
            mistake = f"is {piece!r}, but tokenizer.level is char"
        elif re.search("[\U0010f7f0-\U0010ffff]", piece):
            mistake = f"is {piece!r}, of a range that the tokenizer uses itself"
        if mistake:
            raise ConfigError(
                f"tokenizer.vocabulary is {path}, whose line {number} {mistake}; correct or remove that line"
            )
        lines[piece] = number
    if len(lines) == num_fixed:
        raise ConfigError(f"tokenizer.vocabulary is {path}, which is empty; give a piece a line")
    return list(lines)[num_fixed:]
