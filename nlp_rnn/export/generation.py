"""SavedModels of character models, which continue a prompt."""

from typing import Any

import tensorflow as tf

from nlp_rnn.config.settings import Config
from nlp_rnn.decoding.generation import Generator, Limits, Session
from nlp_rnn.decoding.sampling import Sampling
from nlp_rnn.decoding.settings import MAX_LENGTH, MAX_STOP_LENGTH, GenerationSettings
from nlp_rnn.export import saved_model
from nlp_rnn.export.saved_model import per_text
from nlp_rnn.models.language_ensemble import LanguageEnsemble
from nlp_rnn.models.language_model import LanguageModel
from nlp_rnn.special_ids import PAD_ID, UNK_ID
from nlp_rnn.tokenization.encoding import truncate
from nlp_rnn.tokenization.graph_tokenizer import GraphTokenizer
from nlp_rnn.tokenization.tokenizer import Tokenizer

_DEFAULTS = GenerationSettings()  # of `serving_default`

_PROMPT = per_text(tf.string, "prompt")
_SAMPLING = [
    per_text(tf.float32, "temperature"), per_text(tf.int32, "top_k"), per_text(tf.float32, "top_p"),
    per_text(tf.float32, "repetition_penalty"), per_text(tf.int32, "seed"),
]  # fmt: skip
_LIMITS = [
    per_text(tf.int32, "min_length"),
    per_text(tf.int32, "max_length"),
    tf.TensorSpec([None, None], tf.string, name="stop"),
]


