"""Letter case as markers: lower-case words, with a marker before those that had capitals."""

import tensorflow as tf

TITLE_ID, UPPER_ID = 4, 5  # after the special pieces


def mark_case(words: tf.RaggedTensor, title: str, upper: str) -> tf.RaggedTensor:
    """Lowers words; puts `title` before those with a capital first letter only, `upper` before those in capitals."""
    flat = words.flat_values
    is_upper = tf.strings.regex_full_match(flat, r"\p{Lu}[\p{Lu}\pM\pN'’]+|['’]\p{Lu}+")
    is_marked = is_upper | tf.strings.regex_full_match(flat, r"\p{Lu}[^\p{Lu}]*")
    owners = tf.repeat(tf.range(tf.size(flat)), 1 + tf.cast(is_marked, tf.int32))
    is_marker = tf.concat([owners[1:] == owners[:-1], [False]], axis=0)[: tf.size(owners)]
    markers = tf.where(tf.gather(is_upper, owners), upper, title)
    marked = tf.where(is_marker, markers, tf.gather(tf.strings.lower(flat, encoding="utf-8"), owners))
    return tf.RaggedTensor.from_value_rowids(
        marked, tf.gather(words.value_rowids(), owners), nrows=words.nrows(), validate=False
    )


def apply_case(ids: tf.RaggedTensor, pieces: tf.RaggedTensor) -> tf.RaggedTensor:
    """Restores the case of the words after case markers, and removes the markers."""
    flat, rows = ids.flat_values, ids.value_rowids()
    words = pieces.flat_values
    title, upper = (
        tf.concat([[False], (flat[:-1] == marker) & (rows[1:] == rows[:-1])], axis=0)[: tf.size(flat)]
        for marker in (TITLE_ID, UPPER_ID)
    )
    capitals = tf.strings.upper(words, encoding="utf-8")
    titled = tf.strings.join(
        [tf.strings.substr(capitals, 0, 1, unit="UTF8_CHAR"), tf.strings.regex_replace(words, "^.", "")]
    )
    words = tf.where(upper, capitals, tf.where(title, titled, words))
    is_word = (flat < TITLE_ID) | (flat > UPPER_ID)
    return tf.ragged.boolean_mask(pieces.with_flat_values(words), ids.with_flat_values(is_word))
