"""Continues prompts with a language model, in one loop in the graph that carries the states.

Sampling: see `sampling`.
"""

import functools
from typing import NamedTuple

import tensorflow as tf

from nlp_rnn.decoding import sampling as sampling_of
from nlp_rnn.decoding.sampling import REPETITION_WINDOW, Sampling
from nlp_rnn.decoding.scoring import score_tokens
from nlp_rnn.decoding.settings import MAX_STOP_LENGTH
from nlp_rnn.decoding.stepper import States, make_stepper
from nlp_rnn.layers.masking import IMPOSSIBLE
from nlp_rnn.models.language_ensemble import LanguageEnsemble
from nlp_rnn.models.language_model import LanguageModel
from nlp_rnn.special_ids import BOS_ID, EOS_ID, PAD_ID, UNK_ID

_BLOCK = 64  # number of steps whose random numbers are drawn at once
_NEVER = -(2**30)  # the position of an id that has not occurred


class Session(NamedTuple):
    """A text in progress.

    Attributes:
      states: float32 [batch, sum of sizes].
      log_probabilities: float32 [batch, vocabulary], of the next id.
      last_seen: int32 [batch, vocabulary], the last position of each id; positions in the prompt are negative.
      recent: int32 [batch, 32], the last generated ids, left-padded with PAD_ID.
      length: int32 [batch], number of generated ids.
      is_done: bool [batch].
    """

    states: tf.Tensor
    log_probabilities: tf.Tensor
    last_seen: tf.Tensor
    recent: tf.Tensor
    length: tf.Tensor
    is_done: tf.Tensor


class Limits(NamedTuple):
    """Where a text ends: at EOS_ID or a stop string, but not before min_length, and at max_length at the latest.

    Attributes:
      min_length, max_length: int32 [batch].
      stops: int32 [batch, number, 32], ids of the stop strings, left-padded with PAD_ID.
    """

    min_length: tf.Tensor
    max_length: tf.Tensor
    stops: tf.Tensor


class Written(NamedTuple):
    """Generated texts.

    Attributes:
      ids: int32 [batch, time], with EOS_ID where the model ended the text, right-padded with PAD_ID. Where a row
        stopped at its own count, what follows has no meaning.
      log_probability: float32 [batch], the sum over the ids, with the end and the stop string, by the model at
        temperature 1, among the ids that can be written at all.
      stop_length: int32 [batch], length of the stop string at the end, or 0.
    """

    ids: tf.Tensor
    log_probability: tf.Tensor
    stop_length: tf.Tensor
    session: Session


class _Progress(NamedTuple):
    """The loop state of `Generator.extend`: the time, and the parts of Session and Written so far."""

    time: tf.Tensor
    states: States
    log_probabilities: tf.Tensor
    last_seen: tf.Tensor
    recent: tf.Tensor
    length: tf.Tensor
    is_done: tf.Tensor
    ids: tf.TensorArray
    total: tf.Tensor
    stop_length: tf.Tensor


