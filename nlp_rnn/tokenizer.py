"""The shared Tokenizer layer: text <-> ids in core TensorFlow ops.

The same layer computes the ids for training, answers in an exported graph and turns ids back into text, so that
training and serving cannot drift apart. This is one of the files that call TensorFlow: Keras has no string ops.
"""

import itertools
import json
import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nlp_rnn.config import ConfigError, TokenizerConfig

logger = logging.getLogger(__name__)

PAD_ID, UNK_ID, BOS_ID, EOS_ID = 0, 1, 2, 3
SPECIAL_PIECES = ("<pad>", "<unk>", "<s>", "</s>")
UNKNOWN_TEXT = "\ufffd"  # what an unknown piece looks like in text

# RE2 patterns. Contractions are split before words are cut out: do|n't, it|'s, we|'ll.
_CONTRACTION = r"(?i)(\pL)(n['’]t|['’](?:s|re|ve|ll|d|m))\b"
_WORD = (
    r"(?i)(n['’]t\b|['’](?:s|re|ve|ll|d|m)\b"  # the second half of a contraction
    r"|\d+(?:[.,:/]\d+)+"  # 3.5, 7/10, 1,000
    r"|[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\pM*"  # scripts without spaces
    r"|[\pL\pM\pN_]+"
    r"|\S)"  # any other sign, each on its own
)
# Beyond this many distinct pieces, those seen once are forgotten while counting: memory stays constant.
_MAX_TRACKED_PIECES = 2_000_000


