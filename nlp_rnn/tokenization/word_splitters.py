"""Splits normalised text into words and joins them, with regular expressions (RE2) in core TensorFlow ops."""

from collections.abc import Callable

import tensorflow as tf

from nlp_rnn.word_kinds import EMOJI

# --- splitters: string [batch] -> string ragged [batch, (time)] ------------------------------------------------------

# Contractions are split before words are cut out: do|n't, it|'s, we|'ll.
_CONTRACTION = r"(?i)(\pL)(n['’]t|['’](?:s|re|ve|ll|d|m))\b"
_WORD = (
    r"(?i:n['’]t\b|['’](?:s|re|ve|ll|d|m)\b)"  # the second half of a contraction
    r"|\d+(?:[.,:/]\d+)+"  # 3.5, 7/10, 1,000
    r"|[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\pM*"  # scripts without spaces
    r"|[\pL\pM\pN_\x{200c}\x{200d}]+"  # with the joiners of Persian and Indic words
    r"|\S"  # any other sign, each on its own
)


def split_unicode(text: tf.Tensor, *, whole_emoji: bool = False) -> tf.RaggedTensor:
    """Splits into words of any script, contractions, single symbols, and characters of scripts without spaces.

    Args:
      whole_emoji: whether an emoji of several code points stays whole.
    """
    text = tf.strings.regex_replace(text, _CONTRACTION, r"\1 \2")
    # RE2 replaces from left to right without overlaps: a space behind each match is a findall. (A group in the pattern
    # would make it six times slower.)
    pattern = f"{EMOJI}|{_WORD}" if whole_emoji else _WORD
    return tf.strings.split(tf.strings.regex_replace(text, pattern, r"\0 "))


