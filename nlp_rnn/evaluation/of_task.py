"""Scores a run of any task."""

import numbers
from typing import Any

import numpy as np

from nlp_rnn.config.tables import TASKS
from nlp_rnn.decoding.settings import GenerationSettings
from nlp_rnn.errors import ConfigError
from nlp_rnn.evaluation import characters, classifier, language_model, translation
from nlp_rnn.training.run_directory import Run

_OPTIONS = {
    "labels": {"baseline", "min_probability"},
    "words": {"baseline", "adapt", "max_examples"},
    "characters": {"temperature", "seed"},
    "translations": {"beam_size", "length_penalty"},
}


def evaluate(run: Run, split: str, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores a run's best weights on a split.

    Args:
      options: see `nlp_rnn.Run.evaluate`.

    Returns:
      (metrics, all facts of the evaluation).

    Raises:
      ConfigError: if the task has no such option, or the corpus no such split.
    """
    task, answers = run.config.task, TASKS[run.config.task].answers
    if split not in ("validation", "test"):
        raise ConfigError(f"split is {split!r}, but must be validation or test")
    if unknown := sorted(set(options) - _OPTIONS[answers]):
        raise ConfigError(
            f"{unknown[0]} is not an option of evaluating {task}; it has {', '.join(sorted(_OPTIONS[answers]))}"
        )
    if not isinstance(baseline := options.get("baseline", False), bool | np.bool_):
        raise ConfigError(f"baseline is {baseline!r}, but must be true or false")
    if answers == "labels":
        least = options.get("min_probability", 0.0)
        if isinstance(least, bool) or not isinstance(least, numbers.Real) or not 0 <= float(least) <= 1:
            raise ConfigError(f"min_probability is {least!r}, but must be a number from 0 to 1")
        facts = classifier.evaluate_runs(
            [run], split, min_probability=float(least),
            has_baseline=bool(baseline),
        ).facts  # fmt: skip
    elif answers == "words":
        max_examples = options.get("max_examples", 0)
        if not isinstance(max_examples, int) or max_examples < 0:
            raise ConfigError(f"max_examples is {max_examples!r}, but must be a whole number of 0 or more")
        adapts: Any = options.get("adapt", "")
        if adapts not in (True, False, "", "cache", "dynamic"):
            raise ConfigError(f"adapt is {adapts!r}, but must be cache or dynamic")
        adapts = "cache" if adapts is True else adapts or ""  # True: as in earlier versions
        facts = language_model.evaluate_runs(
            [run], split, has_baseline=bool(baseline), adapts=adapts,
            max_examples=max_examples,
        )  # fmt: skip
    elif answers == "characters":
        GenerationSettings.checked(**options)
        facts = characters.evaluate_runs([run], split, **options)
    else:
        facts = translation.evaluate_runs([run], split, **options)
    return facts["metrics"], facts