@keras.saving.register_keras_serializable("nlp_rnn")
class Tokenizer(keras.layers.Layer):
    """Text to ids and back, at the level of words or characters.

    Ids 0-3 are PAD_ID, UNK_ID, BOS_ID and EOS_ID; the vocabulary follows, most frequent first. The layer holds no
    weights; its vocabulary is part of `get_config`, so that `.keras` files, `clone_model` and SavedModels carry it.

    Args:
      level: "word" or "char".
      lowercase: whether text is lower-cased (Unicode).
      vocabulary: the pieces after the special ones, or None before `adapt`.
    """

    def __init__(self, level: str = "word", *, lowercase: bool = True, vocabulary: Iterable[str] | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("trainable", False)
        super().__init__(**kwargs)
        if level not in ("word", "char"):
            raise ValueError(f"level is {level!r}, but must be 'word' or 'char'")
        self.level, self.lowercase = level, lowercase
        self.supports_jit = False  # XLA has no strings
        self.vocabulary: list[str] | None = None
        if vocabulary is not None:
            self._set_vocabulary(list(vocabulary))
        self.built = True

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        return len(SPECIAL_PIECES) + len(self._known_vocabulary())

    def adapt(self, texts: Iterable[str], *, vocab_size: int, min_count: int = 1) -> None:
        """Builds the vocabulary from training texts: the most frequent pieces, ties in code-point order.

        Args:
          texts: a stream of texts; read once, in constant memory.
          vocab_size: the largest number of ids, special ones included.
          min_count: pieces seen less often are left out.

        Raises:
          ConfigError: if no piece is left.
        """
        counts: Counter[bytes] = Counter()
        threshold = 1
        stream = iter(texts)
        while batch := list(itertools.islice(stream, 1024)):
            pieces, _, frequencies = tf.unique_with_counts(self._split(tf.constant(batch)).flat_values)
            counts.update(dict(zip(pieces.numpy().tolist(), frequencies.numpy().tolist(), strict=True)))
            if len(counts) > _MAX_TRACKED_PIECES:
                counts = Counter({piece: count for piece, count in counts.items() if count > threshold})
                logger.info("over %d distinct pieces: forgot those seen at most %d times so far", _MAX_TRACKED_PIECES, threshold)
                threshold += 1
        kept = [(piece.decode("utf-8"), count) for piece, count in counts.items() if count >= min_count]
        kept = [(piece, count) for piece, count in kept if piece not in SPECIAL_PIECES and UNKNOWN_TEXT not in piece]
        kept.sort(key=lambda pair: (-pair[1], pair[0]))
        if not kept:
            raise ConfigError(
                f"tokenizer.min_count is {min_count}, but no piece of the training texts is seen so often (or they are empty): "
                "lower it or give more text"
            )
        self._set_vocabulary([piece for piece, _ in kept[: vocab_size - len(SPECIAL_PIECES)]])

    def tokenize(self, texts: Any) -> tf.RaggedTensor:
        """string [batch] -> int32 ragged [batch, (time)]; invalid UTF-8 becomes U+FFFD, unknown pieces UNK_ID."""
        self._known_vocabulary()
        return tf.ragged.map_flat_values(self._ids.lookup, self._split(tf.convert_to_tensor(texts, tf.string)))

    def call(self, texts: Any) -> tf.Tensor:
        """string [batch] -> int32 [batch, time], right-padded with PAD_ID; `time` is the longest text's length."""
        return self.tokenize(texts).to_tensor(PAD_ID)

    def pieces(self, texts: Any) -> tf.RaggedTensor:
        """string [batch] -> string ragged [batch, (time)]: the pieces as they stand in the normalised text."""
        return self._split(tf.convert_to_tensor(texts, tf.string))

    def detokenize(self, token_ids: Any) -> tf.Tensor:
        """int32 [batch, time] (or ragged) -> string [batch], with natural spacing.

        PAD, BOS and EOS are left out and UNK becomes U+FFFD. Characters come back exactly. Words come back with
        punctuation attached as English does it; tokenising the result gives the same ids, except around unknown
        pieces and lone quotation marks.

        Raises:
          tf.errors.InvalidArgumentError: if an id is not of the vocabulary.
        """
        self._known_vocabulary()
        ids = token_ids
        if not isinstance(ids, tf.RaggedTensor):
            ids = tf.RaggedTensor.from_tensor(tf.convert_to_tensor(ids, tf.int32))
        flat = tf.cast(ids.flat_values, tf.int32)
        tf.debugging.assert_less(flat, self.vocab_size, f"token ids must be less than the vocabulary size, {self.vocab_size}")
        tf.debugging.assert_non_negative(flat, "token ids must not be negative")
        ids = tf.ragged.boolean_mask(ids, ids.with_flat_values((flat == UNK_ID) | (flat >= len(SPECIAL_PIECES))))
        pieces = tf.ragged.map_flat_values(lambda values: tf.gather(self._pieces_by_id, values), ids)
        if self.level == "char":
            return tf.strings.reduce_join(pieces, axis=-1)
        return _attach_punctuation(tf.strings.reduce_join(pieces, axis=-1, separator=" "))

    def normalize(self, texts: Any) -> tf.Tensor:
        """string [batch] -> string [batch]: valid UTF-8, HTML breaks and white space as one space, lower case if set."""
        text = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
        if self.level == "char":
            text = tf.strings.regex_replace(text, "\r\n?", "\n")
        else:
            text = tf.strings.regex_replace(text, r"(?i)<br\s*/?>", " ")
            text = tf.strings.strip(tf.strings.regex_replace(text, r"[\s\pZ\pC]+", " "))
        return tf.strings.lower(text, encoding="utf-8") if self.lowercase else text

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"level": self.level, "lowercase": self.lowercase, "vocabulary": self.vocabulary}

    def compute_output_spec(self, texts: Any) -> keras.KerasTensor:
        return keras.KerasTensor((texts.shape[0], None), dtype="int32")

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json (settings) and vocabulary.txt (a piece a line, by id; `\\n` and `\\\\` escaped)."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(json.dumps({"level": self.level, "lowercase": self.lowercase}) + "\n", encoding="utf-8")
        (folder / "vocabulary.txt").write_text(self.vocabulary_text(), encoding="utf-8", newline="\n")

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Reads what `save` wrote."""
        settings = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        lines = (folder / "vocabulary.txt").read_bytes().decode("utf-8").split("\n")[:-1]
        return cls(**settings, vocabulary=[_unescape(line) for line in lines[len(SPECIAL_PIECES) :]])

    def vocabulary_text(self) -> str:
        """All pieces, special ones first, one a line."""
        return "".join(_escape(piece) + "\n" for piece in (*SPECIAL_PIECES, *self._known_vocabulary()))

    def _known_vocabulary(self) -> list[str]:
        if self.vocabulary is None:
            raise ValueError("the Tokenizer has no vocabulary yet; call adapt(texts, vocab_size=...) first")
        return self.vocabulary

    def _set_vocabulary(self, vocabulary: list[str]) -> None:
        repeated = [piece for piece, count in Counter(vocabulary).items() if count > 1 or piece in SPECIAL_PIECES]
        if repeated:
            raise ValueError(f"vocabulary holds {repeated[0]!r} twice or as a special piece; give each piece once")
        self.vocabulary = vocabulary
        with tf.init_scope():  # usable inside and outside of graphs
            ids = np.arange(len(SPECIAL_PIECES), len(SPECIAL_PIECES) + len(vocabulary), dtype=np.int32)
            self._ids = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(tf.constant(vocabulary, tf.string), ids), UNK_ID)
            self._pieces_by_id = tf.constant(["", UNKNOWN_TEXT, "", "", *vocabulary])

    def _split(self, texts: tf.Tensor) -> tf.RaggedTensor:
        text = self.normalize(texts)
        if self.level == "char":
            return tf.strings.unicode_split(text, "UTF-8")
        text = tf.strings.regex_replace(text, _CONTRACTION, r"\1 \2")
        # RE2 replaces from left to right without overlaps: a space behind each match is a findall.
        return tf.strings.split(tf.strings.regex_replace(text, _WORD, r"\1 "))


def encode(tokenizer: Tokenizer, texts: Any, max_length: int, keep: str) -> tf.RaggedTensor:
    """string [batch] -> int32 ragged [batch, (time)], as models read it, in training and in exported graphs.

    At most `max_length` ids a row (see `truncate`), and at least one: a text without tokens becomes UNK_ID.
    """
    ids = truncate(tokenizer.tokenize(texts), max_length, keep)
    is_empty = ids.row_lengths() == 0
    unknowns = tf.fill([tf.math.count_nonzero(is_empty)], UNK_ID)
    return tf.concat([ids, tf.RaggedTensor.from_row_lengths(unknowns, tf.cast(is_empty, tf.int64))], axis=1)


def truncate(token_ids: tf.RaggedTensor, max_length: int, keep: str) -> tf.RaggedTensor:
    """Cuts ragged int32 [batch, (time)] to at most `max_length` ids a row.

    Args:
      token_ids: ids without padding.
      max_length: in ids.
      keep: "start", "end", or "both": the first half and the last half, where texts open and conclude.
    """
    if keep == "start":
        return token_ids[:, :max_length]
    if keep == "end":
        return token_ids[:, -max_length:]
    head = (max_length + 1) // 2
    positions = tf.ragged.range(token_ids.row_lengths())
    lengths = tf.gather(token_ids.row_lengths(), token_ids.value_rowids())
    flat = positions.flat_values
    is_kept = (flat < head) | (flat >= lengths - (max_length - head))
    return tf.ragged.boolean_mask(token_ids, token_ids.with_flat_values(is_kept))


def _attach_punctuation(text: tf.Tensor) -> tf.Tensor:
    for pattern, replacement in (
        (r'(^| )"( )([^"]*)( )"( |$)', r'\1"\3"\5'),
        (r" ([.,!?;:%)\]}…])", r"\1"),
        (r"([(\[{$#£€]) ", r"\1"),
        (r"(?i)(\pL) (n['’]t|['’](?:s|re|ve|ll|d|m))\b", r"\1\2"),
        (r"(\pL) - (\pL)", r"\1-\2"),
        (r"(\pL) - (\pL)", r"\1-\2"),  # matches do not overlap: b of a-b-c is in one of them only
    ):
        text = tf.strings.regex_replace(text, pattern, replacement)
    return text


def _escape(piece: str) -> str:
    return piece.replace("\\", "\\\\").replace("\n", "\\n")


def _unescape(line: str) -> str:
    return line.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\")


def build_tokenizer(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    """Trains the tokenizer of the config on training texts."""
    tokenizer = Tokenizer(config.level, lowercase=config.lowercase)
    tokenizer.adapt(texts, vocab_size=config.vocab_size, min_count=config.min_count)
    return tokenizer
