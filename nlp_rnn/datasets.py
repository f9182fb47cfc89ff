"""Examples -> cached token ids -> padded batches.

Texts are tokenised once; their ids lie on disk, keyed by a digest of texts and tokenizer, and are read row by row,
so that a corpus may be larger than RAM. Batches hold texts of like length: on IMDB, padding falls from 74 % to 2 %.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf

from nlp_rnn import files
from nlp_rnn.config import DataConfig, TokenizerConfig
from nlp_rnn.corpus import Corpus
from nlp_rnn.progress import track
from nlp_rnn.sources import Example
from nlp_rnn.tokenizer import EOS_ID, PAD_ID, UNK_ID, Tokenizer, encode, never_empty
from nlp_rnn.tokenizer_builder import build_tokenizer

logger = logging.getLogger(__name__)

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
Resampler = Callable[[np.ndarray, int, int], np.ndarray]

_POOL_BATCHES = 100  # so many batches are sorted by length at a time
_FORMAT = 3  # of the cache


@dataclass(frozen=True)
class TokenCache:
    """Token ids and labels of one split, on disk.

    Attributes:
      path: folder with ids.bin (int32, one text after the other), offsets.npy and labels.npy.
      offsets: int64 [examples + 1]; text n is ids[offsets[n]:offsets[n + 1]].
      labels: int32 [examples].
    """

    path: Path
    offsets: np.ndarray
    labels: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """int64 [examples], in tokens."""
        return np.diff(self.offsets)

    @classmethod
    def load(cls, path: Path) -> "TokenCache":
        """Reads what `write_cache` wrote."""
        return cls(path, np.load(path / "offsets.npy"), np.load(path / "labels.npy"))

    def rows(self, indices: Iterable[int]) -> list[np.ndarray]:
        """The ids of some texts, each int32 [time]; read, not mapped, since mapped pages would count as memory."""
        with open(self.path / "ids.bin", "rb") as file:
            return [self._row(file, index) for index in indices]

    def _row(self, file: BinaryIO, index: int) -> np.ndarray:
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        file.seek(4 * start)
        return np.frombuffer(file.read(4 * (end - start)), np.int32)


def write_cache(path: Path, examples: Iterable[tuple[str, int]], encode_texts: Callable[[tf.Tensor], tf.RaggedTensor]) -> None:
    """Tokenises (text, label) pairs into a folder, in constant memory."""
    lengths, labels = [], []
    stream = iter(examples)
    with open(path / "ids.bin", "wb") as file:
        while chunk := list(itertools.islice(stream, 512)):
            ids = encode_texts(tf.constant([text for text, _ in chunk]))
            ids.flat_values.numpy().astype(np.int32).tofile(file)
            lengths.append(ids.row_lengths().numpy())
            labels.append(np.array([label for _, label in chunk], np.int32))
    np.save(path / "offsets.npy", np.concatenate([[0], *lengths]).cumsum(dtype=np.int64))
    np.save(path / "labels.npy", np.concatenate([np.zeros(0, np.int32), *labels]))


def prepare_tokenizer(corpus: Corpus, data: DataConfig, config: TokenizerConfig, start_from: str = "") -> Tokenizer:
    """The tokenizer of a surveyed corpus, trained on its train split only, on both sides of pairs; or found on disk.

    Args:
      start_from: a run directory whose tokenizer to take instead.
    """
    if start_from:
        return Tokenizer.load(Path(start_from) / "tokenizer")
    given = _file_digest(Path(config.vocabulary)) if config.vocabulary else ""
    sides = 1 + corpus.is_parallel
    key = _key(train=corpus.facts["train"].digest, tokenizer=dataclasses.asdict(config), vocabulary=given, sides=sides)
    folder = cache_folder(data) / f"tokenizer-{key}"
    if not folder.exists():
        logger.info("tokenizer: %s", f"reading {config.vocabulary}" if given else "training it on the train split")
        with _unless_another_was_first(folder) as temporary:
            examples = track(corpus.examples("train"), "training the tokenizer", corpus.facts["train"].num_examples)
            build_tokenizer(config, (text for example in examples for text in example[:sides])).save(temporary)
    return Tokenizer.load(folder)


def prepare_split(corpus: Corpus, split: str, data: DataConfig, tokenizer: Tokenizer, label_ids: dict[str, int]) -> TokenCache:
    """The token ids of one split; computed once, then found on disk.

    Args:
      corpus: surveyed.
      label_ids: label -> class number.
    """
    how: dict[str, object] = {"max_length": data.max_length, "keep": data.keep, "labels": label_ids}

    def encode_texts(texts: tf.Tensor) -> tf.RaggedTensor:
        return encode(tokenizer, texts, data.max_length, data.keep)

    return _prepare_ids(corpus, split, data, tokenizer, how, encode_texts, lambda example: (example.text, label_ids[example.label]))


def prepare_stream(corpus: Corpus, split: str, data: DataConfig, tokenizer: Tokenizer, *, side: str = "text") -> TokenCache:
    """The token ids of one split's whole texts, each ended by EOS_ID. Computed once, then found on disk.

    Args:
      side: "text", or "label": of pairs the target sentence.
    """

    def encode_texts(texts: tf.Tensor) -> tf.RaggedTensor:
        ids = tokenizer.tokenize(texts)
        return tf.concat([ids, tf.fill([ids.nrows(), 1], EOS_ID)], axis=1)

    how: dict[str, object] = {"ends": EOS_ID} | ({"side": side} if side != "text" else {})
    return _prepare_ids(corpus, split, data, tokenizer, how, encode_texts, lambda example: (getattr(example, side), 0))


def _prepare_ids(
    corpus: Corpus, split: str, data: DataConfig, tokenizer: Tokenizer, how: dict[str, object],
    encode_texts: Callable[[tf.Tensor], tf.RaggedTensor], read: Callable[[Example], tuple[str, int]],
) -> TokenCache:  # fmt: skip
    vocabulary = hashlib.blake2b(tokenizer.vocabulary_text().encode(), digest_size=16).hexdigest()
    key = _key(texts=corpus.facts[split].digest, vocabulary=vocabulary, tokenizer=tokenizer.settings(), **how)
    folder = cache_folder(data) / f"ids-{key}"
    if not folder.exists():
        logger.info("token ids: computing those of the %s split, into %s", split, folder)
        with _unless_another_was_first(folder) as temporary:
            examples = track(corpus.examples(split), f"tokenizing {split}", corpus.facts[split].num_examples)
            write_cache(temporary, map(read, examples), encode_texts)
    return TokenCache.load(folder)


def _file_digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() if path.is_file() else "missing"


def cache_folder(data: DataConfig) -> Path:
    """Where token ids are kept."""
    return Path(data.cache_dir or os.environ.get("NLP_RNN_CACHE") or Path.home() / ".cache" / "nlp-rnn")


@contextlib.contextmanager
def _unless_another_was_first(folder: Path) -> Iterator[Path]:
    """A folder to fill, renamed at the end: runs that start at once compute the same and do not disturb each other."""
    with contextlib.suppress(FileExistsError), files.atomic_folder(folder) as temporary:
        yield temporary


def _key(**facts: object) -> str:
    return hashlib.blake2b(json.dumps([_FORMAT, facts], sort_keys=True).encode(), digest_size=12).hexdigest()


# --- batches -------------------------------------------------------------------------------------------------------


def plan_batches(lengths: np.ndarray, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]:
    """Shuffles examples into batches of like length; each example is in exactly one.

    All examples are shuffled, pools of 100 batches sorted by length and cut, and the batches shuffled again.

    Args:
      lengths: int64 [examples], in tokens.
      batch_size: examples a batch; the last one may hold fewer.
      seed, epoch: the order depends on these two only.

    Returns:
      int64 arrays of example numbers.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    pool_size = batch_size * _POOL_BATCHES
    batches = []
    for start in range(0, len(order), pool_size):
        pool = order[start : start + pool_size]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    generator.shuffle(batches)
    return batches


