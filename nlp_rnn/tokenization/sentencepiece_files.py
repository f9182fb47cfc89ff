"""Subword vocabularies: trained by the sentencepiece library, read from and written to its `.model` files.

Only this module needs the library. The segmentation is in `unigram`, in core TensorFlow ops.
"""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlp_rnn.errors import ConfigError
from nlp_rnn.special_ids import WORD_START
from nlp_rnn.tokenization.unigram import MAX_PIECE_LENGTH

BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))
# Scores are rounded to this many nats. The library adds float32 scores along the whole text, and rounds; sums of such
# multiples are exact up to 2^24 * 2^-8 = 65,536 nats, some 8,000 pieces, so that it finds what exact sums find.
_SCORE_STEP = 2.0**-8
_NUM_THREADS = 4  # fixed, since sums depend on it


def train(
    word_counts: Mapping[str, int],
    *,
    vocab_size: int,
    special_pieces: Sequence[str],
    num_reserved: int = 0,
    split_digits: bool = False,
) -> tuple[list[str], list[float]]:
    """Trains a unigram vocabulary with byte fallback.

    Args:
      word_counts: the count of each word of the normalised training texts.
      vocab_size: total number of pieces: special and reserved ones, 256 bytes and pieces of text.
      special_pieces: pad, unknown, beginning and end of a text.
      split_digits: whether a piece with a digit contains nothing else.

    Returns:
      (the pieces after `special_pieces`: bytes, then pieces of text; their scores in nats, 0 for bytes).

    Raises:
      ConfigError: if the words do not support a vocabulary of that size.
    """
    import sentencepiece

    pad, unknown, begin, end = special_pieces
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(f"{word}\t{count}" for word, count in sorted(word_counts.items())),
            input_format="tsv", model_writer=written, model_type="unigram", vocab_size=vocab_size - num_reserved,
            byte_fallback=True,
            normalization_rule_name="identity", split_digits=split_digits, max_sentence_length=1 << 20, minloglevel=2,
            num_threads=_NUM_THREADS,
            pad_id=0, unk_id=1, bos_id=2, eos_id=3, pad_piece=pad, unk_piece=unknown, bos_piece=begin, eos_piece=end,
        )  # fmt: skip
    except (RuntimeError, OSError) as error:
        raise _training_error(str(error), vocab_size, num_reserved) from None
    model = _parse(written.getvalue(), "the trained model")
    pieces, scores = _pieces_and_scores(model)
    return pieces, [round(score / _SCORE_STEP) * _SCORE_STEP for score in scores]


def _training_error(message: str, vocab_size: int, num_reserved: int) -> ConfigError:
    setting = f"tokenizer.vocab_size is {vocab_size:,}"
    if limit := re.search(r"value <= (\d+)", message):
        most = int(limit[1]) + num_reserved
        return ConfigError(
            f"{setting}, but the training texts support at most {most:,} pieces; lower it or give more text"
        )
    if limit := re.search(r"required_chars\. \d+ vs (\d+)", message):
        least = int(limit[1]) + num_reserved
        return ConfigError(
            f"{setting}, but the 256 bytes and the characters of the training texts alone need {least:,}; raise it"
        )
    return ConfigError(
        f"{setting}: sentencepiece could not train a vocabulary on the training texts ({' '.join(message.split())})"
    )


