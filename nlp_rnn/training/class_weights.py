"""How much each label counts in a classifier's loss, and a warning where some are rare."""

import logging

import numpy as np

from nlp_rnn.config.settings import Config
from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.errors import ConfigError
from nlp_rnn.models.objective import Objective

logger = logging.getLogger(__name__)

_RARE = 0.1  # of the most frequent class's examples; of label sets, half of that of all texts


def make_objective(config: Config, labels: list[str], train: TokenCache) -> Objective:
    """The loss of the settings; the labels of training.class_weights were checked before."""
    chosen, outputs = config.training.class_weights, config.data.outputs
    positive: tuple[float, ...] = ()
    negative: tuple[float, ...] = ()
    if chosen == "balanced" and outputs == "label_sets":
        positive, negative = balanced_label_weights(train.labels)
    elif chosen == "balanced":
        positive = balanced_weights(np.bincount(train.labels[train.labelled_rows], minlength=len(labels)))
    elif chosen != "none":
        given = dict(chosen)  # type: ignore[arg-type]
        positive = tuple(given.get(label, 1.0) for label in labels)
    if positive:
        shown = ", ".join(f"{label} {weight:.3g}" for label, weight in zip(labels[:20], positive, strict=False))
        logger.info("class weights: %s%s", shown, ", ..." if len(labels) > 20 else "")
    training = config.training
    return Objective(
        outputs, positive, negative, training.focal_gamma, training.r_drop, training.adversarial,
        training.virtual_adversarial, _labelled_share(train, training.batch_size),
    )  # fmt: skip


def _labelled_share(train: TokenCache, batch_size: int) -> float:
    """See `Objective`. Says how many texts of a batch have a label."""
    rows = train.labelled_rows
    if train.targets is not None or len(rows) == len(train):
        return 0.0
    weights = np.ones(len(train)) if train.weights is None else train.weights
    share = float(weights[rows].sum() / np.count_nonzero(weights))
    if not share:
        raise ConfigError("data.weight_column is 0 for all texts with a label; give some of them a weight above 0")
    per_batch = batch_size * len(rows) / len(train)
    logger.log(
        logging.WARNING if per_batch < 1 else logging.INFO,
        "%s of %s training texts have a label: %.3g of each batch; raise training.batch_size if these are too few",
        f"{len(rows):,}", f"{len(train):,}", per_batch,
    )  # fmt: skip
    return share


def balanced_weights(counts: np.ndarray) -> tuple[float, ...]:
    """Examples / (classes * examples of the class), as scikit-learn's "balanced": their mean over the examples is 1.

    Source: King & Zeng 2001, section 5.2. A class without examples has the weight 0.
    """
    weights = np.where(counts > 0, counts.sum() / (len(counts) * np.maximum(counts, 1)), 0.0)
    return tuple(map(float, weights))


def balanced_label_weights(has_label: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """`balanced_weights` of the texts that have each label, and of those that have it not.

    Args:
      has_label: 0 and 1 [texts, labels].
    """
    counts = has_label.sum(axis=0, dtype=np.int64)
    pairs = [balanced_weights(np.array([count, len(has_label) - count])) for count in counts]
    return tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)


def warn_of_imbalance(config: Config, labels: list[str], train: TokenCache) -> None:
    """Warns of rare labels, and names the metrics that show how well they are found."""
    are_sets = config.data.multi_label
    known = train.labels[train.labelled_rows]
    counts = known.sum(axis=0, dtype=np.int64) if are_sets else np.bincount(known, minlength=len(labels))
    rarest = int(counts.argmin())
    limit = _RARE / 2 * len(known) if are_sets else _RARE * counts.max()
    if counts[rarest] > limit:
        return
    others = int((counts <= limit).sum()) - 1
    more = f" (and {others} more labels)" if others else ""
    watch = (
        "macro F1 and mean average precision"
        if are_sets
        else f"macro F1 and the average precision of {labels[rarest]!r}"
    )
    hint = (
        ""
        if config.training.class_weights != "none"
        else "; training.class_weights=balanced makes all labels count alike"
    )
    logger.warning(
        "imbalanced labels: %r has %.2g %% of %s training examples%s; "
        "accuracy says little here: watch %s, which evaluate reports%s",
        labels[rarest], 100 * counts[rarest] / len(known), f"{len(known):,}", more, watch, hint,
    )  # fmt: skip
