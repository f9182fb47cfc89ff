"""The Tokenizer layer of all tasks: from text to ids and back in core TensorFlow ops.

The same layer computes the ids for training, runs in exported graphs and turns ids back into text, so training and
serving cannot drift apart. It calls TensorFlow, since Keras has no string ops.
"""

import functools
import itertools
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nlp_rnn import files
from nlp_rnn.errors import ConfigError
from nlp_rnn.special_ids import PAD_ID, SPECIAL_PIECES, UNK_ID, WORD_START
from nlp_rnn.tokenization import sentencepiece_files, unigram
from nlp_rnn.tokenization.letter_case import apply_case, mark_case
from nlp_rnn.tokenization.normalization import normalize, valid_utf8
from nlp_rnn.tokenization.sentencepiece_files import BYTE_PIECES
from nlp_rnn.tokenization.unigram import Segmenter
from nlp_rnn.tokenization.vocabulary_file import VOCABULARY_FILE, escape, unescape
from nlp_rnn.tokenization.word_splitters import SPLITTERS, split_unicode

logger = logging.getLogger(__name__)

CASE_MARKERS = ("<title>", "<upper>")  # ids 4 and 5 if case is "markers"
UNKNOWN_TEXT = "\ufffd"  # the text of an unknown piece

# Within the layer, a reserved symbol is one private-use character; in texts, that range is unknown.
_FIRST_STAND_IN = 0x10F800
_STAND_INS = r"[\x{10F7F0}-\x{10FFFF}]"
# Beyond so many distinct pieces, counting drops the rarest, so that memory stays constant.
_MAX_TRACKED_PIECES = 2_000_000


