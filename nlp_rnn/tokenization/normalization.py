"""Normalises text in core TensorFlow ops."""

import functools
import unicodedata
from typing import NamedTuple

import numpy as np
import tensorflow as tf

_HTML_BREAK = r"<[bB][rR]\s*/?>"
# White space and control characters: IMDB has C1 codes where dashes and ellipses were. The second class lacks the plain
# space: leaving single spaces between words alone is seven times faster than replacing each by itself.
_SPACE = r"\s\pZ\p{Cc}"
_ODD_SPACE = r"\p{Cc}\p{Zl}\p{Zp}\x{a0}\x{1680}\x{2000}-\x{200a}\x{202f}\x{205f}\x{3000}"
_VALID = r"[\x00-\x{d7ff}\x{e000}-\x{10fffe}]*"  # with all code points, RE2 would also accept overlong forms
# Format characters without width: soft hyphen, zero-width space, direction marks, byte order mark. The two joiners are
# kept, since Persian and Indic words and many emoji need them.
_INVISIBLE = r"[\x{ad}\x{200b}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2060}-\x{2064}\x{2066}-\x{206f}\x{feff}]+"
_NUM_CODE_POINTS = 0x30000  # no code point beyond changes (a test checks it)


def valid_utf8(texts: tf.Tensor) -> tf.Tensor:
    """Replaces invalid UTF-8 by U+FFFD: string [batch] -> string [batch]."""
    is_valid = tf.reduce_all(tf.strings.regex_full_match(texts, _VALID))  # five times faster than transcoding
    return tf.cond(
        is_valid, lambda: texts, lambda: tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
    )


def normalize(
    texts: tf.Tensor,
    *,
    lowercase: bool,
    nfkc: bool,
    html_breaks: bool = False,
    keep_spaces: bool = False,
    other_spaces: str = "",
) -> tf.Tensor:
    """Normalises valid UTF-8: string [batch] -> string [batch].

    Args:
      lowercase: whether text is lowered (Unicode).
      nfkc: whether text is brought to Unicode normal form KC, with the tables of the Python that built the graph.
      html_breaks: whether <br> and <br /> count as white space.
      keep_spaces: whether white space is kept, except that line ends become \\n. Otherwise every run of white space and
        control characters becomes one space, and invisible format characters and outer spaces are removed.
      other_spaces: further characters that count as white space.
    """
    text = texts if keep_spaces else tf.strings.regex_replace(texts, _INVISIBLE, "")
    if nfkc:
        text = normalize_nfkc(text)
    if keep_spaces:
        text = tf.strings.regex_replace(text, "\r\n?", "\n")
    else:
        breaks = f"|{_HTML_BREAK}" if html_breaks else ""
        odd, space = f"[{_ODD_SPACE}{other_spaces}]{breaks}", f"[{_SPACE}{other_spaces}]{breaks}"
        text = tf.strings.strip(tf.strings.regex_replace(text, f" *(?:{odd})(?:{space})*|  +", " "))
    return tf.strings.lower(text, encoding="utf-8") if lowercase else text


# --- normal form KC ------------------------------------------------------------------------------------------------


class _NormalForm(NamedTuple):
    """Unicode's tables. A code point with decomposition i becomes `parts[part_starts[i] : part_starts[i + 1]]`.

    Attributes:
      decomposition: int32 [code points], 0 if it does not change.
      classes: uint8 [code points], canonical combining classes.
      is_follower: bool [code points], whether it can be the second of a pair.
      pairs: int64, sorted, `first << 21 | second`.
      composites: int32, of the pairs.
    """

    decomposition: tf.Tensor
    parts: tf.Tensor
    part_starts: tf.Tensor
    classes: tf.Tensor
    is_follower: tf.Tensor
    pairs: tf.Tensor
    composites: tf.Tensor

    def decomposition_of(self, code_points: tf.Tensor) -> tf.Tensor:
        return tf.gather(self.decomposition, tf.minimum(code_points, _NUM_CODE_POINTS - 1))

    def class_of(self, code_points: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.gather(self.classes, tf.minimum(code_points, _NUM_CODE_POINTS - 1)), tf.int32)

    def follows(self, code_points: tf.Tensor) -> tf.Tensor:
        return tf.gather(self.is_follower, tf.minimum(code_points, _NUM_CODE_POINTS - 1))


@functools.cache
def _normal_form() -> _NormalForm:
    decomposition = np.zeros(_NUM_CODE_POINTS, np.int32)
    classes = np.zeros(_NUM_CODE_POINTS, np.uint8)
    is_follower = np.zeros(_NUM_CODE_POINTS, bool)
    parts: list[list[int]] = [[]]
    composites: dict[int, int] = {}
    for code_point in range(_NUM_CODE_POINTS):
        character = chr(code_point)
        classes[code_point] = unicodedata.combining(character)
        if not unicodedata.is_normalized("NFKD", character):
            decomposition[code_point] = len(parts)
            parts.append([ord(part) for part in unicodedata.normalize("NFKD", character)])
        pair = unicodedata.normalize("NFD", character)
        if len(pair) > 1 and unicodedata.is_normalized("NFC", character):
            first = ord(unicodedata.normalize("NFC", pair[:-1]))
            composites[first << 21 | ord(pair[-1])] = code_point
            is_follower[ord(pair[-1])] = True
    pairs = np.array(sorted(composites), np.int64)
    starts = np.cumsum([0, *map(len, parts)], dtype=np.int32)
    flat = np.array([part for each in parts for part in each], np.int32)
    results = np.array([composites[pair] for pair in pairs], np.int32)
    with tf.init_scope():  # eager tensors, which a SavedModel stores once for all functions
        return _NormalForm(*map(tf.constant, (decomposition, flat, starts, classes, is_follower, pairs, results)))