# In this order. Source: Robert MacIntyre's sed script for the Penn Treebank, in the version of NLTK's
# TreebankWordTokenizer. Where Python and RE2 differ: \b and \d know ASCII only here, and Python's lookahead behind
# "wanna" is a group here.
_TREEBANK_RULES = (
    # opening quotes
    (r'^"', "``"),
    (r"``", " `` "),
    (r"""([ (\[{<])("|'')""", r"\1 `` "),
    # punctuation
    (r"([:,])([^\d])", r" \1 \2"),
    (r"([:,])$", r" \1 "),
    (r"\.\.\.", " ... "),
    (r"[;@#$%&]", r" \0 "),
    (r"""([^.])(\.)([\])}>"']*)\s*$""", r"\1 \2\3 "),
    (r"[?!]", r" \0 "),
    (r"([^'])' ", r"\1 ' "),
    (r"[\]\[(){}<>]", r" \0 "),
    (r"--", " -- "),
    (r"$", " "),
    # closing quotes and contractions
    (r"''", " '' "),
    (r'"', " '' "),
    (r"([^' ])('[sS]|'[mM]|'[dD]|') ", r"\1 \2 "),
    (r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", r"\1 \2 "),
    (r"(?i)\b(can)(not)\b", r" \1 \2 "),
    (r"(?i)\b(d)('ye)\b", r" \1 \2 "),
    (r"(?i)\b(gim)(me)\b", r" \1 \2 "),
    (r"(?i)\b(gon)(na)\b", r" \1 \2 "),
    (r"(?i)\b(got)(ta)\b", r" \1 \2 "),
    (r"(?i)\b(lem)(me)\b", r" \1 \2 "),
    (r"(?i)\b(more)('n)\b", r" \1 \2 "),
    (r"(?i)\b(wan)(na)(\s)", r" \1 \2 \3"),
    (r"(?i)(^| )('t)(is|was)\b", r"\1 \2 \3 "),
)


def split_treebank_sentence(text: tf.Tensor) -> tf.RaggedTensor:
    """Splits one sentence like the Penn Treebank: `` and '' for quotes, do n't, can not, the last full stop."""
    for pattern, replacement in _TREEBANK_RULES:
        text = tf.strings.regex_replace(text, pattern, replacement)
    return tf.strings.split(text)


# A full stop within a text ends a sentence where white space and a capital, a digit or an opening quote follow, unless
# it belongs to an initial or to one of these.
_TITLES = "Mr|Mrs|Ms|Dr|St|Jr|Sr|vs|Prof|Gen|Col|Capt|Lt|Sgt|Rev|Hon|Gov|Sen|Rep|Mt|No|Vol|Fig|Inc|Ltd|Co|Corp"
_ABBREVIATION = rf"\b({_TITLES}|[A-Z]|[a-z]\.[a-z])\. "
_KEPT_STOP = "\U0010f7fd"  # stands for the full stop of an abbreviation for a while; no text holds it (`tokenizer`)
_SENTENCE_END = r"""([^. ])\.((?:["')\]}>]|'')*) ((?:["'(\[{]|``)*[\p{Lu}\d])"""


def split_treebank(text: tf.Tensor) -> tf.RaggedTensor:
    """Splits a text of any number of sentences like the Penn Treebank."""
    text = tf.strings.regex_replace(text, _ABBREVIATION, rf"\1{_KEPT_STOP} ")
    for _ in range(2):  # matches do not overlap: two sentences of one letter need both rounds
        text = tf.strings.regex_replace(text, _SENTENCE_END, r"\1 .\2 \3")
    return split_treebank_sentence(tf.strings.regex_replace(text, _KEPT_STOP, "."))


# --- and back: words joined by single spaces, string [batch] -> text --------------------------------------------------


_ATTACHED = (
    (r'(^| )"( )([^"]*)( )"( |$)', r'\1"\3"\5'),
    (r" ([.,!?;:%)\]}])", r"\1"),
    (r"([(\[{$#]) ", r"\1"),
    (r"(?i)(\pL) (n['’]t|['’](?:s|re|ve|ll|d|m))\b", r"\1\2"),
)
_ATTACHED_UNICODE = (
    (r" …", "…"),
    (r"([£€]) ", r"\1"),
    (r"(\pL) - (\pL)", r"\1-\2"),
    (r"(\pL) - (\pL)", r"\1-\2"),  # matches do not overlap: b of a-b-c is in one of them only
)


def attach_unicode(text: tf.Tensor) -> tf.Tensor:
    """Attaches punctuation as in English."""
    for pattern, replacement in (*_ATTACHED, *_ATTACHED_UNICODE):
        text = tf.strings.regex_replace(text, pattern, replacement)
    return text


def attach_treebank(text: tf.Tensor) -> tf.Tensor:
    """Like `attach_unicode`, from Treebank's quotes and contractions. Leaves symbols that Treebank does not split."""
    for pattern, replacement in (
        (r"(^| )`` ", r'\1"'),
        (r" ''( |$)", r'"\1'),
        (r"(?i)\b(can) (not)\b", r"\1\2"),
        (r"(?i)\b(gim|lem) (me)\b", r"\1\2"),
        (r"(?i)\b(gon|wan) (na)\b", r"\1\2"),
        (r"(?i)\b(got) (ta)\b", r"\1\2"),
        (r"(?i)\b(d) ('ye)\b", r"\1\2"),
        (r"(?i)\b(more) ('n)\b", r"\1\2"),
        (r"(?i)(^| )('t) (is|was)\b", r"\1\2\3"),
        *_ATTACHED,
    ):
        text = tf.strings.regex_replace(text, pattern, replacement)
    return text


def _unchanged(text: tf.Tensor) -> tf.Tensor:
    return text


SPLITTERS: dict[str, tuple[Callable[[tf.Tensor], tf.RaggedTensor], Callable[[tf.Tensor], tf.Tensor]]] = {
    "unicode": (split_unicode, attach_unicode),
    "treebank": (split_treebank, attach_treebank),
    "whitespace": (tf.strings.split, _unchanged),
}
