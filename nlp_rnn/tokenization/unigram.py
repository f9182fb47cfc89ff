"""Segments words into subword pieces with a unigram language model, in core TensorFlow ops.

The best segmentation of a word is the one whose pieces have the highest sum of log-probabilities (Kudo 2018). All
words are segmented at once. A trie over code points finds the pieces that start at each character, one loop over
character positions runs Viterbi for all words, and one loop from the ends of the words reads the pieces.

Scores are integers (2^-16 nats), whose sums are exact. So a word's pieces depend neither on its sentence nor on its
batch. Of equal sums, the one with the longer last piece wins, as in the sentencepiece library.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

SCORE_UNIT = 2.0**-16  # nats
MAX_PIECE_LENGTH = 63  # in characters: six bits of a Viterbi cell hold a length
_LENGTH_BITS = 6
_NUM_SHORT = 3  # pieces of up to so many characters are short
_NO_PIECE = 0  # the id of padding, which is not a piece of text
_IMPOSSIBLE = -(2**60)
_BLOCK = 256  # slots of the trie searched at a time
_MAX_WORD = 1000  # characters; longer words are cut, since the loops take as many steps as the longest word
_UNKNOWN_PENALTY = 10.0  # nats below the rarest piece: sentencepiece's kUnkPenalty


class _Lattice(NamedTuple):
    """The pieces of W words with n characters in total. Words of more than _MAX_WORD characters count as several.

    Attributes:
      lengths: int32 [W], in characters.
      starts: int32 [W], of each word in the flat characters.
      pieces: int32 [n, L], the pieces of 1 .. L characters that start at each character, or _NO_PIECE. A character that
        is not a piece is the unknown piece `vocab_size + code point`.
      splits: int32 [words + 1], the W words that belong to each word before it was cut.
    """

    lengths: tf.Tensor
    starts: tf.Tensor
    pieces: tf.Tensor
    splits: tf.Tensor


class Segmenter:
    """Segments words into the pieces of a vocabulary with scores.

    Args:
      pieces: by id; None for ids that are not text (special and byte pieces); the first must be None.
      scores: float [vocab_size], log-probabilities in nats.

    Raises:
      ValueError: if a piece is longer than MAX_PIECE_LENGTH.
    """

    def __init__(self, pieces: Sequence[str | None], scores: Sequence[float]) -> None:
        texts = {piece: number for number, piece in enumerate(pieces) if piece}
        self.vocab_size = len(pieces)
        self.max_length = max(map(len, texts), default=1)
        if self.max_length > MAX_PIECE_LENGTH:
            raise ValueError(f"a piece has {self.max_length} characters, but at most {MAX_PIECE_LENGTH} are possible")
        trie = _build_trie(texts)
        unknown_score = min((scores[number] for number in texts.values()), default=0.0) - _UNKNOWN_PENALTY
        units = np.rint(np.array([*scores, unknown_score]) / SCORE_UNIT).astype(np.int64)
        lengths = np.array([*(len(piece or "") for piece in pieces), 1])
        moves = np.where(lengths > 0, units * 2**_LENGTH_BITS + lengths, _IMPOSSIBLE)
        with tf.init_scope():  # usable inside and outside of graphs
            self._trie = _Trie(*map(tf.constant, trie))
            self._moves = tf.constant(moves)  # by piece, the unknown one last: what a Viterbi cell adds

    def segment(self, words: tf.Tensor) -> tf.RaggedTensor:
        """Segments string [W] -> ragged int32 [W, (pieces)]. An unknown character becomes `vocab_size + code point`."""
        lattice = self._lattice(words)
        order, step_starts, num_active = _schedule(lattice.lengths)
        cells = self._best_cells(lattice, order, num_active)
        return _read_backwards(lattice, order, step_starts, tf.bitwise.bitwise_and(cells, 2**_LENGTH_BITS - 1))

    def sample(self, words: tf.Tensor, *, temperature: float, seed: tf.Tensor) -> tf.RaggedTensor:
        """Like `segment`, but draws each segmentation with a probability proportional to exp(score / temperature).

        Args:
          temperature: near 0, the best segmentation is almost certain; 1 / temperature is the alpha of sentencepiece.
          seed: int32 [2]; the same seed draws the same.
        """
        lattice = self._lattice(words)
        order, step_starts, num_active = _schedule(lattice.lengths)
        lengths = self._sampled_lengths(lattice, order, num_active, temperature, seed)
        return _read_backwards(lattice, order, step_starts, lengths)

    def _lattice(self, words: tf.Tensor) -> _Lattice:
        trie = self._trie
        characters = tf.strings.unicode_decode(words, "UTF-8")
        starts, splits = _cut(tf.cast(characters.row_splits, tf.int32))
        lengths = starts[1:] - starts[:-1]
        code_points = characters.flat_values
        num = tf.size(code_points)
        symbols = tf.cast(tf.gather(trie.symbols, tf.minimum(code_points, tf.size(trie.symbols) - 1)), tf.int32)
        room = tf.repeat(starts[1:], lengths) - tf.range(num)  # characters left in the word

        # Short pieces start nearly everywhere: walking on from all positions is faster than picking some.
        nowhere = tf.size(trie.bases) - 1
        nodes, columns = tf.zeros([num], tf.int32), []
        for length in range(_NUM_SHORT):
            following = tf.where(room > length, tf.roll(symbols, -length, axis=0), 0)
            children = tf.gather(trie.bases, nodes) + following
            nodes = tf.where(tf.gather(trie.parents, children) == nodes, children, nowhere)
            columns.append(tf.gather(trie.pieces, nodes))
        columns[0] = tf.where(columns[0] == _NO_PIECE, self.vocab_size + code_points, columns[0])

        def is_alive(length: tf.Tensor, _found: tf.TensorArray, active: tf.Tensor, _nodes: tf.Tensor) -> tf.Tensor:
            return (length == _NUM_SHORT) | (tf.size(active) > 0)  # at least once, since an empty array cannot be read

        def descend(
            length: tf.Tensor, deeper: tf.TensorArray, active: tf.Tensor, nodes: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            """Goes one character further from the nodes of the positions whose pieces may continue."""
            children = tf.gather(trie.bases, nodes) + tf.gather(symbols, active + length)
            hits = tf.where(tf.gather(trie.parents, children) == nodes)[:, 0]
            active, nodes = tf.gather(active, hits), tf.gather(children, hits)
            deeper = deeper.write(
                length - _NUM_SHORT, tf.scatter_nd(active[:, None], tf.gather(trie.pieces, nodes), [num])
            )
            goes_on = tf.where(tf.gather(room, active) > length + 1)[:, 0]
            return length + 1, deeper, tf.gather(active, goes_on), tf.gather(nodes, goes_on)

        num_long = max(self.max_length - _NUM_SHORT, 1)
        active = tf.cast(tf.where((nodes != nowhere) & (room > _NUM_SHORT))[:, 0], tf.int32)
        deeper, row = tf.TensorArray(tf.int32, num_long, element_shape=[None]), tf.TensorShape([None])
        depth, deeper, _, _ = tf.while_loop(
            is_alive, descend, (_NUM_SHORT, deeper, active, tf.gather(nodes, active)), maximum_iterations=num_long,
            shape_invariants=(tf.TensorShape([]), tf.TensorShape(None), row, row),
        )  # fmt: skip
        pieces = tf.concat([tf.stack(columns), deeper.gather(tf.range(depth - _NUM_SHORT))], axis=0)
        return _Lattice(lengths, starts[:-1], tf.transpose(pieces), splits)

    def _moves_of(self, pieces: tf.Tensor) -> tf.Tensor:
        """`score << 6 | length` of each piece: int32 [k, L] -> int64 [k, L]. All unknown pieces share one entry."""
        return tf.gather(self._moves, tf.minimum(pieces, self.vocab_size))

    def _best_cells(self, lattice: _Lattice, order: tf.Tensor, num_active: tf.Tensor) -> tf.Tensor:
        """Runs Viterbi. A cell is an end position of a word: `score << 6 | length of the last piece`.

        So a maximum takes the best score and, of equal ones, the longest last piece.

        Returns:
          int64 [n]: the cells, in the order of `_schedule`.
        """
        num_lengths = tf.shape(lattice.pieces)[1]
        starts = tf.gather(lattice.starts, order)

        def step(position: tf.Tensor, ends: tf.Tensor, cells: tf.TensorArray, here: tf.Tensor) -> tuple[tf.Tensor, ...]:
            """`here` [k]: scores at `position` of the k words beyond it; `ends` [k, L]: the cells after it."""
            pieces = tf.gather(lattice.pieces, starts[: tf.shape(here)[0]] + position)
            ends = tf.maximum(ends, here[:, None] + self._moves_of(pieces))
            cells = cells.write(position, ends[:, 0])
            left = num_active[position + 1]
            here = tf.bitwise.bitwise_and(ends[:left, 0], -(2**_LENGTH_BITS))
            ends = tf.concat([ends[:left, 1:], tf.fill([left, 1], tf.constant(_IMPOSSIBLE, tf.int64))], axis=1)
            return position + 1, ends, cells, here

        num_words, num_steps = num_active[0], tf.size(num_active) - 1
        cells = tf.TensorArray(tf.int64, num_steps, infer_shape=False, element_shape=[None])
        nothing = tf.fill([num_words, num_lengths], tf.constant(_IMPOSSIBLE, tf.int64))
        _, _, cells, _ = tf.while_loop(
            lambda position, *_: position < num_steps, step, (0, nothing, cells, tf.zeros([num_words], tf.int64)),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, None]), tf.TensorShape(None),
                              tf.TensorShape([None])),
        )  # fmt: skip
        return cells.concat()

    def _sampled_lengths(
        self, lattice: _Lattice, order: tf.Tensor, num_active: tf.Tensor, temperature: float, seed: tf.Tensor
    ) -> tf.Tensor:
        """Forward filtering: each end position draws its last piece in proportion to the sum over all its prefixes.

        Reading the drawn pieces from the end of a word then draws a whole segmentation.

        Returns:
          int64 [n]: the length of the last piece, in the order of `_schedule`.
        """
        num_lengths = tf.shape(lattice.pieces)[1]
        scores = (
            tf.cast(tf.bitwise.right_shift(self._moves_of(lattice.pieces), _LENGTH_BITS), tf.float32)
            * SCORE_UNIT
            / temperature
        )
        gumbel = -tf.math.log(-tf.math.log(tf.random.stateless_uniform(tf.shape(scores), seed, minval=1e-7)))
        lengths = tf.range(1, num_lengths + 1)
        starts = tf.gather(lattice.starts, order)
        impossible = -1e30

        def step(
            position: tf.Tensor,
            sums: tf.Tensor,
            best: tf.Tensor,
            chosen: tf.Tensor,
            cells: tf.TensorArray,
            here: tf.Tensor,
        ) -> tuple[tf.Tensor, ...]:
            rows = starts[: tf.shape(here)[0]] + position
            weights = here[:, None] + tf.gather(scores, rows)
            sums = tf.reduce_logsumexp(tf.stack([sums, weights]), axis=0)
            noisy = weights + tf.gather(gumbel, rows)  # the maximum is a draw in proportion to exp(weights)
            chosen, best = tf.where(noisy > best, lengths, chosen), tf.maximum(noisy, best)
            cells = cells.write(position, chosen[:, 0])
            left = num_active[position + 1]
            here = sums[:left, 0]
            sums, best = (
                tf.pad(each[:left, 1:], [[0, 0], [0, 1]], constant_values=impossible) for each in (sums, best)
            )
            return position + 1, sums, best, tf.pad(chosen[:left, 1:], [[0, 0], [0, 1]]), cells, here

        num_words, num_steps = num_active[0], tf.size(num_active) - 1
        cells = tf.TensorArray(tf.int32, num_steps, infer_shape=False, element_shape=[None])
        nothing = tf.fill([num_words, num_lengths], impossible)
        table, row = tf.TensorShape([None, None]), tf.TensorShape([None])
        *_, cells, _ = tf.while_loop(
            lambda position, *_: position < num_steps, step,
            (0, nothing, nothing, tf.zeros_like(nothing, tf.int32), cells, tf.zeros([num_words])),
            shape_invariants=(tf.TensorShape([]), table, table, table, tf.TensorShape(None), row),
        )  # fmt: skip
        return tf.cast(cells.concat(), tf.int64)


def _schedule(lengths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Sorts the longest words first: the first `num_active[p]` words reach beyond character position p.

    The cell of the r-th longest word that ends after position p is at `step_starts[p] + r` in the flat result.

    Args:
      lengths: int32 [W].

    Returns:
      (order int32 [W], step_starts int32 [T], num_active int32 [T + 1], the last one 0); T is the longest length,
      or 1 where there are no characters.
    """
    order = tf.argsort(lengths, direction="DESCENDING", stable=True)
    histogram = tf.math.bincount(lengths, minlength=2)[1:]  # number of words with 1 .. T characters
    num_active = tf.cumsum(histogram, reverse=True)
    return order, tf.cumsum(num_active, exclusive=True), tf.concat([num_active, [0]], axis=0)


