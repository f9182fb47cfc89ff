"""A translator learns from the translations of other translators, and from their predictions of each next token.

One model is trained on the translations that an ensemble finds by beam search, beside the true ones. In both it learns
the ensemble's probabilities of each next token, beside the token itself. Translations and probabilities are computed
once, before training, and kept in the cache. Source: Kim & Rush 2016, "Sequence-Level Knowledge Distillation", sections
3.1 and 3.2.
"""

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from nlp_rnn import manifest
from nlp_rnn.config.settings import Config
from nlp_rnn.data import datasets
from nlp_rnn.data.bucketing import pair_batch, pair_keys, pair_reader, plan_ordered_batches
from nlp_rnn.data.token_cache import PairCache, TokenCache, write_ids
from nlp_rnn.decoding.beam_search import Search
from nlp_rnn.decoding.settings import SearchSettings
from nlp_rnn.decoding.translation_search import search_translations, usual_length
from nlp_rnn.models.language_ensemble import log_of_mean
from nlp_rnn.models.translator import Translator
from nlp_rnn.progress import track
from nlp_rnn.special_ids import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from nlp_rnn.tokenization.tokenizer import Tokenizer
from nlp_rnn.training import likeliest
from nlp_rnn.training.teacher import digests, load_with_vocabulary
from nlp_rnn.training.trained_models import load_translator

logger = logging.getLogger(__name__)

_ROWS = 64  # sentences per batch
_PART = 10_000  # texts that are copied at once
_SEARCH = SearchSettings()


def teach(train: PairCache, config: Config, tokenizer: Tokenizer) -> PairCache:
    """Adds the teachers' translations of a translator's training sentences as further pairs, and their predictions.

    Args:
      train: the pairs.
      config: of the model that is trained.
      tokenizer: its tokenizer.

    Returns:
      the pairs, followed by pairs of the same sources and the best translations that training.teacher finds, together
      as an ensemble. Translations without a piece, or with more than data.max_length, are left out. Unless
      training.teacher_share is 0, the target side has `targets`, float32 [tokens, 2 * k], of each token of old and new
      translations: the ids of the k likeliest tokens in its place, then training.teacher_share of their probabilities,
      the mean of all teachers'.

    Raises:
      ConfigError: if a teacher has another vocabulary.
    """
    runs, share = load_with_vocabulary(config, tokenizer), config.training.teacher_share

    @functools.cache
    def models() -> list[Translator]:
        return [load_translator(run)[0] for run in runs]

    pairs, digest = _with_translations(train, config, models)
    logger.info("training.teacher: %s further pairs", f"{len(pairs) - len(train):,}")
    if not share:
        return pairs

    def write(predictions: np.ndarray) -> None:
        logger.info("training.teacher: predicting %s tokens with %d models", f"{pairs.num_tokens:,}", len(runs))
        _write_likeliest(models(), pairs, share, predictions)

    target = likeliest.with_likeliest(pairs.target, config, digest=digest, vocab_size=tokenizer.vocab_size, write=write)
    return dataclasses.replace(pairs, target=target)


def _with_translations(
    train: PairCache, config: Config, models: Callable[[], list[Translator]]
) -> tuple[PairCache, str]:
    """The pairs with those of the teachers' translations, and a digest of all their ids."""
    longest = config.data.max_length
    sides = [train.source.path.name, train.target.path.name]
    key = datasets.cache_key(ids=sides, max_length=longest, teachers=digests(config))
    folder = datasets.cache_folder(config.data) / f"answers-{key}"

    def make(temporary: Path) -> None:
        teachers = models()
        logger.info("training.teacher: translating %s sentences with %d models", f"{len(train):,}", len(teachers))
        translations = _translations(teachers, train)
        is_kept = np.array([1 < len(translation) <= longest + 1 for translation in translations])
        sources, kept = _texts(train.source, train.rows[is_kept]), itertools.compress(translations, is_kept)
        _write(temporary / "source", _texts(train.source, train.rows), sources)
        _write(temporary / "target", _texts(train.target, train.rows), kept)

    def load(folder: Path) -> PairCache:
        source, target = (TokenCache.load(folder / side) for side in ("source", "target"))
        return PairCache(source, target, np.arange(len(source)))

    return datasets.cached(folder, make, load), str(manifest.identity(folder))


