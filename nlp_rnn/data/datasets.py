"""Examples -> cached token ids, and batches -> tf.data.

Texts are tokenised once; their ids lie on disk, keyed by a digest of texts and tokenizer, and are read row by row
(`bucketing`, `bptt`), so that a corpus may be larger than RAM.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from nlp_rnn import files, manifest
from nlp_rnn.config.settings import Config, DataConfig, TokenizerConfig
from nlp_rnn.data import labels as label_sets
from nlp_rnn.data.bptt import check_length
from nlp_rnn.data.bucketing import Batches
from nlp_rnn.data.corpus import Corpus
from nlp_rnn.data.inputs import Inputs
from nlp_rnn.data.label_names import label_names
from nlp_rnn.data.readers import Example, WeightedExample
from nlp_rnn.data.token_cache import PairCache, TokenCache
from nlp_rnn.errors import ConfigError
from nlp_rnn.progress import track
from nlp_rnn.special_ids import EOS_ID, PAD_ID, UNK_ID
from nlp_rnn.tokenization.build import build_tokenizer, tokenizer_of, untrained_tokenizer
from nlp_rnn.tokenization.encoding import encode, ids_where
from nlp_rnn.tokenization.tokenizer import Tokenizer
from nlp_rnn.word_kinds import UNSEPARATED, is_word

logger = logging.getLogger(__name__)

_FORMAT = 3  # of the cache
_NUM_FREQUENT = 500  # words that tell the script

Cached = TypeVar("Cached")


def write_cache(
    path: Path, examples: Iterable[tuple[Any, ...]], encode_texts: Callable[[tf.Tensor], tf.RaggedTensor],
    split: str = "train",
) -> None:  # fmt: skip
    """Tokenises texts into a folder, in constant memory but for labels and weights.

    Args:
      examples: (text, label number, or -1, or uint8 [labels]), or (text, label, weight); weights are kept with a mean
        of 1.
      split: that the texts belong to, for the message.

    Raises:
      ConfigError: if all weights are 0.
    """
    lengths, labels, weights = [], [], []
    stream = iter(examples)
    with open(path / "ids.bin", "wb") as file:
        while chunk := list(itertools.islice(stream, 512)):
            ids = encode_texts(tf.constant([text for text, *_ in chunk]))
            file.write(ids.flat_values.numpy().astype(np.int32).tobytes())  # see `token_cache.write_ids`
            lengths.append(ids.row_lengths().numpy())
            chunk_labels = np.array([label for _, label, *_ in chunk])
            labels.append(chunk_labels.astype(np.int32) if chunk_labels.ndim == 1 else chunk_labels)
            weights += [weight for _, _, *rest in chunk for weight in rest]
    np.save(path / "offsets.npy", np.concatenate([[0], *lengths]).cumsum(dtype=np.int64))
    np.save(path / "labels.npy", np.concatenate(labels or [np.zeros(0, np.int32)]))
    if weights:
        if not any(weights):
            raise ConfigError(
                f"data.weight_column holds zeros only in the {split} split; give the examples that count a weight "
                "above 0"
            )
        np.save(path / "weights.npy", (np.array(weights) / np.mean(weights)).astype(np.float32))


def prepare_inputs(corpus: Corpus, config: Config, tokenizer_of_run: Path | None = None) -> tuple[Inputs, Tokenizer]:
    """The token ids that the config's model is trained on. They are computed once and then read from the cache.

    Args:
      tokenizer_of_run: folder of the run's tokenizer if it already has one.

    Raises:
      ConfigError: if too many tokens are unknown; see `label_names`, `prepare_pairs`, `bptt.check_length`.
    """
    data, seed, sampling = config.data, config.seed, config.tokenizer.sampling
    labels = label_names(corpus, allows_unlabelled=config.trains_on_unlabelled) if config.kind == "classifier" else []
    label_sets.check_class_weights(config, labels)
    tokenizer = (
        Tokenizer.load(tokenizer_of_run)
        if tokenizer_of_run
        else prepare_tokenizer(corpus, data, config.tokenizer, config.vocabulary_from)
    )
    numbers = {label: number for number, label in enumerate(labels)}
    caches: list[Any] = []
    for split in ("train", "validation"):
        if config.kind == "classifier":
            caches.append(prepare_split(corpus, split, data, tokenizer, numbers))
        elif config.kind == "translator":
            caches.append(prepare_pairs(corpus, split, data, tokenizer))
        else:
            caches.append(prepare_stream(corpus, split, data, tokenizer, is_reversed=config.model.is_reversed))
            check_length(caches[0], config.training)
    for split, cache in zip(("train", "validation"), caches, strict=True):
        logger.info("%s: %s; %s", split, corpus.facts[split].describe(), cache.describe())
    if corpus.has("test"):
        logger.info("test: %s", corpus.facts["test"].describe())
    _check_unknown(caches[0].unknown_share(), config)
    _advise_subwords(tokenizer)
    digests = {f"the text of data.{split}": corpus.facts[split].digest for split in ("train", "validation")}
    digests["the vocabulary"] = hashlib.blake2b(tokenizer.vocabulary_text().encode(), digest_size=16).hexdigest()
    resample = Resampling(tokenizer, sampling, seed) if sampling else None
    return Inputs(caches[0], caches[1], tokenizer.vocab_size, labels, digests, resample), tokenizer


def _check_unknown(share: float, config: Config) -> None:
    """Raises ConfigError if the share of unknown tokens in train is above tokenizer.max_unknown."""
    tokenizer = config.tokenizer
    if share <= tokenizer.max_unknown:
        return
    if origin := config.vocabulary_from:
        mend = f"the vocabulary is that of {origin}: it fits texts of the same language and kind alone"
    elif tokenizer.vocabulary:
        mend = (
            f"tokenizer.vocabulary is {tokenizer.vocabulary}: give one of the same language, case and tokenizer.level, "
            "or "
            "leave it empty to make one from the text"
        )
    else:
        mend = (
            f"tokenizer.min_count is {tokenizer.min_count} and tokenizer.vocab_size {tokenizer.vocab_size}: lower the "
            "one, raise "
            "the other, or give more text"
        )
    raise ConfigError(
        f"{share:.0%} of the tokens of data.train are not in the vocabulary (tokenizer.max_unknown is "
        f"{tokenizer.max_unknown:g}); {mend}; or go on with tokenizer.max_unknown=1"
    )


def _advise_subwords(tokenizer: Tokenizer) -> None:
    """Says it if the words of a vocabulary are single characters of scripts without spaces."""
    frequent = [word for word in tokenizer.known_vocabulary()[:_NUM_FREQUENT] if is_word(word)]
    count = sum(bool(UNSEPARATED.fullmatch(word)) for word in frequent)
    if tokenizer.level == "word" and count > len(frequent) / 2:
        logger.warning(
            "the texts are in a script without spaces, where tokenizer.level=word makes each character a word; "
            "tokenizer.level=subword finds words of several characters"
        )


def prepare_tokenizer(corpus: Corpus, data: DataConfig, config: TokenizerConfig, start_from: str = "") -> Tokenizer:
    """The tokenizer of a surveyed corpus, trained on its train split only, on both sides of pairs; or found on disk.

    Args:
      start_from: a run directory or an exported model whose tokenizer to take instead.
    """
    if start_from:
        return tokenizer_of(Path(start_from))
    given = _file_digest(Path(config.vocabulary)) if config.vocabulary else ""
    sides = 1 + corpus.is_parallel
    how = dataclasses.asdict(config) | untrained_tokenizer(config).settings()
    del how["max_unknown"], how["sampling"]  # the vocabulary does not depend on them
    key = cache_key(train=corpus.facts["train"].digest, tokenizer=how, vocabulary=given, sides=sides)
    folder = cache_folder(data) / f"tokenizer-{key}"

    def make(temporary: Path) -> None:
        logger.info("tokenizer: %s", f"reading {config.vocabulary}" if given else "training it on the train split")
        examples = track(corpus.examples("train"), "training the tokenizer", corpus.facts["train"].num_examples)
        build_tokenizer(config, (text for example in examples for text in example[:sides])).save(temporary)

    return cached(folder, make, Tokenizer.load)


def prepare_split(
    corpus: Corpus, split: str, data: DataConfig, tokenizer: Tokenizer, label_ids: dict[str, int]
) -> TokenCache:
    """The token ids of one split; computed once, then found on disk.

    Args:
      corpus: surveyed.
      label_ids: label -> class number.
    """
    how: dict[str, object] = {"max_length": data.max_length, "keep": data.keep, "labels": label_ids}
    if data.multi_label:
        how["multi_label"] = True

    def encode_texts(texts: tf.Tensor) -> tf.RaggedTensor:
        return encode(tokenizer, texts, data.max_length, data.keep)

    def read(example: Example) -> tuple[Any, ...]:
        target = label_targets(example.label, data, label_ids)
        return (
            (example.text, target, example.weight) if isinstance(example, WeightedExample) else (example.text, target)
        )

    return _prepare_ids(corpus, split, data, tokenizer, how, encode_texts, read)


def label_targets(label: str, data: DataConfig, label_ids: dict[str, int]) -> Any:
    """The training target of a label: its number, -1 of a text without one; or with data.multi_label uint8 [labels], 1
    for the text's labels."""
    if not data.multi_label:
        return label_ids[label] if label else -1
    targets = np.zeros(len(label_ids), np.uint8)
    targets[[label_ids[each] for each in label_sets.split(label)]] = 1
    return targets


