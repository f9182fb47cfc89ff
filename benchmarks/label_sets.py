"""Texts with any number of labels, made up by a seed: our classifiers beside fastText's one-vs-all.

    python -m benchmarks.label_sets [--folder DIR]        # needs the package fasttext-wheel, or fasttext

Twenty labels, of which texts have up to four; the rarest is on 1 % of the texts. A label shows by two to four of its
thirty words, of which a third are another label's too, among background words and single words of labels that the text
has not.
"""

import argparse
import functools
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nlp_rnn import api
from nlp_rnn.config.loading import load_config
from nlp_rnn.evaluation.label_set_metrics import label_set_metrics
from nlp_rnn.training.calibrate import fit_threshold

SEED = 1
NUM_LABELS = 20
SIZES = {"train": 8000, "validation": 1000, "test": 3000}
SETTINGS: dict[str, Any] = {
    "seed": SEED, "data.source": "text", "data.multi_label": True, "data.max_length": 60, "model.units": 32,
    "model.embedding_dim": 64,
    "model.cell": "gru", "model.word_dropout": 0.2, "model.dropout": 0.3, "training.epochs": 12,
    "training.learning_rate": 5e-3,
    "training.patience": 0, "data.remove_repeated": False,
}  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "BiGRU(32)": {},
    "BiGRU(32), class_weights=balanced": {"training.class_weights": "balanced"},
    "wide and deep (ngrams=1)": {"model.ngrams": 1},
}
Texts = dict[str, list[tuple[str, list[int]]]]


def main() -> None:
    """Prints a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="for data and runs; without it, a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        texts = make_texts()
        for split, rows in texts.items():
            lines = ["".join(f"__label__{label:02d} " for label in labels) + text for text, labels in rows]
            (folder / f"{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        for name, settings in RUNS.items():
            _timed(name, functools.partial(_ours, folder, name, settings))
        _timed("fastText, one-vs-all, thresholds of 0.5", lambda: _fasttext(folder, texts, is_tuned=False))
        _timed("fastText, one-vs-all, thresholds fitted as ours", lambda: _fasttext(folder, texts, is_tuned=True))


def make_texts() -> Texts:
    """Of each split the texts and their labels."""
    generator = random.Random(SEED)
    words = [
        [f"t{label}w{number}" if number % 3 else f"t{(label + 1) % NUM_LABELS}w{number + 1}" for number in range(30)]
        for label in range(NUM_LABELS)
    ]
    background = [f"b{number}" for number in range(3000)]
    shares = [0.2 * (0.05 ** (label / (NUM_LABELS - 1))) for label in range(NUM_LABELS)]  # 20 % down to 1 %

    def make() -> tuple[str, list[int]]:
        labels = [label for label in range(NUM_LABELS) if generator.random() < shares[label]][:4]
        text = generator.choices(
            background, weights=[1 / (rank + 10) for rank in range(3000)], k=generator.randint(15, 35)
        )
        for label in labels:
            text += generator.sample(words[label], generator.randint(2, 4))
        text += [generator.choice(generator.choice(words)) for _ in range(generator.randint(0, 4))]
        generator.shuffle(text)
        return " ".join(text), labels

    return {split: [make() for _ in range(count)] for split, count in SIZES.items()}


def _ours(folder: Path, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    given = {f"data.{split}": str(folder / f"{split}.txt") for split in SIZES}
    place = {"runs_dir": str(folder / "runs"), "name": "".join(each if each.isalnum() else "_" for each in name)}
    return api.train(load_config(None, SETTINGS | given | place | settings, task="sentiment")).evaluate("test").metrics


def _fasttext(folder: Path, texts: Texts, *, is_tuned: bool) -> dict[str, Any]:
    import fasttext

    model = fasttext.train_supervised(
        str(folder / "train.txt"), loss="ova", dim=100, epoch=25, lr=0.5, minCount=1, thread=1, seed=SEED, verbose=0
    )

    def scores(split: str) -> np.ndarray:
        found = np.zeros((len(texts[split]), NUM_LABELS), np.float32)
        for row, (text, _) in enumerate(texts[split]):
            for share, label in model.f.predict(text + "\n", -1, 0.0, "strict"):  # its wrapper fails on NumPy 2
                found[row, int(label.removeprefix("__label__"))] = min(share, 1.0)
        return found

    def targets(split: str) -> np.ndarray:
        found = np.zeros((len(texts[split]), NUM_LABELS), np.uint8)
        for row, (_, labels) in enumerate(texts[split]):
            found[row, labels] = 1
        return found

    thresholds = [0.5] * NUM_LABELS
    if is_tuned:
        thresholds = [
            fit_threshold(*pair) for pair in zip(scores("validation").T, targets("validation").T, strict=True)
        ]
    return label_set_metrics(
        scores("test"), targets("test"), thresholds, [f"{label:02d}" for label in range(NUM_LABELS)]
    )


def _timed(name: str, run: Callable[[], dict[str, Any]]) -> None:
    start = time.monotonic()
    found = run()
    shown = " | ".join(f"{found[key]:.4f}" for key in ("micro_f1", "macro_f1", "mean_average_precision"))
    print(f"| {name} | {shown} | {time.monotonic() - start:.0f} s |", flush=True)


if __name__ == "__main__":
    main()