def plan_ordered_batches(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Batches for evaluation: all examples, from the shortest to the longest."""
    order = np.argsort(lengths, kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def padding_waste(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    """The share of padded positions in the batches, 0-1."""
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    return 1 - sum(int(lengths[batch].sum()) for batch in batches) / padded


def classification_batch(cache: TokenCache, indices: np.ndarray, batch_size: int) -> Batch:
    """Reads one batch; missing rows are filled up with UNK_ID at weight 0, so that every batch has the same size.

    Returns:
      (token_ids int32 [batch_size, time] right-padded with PAD_ID, labels int32 [batch_size],
      sample_weight float32 [batch_size]).
    """
    rows = cache.rows(indices)
    token_ids = np.full((batch_size, max(len(row) for row in rows)), PAD_ID, np.int32)
    for place, row in enumerate(rows):
        token_ids[place, : len(row)] = row
    token_ids[len(rows) :, 0] = UNK_ID  # cuDNN takes no row of padding only
    labels, weights = np.zeros(batch_size, np.int32), np.zeros(batch_size, np.float32)
    labels[: len(rows)], weights[: len(rows)] = cache.labels[indices], 1
    return token_ids, labels, weights


def make_resampler(tokenizer: Tokenizer, temperature: float, seed: int) -> Resampler:
    """Subword regularisation: a function (token_ids, epoch, step) -> ids of a drawn segmentation of the same texts.

    The texts are those that the ids stand for, so that nothing but ids need be kept: of a truncated text, its parts put
    together. Other segmentations than the best have more pieces: `time` may grow.

    Args:
      temperature, seed: see `Tokenizer.sample`; the draw depends on seed, epoch and step only.
    """

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([2], tf.int32)])
    def sample(token_ids: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        is_empty = tf.reduce_all(token_ids[:, :1] == UNK_ID, axis=1) & tf.reduce_all(token_ids[:, 1:] == PAD_ID, axis=1)
        texts = tf.where(is_empty, "", tokenizer.detokenize(token_ids))
        return never_empty(tokenizer.sample(texts, temperature=temperature, seed=place)).to_tensor(PAD_ID)

    return lambda token_ids, epoch, step: sample(token_ids, np.array([(seed * 1009 + epoch) % 2**31, step], np.int32)).numpy()


def make_dataset(batches: Callable[[], Iterator[Batch]], num_batches: int, batch_size: int) -> tf.data.Dataset:
    """A prefetching tf.data set over a function that yields (token_ids, a target a row, sample_weight) anew for each epoch.

    Every batch has `batch_size` rows, which the graph is told: the fast recurrent layers halve them.
    """
    targets = (tf.TensorSpec([batch_size], tf.int32), tf.TensorSpec([batch_size], tf.float32))
    return _dataset(batches, num_batches, (tf.TensorSpec([batch_size, None], tf.int32), *targets))


def make_stepwise_dataset(
    batches: Callable[[], Iterator[Any]], num_batches: int, batch_size: int, *, num_inputs: int = 1
) -> tf.data.Dataset:
    """As `make_dataset`, with a target and a weight at each time step.

    Args:
      num_inputs: 2 where the first of a batch is a pair of token_ids.
    """
    steps = tf.TensorSpec([batch_size, None], tf.int32)
    inputs = (steps,) * num_inputs if num_inputs > 1 else steps
    return _dataset(batches, num_batches, (inputs, steps, tf.TensorSpec([batch_size, None], tf.float32)))


def _dataset(batches: Callable[[], Iterator[Any]], num_batches: int, signature: Any) -> tf.data.Dataset:
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    options = tf.data.Options()
    options.autotune.enabled = False  # nothing here is to be tuned, and to stop the tuner takes up to 15 seconds an epoch
    return dataset.apply(tf.data.experimental.assert_cardinality(num_batches)).prefetch(4).with_options(options)
