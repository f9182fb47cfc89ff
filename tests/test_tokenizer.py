import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_rnn.config import ConfigError
from nlp_rnn.tokenizer import EOS_ID, PAD_ID, UNK_ID, Tokenizer, encode, truncate

TEXTS = ["The film was good, very good!", 'He didn\'t say "no".', "well-known (3.5/10)"]


def make(level="word", texts=TEXTS, **options):
    tokenizer = Tokenizer(level, **options)
    tokenizer.adapt(texts, vocab_size=1000)
    return tokenizer


def pieces(text, **options):
    return [piece.decode() for piece in Tokenizer("word", **options).pieces([text]).numpy()[0]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't, it's $1,000!", ["do", "n't", ",", "it", "'s", "$", "1,000", "!"]),
        ("7/10 at 12:30...", ["7/10", "at", "12:30", ".", ".", "."]),
        ("a<br /><BR>b\tc\u00a0d\x00e", ["a", "b", "c", "d", "e"]),
        ("ÜBER Straße ΣΑΣ", ["über", "straße", "σας"]),
        ("日本語 😀 شكرا", ["日", "本", "語", "😀", "شكرا"]),
        ("we’ll 'quote'", ["we", "’ll", "'", "quote", "'"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_words_worked_out_by_hand(text, expected):
    assert pieces(text) == expected


def test_case_is_kept_when_asked():
    assert pieces("Don't SHOUT", lowercase=False) == ["Do", "n't", "SHOUT"]


def test_invalid_utf8_becomes_replacement_characters():
    assert Tokenizer("word").pieces([b"ok \xff\xfe"]).to_list() == [[b"ok", "\ufffd".encode(), "\ufffd".encode()]]


def test_vocabulary_is_by_frequency_then_code_point():
    tokenizer = Tokenizer("word")
    tokenizer.adapt(["b b a a c d d d", "e"], vocab_size=7, min_count=2)
    assert tokenizer.vocabulary == ["d", "a", "b"]
    assert tokenizer.tokenize(["d a b c"]).to_list() == [[4, 5, 6, UNK_ID]]
    assert tokenizer.vocab_size == 7


def test_counting_forgets_rare_pieces_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr("nlp_rnn.tokenizer._MAX_TRACKED_PIECES", 50)
    tokenizer = Tokenizer("word")
    tokenizer.adapt((f"common rare{i}" for i in range(5000)), vocab_size=10)
    assert tokenizer.vocabulary[0] == "common"


def test_call_pads_right():
    tokenizer = make()
    ids = tokenizer(tf.constant(["good", "", "the film was good"])).numpy()
    assert ids.shape == (3, 4)
    assert (ids[0, 1:] == PAD_ID).all()
    assert (ids[1] == PAD_ID).all()
    assert ids.dtype == np.int32


def test_detokenize_spaces_as_english_does():
    tokenizer = make()
    expected = [b"the film was good, very good!", b'he didn\'t say "no".', b"well-known (3.5/10)"]
    assert tokenizer.detokenize(tokenizer.tokenize(TEXTS)).numpy().tolist() == expected
    ids = tf.constant([[2, tokenizer.tokenize(["good"]).numpy()[0][0], UNK_ID, EOS_ID, PAD_ID]])
    assert tokenizer.detokenize(ids).numpy().tolist() == ["good \ufffd".encode()]


def test_ids_out_of_range_are_refused():
    with pytest.raises(tf.errors.InvalidArgumentError, match="less than the vocabulary size"):
        make().detokenize(tf.constant([[1000]]))


def test_unadapted_and_mistaken_tokenizers_say_so():
    with pytest.raises(ValueError, match="call adapt"):
        Tokenizer("word").tokenize(["a"])
    with pytest.raises(ValueError, match="level is 'words'"):
        Tokenizer("words")
    with pytest.raises(ValueError, match="holds 'a' twice"):
        Tokenizer("word", vocabulary=["a", "b", "a"])
    with pytest.raises(ConfigError, match=r"tokenizer\.min_count is 2"):
        Tokenizer("word").adapt(["each once"], vocab_size=10, min_count=2)


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=40))
def test_characters_come_back_exactly(text):
    tokenizer = make("char", [text, "x"], lowercase=False)
    result = tokenizer.detokenize(tokenizer.tokenize([text])).numpy()
    assert result.tolist() == tokenizer.normalize([text]).numpy().tolist()


WORDS = st.sampled_from(["good", "film", "it's", "don't", ",", ".", "(", ")", "!", "3.5", "7/10", "$", "-", "日本", "naïve", "we’ll", "%"])


@settings(deadline=None, max_examples=200)
@given(st.lists(WORDS, max_size=12), st.sampled_from([" ", "", "  "]))
def test_tokenizing_a_detokenized_text_gives_the_same_ids(words, separator):
    tokenizer = make(texts=["good film it's don't , . ( ) ! 3.5 7/10 $ - 日本 naïve we’ll % 3 5 7 10 goodfilm"])
    ids = tokenizer.tokenize([separator.join(words)])
    if UNK_ID not in ids.flat_values.numpy():
        assert tokenizer.tokenize(tokenizer.detokenize(ids)).to_list() == ids.to_list()


@settings(deadline=None, max_examples=100)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=4))
def test_any_text_has_ids_and_neighbours_do_not_matter(texts):
    tokenizer = make()
    together = tokenizer.tokenize(texts).to_list()
    assert together == [tokenizer.tokenize([text]).to_list()[0] for text in texts]


