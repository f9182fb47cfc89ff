"""Claim: a megabyte of n-grams beside the neural model saves a keyboard a point of the keystrokes in short sentences.

Scores a next-word run on its validation split, alone and mixed with interpolated modified Kneser-Ney models of the
training split, whole and without rare n-grams, as `export --ngrams` rounds them. The share of each is the one with the
lowest perplexity there. The sizes are those of the files.

    python -m benchmarks.pruned_ngrams --run runs/next_word_es [--tokens 10000]
"""

import argparse
from pathlib import Path

import numpy as np

from nlp_rnn.data import datasets
from nlp_rnn.data.corpus import corpus_with
from nlp_rnn.evaluation.kneser_ney import KneserNey
from nlp_rnn.evaluation.language_model import make_meter
from nlp_rnn.evaluation.mixtures import mixed_rows
from nlp_rnn.evaluation.scored_text import Scored, score_text
from nlp_rnn.ondevice.ngram_model import NGramModel
from nlp_rnn.special_ids import EOS_ID
from nlp_rnn.training.run_directory import load_run
from nlp_rnn.training.trained_models import load_language_model

_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
_MIN_COUNTS = ((1,) * 4, (1, 2, 2), (2, 2, 2), (2, 3, 3), (1, 1), (1, 2), (2, 2), (2, 3), (2,))


def main() -> None:
    """Prints a line for the model alone, and one for each mixture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a next-word run over words")
    parser.add_argument("--tokens", type=int, default=0, help="of the validation split; 0: all (the default)")
    options = parser.parse_args()
    run = load_run(options.run, "next_word")
    corpus = corpus_with(run.config, "validation", also=("train",))
    model, tokenizer = load_language_model(run)
    train, validation = (
        datasets.prepare_stream(corpus, name, run.config.data, tokenizer, is_reversed=False)
        for name in ("train", "validation")
    )
    windows = list(score_text(model, validation, title="scoring", num_tokens=options.tokens))
    print(f"{'least counts':<14}{'share':>7}{'MB':>7}{'perplexity':>12}{'top 1':>9}{'top 3':>9}{'keys saved':>12}")

    def report(name: str, size: float, share: float, rows: list[np.ndarray]) -> None:
        meter = make_meter(tokenizer)
        for (targets, own, _), other in zip(windows, rows, strict=True):
            meter.update(mixed_rows(own, other, share) if share else own, targets)
        scores = meter.result()
        figures = "".join(f"{scores[key]:>9.2%}" for key in ("recall_at_1", "recall_at_3"))
        saved = f"{scores['keystroke_savings']:>12.2%}"
        print(f"{name:<14}{share:>7g}{size:>7.1f}{scores['perplexity']:>12.2f}{figures}{saved}", flush=True)

    report("none", 0, 0, [own for _, own, _ in windows])
    ids = np.fromfile(train.path / "ids.bin", np.int32)
    for min_counts in _MIN_COUNTS:
        counted = KneserNey(ids, vocab_size=model.vocab_size, order=len(min_counts) + 1)
        content = counted.model(min_counts=min_counts).to_bytes()
        rows = _rows(NGramModel.from_bytes(content), windows)
        report(",".join(map(str, min_counts)), len(content) / 1e6, _best_share(windows, rows), rows)


def _rows(ngrams: NGramModel, windows: list[Scored]) -> list[np.ndarray]:
    """Log-probabilities of the n-gram model for each window, float16 to spare memory."""
    ids = np.concatenate([[EOS_ID], *(window.targets for window in windows)])
    rows = np.empty((len(ids) - 1, ngrams.vocab_size), np.float16)
    for place in range(1, len(ids)):
        shares = ngrams.probabilities(ids[max(0, place - ngrams.order + 1) : place])
        rows[place - 1] = np.log(shares / shares.sum())
    return np.split(rows, np.cumsum([len(window.targets) for window in windows])[:-1])


def _best_share(windows: list[Scored], rows: list[np.ndarray]) -> float:
    places = [(np.arange(len(window.targets)), window.targets) for window in windows]
    own = np.concatenate([window.log_probabilities[place] for window, place in zip(windows, places, strict=True)])
    other = np.concatenate([row[place] for row, place in zip(rows, places, strict=True)]).astype(np.float32)
    return max(_SHARES, key=lambda share: float(mixed_rows(own, other, share).mean()))


if __name__ == "__main__":
    main()