@keras.saving.register_keras_serializable("nlp_rnn")
class Tokenizer(keras.layers.Layer):
    """Text to ids and back, at the level of words, characters or subwords.

    Ids 0-3 are PAD_ID, UNK_ID, BOS_ID and EOS_ID. Then follow case markers, reserved symbols, bytes and pieces
    (subwords by score, others by frequency), and the hash buckets. The layer has no weights. Its vocabulary is part of
    `get_config`, so `.keras` files, `clone_model` and SavedModels include it.

    Args:
      level: "word", "char", or "subword" (SentencePiece's unigram pieces; unknown characters become bytes).
      case: "lower" (Unicode), "keep", or for words "markers": lower case, with <title> before Words and <upper> before
        WORDS. Words of mixed case lose it.
      nfkc: whether text is brought to Unicode normal form KC.
      html_breaks: whether <br> counts as white space (not at level char).
      splitter: of words: "unicode", "treebank" or "whitespace"; see `word_splitters`.
      whole_emoji: whether emoji of several code points are one word; for the splitter "unicode". Tokenizers of earlier
        versions cut them.
      oov_buckets: number of ids that unknown words share by their hash; 0: all are UNK_ID. For words.
      reserved: symbols that are never split and have their own ids, such as "<sep>". They are matched in normalised
        text, and are normalised themselves. Of two overlapping symbols, the longer one matches.
      vocabulary: the pieces after the reserved symbols, or None before `adapt`.
      scores: log-probabilities of a subword vocabulary, in nats.

    Raises:
      ValueError: if an argument is not as described, or a piece is repeated in the vocabulary.
    """

    def __init__(
        self, level: str = "word", *, case: str = "lower", nfkc: bool = False, html_breaks: bool = True,
        splitter: str = "unicode", whole_emoji: bool = False,
        oov_buckets: int = 0, reserved: Sequence[str] = (), vocabulary: Iterable[str] | None = None,
        scores: Iterable[float] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        kwargs.setdefault("trainable", False)
        super().__init__(**kwargs)
        _check_arguments(level, case, splitter, oov_buckets, reserved)
        if whole_emoji and (level, splitter) != ("word", "unicode"):
            raise ValueError(
                f"whole_emoji is for words of the splitter 'unicode', but level is {level!r}, {splitter!r}"
            )
        self.level, self.case, self.nfkc, self.html_breaks = level, case, nfkc, html_breaks
        self.splitter, self.whole_emoji, self.oov_buckets = splitter, whole_emoji, oov_buckets
        self.reserved = self._normalized_symbols(reserved)
        self._stand_ins = [chr(_FIRST_STAND_IN + number) for number in range(len(self.own_symbols()))]
        self.supports_jit = False  # XLA has no strings
        self.vocabulary: list[str] | None = None
        self.scores: list[float] | None = None
        if vocabulary is not None:
            self.set_vocabulary(list(vocabulary), None if scores is None else list(scores))
        self.built = True

    @property
    def vocab_size(self) -> int:
        """Number of ids, including special ones and hash buckets."""
        return self._num_fixed() + len(self.known_vocabulary()) + self.oov_buckets

    # --- text -> ids -----------------------------------------------------------------------------------------------

    def tokenize(self, texts: Any) -> tf.RaggedTensor:
        """Turns texts into ids: string [batch] -> ragged int32 [batch, (time)]. Invalid UTF-8 becomes U+FFFD.

        An unknown word or character becomes UNK_ID or the id of a hash bucket. At level subword, unknown characters
        become bytes; if an imported vocabulary has no bytes, a run of unknown characters becomes one UNK_ID.
        """
        self.known_vocabulary()
        if self.level != "subword":
            return tf.ragged.map_flat_values(self._look_up, self._split(texts))
        words = self._split(texts)
        distinct, places = tf.unique(words.flat_values)
        pieces = self._resolve_unknown(self._segmenter.segment(tf.strings.join([WORD_START, distinct])))
        return tf.RaggedTensor.from_row_splits(tf.gather(pieces, places), words.row_splits, validate=False).merge_dims(
            1, 2
        )

    def sample(self, texts: Any, *, temperature: float, seed: Any) -> tf.RaggedTensor:
        """Like `tokenize` at level subword, but draws segmentations by their probability, for training.

        Source: Kudo 2018.

        Args:
          temperature: 1 draws by the vocabulary's own probabilities; near 0, the best segmentation is almost certain.
          seed: int32 [2].
        """
        self.known_vocabulary()
        words = self._split(texts)
        pieces = self._segmenter.sample(
            tf.strings.join([WORD_START, words.flat_values]), temperature=temperature, seed=seed
        )
        return tf.RaggedTensor.from_row_splits(
            self._resolve_unknown(pieces), words.row_splits, validate=False
        ).merge_dims(1, 2)

    def call(self, texts: Any) -> tf.Tensor:
        """Tokenizes and pads: string [batch] -> int32 [batch, time of the longest text], right-padded with PAD_ID."""
        return self.tokenize(texts).to_tensor(PAD_ID)

    def pieces(self, texts: Any) -> tf.RaggedTensor:
        """Splits texts: string [batch] -> ragged string [batch, (time)], the pieces as written in the normalised text.

        At level subword, beginnings of words have U+2581, bytes are <0x00> to <0xFF>, and characters that a vocabulary
        without bytes does not contain are <unk>.
        """
        if self.level == "subword":
            return tf.ragged.map_flat_values(lambda ids: tf.gather(self._names_by_id, ids), self.tokenize(texts))
        return tf.ragged.map_flat_values(self._reveal, self._split(texts))

    def normalize(self, texts: Any) -> tf.Tensor:
        """Normalises texts: string [batch] -> string [batch], valid UTF-8, runs of white space as one space.

        At level char, white space is kept.
        """
        text = tf.strings.regex_replace(valid_utf8(tf.convert_to_tensor(texts, tf.string)), _STAND_INS, UNKNOWN_TEXT)
        return normalize(
            text, lowercase=self.case == "lower", nfkc=self.nfkc, html_breaks=self.html_breaks,
            keep_spaces=self.level == "char",
            other_spaces=WORD_START if self.level == "subword" else "",
        )  # fmt: skip

    # --- ids -> text -----------------------------------------------------------------------------------------------

    def detokenize(self, token_ids: Any, *, unknown: Any = None) -> tf.Tensor:
        """Turns ids into texts with natural spacing.

        PAD, BOS and EOS are left out, and UNK becomes U+FFFD. Characters and subwords are restored exactly. Words are
        joined with punctuation as in English; with the splitter "unicode", tokenizing the result gives the same ids,
        except around unknown pieces and lone quotation marks.

        Args:
          token_ids: int32 [batch, time], or ragged.
          unknown: string [batch, time]; replaces UNK_ID at that position if not "". Not for ragged ids.

        Returns:
          string [batch].

        Raises:
          tf.errors.InvalidArgumentError: if an id is outside of the vocabulary.
        """
        self.known_vocabulary()
        ids = token_ids
        if not isinstance(ids, tf.RaggedTensor):
            ids = tf.RaggedTensor.from_tensor(tf.convert_to_tensor(ids, tf.int32))
        flat = tf.cast(ids.flat_values, tf.int32)
        tf.debugging.assert_less(
            flat, self.vocab_size, f"token ids must be less than the vocabulary size, {self.vocab_size}"
        )
        tf.debugging.assert_non_negative(flat, "token ids must not be negative")
        pieces = tf.gather(self._texts_by_id, flat)
        if unknown is not None:
            pieces = tf.where((flat == UNK_ID) & (tf.reshape(unknown, [-1]) != ""), tf.reshape(unknown, [-1]), pieces)
        is_text = ids.with_flat_values((flat == UNK_ID) | (flat >= len(SPECIAL_PIECES)))
        pieces, ids = (tf.ragged.boolean_mask(each, is_text) for each in (ids.with_flat_values(pieces), ids))
        if self.case == "markers":
            pieces = apply_case(ids, pieces)
        if self.level == "word":
            return SPLITTERS[self.splitter][1](tf.strings.reduce_join(pieces, axis=-1, separator=" "))
        text = tf.strings.reduce_join(pieces, axis=-1)
        if self.level == "char":
            return text
        text = tf.strings.regex_replace(tf.strings.regex_replace(text, WORD_START, " "), "^ ", "")
        return valid_utf8(text)  # bytes may be cut off

    # --- vocabulary ------------------------------------------------------------------------------------------------

    def adapt(self, texts: Iterable[str], *, vocab_size: int, min_count: int = 1, split_digits: bool = False) -> None:
        """Builds the vocabulary from training texts.

        Words and characters: the most frequent ones, ties in code-point order. Subwords: the sentencepiece library
        trains them on the counted words.

        Args:
          texts: a stream of texts, read once in constant memory.
          vocab_size: the largest number of ids, including special ones and hash buckets; of subwords, the exact number.
          min_count: words and characters with fewer occurrences are left out.
          split_digits: whether each digit is a separate subword.

        Raises:
          ConfigError: if no piece is left, or the texts do not support so many subwords.
        """
        counts = self._count(texts)
        if self.level == "subword" and self._stand_ins:
            counts = self._without_symbols(counts)
        counts = Counter({piece: count for piece, count in counts.items() if not self._is_special(piece)})
        if self.level == "subword" and counts:
            own = len(self.own_symbols())
            vocabulary = sentencepiece_files.train(
                counts,
                vocab_size=vocab_size,
                special_pieces=SPECIAL_PIECES,
                num_reserved=own,
                split_digits=split_digits,
            )
            self.set_vocabulary(*vocabulary)
            return
        kept = sorted((-count, piece) for piece, count in counts.items() if count >= min_count)
        if not kept:
            raise ConfigError(
                f"tokenizer.min_count is {min_count}, but no piece of the training texts is seen so often (or they are "
                f"empty): "
                "lower it or give more text"
            )
        self.set_vocabulary([piece for _, piece in kept[: max(vocab_size - self._num_fixed() - self.oov_buckets, 1)]])

    def texts(self) -> list[str]:
        """The text of each id; "" for ids without text, U+FFFD for unknown words and single bytes."""
        self.known_vocabulary()
        return [text.decode("utf-8", "replace") for text in self._texts_by_id.numpy()]

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments except for the vocabulary."""
        names = ("level", "case", "nfkc", "html_breaks", "splitter", "oov_buckets")
        emoji = {"whole_emoji": True} if self.whole_emoji else {}  # files of earlier versions do not have it
        return {name: getattr(self, name) for name in names} | emoji | {"reserved": list(self.reserved)}

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | self.settings() | {"vocabulary": self.vocabulary, "scores": self.scores}

    def compute_output_spec(self, texts: Any) -> keras.KerasTensor:
        return keras.KerasTensor((texts.shape[0], None), dtype="int32")

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json (settings) and vocabulary.txt; for subwords also sentencepiece.model."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(self.settings_text(), encoding="utf-8")
        (folder / VOCABULARY_FILE).write_text(self.vocabulary_text(), encoding="utf-8", newline="\n")
        if self.scores is not None:
            sentencepiece_files.write_model(
                folder / "sentencepiece.model", special_pieces=SPECIAL_PIECES, reserved=self.reserved,
                pieces=self.known_vocabulary(), scores=self.scores,
            )  # fmt: skip

    @classmethod
    def load(cls, folder: Path, vocabulary_file: str = VOCABULARY_FILE) -> "Tokenizer":
        """Reads a folder that `save` wrote.

        Args:
          vocabulary_file: name of the file with the pieces; exports have another.

        Raises:
          ConfigError: if a file is missing or damaged.
        """
        settings = files.read_json(folder / "tokenizer.json", dict, files.RESTORE_RUN)
        try:
            tokenizer = cls(**settings)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{folder / 'tokenizer.json'}: is damaged ({error}); {files.RESTORE_RUN}") from None
        path = folder / vocabulary_file
        try:
            tokenizer._read_vocabulary(path.read_bytes().decode("utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror}); {files.RESTORE_RUN}") from None
        except ValueError as error:
            raise ConfigError(f"{path}: is damaged ({error}); {files.RESTORE_RUN}") from None
        return tokenizer

    def _read_vocabulary(self, text: str) -> None:
        """Takes the vocabulary of `vocabulary_text`."""
        is_subword = self.level == "subword"
        *lines, end = text.split("\n")
        pieces = [unescape(line.rsplit("\t", 1)[0] if is_subword else line) for line in lines]
        fixed = [*SPECIAL_PIECES, *self.own_symbols()]
        if end or pieces[: len(fixed)] != fixed:
            raise ValueError("its first or last line is not as it was written")
        scores = (
            [float(line.rsplit("\t", 1)[1]) for line in lines[len(fixed) :] if "\t" in line] if is_subword else None
        )
        self.set_vocabulary(pieces[len(fixed) :], scores)

    def all_pieces(self) -> list[str]:
        """The pieces by id, special ones first; hash buckets have none."""
        return [*SPECIAL_PIECES, *self.own_symbols(), *self.known_vocabulary()]

    def settings_text(self) -> str:
        """The settings as JSON, for tokenizer.json."""
        return json.dumps(self.settings(), ensure_ascii=False, indent=1) + "\n"

    def vocabulary_text(self) -> str:
        """All pieces by id, one per line, with `\\n` and `\\\\` escaped; for subwords with a tab and their score."""
        fixed, vocabulary = [*SPECIAL_PIECES, *self.own_symbols()], self.known_vocabulary()
        if self.scores is None:
            return "".join(escape(piece) + "\n" for piece in (*fixed, *vocabulary))
        scores = [0.0] * len(fixed) + self.scores
        return "".join(
            f"{escape(piece)}\t{score!r}\n" for piece, score in zip((*fixed, *vocabulary), scores, strict=True)
        )

    # --- within ----------------------------------------------------------------------------------------------------

    def own_symbols(self) -> tuple[str, ...]:
        return (*(CASE_MARKERS if self.case == "markers" else ()), *self.reserved)

    def _num_fixed(self) -> int:
        return len(SPECIAL_PIECES) + len(self.own_symbols())

    def known_vocabulary(self) -> list[str]:
        if self.vocabulary is None:
            raise ValueError("the Tokenizer has no vocabulary yet; call adapt(texts, vocab_size=...) first")
        return self.vocabulary

    def _is_special(self, piece: str) -> bool:
        return (
            piece in (*SPECIAL_PIECES, *self.own_symbols())
            or UNKNOWN_TEXT in piece
            or any(each in piece for each in self._stand_ins)
        )

    def set_vocabulary(self, vocabulary: list[str], scores: list[float] | None = None) -> None:
        taken = {*SPECIAL_PIECES, *self.own_symbols()}
        for piece in vocabulary:
            if piece in taken:
                raise ValueError(f"vocabulary holds {piece!r} twice or as a special piece; give each piece once")
            taken.add(piece)
        if (self.level == "subword") != (scores is not None) or (scores is not None and len(scores) != len(vocabulary)):
            raise ValueError("scores must be given for each piece of a subword vocabulary, and for no other")
        self.vocabulary, self.scores = vocabulary, scores
        own, markers = self.own_symbols(), len(CASE_MARKERS) if self.case == "markers" else 0
        texts = [
            b"",
            UNKNOWN_TEXT,
            b"",
            b"",
            *[b""] * markers,
            *own[markers:],
            *vocabulary,
            *[UNKNOWN_TEXT] * self.oov_buckets,
        ]
        if scores is not None:
            num_bytes = 256 if vocabulary[:256] == list(BYTE_PIECES) else 0
            self._first_byte_id = self._num_fixed() if num_bytes else None
            texts[self._num_fixed() :] = [*(bytes([byte]) for byte in range(num_bytes)), *vocabulary[num_bytes:]]
            pieces = [*[None] * len(SPECIAL_PIECES), *self._stand_ins, *[None] * num_bytes, *vocabulary[num_bytes:]]
            self._segmenter = Segmenter(pieces, [0.0] * self._num_fixed() + scores)
        with tf.init_scope():  # usable inside and outside of graphs
            keys = [*self._stand_ins, *vocabulary]
            ids = np.arange(len(SPECIAL_PIECES), len(SPECIAL_PIECES) + len(keys), dtype=np.int32)
            if scores is None:
                # A symbol that only splitting gives, such as Treebank's ``, is found by its text.
                keys, ids = [*keys, *own[markers:]], np.append(ids, ids[markers : len(own)])
                self._ids = tf.lookup.StaticHashTable(
                    tf.lookup.KeyValueTensorInitializer(tf.constant(keys, tf.string), ids), UNK_ID
                )
            self._texts_by_id = tf.constant(texts)
            self._names_by_id = tf.constant([*SPECIAL_PIECES, *own, *vocabulary])

    def _count(self, texts: Iterable[str]) -> Counter[str]:
        """Counts the pieces, or the words at level subword."""
        counts: Counter[bytes] = Counter()
        threshold = 1
        stream = iter(texts)
        while batch := list(itertools.islice(stream, 1024)):
            pieces, _, frequencies = tf.unique_with_counts(self._split(tf.constant(batch)).flat_values)
            counts.update(dict(zip(pieces.numpy().tolist(), frequencies.numpy().tolist(), strict=True)))
            if len(counts) > _MAX_TRACKED_PIECES:
                counts = Counter({piece: count for piece, count in counts.items() if count > threshold})
                logger.info(
                    "over %d distinct pieces: forgot those seen at most %d times so far", _MAX_TRACKED_PIECES, threshold
                )
                threshold += 1
        return Counter({piece.decode("utf-8"): count for piece, count in counts.items()})

    def _without_symbols(self, counts: Counter[str]) -> Counter[str]:
        """The parts of counted words between the symbols that are never split."""
        symbols, parts = re.compile("|".join(map(re.escape, self._stand_ins))), Counter[str]()
        for word, count in counts.items():
            for part in symbols.split(word):
                if part.strip(WORD_START):
                    parts[part] += count
        return parts

    def _normalize(self, texts: Any) -> tf.Tensor:
        """Normalises texts, with stand-ins for the reserved symbols."""
        text = self.normalize(texts)
        space = " " if self.level == "word" else ""
        stand_ins = self._stand_ins[len(self.own_symbols()) - len(self.reserved) :]
        for symbol, stand_in in sorted(zip(self.reserved, stand_ins, strict=True), key=lambda pair: -len(pair[0])):
            text = tf.strings.regex_replace(text, re.escape(symbol), f"{space}{stand_in}{space}")
        return text

    def _normalized_symbols(self, symbols: Sequence[str]) -> tuple[str, ...]:
        if not symbols:
            return ()
        with tf.init_scope():
            all_normalized = [symbol.decode("utf-8") for symbol in self.normalize(list(symbols)).numpy()]
        for symbol, normalized in zip(symbols, all_normalized, strict=True):
            if (
                not normalized
                or re.search(r"\s", normalized)
                or all_normalized.count(normalized) > 1
                or UNKNOWN_TEXT in normalized
                or normalized in SPECIAL_PIECES
            ):
                raise ValueError(
                    f"reserved symbol {symbol!r} is {normalized!r} when normalised: empty, given twice, built-in, or "
                    "with white space"
                )
        return tuple(all_normalized)

    def _reveal(self, texts: tf.Tensor) -> tf.Tensor:
        for symbol, stand_in in zip(self.own_symbols(), self._stand_ins, strict=True):
            texts = tf.strings.regex_replace(texts, stand_in, symbol.replace("\\", r"\\"))
        return texts

    def _split(self, texts: Any) -> tf.RaggedTensor:
        """Splits into characters, words, or at level subword at spaces: ragged string [batch, (time)]."""
        text = self._normalize(texts)
        if self.level == "char":
            return tf.strings.unicode_split(text, "UTF-8")
        if self.level == "subword":
            return tf.strings.split(text)
        words = split_unicode(text, whole_emoji=True) if self.whole_emoji else SPLITTERS[self.splitter][0](text)
        return mark_case(words, *self._stand_ins[:2]) if self.case == "markers" else words

    def _look_up(self, pieces: tf.Tensor) -> tf.Tensor:
        ids = self._ids.lookup(pieces)
        if not self.oov_buckets:
            return ids
        buckets = tf.cast(tf.strings.to_hash_bucket_fast(pieces, self.oov_buckets), tf.int32)
        return tf.where(ids == UNK_ID, self.vocab_size - self.oov_buckets + buckets, ids)

    def _resolve_unknown(self, pieces: tf.RaggedTensor) -> tf.RaggedTensor:
        """Replaces unknown characters, `vocab_size + code point`, by their UTF-8 bytes, or each run by one UNK_ID."""
        resolve = (
            functools.partial(unigram.unknown_to_unk, unk_id=UNK_ID)
            if self._first_byte_id is None
            else functools.partial(unigram.unknown_to_bytes, first_byte_id=self._first_byte_id)
        )
        is_any = tf.reduce_any(pieces.flat_values >= self.vocab_size)
        return tf.cond(is_any, lambda: resolve(pieces, self.vocab_size), lambda: pieces)


# --- checks and files ----------------------------------------------------------------------------------------------


def _check_arguments(level: str, case: str, splitter: str, oov_buckets: int, reserved: Sequence[str]) -> None:
    for name, value, allowed in (
        ("level", level, ("word", "char", "subword")),
        ("case", case, ("lower", "keep", "markers")),
        ("splitter", splitter, tuple(SPLITTERS)),
    ):
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(map(repr, allowed))}")
    if level != "word" and (case == "markers" or oov_buckets or splitter != "unicode"):
        raise ValueError(f"case 'markers', oov_buckets and splitter are for words, but level is {level!r}")
    taken = {*SPECIAL_PIECES, *CASE_MARKERS, *BYTE_PIECES}
    for symbol in reserved:
        if not symbol or symbol in taken or WORD_START in symbol or re.search(r"\s", symbol):
            raise ValueError(f"reserved symbol {symbol!r} is empty, given twice, special, or holds white space")
        taken.add(symbol)
