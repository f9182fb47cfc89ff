"""Dynamic evaluation: the model goes on learning from the text that it has read.

Source: Krause et al. 2018, "Dynamic evaluation of neural sequence models": gradient steps divided by the root of the
gradients' mean squares, with a decay back to the trained weights. Here the mean squares come from validation text, and
the steps are scaled so that the rate is that of a plain gradient step for a weight of average gradient.
"""

import logging
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from nlp_rnn.data.bptt import TokenStream
from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.evaluation.scored_text import Scored
from nlp_rnn.models.language_model import LanguageModel
from nlp_rnn.progress import track

logger = logging.getLogger(__name__)

_SEGMENT = 20  # tokens between two steps
_NUM_SEGMENTS = 500  # for the mean squares
_TUNING_TOKENS = 10_000
_RATES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_DECAYS = (0.003, 0.01, 0.03)
_DAMPING = 0.1  # of the average root mean square, so that rare gradients do not make giant steps


class DynamicSettings(NamedTuple):
    """How the model learns while it reads.

    Attributes:
      rate: of the gradient steps.
      decay: share of the way back to the trained weights that an average weight goes in each step.
    """

    rate: float
    decay: float


class DynamicEvaluation:
    """A language model that learns each segment of a text after it has been scored.

    Args:
      model: has its trained weights again after each text.
      validation: token ids, on which the mean squares of the gradients are measured and the settings chosen.
    """

    def __init__(self, model: LanguageModel, validation: TokenCache) -> None:
        self._model, self._validation = model, validation
        self._weights = model.trainable_variables
        self._trained = [tf.identity(weight) for weight in self._weights]
        signature = [tf.TensorSpec([1, None], tf.int32), tf.TensorSpec([1, None], tf.int32)]
        signature.append(tf.TensorSpec([1, sum(model.state_sizes)]))
        self._differentiate = tf.function(self._gradients, input_signature=signature, autograph=False)
        self._learn = tf.function(self._step, autograph=False)
        self._measure()

    def tune(self, num_tokens: int = _TUNING_TOKENS) -> DynamicSettings:
        """Chooses the settings with a low perplexity on the first tokens of the validation text.

        First the rate grows from 0 until it no longer helps, without decay. Then the decay grows likewise.
        """
        off = DynamicSettings(0.0, 0.0)
        best, lowest = self._grow(
            [DynamicSettings(rate, 0.0) for rate in _RATES], off, self._loss(off, num_tokens), num_tokens
        )
        decayed = [best._replace(decay=decay) for decay in _DECAYS]
        best, lowest = self._grow(decayed, best, lowest, num_tokens)
        logger.info("rate %g, decay %g: validation perplexity %.2f", *best, math.exp(lowest))
        return best

    def _grow(
        self, candidates: list[DynamicSettings], best: DynamicSettings, lowest: float, num_tokens: int
    ) -> tuple[DynamicSettings, float]:
        """The last of the candidates before one is no better, with its loss; `best` and `lowest` if none is better."""
        for settings in candidates:
            loss = self._loss(settings, num_tokens)
            if not loss < lowest:  # also if it is not finite
                break
            best, lowest = settings, loss
        return best, lowest

    def _loss(self, settings: DynamicSettings, num_tokens: int) -> float:
        """The mean cross-entropy of the first tokens of the validation text, in nats."""
        windows = self.score_text(self._validation, settings, title="tuning the adaptation", num_tokens=num_tokens)
        own = [window.log_probabilities[np.arange(len(window.targets)), window.targets] for window in windows]
        return -float(np.concatenate(own).mean())

    def score_text(
        self, cache: TokenCache, settings: DynamicSettings, *, title: str, num_tokens: int = 0
    ) -> Iterator[Scored]:
        """Like `scored_text.score_text`, but the model learns while it reads."""
        text = TokenStream(cache, 1, drop_remainder=False)
        places = text.windows(_SEGMENT)[: -(-num_tokens // _SEGMENT) or None]
        states = self._model.pack_states(self._model.zero_states(1))
        rate, decay = (tf.constant(value, tf.float32) for value in settings)
        try:
            for place in track(places, title, len(places)):
                token_ids, targets, _ = text.read(*place)
                log_probabilities, hidden, states, gradients = self._differentiate(token_ids, targets, states)
                yield Scored(targets[0], log_probabilities.numpy(), hidden.numpy())
                self._learn(gradients, rate, decay)
        finally:
            for weight, value in zip(self._weights, self._trained, strict=True):
                weight.assign(value)

    def _measure(self) -> None:
        """Measures the root mean square of each weight's gradient, as a multiple of the average over all weights."""
        text = TokenStream(self._validation, 1, drop_remainder=False)
        places = text.windows(_SEGMENT)[:_NUM_SEGMENTS]
        squares = [tf.zeros_like(weight) for weight in self._weights]
        states = self._model.pack_states(self._model.zero_states(1))
        for place in track(places, "measuring gradients", len(places)):
            token_ids, targets, _ = text.read(*place)
            *_, states, gradients = self._differentiate(token_ids, targets, states)
            squares = [square + gradient**2 for square, gradient in zip(squares, gradients, strict=True)]
        roots = [tf.sqrt(square / len(places)) for square in squares]
        average = tf.reduce_mean(tf.concat([tf.reshape(root, [-1]) for root in roots], axis=0))
        self._scales = [root / tf.maximum(average, 1e-12) for root in roots]

    def _gradients(
        self, token_ids: tf.Tensor, targets: tf.Tensor, states: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """(log-probabilities [time, vocabulary], hidden [time, features], final states, gradients of the mean loss)."""
        with tf.GradientTape() as tape:
            hidden, after = self._model.run(token_ids, self._model.unpack_states(states))
            log_probabilities = self._model.head(hidden)[0]
            loss = -tf.reduce_mean(tf.gather(log_probabilities, targets[0], batch_dims=1))
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, self._weights)]
        return log_probabilities, hidden[0], self._model.pack_states(after), gradients

    def _step(self, gradients: list[tf.Tensor], rate: tf.Tensor, decay: tf.Tensor) -> None:
        for weight, trained, gradient, scale in zip(self._weights, self._trained, gradients, self._scales, strict=True):
            back = tf.minimum(decay * scale, 1.0) * (trained - weight)
            weight.assign_add(back - rate * gradient / (scale + _DAMPING))
