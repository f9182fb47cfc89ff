"""A class of 3 %: average precision with and without class weights, beside TF-IDF and balanced logistic regression.

    python -m benchmarks.rare_class [--folder DIR]        # NLP_RNN_DATA: a folder with tfds/imdb_reviews

All negative reviews of IMDB and so many positive ones that they are 3 %, drawn by seed 1, in both official splits.
"""

import argparse
import csv
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from nlp_rnn import api
from nlp_rnn.config.loading import load_config
from nlp_rnn.config.settings import DataConfig
from nlp_rnn.data.readers import Example
from nlp_rnn.data.sources import SOURCES

SHARE = 0.03
SEED = 1
SETTINGS: dict[str, Any] = {
    "seed": SEED, "data.source": "csv", "data.max_length": 200, "tokenizer.vocab_size": 10000, "model.units": 32,
    "model.embedding_dim": 64, "model.word_dropout": 0.3, "model.embedding_dropout": 0.3, "model.dropout": 0.4,
    "training.epochs": 4, "training.learning_rate": 2e-3, "training.patience": 0, "training.ema_momentum": 0.99,
}  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "BiLSTM(32)": {},
    "BiLSTM(32), class_weights=balanced": {"training.class_weights": "balanced"},
    "BiLSTM(32), focal_gamma=2": {"training.focal_gamma": 2.0},
    "wide and deep (ngrams=2)": {"model.ngrams": 2},
    "wide and deep, class_weights=balanced": {"model.ngrams": 2, "training.class_weights": "balanced"},
}


def main() -> None:
    """Prints a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="for data and runs; without it, a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        counts = {name: _write(folder, name) for name in ("train", "test")}
        print(", ".join(f"{name}: {positive:,} of {total:,} are pos" for name, (positive, total) in counts.items()))
        for name, settings in RUNS.items():
            start = time.monotonic()
            found = _train(folder, name, settings)
            print(_row(name, found, time.monotonic() - start), flush=True)
        start = time.monotonic()
        print(_row("TF-IDF, logistic regression, class_weight=balanced", _linear(folder), time.monotonic() - start))


def _write(folder: Path, split: str) -> tuple[int, int]:
    """Writes SPLIT.csv; returns the number of positive and of all reviews."""
    examples = list(SOURCES["imdb"](DataConfig())[split]())
    negative, positive = ([each for each in examples if each.label == label] for label in ("neg", "pos"))
    generator = random.Random(SEED)
    chosen = generator.sample(positive, round(len(negative) * SHARE / (1 - SHARE)))
    rows: list[Example] = [*negative, *chosen]
    generator.shuffle(rows)
    with open(folder / f"{split}.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return len(chosen), len(rows)


def _train(folder: Path, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    given = {f"data.{split}": str(folder / f"{split}.csv") for split in ("train", "test")}
    place = {"runs_dir": str(folder / "runs"), "name": "".join(each if each.isalnum() else "_" for each in name)}
    run = api.train(load_config(None, SETTINGS | given | place | settings, task="sentiment"))
    metrics = run.evaluate("test").metrics
    return metrics["per_class"][1] | {"macro_f1": metrics["macro_f1"]}


def _linear(folder: Path) -> dict[str, Any]:
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score

    from nlp_rnn.evaluation.metrics import label_scores

    texts, truth = {}, {}
    for split in ("train", "test"):
        with open(folder / f"{split}.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        texts[split], truth[split] = [row["text"] for row in rows], np.array([row["label"] == "pos" for row in rows])
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    machine = LogisticRegression(class_weight="balanced", max_iter=1000, random_state=0)
    machine.fit(vectorizer.fit_transform(texts["train"]), truth["train"])
    scores = machine.predict_proba(vectorizer.transform(texts["test"]))[:, 1]
    found = label_scores("pos", truth["test"], scores >= 0.5, scores)
    return found | {"macro_f1": f1_score(truth["test"], scores >= 0.5, average="macro")}


def _row(name: str, found: dict[str, Any], seconds: float) -> str:
    shown = " | ".join(
        f"{found[key]:.4f}" for key in ("average_precision", "precision", "recall", "f1", "macro_f1")
    )  # of pos, but the last
    return f"| {name} | {shown} | {seconds:.0f} s |"


if __name__ == "__main__":
    main()