def _read_backwards(
    lattice: _Lattice, order: tf.Tensor, step_starts: tf.Tensor, last_lengths: tf.Tensor
) -> tf.RaggedTensor:
    """Follows the last pieces from the words' ends to their starts.

    Args:
      last_lengths: int64 [n], of the last piece at each cell.

    Returns:
      int32 ragged [words, (pieces)], in the order of the words before they were cut.
    """
    ranks = tf.math.invert_permutation(order)

    def step(number: tf.Tensor, words: tf.Tensor, ends: tf.Tensor, backwards: tf.TensorArray) -> tuple[tf.Tensor, ...]:
        """Reads the last piece before `ends` of the words that are not complete yet."""
        lengths = tf.cast(tf.gather(last_lengths, tf.gather(step_starts, ends - 1) + tf.gather(ranks, words)), tf.int32)
        begins = ends - lengths
        pieces = tf.gather_nd(
            lattice.pieces, tf.stack([tf.gather(lattice.starts, words) + begins, lengths - 1], axis=1)
        )
        backwards = backwards.write(number, tf.stack([words, tf.fill(tf.shape(words), number), pieces], axis=1))
        unread = tf.where(begins > 0)[:, 0]
        return number + 1, tf.gather(words, unread), tf.gather(begins, unread), backwards

    words = tf.cast(tf.where(lattice.lengths > 0)[:, 0], tf.int32)
    backwards = tf.TensorArray(tf.int32, 0, dynamic_size=True, infer_shape=False, element_shape=[None, 3])
    row = tf.TensorShape([None])
    *_, backwards = tf.while_loop(
        lambda number, words, *_: (number == 0) | (tf.size(words) > 0), step,
        (0, words, tf.gather(lattice.lengths, words), backwards),
        shape_invariants=(tf.TensorShape([]), row, row, tf.TensorShape(None)),
    )  # fmt: skip
    owners, numbers, pieces = tf.unstack(backwards.concat(), 3, axis=1)
    splits = tf.concat([[0], tf.cumsum(tf.math.bincount(owners, minlength=tf.size(lattice.lengths)))], axis=0)
    places = tf.gather(splits, owners + 1) - 1 - numbers  # the last piece came first
    return tf.RaggedTensor.from_row_splits(
        tf.scatter_nd(places[:, None], pieces, tf.shape(pieces)),
        tf.cast(tf.gather(splits, lattice.splits), tf.int64),
        validate=False,
    )