class GenerationModule(tf.Module):
    """The content of an exported character model.

    Args:
      model: with its weights, or an ensemble.
      tokenizer: of level char.
    """

    def __init__(self, model: LanguageModel | LanguageEnsemble, tokenizer: Tokenizer, config: Config) -> None:
        super().__init__()
        self._generator, self._tokenizer, self._config = Generator(model), tokenizer, config
        self._in_graphs = GraphTokenizer(tokenizer)
        self.holders_of_weights = [self._generator]
        self.num_parameters = sum(weight.shape.num_elements() for weight in model.kept_weights)
        self.num_models = len(model.members) if isinstance(model, LanguageEnsemble) else 1
        size, vocab_size = sum(model.state_sizes), model.vocab_size
        session = [
            tf.TensorSpec([None, size], name="states"), tf.TensorSpec([None, vocab_size], name="log_probabilities"),
            tf.TensorSpec([None, vocab_size], tf.int32, name="last_seen"),
            tf.TensorSpec([None, MAX_STOP_LENGTH], tf.int32, name="recent"),
            per_text(tf.int32, "length"), per_text(tf.bool, "is_done"),
        ]  # fmt: skip
        self.extend = tf.function(
            self._extend, input_signature=[*session, per_text(tf.int32, "count"), *_LIMITS, *_SAMPLING], autograph=False
        )

    def signature_functions(self) -> dict[str, Any]:
        """The signatures of the export by name."""
        names = ("generate", "begin", "extend", "score", "explain", "tokenize")
        return {"serving_default": self.write} | {name: getattr(self, name) for name in names}

    @tf.function(input_signature=[_PROMPT], autograph=False)
    def write(self, prompt: tf.Tensor) -> dict[str, tf.Tensor]:
        """`generate` with the defaults of `GenerationSettings`: prompt string [batch] -> text string [batch]."""
        rows = tf.shape(prompt)[0]
        settings = {name: tf.fill([rows], value) for name, value in vars(_DEFAULTS).items() if name != "stop"}
        generated = self.generate(prompt, stop=tf.zeros([rows, 0], tf.string), **settings)
        return {"text": generated["text"]}

    @tf.function(input_signature=[_PROMPT, *_LIMITS, *_SAMPLING], autograph=False)
    def generate(
        self, prompt: tf.Tensor, min_length: tf.Tensor, max_length: tf.Tensor, stop: tf.Tensor, temperature: tf.Tensor,
        top_k: tf.Tensor, top_p: tf.Tensor, repetition_penalty: tf.Tensor, seed: tf.Tensor,
    ) -> dict[str, tf.Tensor]:  # fmt: skip
        """Continues each prompt. A text depends only on its own row, and equal rows give equal texts.

        Args:
          prompt: string [batch]; its last data.max_length characters are read, without unknown characters.
          min_length, max_length: int32 [batch], in characters, at most 1,000,000.
          stop: string [batch, number]; a text ends before any of them; "" means none; only the first 32 characters of a
            stop string are compared.
          temperature: float32 [batch]; 0: always the most likely character.
          top_k: int32 [batch]; 0: all.
          top_p: float32 [batch]; 1: all.
          repetition_penalty: float32 [batch]; divides the probabilities of the last 64 characters; 1: none.
          seed: int32 [batch].

        Returns:
          text string [batch], log_probability float32 [batch] of the text, by the model at temperature 1, in nats.
        """
        written = self._generator.extend(
            self._generator.begin(self._ids(prompt)), tf.constant(MAX_LENGTH),
            self._limits(min_length, max_length, stop),
            Sampling(temperature, top_k, top_p, repetition_penalty, seed),
        )  # fmt: skip
        return {
            "text": self._text(written.ids, written.session.length - written.stop_length),
            "log_probability": written.log_probability,
        }

    @tf.function(input_signature=[_PROMPT], autograph=False)
    def begin(self, prompt: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads prompts, string [batch], and returns their sessions for `extend`; see `decoding.generation.Session`."""
        return self._generator.begin(self._ids(prompt))._asdict()

    @tf.function(input_signature=[saved_model.TEXT], autograph=False)
    def score(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Scores texts; see `saved_model.scored`. Unknown characters are scored as one character."""
        texts = saved_model.at_least_one(text)
        scores = self._generator.score(self._in_graphs.tokenize(texts))
        return saved_model.without_added(saved_model.scored(self._in_graphs.pieces(texts), scores), text)

    @tf.function(input_signature=[saved_model.TEXT], autograph=False)
    def explain(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the states of all units after each character.

        Args:
          text: string [batch].

        Returns:
          tokens string [batch, time], padded with "", activations float32 [batch, time, units], layer by layer.
        """
        ids = self._in_graphs.tokenize(text)
        return {
            "tokens": self._in_graphs.pieces(text).to_tensor(""),
            "activations": self._generator.activations(ids.to_tensor(PAD_ID)),
        }

    @tf.function(input_signature=[saved_model.TEXT], autograph=False)
    def tokenize(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Tokenizes string [batch]; see `saved_model.tokenized`."""
        return saved_model.tokenized(self._tokenizer, self._in_graphs.pieces(text), self._in_graphs.tokenize(text))

    def _extend(
        self, states: tf.Tensor, log_probabilities: tf.Tensor, last_seen: tf.Tensor, recent: tf.Tensor,
        length: tf.Tensor,
        is_done: tf.Tensor, count: tf.Tensor, min_length: tf.Tensor, max_length: tf.Tensor, stop: tf.Tensor,
        temperature: tf.Tensor,
        top_k: tf.Tensor, top_p: tf.Tensor, repetition_penalty: tf.Tensor, seed: tf.Tensor,
    ) -> dict[str, tf.Tensor]:  # fmt: skip
        """Generates `count` (int32 [batch]) more characters, for streaming.

        The pieces together are the text of `generate`, plus the stop string that ended it.

        Returns:
          text string [batch]; stop_length int32 [batch], the length of the stop string that ended the text, or 0; and
          the new session, whose `is_done` says whether the text has ended.
        """
        session = Session(states, log_probabilities, last_seen, recent, length, is_done)
        sampling = Sampling(temperature, top_k, top_p, repetition_penalty, seed)
        written = self._generator.extend(session, count, self._limits(min_length, max_length, stop), sampling)
        text = self._text(written.ids, written.session.length - length)
        return {"text": text, "stop_length": written.stop_length, **written.session._asdict()}

    def _ids(self, prompt: tf.Tensor) -> tf.RaggedTensor:
        ids = self._in_graphs.tokenize(prompt)
        return truncate(tf.ragged.boolean_mask(ids, ids != UNK_ID), self._config.data.max_length, "end")

    def _limits(self, min_length: tf.Tensor, max_length: tf.Tensor, stop: tf.Tensor) -> Limits:
        flat = self._in_graphs.tokenize(tf.reshape(stop, [-1]))[:, :MAX_STOP_LENGTH]
        padding = tf.fill([tf.shape(stop)[0] * tf.shape(stop)[1], MAX_STOP_LENGTH], PAD_ID)
        # The last columns of padding and ids together, so that the ids are right-aligned.
        aligned = tf.concat([padding, flat], axis=1)[:, -MAX_STOP_LENGTH:].to_tensor(
            PAD_ID, shape=[None, MAX_STOP_LENGTH]
        )
        stops = tf.reshape(aligned, [tf.shape(stop)[0], tf.shape(stop)[1], MAX_STOP_LENGTH])
        return Limits(min_length, tf.minimum(max_length, MAX_LENGTH), stops)

    def _text(self, ids: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        return self._tokenizer.detokenize(tf.RaggedTensor.from_tensor(ids, lengths=tf.maximum(lengths, 0)))


def generation_extras(module: GenerationModule, config: Config, metrics: dict[str, Any]) -> dict[str, str]:
    """The files of assets.extra/ by name."""
    rows = [
        f"| {split} | {scores['num_characters']:,} | {scores['nats_per_character']:.4f} |"
        f" {scores['bits_per_character']:.4f} | {100 * scores['accuracy']:.2f} % |"
        for split, scores in metrics.items()
        if split in ("validation", "test")
    ]
    longest = config.data.max_length
    card = saved_model.card(
        config,
        f"{config.model.cell} {saved_model.kind_of('language model', module.num_models)} of "
        f"{module.num_parameters:,} parameters "
        f"over {module._tokenizer.vocab_size:,} characters",
        [
            f"Input: UTF-8 text; the last {longest} characters are read, and unknown characters are skipped",
            "Output: text like the training data; the originality report says how much of it is copied",
        ],
        ["| split | characters | nats per character | bits per character | accuracy |", *rows],
        "The figures hold for text like the training data. Generated text is invented.",
    )
    return saved_model.extras(config, module._tokenizer, metrics, card)