def _translations(models: list[Translator], pairs: PairCache) -> list[np.ndarray]:
    """The best translation of each pair's source by all models together, each int32 [time] with its EOS_ID."""

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)], autograph=False)
    def translate(source_ids: tf.Tensor) -> tf.Tensor:
        rows = tf.shape(source_ids)[0]
        num_pieces = tf.reduce_sum(tf.cast(source_ids != PAD_ID, tf.int32), axis=1) - 1  # without EOS_ID
        search = Search(
            beam_size=tf.constant(_SEARCH.beam_size), min_length=tf.ones([rows], tf.int32),
            max_length=usual_length(num_pieces), length_penalty=tf.fill([rows], _SEARCH.length_penalty),
            coverage_penalty=tf.zeros([rows]), no_repeat=tf.constant(0), prefix=tf.zeros([rows, 0], tf.int32),
            never=(PAD_ID, BOS_ID, UNK_ID),
        )  # fmt: skip
        return search_translations(models, source_ids, search).ids[:, 0]

    answers: list[np.ndarray] = [np.zeros(0, np.int32)] * len(pairs)
    order = np.argsort(pairs.lengths[:, 0], kind="stable")
    batches = np.split(order, np.arange(_ROWS, len(order), _ROWS))
    for numbers in track(batches, "translating", len(batches)):
        sources = tf.ragged.constant([ids.tolist() for ids in pairs.source.rows(pairs.rows[numbers])], tf.int32)
        for number, ids in zip(numbers, translate(sources.to_tensor(PAD_ID)).numpy(), strict=True):
            answers[number] = np.append(ids[ids != PAD_ID], np.int32(EOS_ID))
    return answers


def _write_likeliest(models: list[Translator], pairs: PairCache, share: float, predictions: np.ndarray) -> None:
    """Fills `predictions`, see `teach`: of each pair's target, from its source and the tokens before."""
    lengths, starts = pairs.lengths[:, 1], pairs.target.offsets[pairs.rows]
    num_probabilities = int(lengths.max()) * models[0].vocab_size * len(models)  # of one pair, at most
    rows = min(_ROWS, max(1, likeliest.MAX_PROBABILITIES // num_probabilities))

    @tf.function(input_signature=[tf.TensorSpec([rows, None], tf.int32)] * 2, autograph=False)
    def predict(source_ids: tf.Tensor, target_ids: tf.Tensor) -> tf.Tensor:
        hidden = [model.decode(target_ids, model.encode(source_ids))[0] for model in models]
        log_probabilities = log_of_mean([model.head(each) for model, each in zip(models, hidden, strict=True)])
        return likeliest.pack(log_probabilities, share)

    plan = plan_ordered_batches(pair_keys(pairs), rows)
    batches = zip(plan, pair_reader(pairs, slice(0, rows))(plan), strict=True)
    for numbers, ids in track(batches, "predicting", len(plan)):
        predicted = predict(*pair_batch(*ids)[0]).numpy()
        for row, number in enumerate(numbers):
            start, length = starts[number], lengths[number]
            predictions[start : start + length] = predicted[row, :length]


def _texts(cache: TokenCache, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The ids of some texts, each int32 [time]; read in parts."""
    for part in np.split(rows, np.arange(_PART, len(rows), _PART)):
        yield from cache.rows(part)


def _write(folder: Path, *texts: Iterable[np.ndarray]) -> None:
    folder.mkdir()
    write_ids(folder, itertools.chain(*texts))
    manifest.write(folder)
