"""Scores a character model on a split, and measures the originality of its texts."""

import math
import unicodedata
from typing import Any

import numpy as np

from nlp_rnn.data import datasets
from nlp_rnn.data.corpus import Corpus, corpus_with
from nlp_rnn.evaluation import inspection, originality
from nlp_rnn.evaluation.run_model import check_seeds, load_language_models
from nlp_rnn.evaluation.scored_text import score_text
from nlp_rnn.evaluation.typing_metrics import PerplexityMeter
from nlp_rnn.export import generation_client
from nlp_rnn.export.generation import GenerationModule
from nlp_rnn.models.language_model import LanguageModel
from nlp_rnn.special_ids import EOS_ID
from nlp_rnn.training.run_directory import Run
from nlp_rnn.visualization import plots

_NUM_TEXTS, _TEXT_LENGTH, _PROMPT_LENGTH = 16, 1000, 100  # of the originality report; lengths in characters


class CharacterMeter(PerplexityMeter):
    """Accumulates the cost of every character, and how often the most likely one is right."""

    def __init__(self) -> None:
        super().__init__()
        self._num_characters = self._num_right = 0

    def update(self, log_probabilities: np.ndarray, targets: np.ndarray) -> None:
        super().update(log_probabilities, targets)
        is_character = targets != EOS_ID
        self._num_characters += int(is_character.sum())
        self._num_right += int((log_probabilities.argmax(axis=1) == targets)[is_character].sum())

    def result(self) -> dict[str, Any]:
        """The scores so far.

        Returns:
          num_characters; nats_per_character and bits_per_character, including the ends of texts; accuracy of
          characters, 0-1; cross_entropy, nats per token.
        """
        nats = self.nats / max(self._num_characters, 1)
        accuracy = self._num_right / max(self._num_characters, 1)
        return {
            "num_characters": self._num_characters, "nats_per_character": nats,
            "bits_per_character": nats / math.log(2),
            "accuracy": accuracy, "cross_entropy": self.nats / max(self.num_tokens, 1),
        }  # fmt: skip


def evaluate_runs(runs: list[Run], split: str, *, temperature: float = 0.8, seed: int = 1) -> dict[str, Any]:
    """Scores the best weights of a run, or an ensemble of runs, on a whole split with carried states; generates texts.

    Of a single run, draws gradients.png and adds the figures to metrics.json.

    Args:
      runs: one run, or the members of an ensemble; the config of the first one names the data.
      temperature, seed: of the generated texts for the originality report. They continue 16 prompts of 100 characters,
        at evenly spaced positions of the split.

    Returns:
      split, metrics, originality (`originality.report` of the generated texts and of as much of the split), sample.

    Raises:
      ConfigError: if the runs of an ensemble do not fit together: see `load_language_models` and `check_seeds`.
    """
    run = runs[0]
    corpus = corpus_with(run.config, split, also=("train",))
    check_seeds(runs, corpus, split)
    model, tokenizer = load_language_models(runs)
    caches = {name: datasets.prepare_stream(corpus, name, run.config.data, tokenizer) for name in ("train", split)}
    meter = CharacterMeter()
    for scored in score_text(model, caches[split], title=f"scoring {split}"):
        meter.update(scored.log_probabilities, scored.targets)

    module = GenerationModule(model, tokenizer, run.config)
    prompts, held_out = _passages(corpus, split)
    written = _write(module, prompts, temperature, seed)
    train = originality.TrainingText(caches["train"].path / "ids.bin")

    def normal(text: str) -> str:  # as the tokenizer reads it, so that each character has an id
        return unicodedata.normalize("NFKC", text) if run.config.tokenizer.nfkc else text

    words = frozenset(
        word for example in corpus.examples("train") for word in originality.words_of(normal(example.text))
    )

    def report(texts: list[str]) -> dict[str, Any]:
        texts = list(map(normal, texts))
        rows = tokenizer.tokenize(texts)
        return originality.report(texts, [row.numpy() for row in rows], train, words)

    copied = {"temperature": temperature, "seed": seed, "written": report(written), "held_out": report(held_out)}
    metrics = meter.result()
    if isinstance(model, LanguageModel):
        _draw_gradients(model, run, np.fromfile(caches[split].path / "ids.bin", np.int32))
        run.write_metrics(**{split: metrics, f"{split}_originality": copied})
    return {"split": split, "metrics": metrics, "originality": copied, "sample": prompts[0] + written[0]}


def _draw_gradients(model: LanguageModel, run: Run, ids: np.ndarray) -> None:
    norms = inspection.gradient_norms(model, run.config.model, ids, seed=run.config.seed)
    plots.plot_gradients(norms, run.path / "gradients.png", title=f"{run.config.name}: how far back the loss reaches")


def describe(facts: dict[str, Any]) -> str:
    """Formats the evaluation."""
    metrics, copied = facts["metrics"], facts["originality"]
    lines = [
        f"{facts['split']}: {metrics['num_characters']:,} characters, {metrics['nats_per_character']:.4f} nats "
        f"({metrics['bits_per_character']:.4f} bits) per character, accuracy {100 * metrics['accuracy']:.2f} %",
        "",
        f"{'':<44}{'generated':>10}{'held out':>10}",
    ]
    rows = [("longest passage copied from train (characters)", "longest_copy")]
    rows += [(f"passages of {size} characters copied from train", f"seen_{size}") for size in originality.N_GRAMS]
    rows += [("words not in train", "invented_words"), ("repeated passages of 20 characters", "repeated")]
    for title, name in rows:
        values = [copied[side][name] for side in ("written", "held_out")]
        shown = [f"{value:>10,}" if name == "longest_copy" else f"{100 * value:>8.2f} %" for value in values]
        lines.append(f"{title:<44}{''.join(shown)}")
    return "\n".join(
        [*lines, f"longest copied: {copied['written']['copied_passage']!r}", "", "sample:", facts["sample"]]
    )


def _passages(corpus: Corpus, split: str) -> tuple[list[str], list[str]]:
    """The prompts, and the passages that follow them in the split."""
    text = "".join(example.text for example in corpus.examples(split))
    whole = _PROMPT_LENGTH + _TEXT_LENGTH
    count = max(1, min(_NUM_TEXTS, len(text) // whole))
    starts = np.linspace(0, max(len(text) - whole, 0), count).astype(int)
    prompts = [text[start : start + _PROMPT_LENGTH] for start in starts]
    return prompts, [text[start + _PROMPT_LENGTH : start + whole] for start in starts]


def _write(module: GenerationModule, prompts: list[str], temperature: float, seed: int) -> list[str]:
    settings = {
        "min_length": _TEXT_LENGTH,
        "max_length": _TEXT_LENGTH,
        "temperature": temperature,
        "top_k": 0,
        "top_p": 1.0,
    }
    answers = [
        generation_client.write(
            module,
            [prompt.encode("utf-8")],
            settings | {"repetition_penalty": 1.0, "seed": (seed + number) % 2**31, "stop": []},
        )
        for number, prompt in enumerate(prompts)
    ]
    return [facts["text"] for rows in answers for facts in rows]
