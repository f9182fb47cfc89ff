"""Scores a run of any task."""

from typing import Any

from nlp_rnn.errors import ConfigError
from nlp_rnn.evaluation import characters, classifier, language_model, translation
from nlp_rnn.training.run_directory import Run

_OPTIONS = {
    "sentiment": {"baseline"},
    "next_word": {"baseline", "adapt"},
    "char_generation": {"temperature", "seed"},
    "translation": {"beam_size", "length_penalty"},
}


def evaluate(run: Run, split: str, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The metrics of a run's best weights on a split, and all that is reported.

    Args:
      options: see `nlp_rnn.Run.evaluate`.

    Raises:
      ConfigError: for an option that the task does not have, or a split that the corpus does not have.
    """
    task = run.config.task
    if split not in ("validation", "test"):
        raise ConfigError(f"split is {split!r}, but must be validation or test")
    if unknown := sorted(set(options) - _OPTIONS[task]):
        raise ConfigError(f"{unknown[0]} is not an option of evaluating {task}; it has {', '.join(sorted(_OPTIONS[task]))}")
    if task == "sentiment":
        facts = classifier.evaluate_run(run, split).facts
        if options.get("baseline"):
            facts["baseline"] = classifier.evaluate_baseline(run.config, split)
    elif task == "next_word":
        facts = language_model.evaluate_run(run, split, has_baseline=options.get("baseline", False), adapts=options.get("adapt", False))
    elif task == "char_generation":
        facts = characters.evaluate_run(run, split, **options)
    else:
        facts = translation.evaluate_runs([run], split, **options)
    return facts["metrics"], facts