def _unless_paused(after: _Progress, before: _Progress, count: tf.Tensor) -> _Progress:
    """The progress after a step.

    Rows that have generated `count` ids (int32 [rows], or [] for all rows) keep their progress.
    """
    if count.shape.rank == 0:
        return after
    is_on = before.time < count

    def choose(new: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
        return tf.where(tf.reshape(is_on, [-1] + [1] * (new.shape.rank - 1)), new, old)

    kept = {name: tf.nest.map_structure(choose, getattr(after, name), getattr(before, name)) for name in _OF_ROWS}
    return after._replace(**kept)


_OF_ROWS = ("states", "log_probabilities", "last_seen", "recent", "length", "is_done", "total", "stop_length")


class Generator(tf.Module):
    """Continues texts with a language model, from ids to ids. `export.generation` does the same for strings.

    Args:
      model: with its weights, or an ensemble.
    """

    def __init__(self, model: LanguageModel | LanguageEnsemble) -> None:
        super().__init__()
        self._stepper = make_stepper(model, never=(PAD_ID, UNK_ID, BOS_ID))
        self.weights = self._stepper.weights
        self._end_only = tf.one_hot(EOS_ID, model.vocab_size, IMPOSSIBLE, 0.0)

    def begin(self, prompts: tf.RaggedTensor) -> Session:
        """Reads the prompts, ragged int32 [batch, (time)].

        Every text begins after an EOS_ID, the end of another text.
        """
        token_ids = tf.concat([tf.fill([prompts.nrows(), 1], EOS_ID), prompts], axis=1)
        states, hidden = self._read(token_ids)
        rows = tf.shape(hidden)[0]
        return Session(
            states=_pack(states), log_probabilities=self._stepper.predict(hidden), last_seen=self._last_seen(prompts),
            recent=tf.fill([rows, MAX_STOP_LENGTH], PAD_ID), length=tf.zeros([rows], tf.int32),
            is_done=tf.zeros([rows], tf.bool),
        )  # fmt: skip

    def extend(self, session: Session, count: tf.Tensor, limits: Limits, sampling: Sampling) -> Written:
        """Generates up to `count` (int32 [rows], or [] for all rows) more ids per row.

        All calls of a session must have the same limits and sampling settings.
        """
        rows = tf.shape(session.length)[0]
        session = session._replace(is_done=session.is_done | (session.length >= limits.max_length))
        is_plain = sampling_of.is_plain(sampling) & (tf.size(limits.stops) == 0)

        def goes_on(progress: _Progress) -> tf.Tensor:
            return (progress.time == 0) | tf.reduce_any((progress.time < count) & ~progress.is_done)

        def body(progress: _Progress) -> tuple[_Progress]:
            noise = sampling_of.scaled_noise(sampling, progress.length, _BLOCK, self._stepper.vocab_size)
            lengths = progress.length + tf.range(_BLOCK)[:, None]  # of rows that have not ended
            noise += tf.where(lengths < limits.min_length, 1.0, 0.0)[:, :, None] * self._end_only
            end = tf.minimum(progress.time + _BLOCK, tf.reduce_max(count))
            # Two loops, since the plain one has half the operations.
            write = [
                functools.partial(self._write_block, progress, end, noise, limits, sampling, count, is_plain=each)
                for each in (True, False)
            ]
            return (tf.cond(is_plain, *write),)

        start = _Progress(
            time=tf.constant(0), states=self._unpack(session.states), log_probabilities=session.log_probabilities,
            last_seen=session.last_seen, recent=session.recent, length=session.length, is_done=session.is_done,
            ids=tf.TensorArray(tf.int32, 1, dynamic_size=True, element_shape=[None]), total=tf.zeros([rows]),
            stop_length=tf.zeros([rows], tf.int32),
        )  # fmt: skip
        (end,) = tf.while_loop(goes_on, body, (start,))
        session = Session(_pack(end.states), end.log_probabilities, end.last_seen, end.recent, end.length, end.is_done)
        return Written(tf.transpose(end.ids.stack()), end.total, end.stop_length, session)

    def _write_block(
        self,
        progress: _Progress,
        end: tf.Tensor,
        noise: tf.Tensor,
        limits: Limits,
        sampling: Sampling,
        count: tf.Tensor,
        *,
        is_plain: bool,
    ) -> _Progress:
        """Generates up to the time `end`. `noise` starts at the current time."""
        first, vocab_size, all_rows = progress.time, self._stepper.vocab_size, tf.range(tf.shape(progress.length)[0])

        def goes_on(now: _Progress) -> tf.Tensor:
            return (now.time == 0) | ((now.time < end) & ~tf.reduce_all(now.is_done))

        def body(now: _Progress) -> tuple[_Progress]:
            scores = now.log_probabilities
            if not is_plain:  # top-k and top-p must not count an end that is not allowed
                must_go_on = tf.cast(now.length < limits.min_length, tf.float32)
                scores = sampling_of.restrict(
                    scores + must_go_on[:, None] * self._end_only, sampling, now.length, now.last_seen
                )
            chosen = tf.argmax(scores + noise[now.time - first], axis=1, output_type=tf.int32)
            added = tf.gather_nd(now.log_probabilities, tf.stack([all_rows, chosen], axis=1))
            is_end = chosen == EOS_ID
            is_written = ~(now.is_done | is_end)
            length = now.length + tf.cast(is_written, tf.int32)
            hidden, states = self._stepper.step(chosen, now.states)
            after = now._replace(
                time=now.time + 1, states=states, log_probabilities=self._stepper.predict(hidden), length=length,
                is_done=now.is_done | is_end | (length >= limits.max_length),
                total=now.total + tf.where(now.is_done, 0.0, added),
                ids=now.ids.write(now.time, tf.where(now.is_done, PAD_ID, chosen)),
            )  # fmt: skip
            if is_plain:
                return (_unless_paused(after, now, count),)
            is_chosen = tf.one_hot(chosen, vocab_size, True, False)
            recent = tf.where(is_written[:, None], tf.concat([now.recent[:, 1:], chosen[:, None]], axis=1), now.recent)
            stop = tf.where(is_written & (length >= limits.min_length), _stop_lengths(recent, limits.stops), 0)
            last_seen = tf.where(is_chosen, now.length[:, None], now.last_seen)
            stop_length = now.stop_length + stop
            after = after._replace(
                recent=recent, last_seen=last_seen, stop_length=stop_length, is_done=after.is_done | (stop > 0)
            )
            return (_unless_paused(after, now, count),)

        (progress,) = tf.while_loop(goes_on, body, (progress,))
        return progress

    def score(self, token_ids: tf.RaggedTensor) -> tf.Tensor:
        """The model's log-probability of each id and of the end; see `score_tokens`."""

        def step(ids: tf.Tensor, states: States) -> tuple[tf.Tensor, States]:
            hidden, after = self._stepper.step(ids, states)
            return self._stepper.predict(hidden, with_all=True), after

        return score_tokens(token_ids, self._stepper.zero_states(tf.cast(token_ids.nrows(), tf.int32)), step)

    def activations(self, token_ids: tf.Tensor) -> tf.Tensor:
        """The hidden states of all layers after each id: int32 [batch, time] -> float32 [batch, time, units]."""

        def body(time: tf.Tensor, states: States, outputs: tf.TensorArray) -> tuple[object, ...]:
            _, states = self._stepper.step(token_ids[:, time], states)
            return time + 1, states, outputs.write(time, tf.concat([layer[0] for layer in states], axis=1))

        num_steps, rows = tf.shape(token_ids)[1], tf.shape(token_ids)[0]
        token_ids = tf.pad(token_ids, [[0, 0], [0, 1]], constant_values=PAD_ID)  # at least one step
        size = sum(sizes[0] for sizes in self._stepper.sizes)
        outputs = tf.TensorArray(tf.float32, num_steps + 1, element_shape=[None, size])
        _, _, outputs = tf.while_loop(
            lambda time, *_: time <= num_steps, body, (0, self._stepper.zero_states(rows), outputs)
        )
        return tf.transpose(outputs.stack(), [1, 0, 2])[:, :-1]

    def _read(self, token_ids: tf.RaggedTensor) -> tuple[States, tf.Tensor]:
        """Reads ragged int32 [batch, (time)] with at least one id per row.

        Returns (final states, last hidden vectors).
        """
        padded, lengths = token_ids.to_tensor(PAD_ID), tf.cast(token_ids.row_lengths(), tf.int32)
        rows = tf.shape(padded)[0]

        def body(time: tf.Tensor, states: States, hidden: tf.Tensor) -> tuple[object, ...]:
            new_hidden, after = self._stepper.step(padded[:, time], states)
            is_on = (time < lengths)[:, None]  # the states of shorter texts stay
            after = [
                [tf.where(is_on, new, old) for new, old in zip(*pair, strict=True)]
                for pair in zip(after, states, strict=True)
            ]
            return time + 1, after, tf.where(is_on, new_hidden, hidden)

        start = (0, self._stepper.zero_states(rows), tf.zeros([rows, self._stepper.features]))
        _, states, hidden = tf.while_loop(lambda time, *_: time < tf.shape(padded)[1], body, start)
        return states, hidden

    def _last_seen(self, prompts: tf.RaggedTensor) -> tf.Tensor:
        """The last position of each id in the prompts, for the repetition penalty; below 0."""
        last = prompts[:, -REPETITION_WINDOW:]
        places = tf.cast(tf.ragged.range(-last.row_lengths(), 0), tf.int32)
        is_id = tf.one_hot(last.to_tensor(PAD_ID), self._stepper.vocab_size, True, False)
        return tf.maximum(tf.reduce_max(tf.where(is_id, places.to_tensor(_NEVER)[:, :, None], _NEVER), axis=1), _NEVER)

    def _unpack(self, packed: tf.Tensor) -> States:
        flat = iter(tf.split(packed, [size for sizes in self._stepper.sizes for size in sizes], axis=1))
        return [[next(flat) for _ in sizes] for sizes in self._stepper.sizes]


def _pack(states: States) -> tf.Tensor:
    return tf.concat([state for layer in states for state in layer], axis=1)


def _stop_lengths(recent: tf.Tensor, stops: tf.Tensor) -> tf.Tensor:
    """The length of the longest stop string that `recent` ends with, or 0: int32 [batch]."""
    is_id = stops != PAD_ID
    is_found = tf.reduce_all((recent[:, None] == stops) | ~is_id, axis=2)
    lengths = tf.reduce_sum(tf.cast(is_id, tf.int32), axis=2)
    return tf.maximum(
        tf.reduce_max(tf.where(is_found, lengths, 0), axis=1), 0
    )  # of no stop strings the maximum is negative
