"""The baseline of classifiers: a recurrent model that does not beat it is not worth deploying."""

from collections.abc import Iterable
from typing import Any

import numpy as np


class Nbsvm:
    """NBSVM: a linear classifier on word n-grams scaled by their naive Bayes log-count ratio.

    Source: Wang & Manning 2012, "Baselines and Bigrams: Simple, Good Sentiment and Topic Classification", section 2.3:
    presence features, L2-regularised squared hinge loss, and the weights interpolated with their mean magnitude.
    More than two classes are scored one against the rest.

    Args:
      ngrams: the longest n-gram, in words.
      alpha: smoothing of the counts.
      regularization: C of the SVM.
      interpolation: beta, 0-1; 0 is naive Bayes alone.
    """

    def __init__(
        self, *, ngrams: int = 2, alpha: float = 1.0, regularization: float = 0.1, interpolation: float = 0.25
    ) -> None:
        self.ngrams, self.alpha, self.regularization, self.interpolation = ngrams, alpha, regularization, interpolation

    def fit(self, texts: Iterable[str], labels: np.ndarray) -> "Nbsvm":
        """Trains on texts of space-separated words and int labels [examples]."""
        from sklearn.feature_extraction.text import CountVectorizer

        self._vectorizer = CountVectorizer(
            ngram_range=(1, self.ngrams),
            binary=True,
            tokenizer=str.split,
            token_pattern=None,
            lowercase=False,
            dtype=np.float32,
        )
        features = self._vectorizer.fit_transform(texts)
        self.classes = np.unique(labels)
        positives = self.classes[1:] if len(self.classes) == 2 else self.classes
        self._machines = [self._fit_one(features, labels == label) for label in positives]
        return self

    def predict(self, texts: Iterable[str]) -> np.ndarray:
        """Predicts the class of each text, int [examples]."""
        features = self._vectorizer.transform(texts)
        scores = np.stack([features @ weights + bias for weights, bias in self._machines], axis=1)
        if len(self.classes) == 2:
            return self.classes[(scores[:, 0] > 0).astype(int)]
        return self.classes[scores.argmax(axis=1)]

    def _fit_one(self, features: Any, is_positive: np.ndarray) -> tuple[np.ndarray, float]:
        from sklearn.svm import LinearSVC

        positive = self.alpha + np.asarray(features[is_positive].sum(axis=0)).ravel()
        negative = self.alpha + np.asarray(features[~is_positive].sum(axis=0)).ravel()
        ratio = np.log(positive / positive.sum()) - np.log(negative / negative.sum())
        machine = LinearSVC(C=self.regularization, dual=True, random_state=0, max_iter=2000)
        machine.fit(features.multiply(ratio).tocsr(), is_positive)
        weights = machine.coef_[0]
        mixed = (1 - self.interpolation) * np.abs(weights).mean() + self.interpolation * weights
        return mixed * ratio, float(machine.intercept_[0]) * self.interpolation