def prepare_stream(
    corpus: Corpus, split: str, data: DataConfig, tokenizer: Tokenizer, *, side: str = "text", is_reversed: bool = False
) -> TokenCache:
    """The token ids of one split's whole texts, each ended by EOS_ID. Computed once, then found on disk.

    Args:
      side: "text", or "label": of pairs the target sentence.
      is_reversed: whether the ids of each text, but for its end, are in reversed order.
    """

    def encode_texts(texts: tf.Tensor) -> tf.RaggedTensor:
        ids = tokenizer.tokenize(texts)
        if is_reversed:
            ids = tf.RaggedTensor.from_row_lengths(tf.reverse(ids.flat_values, [0]), tf.reverse(ids.row_lengths(), [0]))
            ids = tf.gather(ids, tf.range(ids.nrows() - 1, -1, -1))
        return tf.concat([ids, tf.fill([ids.nrows(), 1], EOS_ID)], axis=1)

    how: dict[str, object] = {"ends": EOS_ID}
    if side != "text":
        how["side"] = side
    if is_reversed:
        how["is_reversed"] = True
    return _prepare_ids(corpus, split, data, tokenizer, how, encode_texts, lambda example: (getattr(example, side), 0))


def prepare_pairs(corpus: Corpus, split: str, data: DataConfig, tokenizer: Tokenizer) -> PairCache:
    """The token ids of one split; computed once, then found on disk. Pairs longer than data.max_length are left out.

    Raises:
      ConfigError: if none is left.
    """
    sides = [prepare_stream(corpus, split, data, tokenizer, side=side) for side in ("text", "label")]
    is_short = (sides[0].lengths - 1 <= data.max_length) & (sides[1].lengths - 1 <= data.max_length)
    if not is_short.any():
        raise ConfigError(
            f"data.max_length is {data.max_length} tokens, but every pair of data.{split} is longer; raise it"
        )
    if not is_short.all():
        logger.info(
            "left out of %s: %s pairs longer than data.max_length, %d tokens",
            split,
            f"{(~is_short).sum():,}",
            data.max_length,
        )
    return PairCache(sides[0], sides[1], np.flatnonzero(is_short))