@pytest.mark.parametrize("level", ["word", "char"])
def test_saving_keeps_every_piece(tmp_path, level):
    tokenizer = make(level, ["a\\n b\n\nc\\ é\u2028x \r tab\t end"], lowercase=False)
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.vocabulary, loaded.level, loaded.lowercase) == (tokenizer.vocabulary, level, False)


def test_config_round_trip_and_clone_keep_the_vocabulary():
    tokenizer = make()
    inputs = keras.Input((), dtype="string")
    model = keras.Model(inputs, tokenizer(inputs))
    for copy in (Tokenizer.from_config(tokenizer.get_config()), keras.models.clone_model(model)):
        assert copy(tf.constant(TEXTS)).numpy().tolist() == tokenizer(tf.constant(TEXTS)).numpy().tolist()


def test_keras_file_reloads_in_a_new_process(tmp_path):
    tokenizer = make()
    inputs = keras.Input((), dtype="string")
    keras.Model(inputs, tokenizer(inputs)).save(tmp_path / "m.keras")
    code = f"""
import keras, tensorflow as tf, nlp_rnn.tokenizer
print(keras.models.load_model({str(tmp_path / "m.keras")!r})(tf.constant(["the film was good"])).numpy().tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tokenizer(tf.constant(["the film was good"])).numpy().tolist())


def test_works_inside_tf_data():
    tokenizer = make()
    dataset = tf.data.Dataset.from_tensor_slices(TEXTS).batch(2).map(tokenizer.tokenize)
    assert [row for batch in dataset for row in batch.to_list()] == tokenizer.tokenize(TEXTS).to_list()


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ("start", [[1, 2, 3], [1, 2], []]),
        ("end", [[5, 6, 7], [1, 2], []]),
        ("both", [[1, 2, 7], [1, 2], []]),
    ],
)
def test_truncation_keeps_what_it_says(keep, expected):
    ids = tf.ragged.constant([[1, 2, 3, 4, 5, 6, 7], [1, 2], []], dtype=tf.int32)
    assert truncate(ids, 3, keep).to_list() == expected


def test_a_text_without_tokens_is_one_unknown():
    assert encode(make(), ["", "good film", " "], 5, "both").to_list()[::2] == [[UNK_ID], [UNK_ID]]