def read_model(path: Path, *, reserved: Sequence[str] = ()) -> tuple[list[str], list[float]]:
    """Reads the pieces and scores of a sentencepiece `.model` file, without its special pieces.

    Args:
      reserved: symbols that get their own ids in addition to the model's pieces.

    Raises:
      ConfigError: if the file is not such a model, or the layer cannot reproduce its pieces; with the reason.
    """
    try:
        model = _parse(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(
            f"tokenizer.vocabulary is {path}, which cannot be read ({error.strerror}); check the path"
        ) from None
    reason = _why_not(model)
    if reason:
        raise ConfigError(
            f"tokenizer.vocabulary is {path}, which {reason}; train a vocabulary here (leave tokenizer.vocabulary "
            f"empty), or train "
            "the model with --model_type=unigram --normalization_rule_name=identity"
        )
    pieces, scores = _pieces_and_scores(model)
    taken = next((symbol for symbol in reserved if symbol in pieces), None)
    if taken is not None:
        raise ConfigError(
            f"tokenizer.reserved holds {taken!r}, which is a piece of tokenizer.vocabulary, {path}; choose another "
            f"symbol"
        )
    return pieces, scores


def write_model(
    path: Path,
    *,
    special_pieces: Sequence[str],
    reserved: Sequence[str],
    pieces: Sequence[str],
    scores: Sequence[float],
) -> None:
    """Writes a vocabulary as a `.model` file for the sentencepiece library.

    Args:
      special_pieces: pad, unknown, beginning and end of a text.
      reserved: symbols that are never split; their ids follow the special ones.
      pieces, scores: all others, including bytes.
    """
    protos = _protos()
    model = protos.ModelProto()
    kinds = protos.ModelProto.SentencePiece
    for number, piece in enumerate(special_pieces):
        model.pieces.add(piece=piece, score=0.0, type=kinds.UNKNOWN if number == 1 else kinds.CONTROL)
    for piece in reserved:
        model.pieces.add(piece=piece, score=0.0, type=kinds.USER_DEFINED)
    has_bytes = pieces[:256] == list(BYTE_PIECES)
    for number, (piece, score) in enumerate(zip(pieces, scores, strict=True)):
        model.pieces.add(piece=piece, score=score, type=kinds.BYTE if has_bytes and number < 256 else kinds.NORMAL)
    model.trainer_spec.model_type = protos.TrainerSpec.UNIGRAM
    model.trainer_spec.vocab_size = len(model.pieces)
    model.trainer_spec.byte_fallback = has_bytes
    model.trainer_spec.pad_id, model.trainer_spec.unk_id, model.trainer_spec.bos_id, model.trainer_spec.eos_id = (
        0,
        1,
        2,
        3,
    )
    (
        model.trainer_spec.pad_piece,
        model.trainer_spec.unk_piece,
        model.trainer_spec.bos_piece,
        model.trainer_spec.eos_piece,
    ) = special_pieces
    model.normalizer_spec.name = "identity"
    path.write_bytes(model.SerializeToString())


def _protos() -> Any:
    from sentencepiece import sentencepiece_model_pb2

    return sentencepiece_model_pb2


def _parse(data: bytes, name: str) -> Any:
    from google.protobuf.message import DecodeError

    model = _protos().ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        model.Clear()
    if not model.pieces or not model.HasField("trainer_spec"):
        raise ConfigError(
            f"tokenizer.vocabulary is {name}, which is not a sentencepiece model or is cut off; give a whole .model "
            f"file"
        )
    return model


def _why_not(model: Any) -> str:
    """The reason why the layer cannot reproduce the library's pieces; empty if it can."""
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    kinds = type(model.pieces[0])
    texts = [piece.piece for piece in model.pieces if piece.type == kinds.NORMAL]
    within = next((text for text in texts if WORD_START in text[1:]), None)
    bytes_ = [piece.piece for piece in model.pieces if piece.type == kinds.BYTE]
    symbols = [piece.piece for piece in model.pieces if piece.type == kinds.USER_DEFINED]
    repeated = len(texts) - len(set(texts))
    reasons = {
        "is a BPE, word or char model, not a unigram model": trainer.model_type != trainer.UNIGRAM,
        f"normalises text by {normalizer.name or 'its own table'!r}, a table of its own": bool(
            normalizer.precompiled_charsmap
        ),
        "marks no word at the beginning of a text (add_dummy_prefix is off)": not normalizer.add_dummy_prefix,
        "keeps repeated spaces (remove_extra_whitespaces is off)": not normalizer.remove_extra_whitespaces,
        "does not mark spaces (escape_whitespaces is off)": not normalizer.escape_whitespaces,
        "marks the ends of words (treat_whitespace_as_suffix)": trainer.treat_whitespace_as_suffix,
        f"has a piece across words, {within!r}": within is not None,
        f"has symbols defined by its user, such as {symbols[:1]}: name them in tokenizer.reserved of a vocabulary "
        "trained here": symbols,
        "has an incomplete set of byte pieces": bool(bytes_) and bytes_ != list(BYTE_PIECES),
        f"has {repeated} pieces twice": repeated,
        f"has a piece of more than {MAX_PIECE_LENGTH} characters": any(len(text) > MAX_PIECE_LENGTH for text in texts),
        "has no pieces of text": not texts,
        "has neither bytes nor a piece for the beginning of a word": not bytes_ and WORD_START not in texts,
        "has a score that is not a number": any(
            piece.score != piece.score or abs(piece.score) > 1e6 for piece in model.pieces
        ),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _pieces_and_scores(model: Any) -> tuple[list[str], list[float]]:
    kinds = type(model.pieces[0])
    has_bytes = any(piece.type == kinds.BYTE for piece in model.pieces)
    normal = [piece for piece in model.pieces if piece.type == kinds.NORMAL]
    pieces = [*BYTE_PIECES] if has_bytes else []
    return pieces + [piece.piece for piece in normal], [0.0] * len(pieces) + [piece.score for piece in normal]
