"""Several language models over one vocabulary as one. Its probabilities are the mean of theirs."""

import math
from typing import Any

import keras

from nlp_rnn.models.language_model import LanguageModel, States


class LanguageEnsemble:
    """Has those parts of `LanguageModel` that evaluation and exports use.

    Hidden vectors and states are those of all members side by side.

    Args:
      members: with their weights; of any cells and sizes, but of one vocabulary.

    Attributes:
      recurrent: the recurrent layers of all members.
    """

    def __init__(self, members: list[LanguageModel]) -> None:
        self.members, self.vocab_size = members, members[0].vocab_size
        self.recurrent = [layer for member in members for layer in member.recurrent]

    @property
    def features(self) -> int:
        """Size of the hidden vectors."""
        return sum(member.features for member in self.members)

    @property
    def state_sizes(self) -> list[int]:
        """Sizes of all states, member by member and layer by layer."""
        return [size for member in self.members for size in member.state_sizes]

    @property
    def kept_weights(self) -> list[keras.Variable]:
        """All weights except the carried states."""
        return [weight for member in self.members for weight in member.kept_weights]

    def count_params(self) -> int:
        """The number of weights of all members."""
        return sum(member.count_params() for member in self.members)

    def run(self, token_ids: Any, states: States, mask: Any = None) -> tuple[Any, States]:
        """See `LanguageModel.run`."""
        parts = zip(self.members, self._by_member(states), strict=True)
        return _joined([member.run(token_ids, own, mask=mask) for member, own in parts])

    def advance(self, token_ids: Any, states: States) -> tuple[Any, States]:
        """See `LanguageModel.advance`."""
        parts = zip(self.members, self._by_member(states), strict=True)
        return _joined([member.advance(token_ids, own) for member, own in parts])

    def head(self, hidden: Any) -> Any:
        """The logarithm of the mean probability of each id: float [..., features] -> float32 [..., vocabulary]."""
        scores, start = [], 0
        for member in self.members:
            end = start + member.features
            scores.append(member.head(hidden[..., start:end]))
            start = end
        return log_of_mean(scores)

    def zero_states(self, batch_size: Any) -> States:
        """See `LanguageModel.zero_states`."""
        return [layer for member in self.members for layer in member.zero_states(batch_size)]

    def pack_states(self, states: States) -> Any:
        """See `LanguageModel.pack_states`."""
        parts = zip(self.members, self._by_member(states), strict=True)
        return keras.ops.concatenate([member.pack_states(own) for member, own in parts], axis=1)

    def unpack_states(self, packed: Any) -> States:
        """See `LanguageModel.unpack_states`."""
        states, start = [], 0
        for member in self.members:
            end = start + sum(member.state_sizes)
            states += member.unpack_states(packed[:, start:end])
            start = end
        return states

    def _by_member(self, states: States) -> list[States]:
        layers = iter(states)
        return [[next(layers) for _ in member.recurrent] for member in self.members]


def log_of_mean(log_probabilities: list[Any]) -> Any:
    """The logarithm of the mean of probabilities that are given as logarithms, all of one shape."""
    if len(log_probabilities) == 1:
        return log_probabilities[0]
    ops = keras.ops
    return ops.logsumexp(ops.stack(log_probabilities), axis=0) - math.log(len(log_probabilities))


def _joined(results: list[tuple[Any, States]]) -> tuple[Any, States]:
    hidden = keras.ops.concatenate([part for part, _ in results], axis=-1)
    return hidden, [layer for _, states in results for layer in states]
