"""Writing on from a prompt, in one loop in the graph with the state carried on. Source of the loop's sampling: `sampling`."""

from typing import NamedTuple

import tensorflow as tf

from nlp_rnn.language_model import LanguageModel
from nlp_rnn.sampling import IMPOSSIBLE, REPETITION_WINDOW, Sampling, choose
from nlp_rnn.stepper import States, Stepper
from nlp_rnn.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID

MOST_STOP_LENGTH = 32  # of a stop string, in ids

_NEVER = -(2**30)  # the place of an id that has not been seen


class Session(NamedTuple):
    """A text begun.

    states: float32 [batch, sum of sizes]; log_probabilities: float32 [batch, vocabulary], of the next id; last_seen: int32
    [batch, vocabulary], the place at which each id stood last (the prompt's are negative); recent: int32 [batch, 32], the
    last ids written, PAD_ID before them; length: int32 [batch], how many are written; is_done: bool [batch].
    """

    states: tf.Tensor
    log_probabilities: tf.Tensor
    last_seen: tf.Tensor
    recent: tf.Tensor
    length: tf.Tensor
    is_done: tf.Tensor


class Limits(NamedTuple):
    """Where a text ends: at EOS_ID or a stop string, not before min_length; at max_length at the latest.

    min_length, max_length: int32 [batch]; stops: int32 [batch, number, 32], ids that PAD_ID stands before.
    """

    min_length: tf.Tensor
    max_length: tf.Tensor
    stops: tf.Tensor


class Written(NamedTuple):
    """ids: int32 [batch, time], PAD_ID behind the end, EOS_ID where the model ended the text; log_probability: float32 [batch],
    their sum by the model alone, at temperature 1; stop_length: int32 [batch], the length of the stop string at the end, or 0."""

    ids: tf.Tensor
    log_probability: tf.Tensor
    stop_length: tf.Tensor
    session: Session


