"""Fits the parts of a classifier that `fit` does not train.

The n-gram weights of a wide and deep classifier and the shares of its two parts, and the standardisation of features.
"""

import dataclasses
import functools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from nlp_rnn.data.token_cache import TokenCache, write_ids
from nlp_rnn.layers.ngrams import NgramLinear, Stack, ngram_ids, ngram_keys, num_buckets
from nlp_rnn.models.objective import Objective
from nlp_rnn.special_ids import PAD_ID

logger = logging.getLogger(__name__)

_MAX_TEXTS = 100_000  # fits the linear part on at most so many, since their n-grams are all in memory
_MAX_STANDARDIZED = 2_048  # texts whose features are standardised; their means are then known to 2 % of the spread
_TEXTS_AT_A_TIME = 64
_SMOOTHING = 1.0  # of the counts
_INVERSE_REGULARIZATION = 0.3  # scikit-learn's C; chosen on blocks of movie_reviews
_NUM_COUNTERS = 2**27  # bytes; n-grams that share a counter count as the same, so some of one text are kept
_HALF_LENGTHS = (0, *(2**power for power in range(9)))  # tokens


def fit_linear_part(layer: NgramLinear, train: TokenCache, seed: int, objective: Objective | None = None) -> None:
    """Fits a built layer by logistic regression on n-grams, scaled by their naive Bayes log-count ratio.

    N-grams of several tokens have a weight if two training texts have them: the others tell little, and would share the
    buckets of those that do. Deterministic. More than two classes, and the labels of label sets, are fitted one against
    the rest. Source: Wang & Manning 2012, section 2.3, with the logistic loss instead of the hinge loss.

    Args:
      train: the texts; those without a label are left out.
      objective: its class weights are used, as are the weights of the texts; its focus is not.
    """
    objective = objective or Objective()
    from scipy import sparse

    rows = train.labelled_rows
    if len(rows) > _MAX_TEXTS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _MAX_TEXTS, replace=False))
    columns = _ngrams_of_texts(train, rows, layer.longest)
    pointers = np.concatenate([[0], np.cumsum([len(each) for each in columns])])
    size = num_buckets(layer.longest)
    features = sparse.csr_matrix(
        (np.ones(pointers[-1], np.float32), np.concatenate(columns), pointers), shape=(len(rows), size)
    )  # fmt: skip
    labels, sample_weights = train.labels[rows], None if train.weights is None else train.weights[rows]
    positives = [1] if layer.is_paired else range(layer.num_classes)
    have = [labels[:, label] > 0 if labels.ndim == 2 else labels == label for label in positives]
    counts = [_counts(labels, number, sample_weights, objective) for number in positives]
    weights, biases = zip(*map(functools.partial(_fit_one, features), have, counts), strict=True)
    layer.assign(np.stack(weights, axis=1), np.array(biases))
    logger.info("linear part: %s n-grams of up to %d tokens", f"{(features.getnnz(axis=0) > 0).sum():,}", layer.longest)


def _ngrams_of_texts(cache: TokenCache, rows: np.ndarray, longest: int) -> list[np.ndarray]:
    """The ids of each text's distinct n-grams, int32: of its tokens, and of longer ones that another text has too."""
    counts = np.zeros(_NUM_COUNTERS, np.uint8)  # of texts, up to two
    for _, token_ids in _batches(cache, rows):
        for keys in ngram_keys(token_ids, longest) % _NUM_COUNTERS:
            distinct = np.unique(keys)
            counts[distinct] = np.minimum(counts[distinct] + 1, 2)
    of_texts = [np.zeros(0, np.int32)] * len(rows)
    for places, token_ids in _batches(cache, rows):
        ids, keys = ngram_ids(token_ids, longest, ops=np), ngram_keys(token_ids, longest) % _NUM_COUNTERS
        is_kept = (counts[keys] > 1) & (ids != PAD_ID)
        is_kept[:, : token_ids.shape[1]] = token_ids != PAD_ID
        for place, ids_of_text, is_kept_there in zip(places, ids, is_kept, strict=True):
            of_texts[place] = np.unique(ids_of_text[is_kept_there])
    return of_texts


