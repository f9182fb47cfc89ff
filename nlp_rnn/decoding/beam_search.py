"""Beam search in the graph, for any model that returns log-probabilities step by step.

A beam of one is greedy search.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from nlp_rnn.layers.masking import IMPOSSIBLE
from nlp_rnn.special_ids import BOS_ID, EOS_ID, PAD_ID

# (ids int32 [rows], states)
# -> (log-probabilities float32 [rows, vocabulary], states, source weights float32 [rows, source])
StepFunction = Callable[[tf.Tensor, Any], tuple[tf.Tensor, Any, tf.Tensor]]


class Search(NamedTuple):
    """The settings of a search, per sentence unless the shape is [].

    Attributes:
      beam_size: int32 [batch], or [] for all; number of hypotheses that are followed, and of results.
      min_length, max_length: int32 [batch], in ids without EOS_ID; hypotheses end at max_length.
      length_penalty: float32 [batch]; log-probabilities are divided by ((5 + length) / 6) ** length_penalty; 0 for
        none.
      coverage_penalty: float32 [batch], 0 or more; weight of the sum, over the source's steps, of the logarithm of the
        attention they got (at most 1). Source of both: Wu et al. 2016, equation 14.
      no_repeat: int32 [batch], or [] for all; no n-gram of so many ids occurs twice; 0 allows all.
      prefix: int32 [batch, any], right-padded with PAD_ID; every hypothesis begins with it.
      never: ids that are never generated.
    """

    beam_size: tf.Tensor
    min_length: tf.Tensor
    max_length: tf.Tensor
    length_penalty: tf.Tensor
    coverage_penalty: tf.Tensor
    no_repeat: tf.Tensor
    prefix: tf.Tensor
    never: tuple[int, ...] = (PAD_ID, BOS_ID)


class Hypotheses(NamedTuple):
    """The hypotheses of each sentence, the best first.

    Attributes:
      ids: int32 [batch, beam, time], without EOS_ID, right-padded with PAD_ID.
      scores: float32 [batch, beam]; IMPOSSIBLE or less where there is no hypothesis.
      log_probabilities: float32 [batch, beam], of the ids and the final EOS_ID, in nats.
    """

    ids: tf.Tensor
    scores: tf.Tensor
    log_probabilities: tf.Tensor


class _Beam(NamedTuple):
    """The state between two steps.

    Attributes:
      ids, log_probabilities: of the active hypotheses, [batch, beam, longest] and [batch, beam].
      states: [batch * beam, ...].
      coverage: [batch, beam, source].
      runs: [batch, beam, longest]; how many ids before each position equal the last ids of the hypothesis.
      finished: the finished hypotheses.
    """

    time: tf.Tensor
    ids: tf.Tensor
    log_probabilities: tf.Tensor
    states: Any
    coverage: tf.Tensor
    runs: tf.Tensor
    finished: Hypotheses


def beam_search(step: StepFunction, states: Any, source_mask: tf.Tensor, search: Search) -> Hypotheses:
    """Searches the most likely texts. The results for a sentence do not depend on the rest of the batch.

    A hypothesis that ends is finished if it is among the `beam_size` best at that step. The search of a sentence ends
    when it has `beam_size` finished hypotheses and no active one can become better than the worst of them. Stopping as
    soon as there are `beam_size` would cut a confident model short, since unlikely texts end before the likely one. A
    beam of one ends with its first finished hypothesis.

    Args:
      step: one step of the model.
      states: initial states of the sentences, a nest of tensors [batch, ...].
      source_mask: bool [batch, source], False on padding.
    """
    size = tf.maximum(tf.reduce_max(search.beam_size), 1)  # of no sentences too
    batch, longest = tf.shape(source_mask)[0], tf.maximum(tf.reduce_max(search.max_length), 0) + 1
    nowhere = tf.fill([batch, size], IMPOSSIBLE * 2)
    empty = tf.zeros([batch, size, longest], tf.int32)
    first = tf.concat([tf.zeros([batch, 1]), nowhere[:, 1:]], axis=1)
    start = _Beam(
        time=tf.constant(0), ids=empty, log_probabilities=first,
        states=tf.nest.map_structure(lambda x: tf.repeat(x, size, axis=0), states),
        coverage=tf.zeros([batch, size, tf.shape(source_mask)[1]]), runs=empty,
        finished=Hypotheses(empty, nowhere, nowhere),
    )  # fmt: skip

    def goes_on(beam: _Beam) -> tf.Tensor:
        return (beam.time < longest) & tf.reduce_any(beam.log_probabilities[:, 0] > IMPOSSIBLE)

    (end,) = tf.while_loop(
        goes_on, lambda beam: (_advance(beam, step, source_mask, search),), (start,), parallel_iterations=1
    )
    return end.finished


def _advance(beam: _Beam, step: StepFunction, source_mask: tf.Tensor, search: Search) -> _Beam:
    batch, size, longest = (tf.shape(beam.ids)[axis] for axis in range(3))
    last = tf.where(beam.time == 0, BOS_ID, beam.ids[:, :, tf.maximum(beam.time - 1, 0)])
    log_probabilities, states, weights = step(tf.reshape(last, [-1]), beam.states)
    vocab_size = log_probabilities.shape[-1]
    scores = tf.reshape(log_probabilities, [batch, size, vocab_size])
    given = tf.pad(search.prefix, [[0, 0], [0, 1]])[:, tf.minimum(beam.time, tf.shape(search.prefix)[1])]
    given = tf.where(beam.time < search.max_length, given, PAD_ID)
    is_free = tf.cast(given == PAD_ID, tf.float32)[:, None, None]
    own_sizes = tf.broadcast_to(search.beam_size, [batch])[
        :, None
    ]  # of sentences with fewer hypotheses than the largest beam
    scores = tf.cond(
        tf.reduce_any(search.no_repeat > 0),
        lambda: scores + is_free * _repetitions(beam, search.no_repeat, vocab_size),
        lambda: scores,
    )
    scores += _forbidden(beam.time, given, search, vocab_size)[:, None]
    coverage = beam.coverage + tf.reshape(weights, tf.shape(beam.coverage))

    # At most `size` ids of a beam go on and one ends, so its best size + 1 are enough; of all beams, the best 2 * size.
    each = tf.math.top_k(scores, tf.minimum(size + 1, vocab_size))
    totals = tf.reshape(beam.log_probabilities[:, :, None] + each.values, [batch, -1])
    best = tf.math.top_k(totals, tf.minimum(2 * size, tf.shape(totals)[1]))
    ids = tf.gather(tf.reshape(each.indices, [batch, -1]), best.indices, batch_dims=1)
    parents = best.indices // tf.shape(each.values)[2]
    is_end = ids == EOS_ID

    def of_parents(tensor: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        return tf.gather(tensor, places, batch_dims=1)

    # Hypotheses that end at this step.
    is_good = is_end & (tf.range(tf.shape(ids)[1]) < own_sizes) & (best.values > IMPOSSIBLE)
    scores = _scores(best.values, of_parents(coverage, parents), beam.time, source_mask, search)
    new = Hypotheses(of_parents(beam.ids, parents), tf.where(is_good, scores, IMPOSSIBLE * 2), best.values)
    finished = _best(beam.finished, new, size)
    is_own = tf.range(size) < own_sizes
    finished = finished._replace(scores=tf.where(is_own, finished.scores, IMPOSSIBLE * 2))
    worst = tf.gather(finished.scores, own_sizes[:, 0] - 1, batch_dims=1)

    # Hypotheses that go on.
    alive = tf.math.top_k(tf.where(is_end, IMPOSSIBLE * 2, best.values), size)
    is_done = (worst > IMPOSSIBLE) & (
        (own_sizes[:, 0] == 1) | (worst >= _attainable(alive.values[:, 0], beam.time, search))
    )
    parents, ids = of_parents(parents, alive.indices), of_parents(ids, alive.indices)
    rows = tf.reshape(parents + tf.range(batch)[:, None] * size, [-1])
    written = tf.where(tf.range(longest) == beam.time, ids[:, :, None], of_parents(beam.ids, parents))
    runs = of_parents(beam.runs, parents)
    return _Beam(
        time=beam.time + 1, ids=written,
        log_probabilities=tf.where(is_own & ~is_done[:, None], alive.values, IMPOSSIBLE * 2),
        states=tf.nest.map_structure(lambda x: tf.gather(x, rows), states), coverage=of_parents(coverage, parents),
        runs=_longer_runs(runs, written, ids, beam.time), finished=finished,
    )  # fmt: skip


def _forbidden(time: tf.Tensor, given: tf.Tensor, search: Search, vocab_size: int) -> tf.Tensor:
    """Penalties float32 [batch, vocabulary]: IMPOSSIBLE for ids that are forbidden at this time.

    given: int32 [batch], the prefix.
    """
    never = sum(tf.one_hot(each, vocab_size) for each in search.never)[None]
    is_end = tf.one_hot(EOS_ID, vocab_size)[None]
    must_go_on, must_end = (
        tf.cast(each, tf.float32)[:, None] for each in (time < search.min_length, time >= search.max_length)
    )
    banned = never + must_go_on * is_end + must_end * (1 - is_end)
    is_given = tf.cast(given != PAD_ID, tf.float32)[:, None]
    return IMPOSSIBLE * ((1 - is_given) * tf.minimum(banned, 1.0) + is_given * (1 - tf.one_hot(given, vocab_size)))


def _longer_runs(runs: tf.Tensor, written: tf.Tensor, ids: tf.Tensor, time: tf.Tensor) -> tf.Tensor:
    """The runs after one more id: the run of place j is that of place j - 1 plus one if its id was just generated."""
    is_same = (written == ids[:, :, None]) & (tf.range(tf.shape(written)[2]) < time)
    grown = tf.where(is_same, runs + 1, 0)
    return tf.pad(grown, [[0, 0], [0, 0], [1, 0]])[:, :, :-1]


def _repetitions(beam: _Beam, no_repeat: tf.Tensor, vocab_size: int) -> tf.Tensor:
    """Penalties float32 [batch, beam, vocabulary]: IMPOSSIBLE for ids that would repeat an n-gram."""
    batch, size, longest = (tf.shape(beam.ids)[axis] for axis in range(3))
    limits = tf.broadcast_to(no_repeat, [batch])[:, None, None]
    is_banned = (beam.runs >= limits - 1) & (limits > 0) & (tf.range(longest) < beam.time)
    rows = tf.repeat(tf.range(batch * size), longest)
    places = tf.stack([rows, tf.reshape(beam.ids, [-1])], axis=1)
    banned = tf.scatter_nd(places, tf.cast(tf.reshape(is_banned, [-1]), tf.float32), [batch * size, vocab_size])
    return IMPOSSIBLE * tf.reshape(tf.minimum(banned, 1.0), [batch, size, vocab_size])


def _scores(
    log_probabilities: tf.Tensor, coverage: tf.Tensor, time: tf.Tensor, source_mask: tf.Tensor, search: Search
) -> tf.Tensor:
    """Scores float32 [batch, any] of hypotheses that end at this time, with coverage [batch, any, source]."""
    seen = tf.where(source_mask[:, None], tf.math.log(tf.clip_by_value(coverage, 1e-6, 1.0)), 0.0)
    divisors = _divisors(time + 1, search)[:, None]
    return log_probabilities / divisors + search.coverage_penalty[:, None] * tf.reduce_sum(seen, axis=2)


def _attainable(log_probabilities: tf.Tensor, time: tf.Tensor, search: Search) -> tf.Tensor:
    """The highest score float32 [batch] that active hypotheses can still reach. The best coverage penalty is 0."""
    return log_probabilities / tf.maximum(_divisors(time + 2, search), _divisors(search.max_length + 1, search))


def _divisors(length: tf.Tensor, search: Search) -> tf.Tensor:
    """What log-probabilities are divided by, float32 [batch]. length: int32 [] or [batch], with EOS_ID."""
    return ((5 + tf.cast(length, tf.float32)) / 6) ** search.length_penalty


def _best(first: Hypotheses, second: Hypotheses, count: tf.Tensor) -> Hypotheses:
    """The `count` hypotheses with the highest scores."""
    merged = Hypotheses(*(tf.concat(pair, axis=1) for pair in zip(first, second, strict=True)))
    places = tf.math.top_k(merged.scores, count).indices
    return Hypotheses(*(tf.gather(each, places, batch_dims=1) for each in merged))