class Generator(tf.Module):
    """Writes on with a language model. Ids in and out; `generation_export` does the same for text.

    Args:
      model: with its weights.
    """

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self._stepper = Stepper(model)
        self._is_writable = ~tf.reduce_any(tf.one_hot([PAD_ID, UNK_ID, BOS_ID], model.vocab_size, True, False), axis=0)
        self._is_end = tf.one_hot(EOS_ID, model.vocab_size, True, False)

    def begin(self, prompts: tf.RaggedTensor) -> Session:
        """Ragged int32 [batch, (time)] -> the sessions behind the prompts. Every text begins behind EOS_ID, the end of another."""
        token_ids = tf.concat([tf.fill([prompts.nrows(), 1], EOS_ID), prompts], axis=1)
        states, hidden = self._read(token_ids)
        rows = tf.shape(hidden)[0]
        return Session(
            states=_pack(states), log_probabilities=self._stepper.predict(hidden), last_seen=self._last_seen(prompts),
            recent=tf.fill([rows, MOST_STOP_LENGTH], PAD_ID), length=tf.zeros([rows], tf.int32), is_done=tf.zeros([rows], tf.bool),
        )  # fmt: skip

    def extend(self, session: Session, count: tf.Tensor, limits: Limits, sampling: Sampling) -> Written:
        """Writes `count` more ids a row, int32 [], or fewer where texts end."""
        rows = tf.shape(session.length)[0]
        session = session._replace(is_done=session.is_done | (session.length >= limits.max_length))

        def goes_on(time: tf.Tensor, session: Session, *_: object) -> tf.Tensor:
            return (time == 0) | ((time < count) & ~tf.reduce_all(session.is_done))

        def body(
            time: tf.Tensor, session: Session, states: States, ids: tf.TensorArray, total: tf.Tensor, stop_length: tf.Tensor
        ) -> tuple[object, ...]:
            may_end = session.length >= limits.min_length
            is_allowed = self._is_writable & (may_end[:, None] | ~self._is_end)
            scores = tf.where(is_allowed, session.log_probabilities, IMPOSSIBLE)
            chosen = choose(scores, sampling, session.length, session.last_seen)
            added = tf.gather(session.log_probabilities, chosen, batch_dims=1)
            total += tf.where(session.is_done, 0.0, added)
            is_written = ~session.is_done & (chosen != EOS_ID)
            hidden, states = self._stepper.step(chosen, states)
            is_chosen = tf.one_hot(chosen, self._stepper.vocab_size, True, False)
            length = session.length + tf.cast(is_written, tf.int32)
            recent = tf.where(is_written[:, None], tf.concat([session.recent[:, 1:], chosen[:, None]], axis=1), session.recent)
            found = tf.where(is_written & (length >= limits.min_length), _stop_lengths(recent, limits.stops), 0)
            after = Session(
                session.states, self._stepper.predict(hidden), tf.where(is_chosen, session.length[:, None], session.last_seen), recent,
                length, session.is_done | (chosen == EOS_ID) | (found > 0) | (length >= limits.max_length),
            )  # fmt: skip
            return time + 1, after, states, ids.write(time, tf.where(session.is_done, PAD_ID, chosen)), total, stop_length + found

        ids = tf.TensorArray(tf.int32, 1, dynamic_size=True, element_shape=[None])
        start = (0, session, self._unpack(session.states), ids, tf.zeros([rows]), tf.zeros([rows], tf.int32))
        _, session, states, ids, total, stop_length = tf.while_loop(goes_on, body, start)
        return Written(tf.transpose(ids.stack()), total, stop_length, session._replace(states=_pack(states)))

    def activations(self, token_ids: tf.Tensor) -> tf.Tensor:
        """int32 [batch, time] -> float32 [batch, time, units], the states h of all layers behind each id."""

        def body(time: tf.Tensor, states: States, found: tf.TensorArray) -> tuple[object, ...]:
            _, states = self._stepper.step(token_ids[:, time], states)
            return time + 1, states, found.write(time, tf.concat([layer[0] for layer in states], axis=1))

        num_steps, rows = tf.shape(token_ids)[1], tf.shape(token_ids)[0]
        token_ids = tf.pad(token_ids, [[0, 0], [0, 1]], constant_values=PAD_ID)  # one step at least
        size = sum(sizes[0] for sizes in self._stepper.sizes)
        found = tf.TensorArray(tf.float32, num_steps + 1, element_shape=[None, size])
        _, _, found = tf.while_loop(lambda time, *_: time <= num_steps, body, (0, self._stepper.zero_states(rows), found))
        return tf.transpose(found.stack(), [1, 0, 2])[:, :-1]

    def _read(self, token_ids: tf.RaggedTensor) -> tuple[States, tf.Tensor]:
        """Ragged int32 [batch, (time)], a row of one or more -> the states behind each row, and the last hidden vectors."""
        padded, lengths = token_ids.to_tensor(PAD_ID), tf.cast(token_ids.row_lengths(), tf.int32)
        rows = tf.shape(padded)[0]

        def body(time: tf.Tensor, states: States, hidden: tf.Tensor) -> tuple[object, ...]:
            found, after = self._stepper.step(padded[:, time], states)
            is_on = (time < lengths)[:, None]  # shorter texts wait
            after = [[tf.where(is_on, new, old) for new, old in zip(*pair, strict=True)] for pair in zip(after, states, strict=True)]
            return time + 1, after, tf.where(is_on, found, hidden)

        start = (0, self._stepper.zero_states(rows), tf.zeros([rows, self._stepper.sizes[-1][0]]))
        _, states, hidden = tf.while_loop(lambda time, *_: time < tf.shape(padded)[1], body, start)
        return states, hidden

    def _last_seen(self, prompts: tf.RaggedTensor) -> tf.Tensor:
        """Places before 0, of the ids that a repetition penalty is for."""
        last = prompts[:, -REPETITION_WINDOW:]
        places = tf.cast(tf.ragged.range(-last.row_lengths(), 0), tf.int32)
        found = tf.one_hot(last.to_tensor(PAD_ID), self._stepper.vocab_size, True, False)
        return tf.maximum(tf.reduce_max(tf.where(found, places.to_tensor(_NEVER)[:, :, None], _NEVER), axis=1), _NEVER)

    def _unpack(self, packed: tf.Tensor) -> States:
        flat = iter(tf.split(packed, [size for sizes in self._stepper.sizes for size in sizes], axis=1))
        return [[next(flat) for _ in sizes] for sizes in self._stepper.sizes]


def _pack(states: States) -> tf.Tensor:
    return tf.concat([state for layer in states for state in layer], axis=1)


def _stop_lengths(recent: tf.Tensor, stops: tf.Tensor) -> tf.Tensor:
    """The length of the longest stop string that the last ids are, or 0: int32 [batch]."""
    is_id = stops != PAD_ID
    is_found = tf.reduce_all((recent[:, None] == stops) | ~is_id, axis=2)
    lengths = tf.reduce_sum(tf.cast(is_id, tf.int32), axis=2)
    return tf.maximum(tf.reduce_max(tf.where(is_found, lengths, 0), axis=1), 0)  # of no stop strings the maximum is negative