def _cut(starts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts long words: int32 [words + 1], their bounds -> (int32 [W + 1], those of the parts; see _Lattice.splits)."""
    lengths = starts[1:] - starts[:-1]
    parts = tf.maximum((lengths + _MAX_WORD - 1) // _MAX_WORD, 1)
    splits = tf.concat([[0], tf.cumsum(parts)], axis=0)
    numbers = tf.range(splits[-1]) - tf.repeat(splits[:-1], parts)  # of each part in its word
    begins = tf.repeat(starts[:-1], parts) + numbers * _MAX_WORD
    return tf.concat([begins, starts[-1:]], axis=0), splits


class _Trie(NamedTuple):
    """A trie as a double array (Aoe 1989): node n has the child `bases[n] + symbol` if its entry in `parents` is n.

    Attributes:
      symbols: uint16 [code points], a number for each character of the pieces, 0 for others.
      bases, parents: int32 [slots]; the root is slot 0.
      pieces: int32 [slots], the piece that ends at a node, or _NO_PIECE.
    """

    symbols: tf.Tensor
    bases: tf.Tensor
    parents: tf.Tensor
    pieces: tf.Tensor


def _build_trie(texts: dict[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Builds the arrays of `_Trie` for texts with their ids."""
    alphabet = sorted(set("".join(texts)))
    symbols = np.zeros(ord(alphabet[-1]) + 2 if alphabet else 1, np.uint16)
    symbols[[ord(character) for character in alphabet]] = np.arange(1, len(alphabet) + 1)
    children: dict[str, list[str]] = {"": []}
    for text in sorted(texts):
        for length in range(1, len(text) + 1):
            if text[:length] not in children:
                children[text[:length]] = []
                children[text[: length - 1]].append(text[:length])
    num_slots = 4 * len(children) + 4 * len(alphabet) + _BLOCK
    is_free = np.ones(num_slots, bool)
    is_free[0] = False
    slots, first_slots, start = {"": 0}, {}, 0
    # Nodes with many children first, as long as there is room for them; those with one take what is left, at the end.
    below = sorted(((len(each), prefix) for prefix, each in children.items() if each), reverse=True)
    single = [prefix for number, prefix in below if number == 1]
    for _, prefix in below[: len(below) - len(single)]:
        offsets = symbols[[ord(child[-1]) for child in children[prefix]]].astype(np.int64)
        start, base = _first_fit(is_free, start, offsets)
        is_free[base + offsets] = False
        first_slots[prefix] = base
        slots.update(zip(children[prefix], (base + offsets).tolist(), strict=True))
    holes = np.flatnonzero(is_free[len(alphabet) :]) + len(alphabet)  # bases are not negative
    for prefix, slot in zip(single, holes.tolist(), strict=False):
        is_free[slot] = False
        first_slots[prefix] = slot - int(symbols[ord(children[prefix][0][-1])])
        slots[children[prefix][0]] = slot
    bases, parents, pieces = (
        np.zeros(num_slots, np.int32),
        np.full(num_slots, -1, np.int32),
        np.full(num_slots, _NO_PIECE, np.int32),
    )
    for prefix, slot in slots.items():
        bases[slot] = first_slots.get(prefix, 0)
        pieces[slot] = texts.get(prefix, _NO_PIECE)
        if prefix:
            parents[slot] = slots[prefix[:-1]]
    used = int(np.flatnonzero(~is_free)[-1]) + len(alphabet) + 2  # no symbol leads beyond, and the last is no node
    return symbols, bases[:used], parents[:used], pieces[:used]


def _first_fit(is_free: np.ndarray, start: int, offsets: np.ndarray) -> tuple[int, int]:
    """The first base from `start` with all offsets free, and a start for the next search, past nearly full slots."""
    for number in itertools.count():
        bases = np.arange(start + number * _BLOCK, start + (number + 1) * _BLOCK)
        fits = is_free[bases[:, None] + offsets].all(axis=1)
        if fits.any():
            return start + _BLOCK * (number > 4), int(bases[fits.argmax()])
    raise AssertionError


def unknown_to_unk(pieces: tf.RaggedTensor, vocab_size: int, *, unk_id: int) -> tf.RaggedTensor:
    """Replaces each run of unknown ids (from `vocab_size` on) by one `unk_id`: ragged int32 [batch, (time)]."""
    flat, rows = pieces.flat_values, pieces.value_rowids()
    is_unknown = flat >= vocab_size
    goes_on = tf.concat([[False], is_unknown[1:] & is_unknown[:-1] & (rows[1:] == rows[:-1])], axis=0)
    return tf.ragged.boolean_mask(
        pieces.with_flat_values(tf.where(is_unknown, unk_id, flat)), pieces.with_flat_values(~goes_on)
    )


def unknown_to_bytes(pieces: tf.RaggedTensor, vocab_size: int, *, first_byte_id: int) -> tf.RaggedTensor:
    """Replaces unknown ids (`vocab_size + code point`) by their UTF-8 bytes: ragged int32 [batch, (time)]."""
    flat = pieces.flat_values
    is_unknown = flat >= vocab_size
    points = tf.where(is_unknown, flat - vocab_size, 0)
    lengths = 1 + sum(tf.cast(points >= limit, tf.int32) for limit in (0x80, 0x800, 0x10000))
    owners = tf.repeat(tf.range(tf.size(flat)), lengths)
    point, length = tf.gather(points, owners), tf.gather(lengths, owners)
    place = tf.range(tf.size(owners)) - tf.gather(tf.cumsum(lengths, exclusive=True), owners)
    # UTF-8: the first byte says how many there are; every byte carries six bits of the code point, the first fewer.
    bits = tf.bitwise.right_shift(point, 6 * (length - 1 - place))
    lead = tf.gather(tf.constant([0, 0, 0xC0, 0xE0, 0xF0]), length)
    byte = tf.where(place == 0, lead + bits, 0x80 + tf.bitwise.bitwise_and(bits, 0x3F))
    ids = tf.where(tf.gather(is_unknown, owners), first_byte_id + byte, tf.gather(flat, owners))
    return tf.RaggedTensor.from_value_rowids(
        ids, tf.gather(pieces.value_rowids(), owners), nrows=pieces.nrows(), validate=False
    )