def _prepare_ids(
    corpus: Corpus, split: str, data: DataConfig, tokenizer: Tokenizer, how: dict[str, object],
    encode_texts: Callable[[tf.Tensor], tf.RaggedTensor], read: Callable[[Example], tuple[Any, ...]],
) -> TokenCache:  # fmt: skip
    vocabulary = hashlib.blake2b(tokenizer.vocabulary_text().encode(), digest_size=16).hexdigest()
    key = cache_key(texts=corpus.facts[split].digest, vocabulary=vocabulary, tokenizer=tokenizer.settings(), **how)
    folder = cache_folder(data) / f"ids-{key}"

    def make(temporary: Path) -> None:
        logger.info("token ids: computing those of the %s split, into %s", split, folder)
        examples = track(corpus.examples(split), f"tokenizing {split}", corpus.facts[split].num_examples)
        write_cache(temporary, map(read, examples), encode_texts, split)

    return cached(folder, make, TokenCache.load)


def _file_digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() if path.is_file() else "missing"


def cache_folder(data: DataConfig) -> Path:
    """The folder of the token caches."""
    return Path(data.cache_dir or os.environ.get("NLP_RNN_CACHE") or Path.home() / ".cache" / "nlp-rnn")


def cached(folder: Path, make: Callable[[Path], None], load: Callable[[Path], Cached]) -> Cached:
    """Loads a folder of the cache; creates it first if it is missing or damaged.

    Runs that start at the same time compute the same and do not disturb each other.

    Args:
      make: writes the files into a folder.
    """
    if folder.exists():
        try:
            manifest.check(folder, "it is computed again", is_thorough=False)
            return load(folder)
        except ConfigError as error:
            logger.warning("damaged cache, computed again: %s", error)
            files.remove_folder(folder)
    with contextlib.suppress(FileExistsError), files.atomic_folder(folder) as temporary:
        make(temporary)
        manifest.write(temporary)
    return load(folder)


