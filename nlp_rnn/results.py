"""What the Python API returns: frozen dataclasses."""

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prediction:
    """A classifier's answer.

    Attributes:
      label: the most likely label; with data.labels_are=ordinal, the median.
      probability: of that label, 0-1.
      probabilities: of every label, 0-1.
      score: of a model of scores: the expected one; else None.
    """

    label: str
    probability: float
    probabilities: dict[str, float] = field(repr=False)
    score: float | None = None


@dataclass(frozen=True)
class LabelSet:
    """The answer of a classifier of any number of labels per text (data.multi_label).

    Attributes:
      labels: those whose probability reaches the label's threshold, the likeliest first.
      probabilities: of every label by itself, 0-1.
    """

    labels: list[str]
    probabilities: dict[str, float] = field(repr=False)


@dataclass(frozen=True)
class Attributions:
    """The tokens that supported a prediction.

    `scores` is what each adds to the log-odds of `label`, in nats. Of a model of scores (data.labels_are=ordinal) it is
    what each adds to the log-odds that the score is above the lowest.
    """

    label: str
    probability: float
    tokens: list[str]
    scores: list[float]


@dataclass(frozen=True)
class Suggestion:
    """A next word, or a completion of the current one, and its probability, 0-1."""

    word: str
    probability: float


@dataclass(frozen=True)
class Generation:
    """A continuation of a prompt, and its log-probability in nats."""

    prompt: str
    text: str
    log_probability: float


@dataclass(frozen=True)
class TextScore:
    """How likely a language model finds a text.

    Attributes:
      tokens: of the text, ended by "</s>".
      log_probabilities: in nats, of each token after the ones before it. Unknown tokens are scored as one token.
    """

    tokens: list[str]
    log_probabilities: list[float]

    @property
    def log_probability(self) -> float:
        """Of the whole text and its end, in nats."""
        return math.fsum(self.log_probabilities)

    @property
    def perplexity(self) -> float:
        """Per token, counting the end as one."""
        return math.exp(min(-self.log_probability / len(self.tokens), 700))


@dataclass(frozen=True)
class Translation:
    """A translation and its score, by which the beam search ranks.

    The score is the log-probability, in nats, divided by ((5 + length) / 6) ** length_penalty, where the length is in
    pieces and counts the end; with a coverage penalty, less that.
    """

    text: str
    score: float


@dataclass(frozen=True)
class Tokens:
    """A text as a model reads it: its pieces, their ids, and the decoded ids."""

    pieces: list[str]
    ids: list[int]
    text: str


@dataclass(frozen=True)
class Evaluation:
    """The scores of a run or an exported model on a split.

    Attributes:
      split: "validation" or "test".
      metrics: by name; shares are 0-1, BLEU and chrF 0-100, cross-entropies in nats.
      details: everything that the command `evaluate --json` prints.
    """

    split: str
    metrics: dict[str, Any]
    details: dict[str, Any] = field(repr=False)
