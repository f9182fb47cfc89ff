"""SavedModels of translators, of one model or of an ensemble."""

import logging
from typing import Any

import tensorflow as tf

from nlp_rnn.config.settings import Config
from nlp_rnn.decoding.beam_search import Search
from nlp_rnn.decoding.settings import MAX_BEAMS, SearchSettings
from nlp_rnn.decoding.translation_search import search_translations, usual_length
from nlp_rnn.export import saved_model
from nlp_rnn.export.saved_model import per_text
from nlp_rnn.layers.masking import IMPOSSIBLE
from nlp_rnn.models.language_ensemble import log_of_mean
from nlp_rnn.models.translator import Translator
from nlp_rnn.special_ids import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from nlp_rnn.tokenization.graph_tokenizer import GraphTokenizer
from nlp_rnn.tokenization.tokenizer import Tokenizer

_SETTINGS = [
    per_text(tf.int32, "beam_size"), per_text(tf.float32, "length_penalty"),
    per_text(tf.float32, "coverage_penalty"),
    per_text(tf.int32, "min_length"), per_text(tf.int32, "max_length"), per_text(tf.float32, "min_ratio"),
    per_text(tf.float32, "max_ratio"),
    per_text(tf.int32, "no_repeat_ngram"), per_text(tf.string, "prefix"),
]  # fmt: skip


logger = logging.getLogger(__name__)

_DEFAULTS = SearchSettings()