def _batches(cache: TokenCache, rows: np.ndarray, multiple: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Texts of similar length together: yields (places in `rows`, int32 ids [batch, time])."""
    order = np.argsort(cache.lengths[rows], kind="stable")
    for start in range(0, len(rows), _TEXTS_AT_A_TIME):
        places = order[start : start + _TEXTS_AT_A_TIME]
        texts = cache.rows(rows[places])
        longest = max(map(len, texts))
        token_ids = np.full((len(texts), -(-longest // multiple) * multiple), PAD_ID, np.int32)
        for row, ids in enumerate(texts):
            token_ids[row, : len(ids)] = ids
        yield places, token_ids


def _counts(
    labels: np.ndarray, number: int, sample_weights: np.ndarray | None, objective: Objective
) -> np.ndarray | None:
    """How much each text counts for one label: float [texts], or None where all count alike."""
    counts = None if sample_weights is None else sample_weights.astype(np.float64)
    if not objective.class_weights:
        return counts
    if labels.ndim == 2:
        negative = objective.negative_weights[number] if objective.negative_weights else 1.0
        by_class = np.where(labels[:, number] > 0, objective.class_weights[number], negative)
    else:
        by_class = np.array(objective.class_weights)[labels]
    return by_class if counts is None else counts * by_class


def _fit_one(features: Any, is_positive: np.ndarray, counts: np.ndarray | None) -> tuple[np.ndarray, float]:
    from sklearn.linear_model import LogisticRegression

    if is_positive.all() or not is_positive.any():  # none of the drawn texts may be of a rare class
        share = (is_positive.sum() + 0.5) / (len(is_positive) + 1)
        return np.zeros(features.shape[1], np.float32), float(np.log(share / (1 - share)))
    positive = _SMOOTHING + np.asarray(features[is_positive].sum(axis=0)).ravel()
    negative = _SMOOTHING + np.asarray(features[~is_positive].sum(axis=0)).ravel()
    ratio = np.log(positive / positive.sum()) - np.log(negative / negative.sum())
    ratio[np.asarray(features.getnnz(axis=0)) == 0] = 0  # n-grams that are not in the training texts
    machine = LogisticRegression(C=_INVERSE_REGULARIZATION, solver="liblinear", dual=True, random_state=0, max_iter=300)
    machine.fit(features.multiply(ratio).tocsr(), is_positive, sample_weight=counts)
    return machine.coef_[0] * ratio, float(machine.intercept_[0])


def fit_standardization(model: keras.Model, train: TokenCache, seed: int, multiple: int = 1) -> None:
    """Fits the layer `standardize` of a built classifier to the pooled features of training texts.

    Args:
      multiple: of which the lengths of batches are multiples.
    """
    encoder = model.get_layer("encoder")
    pooled = keras.Model(encoder.inputs, encoder.get_layer("standardize").input)
    pooled.compile(jit_compile=keras.backend.backend() != "tensorflow")

    def features_of(token_ids: np.ndarray) -> np.ndarray:
        vectors, mask = model.get_layer("embedding")(token_ids), model.get_layer("mask")(token_ids)
        return pooled.predict_on_batch([vectors, mask])

    rows = np.sort(np.random.default_rng(seed).permutation(len(train))[:_MAX_STANDARDIZED])
    features = [features_of(token_ids) for _, token_ids in _batches(train, rows, multiple)]
    encoder.get_layer("standardize").assign(np.concatenate(features))


def draw_excerpts(cache: TokenCache, folder: Path, seed: int) -> TokenCache:
    """Draws an excerpt of each text, of consecutive tokens. The logarithms of the lengths are equally likely.

    Args:
      folder: an empty one, for the ids.
    """
    lengths = np.maximum(cache.lengths, 1)
    size, start = np.random.default_rng([seed, 2]).random((2, len(cache)))
    sizes = np.minimum(np.exp(size * np.log(lengths + 1)).astype(np.int64), lengths)
    starts = (start * (lengths - sizes + 1)).astype(np.int64)
    texts = cache.rows(range(len(cache)))
    write_ids(folder, (ids[at : at + size] for ids, at, size in zip(texts, starts, sizes, strict=True)))
    return dataclasses.replace(cache, path=folder, offsets=np.load(folder / "offsets.npy"))


def fit_stack(layer: Stack, deep: np.ndarray, wide: np.ndarray, labels: np.ndarray, lengths: np.ndarray) -> None:
    """Fits the two parts' shares, which are 0 or more, and the half length to the least cross-entropy.

    Args:
      deep, wide: float [texts, classes], logits of texts that neither part was trained on.
      labels: int [texts]; of label sets 0 and 1 [texts, labels].
      lengths: int [texts], in tokens.
    """
    from scipy import optimize, special

    rows, are_sets = np.arange(len(labels)), labels.ndim == 2
    squares = np.square(lengths, dtype=np.float64)[:, None]

    def fit_shares(half_length: float) -> tuple[float, np.ndarray]:
        """The least cross-entropy with a given half length, and the shares."""
        reliable = deep * squares / np.maximum(squares + half_length**2, 1)

        def loss_and_gradient(shares: np.ndarray) -> tuple[float, np.ndarray]:
            logits = shares[0] * reliable + shares[1] * wide
            if are_sets:
                errors = special.expit(logits) - labels
                loss = float(np.mean(np.logaddexp(0, logits) - labels * logits))
                return loss, np.array([np.mean(errors * reliable), np.mean(errors * wide)])
            errors = special.softmax(logits, axis=1)
            loss = float(np.mean(special.logsumexp(logits, axis=1) - logits[rows, labels]))
            errors[rows, labels] -= 1
            return loss, np.array([np.mean(np.sum(errors * each, axis=1)) for each in (reliable, wide)])

        optimum = optimize.minimize(
            loss_and_gradient, np.array([0.5, 0.5]), jac=True, method="L-BFGS-B", bounds=[(0, None)] * 2
        )
        return float(optimum.fun), optimum.x

    fits = {half_length: fit_shares(half_length) for half_length in _HALF_LENGTHS}
    half_length = min(fits, key=lambda each: fits[each][0])
    shares = fits[half_length][1]
    layer.assign(shares.astype(np.float32), half_length)
    logger.info(
        "stacked on validation: %.3f of the recurrent part's logits, half at %d tokens; %.3f of the linear part's",
        shares[0], half_length, shares[1],
    )  # fmt: skip
