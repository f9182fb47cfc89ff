"""SavedModels of language models: from a text to its next words, or to completions of its last word."""

from typing import Any

import tensorflow as tf

from nlp_rnn.config.settings import Config
from nlp_rnn.decoding.scoring import score_tokens
from nlp_rnn.decoding.suggestions import SubwordSuggestions, WordSuggestions
from nlp_rnn.export import saved_model
from nlp_rnn.layers.masking import IMPOSSIBLE
from nlp_rnn.models.language_ensemble import LanguageEnsemble
from nlp_rnn.models.language_model import LanguageModel, States
from nlp_rnn.special_ids import EOS_ID, PAD_ID
from nlp_rnn.tokenization.encoding import truncate
from nlp_rnn.tokenization.graph_tokenizer import GraphTokenizer
from nlp_rnn.tokenization.tokenizer import Tokenizer

NUM_WORDS = 5  # suggestions of serving_default


class NextWordModule(tf.Module):
    """The content of an exported next-word model.

    Args:
      model: with its weights, or an ensemble.
      tokenizer: of level word or subword.
    """

    def __init__(self, model: LanguageModel | LanguageEnsemble, tokenizer: Tokenizer, config: Config) -> None:
        super().__init__()
        self.holders_of_weights = model.members if isinstance(model, LanguageEnsemble) else [model]
        self._model, self._tokenizer, self._config = model, tokenizer, config
        self._in_graphs = GraphTokenizer(tokenizer)
        is_subword = tokenizer.level == "subword"
        self._suggestions = SubwordSuggestions(model, tokenizer) if is_subword else WordSuggestions(self._in_graphs)
        self.portable_layers = model.recurrent
        size = sum(model.state_sizes)
        self.step = tf.function(
            self._step,
            input_signature=[
                saved_model.per_text(tf.int32, "token_ids"),
                tf.TensorSpec([None, size], name="states"),
            ],
            autograph=False,
        )

    def signature_functions(self) -> dict[str, Any]:
        """The signatures of the export by name."""
        return {"serving_default": self.complete, "suggest": self.suggest, "step": self.step} | {
            name: getattr(self, name) for name in ("score", "tokenize")
        }

    @tf.function(input_signature=[saved_model.TEXT], autograph=False)
    def complete(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Suggests five words without profanity: string [batch] -> words, probabilities [batch, 5]; see `suggest`."""
        rows = tf.shape(text)[0]
        return self.suggest(text, tf.fill([rows], NUM_WORDS), tf.zeros([rows], tf.bool))

    @tf.function(
        input_signature=[
            saved_model.TEXT,
            saved_model.per_text(tf.int32, "count"),
            saved_model.per_text(tf.bool, "allow_profanity"),
        ],
        autograph=False,
    )
    def suggest(self, text: tf.Tensor, count: tf.Tensor, allow_profanity: tf.Tensor) -> dict[str, tf.Tensor]:
        """Suggests next words after white space or a symbol, else completions of the last word.

        Args:
          text: string [batch]; the last data.max_length tokens are read.
          count: int32 [batch], number of words, 1 or more; at most 100 are found, fewer with subword models.
          allow_profanity: bool [batch].

        Returns:
          words string [batch, largest count], probabilities float32 of the same shape: of a next word the model's; of a
          completion relative to all known (with subwords: found) words with that beginning. Missing words are "" and 0.
        """
        inputs = [saved_model.at_least_one(each) for each in (text, count, allow_profanity)]
        return saved_model.without_added(self._suggest(*inputs), text)

    def _suggest(self, text: tf.Tensor, count: tf.Tensor, allow_profanity: tf.Tensor) -> dict[str, tf.Tensor]:
        ids, begun = self._suggestions.read(text)
        ids = truncate(ids, self._config.data.max_length, "end")
        log_probabilities, states = self._predict(tf.concat([tf.fill([ids.nrows(), 1], EOS_ID), ids], axis=1))
        words, scores = self._suggestions.find(log_probabilities, states, begun, allow_profanity)
        most = tf.clip_by_value(tf.reduce_max(count), 1, tf.shape(scores)[1])
        words, scores = words[:, :most], scores[:, :most]
        is_there = (scores > IMPOSSIBLE / 2) & (tf.range(most) < count[:, None])
        return {"words": tf.where(is_there, words, ""), "probabilities": tf.where(is_there, tf.exp(scores), 0.0)}

    @tf.function(input_signature=[saved_model.TEXT], autograph=False)
    def score(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Scores texts; see `saved_model.scored`. Unknown words are scored as one word."""

        def step(ids: tf.Tensor, states: States) -> tuple[tf.Tensor, States]:
            hidden, after = self._model.advance(ids, states)
            return self._model.head(hidden), after

        texts = saved_model.at_least_one(text)
        scores = score_tokens(self._in_graphs.tokenize(texts), self._model.zero_states(tf.shape(texts)[0]), step)
        return saved_model.without_added(saved_model.scored(self._in_graphs.pieces(texts), scores), text)

    @tf.function(input_signature=[saved_model.TEXT], autograph=False)
    def tokenize(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Tokenizes string [batch]; see `saved_model.tokenized`."""
        return saved_model.tokenized(self._tokenizer, self._in_graphs.pieces(text), self._in_graphs.tokenize(text))

    def _step(self, token_ids: tf.Tensor, states: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads one id per row. A text begins with EOS_ID, the end of the previous text, and zero states.

        Args:
          token_ids: int32 [batch].
          states: float32 [batch, size].

        Returns:
          log_probabilities float32 [batch, vocabulary] of the next id, hidden float32 [batch, features], new states.
        """
        hidden, after = self._model.advance(token_ids, self._model.unpack_states(states))
        return {
            "log_probabilities": self._model.head(hidden),
            "hidden": hidden,
            "states": self._model.pack_states(after),
        }

    def _predict(self, token_ids: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads ragged int32 [batch, (time)] with at least one id per row.

        Returns:
          (log-probabilities float32 [batch, vocabulary] of the next id, packed final states of each row).
        """
        padded, lengths = token_ids.to_tensor(PAD_ID), tf.cast(token_ids.row_lengths(), tf.int32)
        mask = tf.sequence_mask(lengths, tf.shape(padded)[1])
        hidden, states = self._model.run(padded, self._model.zero_states(tf.shape(padded)[0]), mask=mask)
        hidden, states = tf.gather(hidden, lengths - 1, batch_dims=1), self._model.pack_states(states)
        return self._model.head(hidden), states


def language_extras(module: NextWordModule, config: Config, metrics: dict[str, Any]) -> dict[str, str]:
    """The files of assets.extra/ by name."""
    rows = [
        f"| {split} | {scores['num_tokens']:,} | {scores['perplexity']:.2f} | {_percent(scores, 'recall_at_1')} |"
        f" {_percent(scores, 'recall_at_3')} | {_percent(scores, 'keystroke_savings')} |"
        for split, scores in metrics.items()
        if split in ("validation", "test")
    ]
    parameters, words = module._model.count_params(), module._tokenizer.vocab_size
    kind = saved_model.kind_of("language model", len(module.holders_of_weights))
    card = saved_model.card(
        config,
        f"{config.model.cell} {kind} of {parameters:,} parameters over {words:,} words",
        [
            f"Input: UTF-8 text; the last {config.data.max_length} tokens are read",
            "Never suggested: unknown words, symbols and, unless allowed, a list of English profanity",
        ],
        ["| split | tokens | perplexity | top-1 recall | top-3 recall | keystrokes saved |", *rows],
        "The figures hold for text like the training data. The model suggests what such texts say, true or not.",
    )
    return saved_model.extras(config, module._tokenizer, metrics, card)


def _percent(scores: dict[str, Any], name: str) -> str:
    return f"{100 * scores[name]:.2f} %" if name in scores else ""