def normalize_nfkc(texts: tf.Tensor) -> tf.Tensor:
    """Brings valid UTF-8 to normal form KC: string [batch] -> string [batch]. Source: Unicode Standard Annex 15."""
    table = _normal_form()
    characters = tf.strings.unicode_decode(texts, "UTF-8")
    characters = _decompose(table, characters)
    characters = _reorder(table, characters)
    characters = _compose(table, characters)
    return tf.strings.unicode_encode(characters, "UTF-8")


def _decompose(table: _NormalForm, characters: tf.RaggedTensor) -> tf.RaggedTensor:
    flat = characters.flat_values
    places = table.decomposition_of(flat)
    starts = tf.gather(table.part_starts, places)
    lengths = tf.where(places > 0, tf.gather(table.part_starts, places + 1) - starts, 1)
    owners = tf.repeat(tf.range(tf.size(flat)), lengths)
    offsets = tf.range(tf.size(owners)) - tf.gather(tf.cumsum(lengths, exclusive=True), owners)
    parts = tf.gather(table.parts, tf.where(tf.gather(places, owners) > 0, tf.gather(starts, owners) + offsets, 0))
    new = tf.where(tf.gather(places, owners) > 0, parts, tf.gather(flat, owners))
    return tf.RaggedTensor.from_value_rowids(
        new, tf.gather(characters.value_rowids(), owners), nrows=characters.nrows()
    )


def _reorder(table: _NormalForm, characters: tf.RaggedTensor) -> tf.RaggedTensor:
    """Sorts the marks after a starter (class 0) by their class, stably."""
    classes = tf.cast(table.class_of(characters.flat_values), tf.int64)
    is_first = _is_first(characters)
    groups = tf.cumsum(tf.cast((classes == 0) | is_first, tf.int64))
    order = tf.argsort(groups * 256 + classes, stable=True)
    return characters.with_flat_values(tf.gather(characters.flat_values, order))


def _compose(table: _NormalForm, characters: tf.RaggedTensor) -> tf.RaggedTensor:
    """Joins pairs: each starter with its followers, one follower of every starter at a time."""
    flat = characters.flat_values
    num = tf.size(flat)
    classes = table.class_of(flat)
    # A group is a starter and what may be joined to it: marks, and the few starters that are the second of a pair.
    begins = ((classes == 0) & ~table.follows(flat)) | _is_first(characters)
    starts = tf.cast(tf.where(begins)[:, 0], tf.int32)
    lengths = tf.concat([starts[1:], [num]], axis=0) - starts

    def step(
        offset: tf.Tensor,
        flat: tf.Tensor,
        starts: tf.Tensor,
        lengths: tf.Tensor,
        starters: tf.Tensor,
        before: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        """`starters`: places of the current starters. `before`: class of the last mark kept after each, or -1."""
        going = tf.where(lengths > offset)[:, 0]
        starts, lengths, starters, before = (tf.gather(each, going) for each in (starts, lengths, starters, before))
        here = starts + offset
        these = tf.gather(classes, here)
        first, second = tf.gather(flat, starters), tf.gather(flat, here)
        wanted = tf.bitwise.left_shift(tf.cast(first, tf.int64), 21) + tf.cast(second, tf.int64)
        places = tf.minimum(tf.searchsorted(table.pairs, wanted), tf.size(table.pairs) - 1)
        # A starter joins only what stands next to it; a mark also behind marks of a lower class.
        is_free = (before == -1) | ((before < these) & (before > 0))
        joins = is_free & (tf.gather(table.pairs, places) == wanted) & (tf.gather(classes, starters) == 0)
        flat = tf.tensor_scatter_nd_update(
            flat, starters[:, None], tf.where(joins, tf.gather(table.composites, places), first)
        )
        flat = tf.tensor_scatter_nd_update(flat, here[:, None], tf.where(joins, -1, second))
        starters = tf.where(~joins & (these == 0), here, starters)
        before = tf.where(joins, before, tf.where(these == 0, -1, these))
        return offset + 1, flat, starts, lengths, starters, before

    row = tf.TensorShape([None])
    _, flat, *_ = tf.while_loop(
        lambda offset, _flat, _starts, lengths, *_: tf.reduce_any(lengths > offset), step,
        (1, flat, starts, lengths, starts, tf.fill([tf.size(starts)], -1)),
        shape_invariants=(tf.TensorShape([]), row, row, row, row, row),
    )  # fmt: skip
    return tf.ragged.boolean_mask(characters.with_flat_values(flat), characters.with_flat_values(flat >= 0))


def _is_first(characters: tf.RaggedTensor) -> tf.Tensor:
    """Whether each character is the first of its text: bool [flat]."""
    rows = characters.value_rowids()
    return tf.concat([tf.ones([tf.minimum(tf.size(rows), 1)], tf.bool), rows[1:] != rows[:-1]], axis=0)