class TranslationModule(tf.Module):
    """The content of an exported translator.

    Args:
      models: with their weights; several are an ensemble, see `search_translations`.
      tokenizer: of both languages.
    """

    def __init__(self, models: list[Translator], tokenizer: Tokenizer, config: Config) -> None:
        super().__init__()
        self._models, self._tokenizer, self._config = models, tokenizer, config
        self._in_graphs = GraphTokenizer(tokenizer)
        self.holders_of_weights = models
        self.portable_layers = [
            layer
            for model in models
            for layer in (*model.forward_layers, *model.backward_layers, *model.decoder_layers)
        ]
        self.num_models = len(models)
        self.num_parameters = sum(model.count_params() for model in models)

    def signature_functions(self) -> dict[str, Any]:
        """The signatures of the export by name."""
        names = ("translate", "explain", "tokenize")
        return {"serving_default": self.translate_best} | {name: getattr(self, name) for name in names}

    @tf.function(input_signature=[saved_model.TEXT], autograph=False)
    def translate_best(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Translates with a beam of 5: string [batch] -> translation string [batch], score float32 [batch]."""
        rows = tf.shape(text)[0]
        penalty, zeros = tf.fill([rows], _DEFAULTS.length_penalty), tf.zeros([rows], tf.int32)
        none, beam_size = tf.zeros([rows]), tf.fill([rows], _DEFAULTS.beam_size)
        answer = self.translate(text, beam_size, penalty, none, zeros, zeros, none, none, zeros, tf.fill([rows], ""))
        return {"translation": answer["translations"][:, 0], "score": answer["scores"][:, 0]}

    @tf.function(input_signature=[saved_model.TEXT, *_SETTINGS], autograph=False)
    def translate(
        self, text: tf.Tensor, beam_size: tf.Tensor, length_penalty: tf.Tensor, coverage_penalty: tf.Tensor,
        min_length: tf.Tensor,
        max_length: tf.Tensor, min_ratio: tf.Tensor, max_ratio: tf.Tensor, no_repeat_ngram: tf.Tensor,
        prefix: tf.Tensor,
    ) -> dict[str, tf.Tensor]:  # fmt: skip
        """Translates each sentence. The results do not depend on the rest of the batch.

        Args:
          text: string [batch]; the first data.max_length pieces are read.
          beam_size: int32 [batch], 1 to 100; 1: greedy.
          length_penalty, coverage_penalty: float32 [batch]; see `beam_search.Search`.
          min_length, max_length: int32 [batch], in pieces; 0: no limit. Where they contradict, the latter wins.
          min_ratio, max_ratio: float32 [batch], in multiples of the source's pieces; 0: no limit. Without any upper
            limit, translations have at most twice the pieces of the source, plus the prefix's, plus ten. A source
            without pieces has the translation "".
          no_repeat_ngram: int32 [batch]; no n-gram of so many pieces occurs twice; 0: allowed.
          prefix: string [batch]; the translation begins with it; "" for none. Its unknown words are replaced like all
            others.

        Returns:
          translations string [batch, largest beam_size], the best first; of the same shape scores float32, and
          log_probabilities float32 of the pieces and the end of the sentence, in nats. Missing translations are "",
          -1e9 and -1e9.
        """
        source = self._source(text)
        forced = self._in_graphs.tokenize(prefix)
        num_pieces = tf.cast(source.row_lengths(), tf.int32) - 1  # without EOS_ID
        usual = usual_length(num_pieces) + tf.cast(forced.row_lengths(), tf.int32)
        shortest, ratio = (
            tf.cast(tf.math.ceil(each * tf.cast(num_pieces, tf.float32)), tf.int32) for each in (min_ratio, max_ratio)
        )
        limits = [tf.where(each > 0, each, tf.int32.max) for each in (max_length, ratio)]
        longest = tf.where(max_ratio + tf.cast(max_length, tf.float32) > 0, tf.minimum(*limits), usual)
        longest = tf.where(num_pieces == 0, 0, longest)
        search = Search(
            beam_size=tf.clip_by_value(beam_size, 1, MAX_BEAMS),
            min_length=tf.minimum(tf.maximum(min_length, shortest), longest), max_length=longest,
            length_penalty=length_penalty, coverage_penalty=coverage_penalty, no_repeat=no_repeat_ngram,
            prefix=forced.to_tensor(PAD_ID),
            never=(PAD_ID, BOS_ID) if self._tokenizer.level == "word" else (PAD_ID, BOS_ID, UNK_ID),
        )  # fmt: skip
        best = search_translations(self._models, self._padded(source), search)
        is_there = best.scores > IMPOSSIBLE
        flat = tf.reshape(best.ids, [-1, tf.shape(best.ids)[2]])
        texts = self._texts(text, source, flat) if self._tokenizer.level == "word" else self._tokenizer.detokenize(flat)
        return {
            "translations": tf.where(is_there, tf.reshape(texts, tf.shape(best.scores)), ""),
            "scores": tf.where(is_there, best.scores, IMPOSSIBLE),
            "log_probabilities": tf.where(is_there, best.log_probabilities, IMPOSSIBLE),
        }

    @tf.function(input_signature=[saved_model.TEXT, per_text(tf.string, "translation")], autograph=False)
    def explain(self, text: tf.Tensor, translation: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the decoder's attention for each translation.

        Args:
          text: string [batch].
          translation: string [batch]; "" for the one of `translate_best`.

        Returns:
          source_tokens string [batch, source], target_tokens string [batch, target], padded with "", both ended by
          "</s>", attention float32 [batch, target, source], log_probabilities float32 [batch, target] of the target's
          tokens.
        """
        best = tf.cond(
            tf.reduce_any(translation == ""), lambda: self.translate_best(text)["translation"], lambda: translation
        )
        target_text = tf.where(translation == "", best, translation)
        source, target = self._source(text), self._with_end(self._in_graphs.tokenize(target_text))
        target_ids = self._padded(target)
        scores, weights = self._score(self._padded(source), target_ids)
        log_probabilities = tf.where(target_ids != PAD_ID, tf.gather(scores, target_ids, batch_dims=2), 0.0)
        return {
            "source_tokens": self._pieces(text, source), "target_tokens": self._pieces(target_text, target),
            "attention": weights, "log_probabilities": log_probabilities,
        }  # fmt: skip

    @tf.function(input_signature=[saved_model.TEXT, saved_model.TEXT], autograph=False)
    def score(self, text: tf.Tensor, translation: tf.Tensor) -> dict[str, tf.Tensor]:
        """Scores given translations.

        Args:
          text, translation: string [batch].

        Returns:
          nats float32 [], the negative log-probability of all pieces of the translations and their ends, each given the
          pieces before it; num_tokens int32 []; num_correct int32 [], how many were the most likely.
        """
        target_ids = self._padded(self._with_end(self._in_graphs.tokenize(translation)))
        scores, _ = self._score(self._padded(self._source(text)), target_ids)
        is_token = target_ids != PAD_ID
        is_best = is_token & (tf.argmax(scores, axis=2, output_type=tf.int32) == target_ids)
        nats = -tf.reduce_sum(tf.where(is_token, tf.gather(scores, target_ids, batch_dims=2), 0.0))
        counts = {"num_tokens": is_token, "num_correct": is_best}
        return {"nats": nats} | {name: tf.reduce_sum(tf.cast(each, tf.int32)) for name, each in counts.items()}

    @tf.function(input_signature=[saved_model.TEXT], autograph=False)
    def tokenize(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Tokenizes string [batch]; see `saved_model.tokenized`."""
        return saved_model.tokenized(self._tokenizer, self._in_graphs.pieces(text), self._in_graphs.tokenize(text))

    def _source(self, text: tf.Tensor) -> tf.RaggedTensor:
        ids = self._in_graphs.tokenize(text)
        return self._with_end(ids[:, : self._config.data.max_length])

    def _padded(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """int32 [batch, time] with at least one time step, as Keras's layers require, even without rows."""
        padded = ids.to_tensor(PAD_ID)
        return tf.pad(padded, [[0, 0], [0, tf.cast(tf.shape(padded)[1] == 0, tf.int32)]])

    def _with_end(self, ids: tf.RaggedTensor) -> tf.RaggedTensor:
        return tf.concat([ids, tf.fill([ids.nrows(), 1], EOS_ID)], axis=1)

    def _score(self, source_ids: tf.Tensor, target_ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes the log-probabilities of each position, given the ids before it.

        Args:
          source_ids: int32 [batch, source].
          target_ids: int32 [batch, target].

        Returns:
          (log-probabilities float32 [batch, target, vocabulary], mean attention float32 [batch, target, source]).
        """
        inputs = tf.concat([tf.fill([tf.shape(target_ids)[0], 1], BOS_ID), target_ids[:, :-1]], axis=1)
        scores, weights = [], []
        for model in self._models:
            hidden, attention = model.decode(inputs, model.encode(source_ids))
            scores.append(model.head(hidden))
            weights.append(attention)
        return log_of_mean(scores), tf.add_n(weights) / len(weights)

    def _pieces(self, text: tf.Tensor, ids: tf.RaggedTensor) -> tf.Tensor:
        """The pieces as written in the text, and the end."""
        pieces = self._in_graphs.pieces(text)
        places = tf.ragged.range(pieces.row_lengths())
        pieces = tf.ragged.boolean_mask(pieces, places < tf.expand_dims(ids.row_lengths() - 1, 1))
        return tf.concat([pieces, tf.fill([pieces.nrows(), 1], "</s>")], axis=1).to_tensor("")

    def _texts(self, text: tf.Tensor, source: tf.RaggedTensor, ids: tf.Tensor) -> tf.Tensor:
        """Decodes ids [batch * beam, target]. Unknown words are replaced by the source words with the most attention.

        Source: Luong et al. 2015b.
        """
        lengths = tf.reduce_sum(tf.cast(ids != PAD_ID, tf.int32), axis=1)
        ids = ids[:, : tf.reduce_max(tf.concat([lengths, [1]], axis=0))]
        beams = tf.shape(ids)[0] // tf.maximum(tf.shape(text)[0], 1)
        source_ids = tf.repeat(self._padded(source), beams, axis=0)
        _, weights = self._score(source_ids, ids)
        is_word = tf.cast((source_ids != PAD_ID) & (source_ids != EOS_ID), tf.float32)
        words = tf.repeat(self._pieces(text, source), beams, axis=0)
        looked_at = tf.gather(words, tf.argmax(weights * is_word[:, None], axis=2), batch_dims=1)
        looked_at = tf.where(tf.reduce_any(is_word > 0, axis=1, keepdims=True), looked_at, "")
        return self._tokenizer.detokenize(ids, unknown=looked_at)


def translation_extras(module: TranslationModule, config: Config, metrics: dict[str, Any]) -> dict[str, str]:
    """The files of assets.extra/ by name."""
    rows = [
        f"| {split} | {scores['num_sentences']:,} | {scores['beam_size']} | {scores['bleu']:.2f} | "
        f"{scores['chrf']:.2f} |"
        f" {scores['perplexity']:.2f} |"
        for split, scores in metrics.items()
        if split in ("validation", "test")
    ]
    data = config.data
    kind = saved_model.kind_of(f"translator from {data.source_language} to {data.target_language}", module.num_models)
    card = saved_model.card(
        config,
        f"{config.model.cell} {kind} of {module.num_parameters:,} parameters",
        [
            f"Input: a sentence in {data.source_language}, UTF-8; the first {data.max_length} pieces are read",
            f"Tokenizer: {config.tokenizer.level} level, {module._tokenizer.vocab_size:,} pieces for both languages; "
            "see `vocabulary`",
        ],
        ["| split | sentences | beam | BLEU | chrF | perplexity per piece |", *rows],
        "The figures hold for text like the training data. A fluent translation can be wrong: have someone who speaks "
        "both languages check it.",
    )
    return saved_model.extras(config, module._tokenizer, metrics, card)


def search_tensors(search: SearchSettings, rows: int, n_best: int = 1, translator: Any = None) -> dict[str, tf.Tensor]:
    """The arguments of the signature `translate` for some sentences with the same settings.

    Args:
      search: see `SearchSettings`.
      rows: number of sentences.
      n_best: number of wanted hypotheses; the beam is at least as large.
      translator: the loaded export; those of earlier versions take two of the settings once for all sentences.
    """

    def fill(value: Any) -> tf.Tensor:
        return tf.fill([rows], value)

    tensors = {
        "beam_size": fill(max(search.beam_size, n_best)), "length_penalty": fill(float(search.length_penalty)),
        "coverage_penalty": fill(float(search.coverage_penalty)), "min_length": fill(search.min_length),
        "max_length": fill(search.max_length), "min_ratio": fill(float(search.min_ratio)),
        "max_ratio": fill(float(search.max_ratio)),
        "no_repeat_ngram": fill(search.no_repeat_ngram),
        "prefix": fill(search.prefix.encode("utf-8", "surrogateescape")),
    }  # fmt: skip
    signature = getattr(translator, "signatures", {}).get("translate")
    specs = signature.structured_input_signature[1] if signature is not None else {}
    return {
        name: tensor[0] if name in specs and specs[name].shape.rank == 0 else tensor for name, tensor in tensors.items()
    }


def warn_of_long_texts(signatures: Any, max_length: int, texts: list[bytes]) -> None:
    """Logs a warning for texts with more pieces than the model reads."""
    for text in texts:
        if len(text) > max_length:  # a piece has at least one byte
            count = int(tf.math.count_nonzero(signatures.tokenize(tf.constant([text]))["token_ids"]))
            if count > max_length:
                shown = text.decode("utf-8", "replace")[:40]
                logger.warning(
                    "%r... has %d pieces, of which the first %d are translated (data.max_length)",
                    shown,
                    count,
                    max_length,
                )
