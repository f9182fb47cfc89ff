"""SavedModels of language models: a text in, its next words or the completions of the word begun out."""

import json
from typing import Any

import keras
import tensorflow as tf

from nlp_rnn import __version__
from nlp_rnn.config import Config, to_yaml
from nlp_rnn.export import make_portable
from nlp_rnn.language_model import LanguageModel
from nlp_rnn.tokenizer import EOS_ID, PAD_ID, Tokenizer, truncate
from nlp_rnn.vocabulary import Vocabulary

NUM_WORDS = 5  # of serving_default

_TEXT = tf.TensorSpec([None], tf.string, name="text")
_IMPOSSIBLE = -1e9


class NextWordModule(tf.Module):
    """What an exported next-word model holds.

    Args:
      model: with its weights.
      tokenizer: of level word.
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, config: Config) -> None:
        super().__init__()
        self._model, self._tokenizer, self._config = model, tokenizer, config
        make_portable(model.recurrent)
        self.vocabulary = Vocabulary(tokenizer)
        self._words = tf.constant(self.vocabulary.words)
        self._is_proposable = tf.constant(self.vocabulary.is_proposable)
        self._is_decent = tf.constant(self.vocabulary.is_proposable & ~self.vocabulary.is_profane)
        size = sum(model.state_sizes)
        self.step = tf.function(
            self._step, input_signature=[tf.TensorSpec([None], tf.int32, name="token_ids"), tf.TensorSpec([None, size], name="states")]
        )

    @tf.function(input_signature=[_TEXT])
    def complete(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """string [batch] -> words string [batch, 5], probabilities float32 [batch, 5]: as `suggest`, without profanity."""
        rows = tf.shape(text)[0]
        return self.suggest(text, tf.fill([rows], NUM_WORDS), tf.zeros([rows], tf.bool))

    @tf.function(
        input_signature=[_TEXT, tf.TensorSpec([None], tf.int32, name="count"), tf.TensorSpec([None], tf.bool, name="allow_profanity")]
    )
    def suggest(self, text: tf.Tensor, count: tf.Tensor, allow_profanity: tf.Tensor) -> dict[str, tf.Tensor]:
        """The next words after a text that ends in white space or a sign, else the completions of the word it ends with.

        Args:
          text: string [batch]; of a long one, the last data.max_length tokens are read.
          count: int32 [batch], 1 or more, how many words are wanted.
          allow_profanity: bool [batch].

        Returns:
          words string [batch, largest count], probabilities float32 of the same shape: of a next word the model's, of a
          completion among all words of the vocabulary that begin so. Where there is no further word, "" and 0.
        """
        token_ids, begun = self._read(text)
        log_probabilities = self._predict(token_ids)
        matches = self._begin_with(begun) & self._is_proposable
        # A completion's probability: given the characters typed.
        total = tf.reduce_logsumexp(tf.where(matches, log_probabilities, _IMPOSSIBLE), axis=1, keepdims=True)
        log_probabilities -= tf.where(begun[:, None] == "", 0.0, total)
        allowed = matches & tf.where(allow_profanity[:, None], self._is_proposable, self._is_decent)
        most = tf.clip_by_value(tf.reduce_max(count), 1, len(self.vocabulary.words))
        scores, ids = tf.math.top_k(tf.where(allowed, log_probabilities, _IMPOSSIBLE), most)
        is_there = (scores > _IMPOSSIBLE / 2) & (tf.range(most) < count[:, None])
        return {"words": tf.where(is_there, tf.gather(self._words, ids), ""), "probabilities": tf.where(is_there, tf.exp(scores), 0.0)}

    @tf.function(input_signature=[_TEXT])
    def tokenize(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """string [batch] -> tokens string [batch, time], padded with "", token_ids int32 [batch, time], padded with 0,
        text string [batch]: the ids as text again."""
        ids = self._tokenizer.tokenize(text)
        return {
            "tokens": self._tokenizer.pieces(text).to_tensor(""),
            "token_ids": ids.to_tensor(PAD_ID),
            "text": self._tokenizer.detokenize(ids),
        }

    def _step(self, token_ids: tf.Tensor, states: tf.Tensor) -> dict[str, tf.Tensor]:
        """int32 [batch], states float32 [batch, size] -> log_probabilities float32 [batch, vocabulary] of the next id, hidden
        float32 [batch, features], states behind it. A text begins with id 3, the end of the one before, and states of 0."""
        hidden, after = self._model.advance(token_ids, self._model.unpack_states(states))
        return {"log_probabilities": self._model.head(hidden), "hidden": hidden, "states": self._model.pack_states(after)}

    def _read(self, text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
        """The ids of the whole words, after EOS_ID, and the word begun at the end of the text, or ""."""
        pieces = self._tokenizer.pieces(text)
        last = tf.concat([tf.fill([pieces.nrows(), 1], ""), pieces], axis=1)[:, -1:].to_tensor("")[:, 0]
        end = r"\S" if self._tokenizer.splitter == "whitespace" else r"[\pL\pM\pN_]"
        is_begun = tf.strings.regex_full_match(text, f"(?s).*{end}") & tf.strings.regex_full_match(last, f"(?s).*{end}")
        ids = self._tokenizer.tokenize(text)
        places = tf.ragged.range(ids.row_lengths())
        ids = tf.ragged.boolean_mask(ids, places < (ids.row_lengths() - tf.cast(is_begun, tf.int64))[:, None])
        ids = truncate(ids, self._config.data.max_length, "end")
        return tf.concat([tf.fill([ids.nrows(), 1], EOS_ID), ids], axis=1), tf.where(is_begun, last, "")

    def _predict(self, token_ids: tf.RaggedTensor) -> tf.Tensor:
        """Ragged int32 [batch, (time)], a row of one or more -> log-probabilities float32 [batch, vocabulary] of the next id."""
        hidden, _ = self._model.run(token_ids.to_tensor(PAD_ID), self._model.zero_states(token_ids.nrows(tf.int32)))
        return self._model.head(tf.gather(hidden, token_ids.row_lengths() - 1, batch_dims=1))

    def _begin_with(self, begun: tf.Tensor) -> tf.Tensor:
        """string [batch] -> bool [batch, vocabulary]"""
        shape = tf.stack([tf.size(begun), tf.size(self._words)])
        lengths = tf.broadcast_to(tf.strings.length(begun)[:, None], shape)
        words = tf.broadcast_to(self._words[None], shape)
        return tf.strings.substr(words, tf.zeros_like(lengths), lengths) == begun[:, None]


def language_extras(module: NextWordModule, config: Config, metrics: dict[str, Any]) -> dict[str, str]:
    """The texts of assets.extra/."""
    return {
        "config.yaml": to_yaml(config),
        "metrics.json": json.dumps(metrics, indent=2) + "\n",
        "vocabulary": module._tokenizer.vocabulary_text(),
        "MODEL_CARD.md": _model_card(config, metrics, module._model.count_params(), len(module.vocabulary.words)),
    }


def _model_card(config: Config, metrics: dict[str, Any], num_parameters: int, vocab_size: int) -> str:
    scores = "".join(
        f"| {split} | {found['num_tokens']:,} | {found['perplexity']:.2f} | {100 * found['recall_at_1']:.2f} % |"
        f" {100 * found['recall_at_3']:.2f} % | {100 * found['keystroke_savings']:.2f} % |\n"
        for split, found in metrics.items()
        if split in ("validation", "test")
    )
    return f"""# {config.task}: {config.name}

A {config.model.cell} language model of {num_parameters:,} parameters over {vocab_size:,} words, \
trained by nlp-rnn {__version__} on TensorFlow {tf.__version__}, Keras {keras.__version__}.

- Training data: source `{config.data.source}`, seed {config.seed}
- Input: UTF-8 text, of which the last {config.data.max_length} tokens are read
- Never proposed: unknown words, symbols and, unless asked for, a list of English profanity

## Measured

| split | tokens | perplexity | top-1 recall | top-3 recall | keystrokes saved |
|---|---|---|---|---|---|
{scores}
The weights were chosen on the validation split. Figures hold for text like the training data. The model proposes what such
texts say, true or not. Settings: `config.yaml`; all figures: `metrics.json`.
"""