def cache_key(**facts: object) -> str:
    """A name for what is computed from these facts, for a folder of the cache."""
    return hashlib.blake2b(json.dumps([_FORMAT, facts], sort_keys=True).encode(), digest_size=12).hexdigest()


# --- tf.data -------------------------------------------------------------------------------------------------------


class Resampling:
    """Subword regularisation: draws other segmentations of texts from their ids, so that only ids need to be stored.

    Of a truncated text, its parts are put together. Other segmentations than the best have more pieces: `time` may
    grow.

    Args:
      temperature, seed: see `Tokenizer.sample`; a draw depends on seed, epoch and step only.
    """

    def __init__(self, tokenizer: Tokenizer, temperature: float, seed: int) -> None:
        self._tokenizer, self._temperature, self._seed = tokenizer, temperature, seed
        signature = [tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([2], tf.int32)]
        self._compiled = tf.function(self.draw, input_signature=signature, autograph=False)

    def __call__(self, token_ids: np.ndarray, epoch: int, step: int) -> np.ndarray:
        """See `draw`."""
        return self._compiled(token_ids, self.place(epoch, step)).numpy()

    def place(self, epoch: int, step: int) -> np.ndarray:
        """int32 [2], what a draw depends on."""
        return np.array([(self._seed * 1009 + epoch) % 2**31, step], np.int32)

    def draw(self, token_ids: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        """int32 [batch, time] -> int32 [batch, any], both right-padded with PAD_ID; rows keep their EOS_ID, and rows of
        padding stay so."""
        is_padding, has_end = tf.reduce_all(token_ids == PAD_ID, axis=1), tf.reduce_any(token_ids == EOS_ID, axis=1)
        is_unknown = (token_ids[:, 0] == UNK_ID) & tf.reduce_all(
            token_ids[:, 1:] == PAD_ID, axis=1
        )  # what stands for no text
        texts = tf.where(is_unknown, "", self._tokenizer.detokenize(token_ids))
        drawn = self._tokenizer.sample(texts, temperature=self._temperature, seed=place)
        is_missing = (drawn.row_lengths() == 0) & ~is_padding & ~has_end
        return tf.concat([drawn, ids_where(is_missing, UNK_ID), ids_where(has_end, EOS_ID)], axis=1).to_tensor(PAD_ID)


def make_dataset(batches: Batches, *, is_fixed: bool = False) -> tf.data.Dataset:
    """A prefetching tf.data set of some batches.

    The graph has the static number of rows of the first batch, since the fast recurrent layers halve them.

    Args:
      is_fixed: whether the number of time steps is also static and equal to that of the first batch.
    """

    def spec(array: np.ndarray) -> tf.TensorSpec:
        shape = array.shape if is_fixed else (*array.shape[:1], *[None] * (array.ndim > 1), *array.shape[2:])
        return tf.TensorSpec(shape, array.dtype)

    begun = [batches.read()]
    first = next(begun[0])

    def read() -> Iterator[Any]:
        return itertools.chain([first], begun.pop()) if begun else batches.read()

    dataset = tf.data.Dataset.from_generator(read, output_signature=tf.nest.map_structure(spec, first))
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    options.autotune.enabled = (
        False  # nothing here is to be tuned, and to stop the tuner takes up to 15 seconds an epoch
    )
    return dataset.apply(tf.data.experimental.assert_cardinality(batches.count)).prefetch(4).with_options(options)
