import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_rnn.config.loading import load_config
from nlp_rnn.errors import ConfigError
from nlp_rnn.special_ids import EOS_ID, PAD_ID, UNK_ID
from nlp_rnn.tokenization.build import build_tokenizer
from nlp_rnn.tokenization.encoding import encode, truncate
from nlp_rnn.tokenization.sentencepiece_files import BYTE_PIECES
from nlp_rnn.tokenization.tokenizer import Tokenizer

TEXTS = ["The film was good, very good!", 'He didn\'t say "no".', "well-known (3.5/10)"]


def make(level="word", texts=TEXTS, **options):
    tokenizer = Tokenizer(level, **options)
    tokenizer.adapt(texts, vocab_size=1000)
    return tokenizer


def make_subword():
    pieces = ["\u2581the", "\u2581film", "\u2581", "g", "o", "d", "oo", "ood", "was", "."]
    return Tokenizer(
        "subword",
        reserved=["<sep>"],
        vocabulary=[*BYTE_PIECES, *pieces],
        scores=[0.0] * 256 + [-1.0 - n for n in range(10)],
    )


MAKERS = pytest.mark.parametrize("maker", [make, make_subword])


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
    assert pieces("Don't SHOUT", case="keep") == ["Do", "n't", "SHOUT"]


def test_invalid_utf8_becomes_replacement_characters():
    assert Tokenizer("word").pieces([b"ok \xff\xfe"]).to_list() == [[b"ok", "\ufffd".encode(), "\ufffd".encode()]]


def test_vocabulary_is_by_frequency_then_code_point():
    tokenizer = Tokenizer("word")
    tokenizer.adapt(["b b a a c d d d", "e"], vocab_size=7, min_count=2)
    assert tokenizer.vocabulary == ["d", "a", "b"]
    assert tokenizer.tokenize(["d a b c"]).to_list() == [[4, 5, 6, UNK_ID]]
    assert tokenizer.vocab_size == 7


def test_counting_forgets_rare_pieces_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr("nlp_rnn.tokenization.tokenizer._MAX_TRACKED_PIECES", 50)
    tokenizer = Tokenizer("word")
    tokenizer.adapt((f"common rare{i}" for i in range(5000)), vocab_size=10_000)
    assert tokenizer.vocabulary[0] == "common"
    assert len(tokenizer.vocabulary) < 2000  # of 5,001: those since it forgot the last time


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


@settings(max_examples=60)
@given(st.text(max_size=40))
def test_characters_come_back_exactly(text):
    tokenizer = make("char", [text, "x"], case="keep")
    result = tokenizer.detokenize(tokenizer.tokenize([text])).numpy()
    assert result.tolist() == tokenizer.normalize([text]).numpy().tolist()


WORDS = st.sampled_from(
    ["good", "film", "it's", "don't", ",", ".", "(", ")", "!", "3.5", "7/10", "$", "-", "日本", "naïve", "we’ll", "%"]
)


@pytest.fixture(scope="module")
def made():
    return make(texts=["good film it's don't , . ( ) ! 3.5 7/10 $ - 日本 naïve we’ll % 3 5 7 10 goodfilm"])


@settings(max_examples=200)
@given(words=st.lists(WORDS, max_size=12), separator=st.sampled_from([" ", "", "  "]))
def test_tokenizing_a_detokenized_text_gives_the_same_ids(made, words, separator):
    ids = made.tokenize([separator.join(words)])
    if UNK_ID not in ids.flat_values.numpy():
        assert made.tokenize(made.detokenize(ids)).to_list() == ids.to_list()


@settings(max_examples=100)
@given(texts=st.lists(st.text(max_size=30), min_size=1, max_size=4))
def test_any_text_has_ids_and_neighbours_do_not_matter(made, texts):
    together = made.tokenize(texts).to_list()
    assert together == [made.tokenize([text]).to_list()[0] for text in texts]


def test_saving_keeps_subwords_and_scores(tmp_path):
    tokenizer = make_subword()
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.vocabulary, loaded.scores, loaded.settings()) == (
        tokenizer.vocabulary,
        tokenizer.scores,
        tokenizer.settings(),
    )
    assert loaded.vocab_size == len(loaded.vocabulary_text().splitlines()) == 4 + 1 + 256 + 10


@pytest.mark.parametrize("level", ["word", "char"])
def test_saving_keeps_every_piece(tmp_path, level):
    tokenizer = make(level, ["a\\n b\n\nc\\ é\u2028x \r tab\t end\0"], case="keep")
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.vocabulary, loaded.settings()) == (tokenizer.vocabulary, tokenizer.settings())


@MAKERS
def test_config_round_trip_and_clone_keep_the_vocabulary(maker):
    tokenizer = maker()
    inputs = keras.Input((), dtype="string")
    model = keras.Model(inputs, tokenizer(inputs))
    for copy in (Tokenizer.from_config(tokenizer.get_config()), keras.models.clone_model(model)):
        assert copy(tf.constant(TEXTS)).numpy().tolist() == tokenizer(tf.constant(TEXTS)).numpy().tolist()


def test_keras_files_reload_in_a_new_process(tmp_path):
    expected = []
    for maker in (make, make_subword):
        tokenizer = maker()
        inputs = keras.Input((), dtype="string")
        keras.Model(inputs, tokenizer(inputs)).save(tmp_path / f"{maker.__name__}.keras")
        expected.append(str(tokenizer(tf.constant(["the film was good"])).numpy().tolist()))
    code = """
import sys, keras, tensorflow as tf, nlp_rnn.tokenization.tokenizer
for path in sys.argv[1:]:
    print(keras.models.load_model(path)(tf.constant(["the film was good"])).numpy().tolist())
"""
    command = [sys.executable, "-c", code, tmp_path / "make.keras", tmp_path / "make_subword.keras"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == expected


@MAKERS
def test_works_inside_tf_data(maker):
    tokenizer = maker()
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


# --- case, buckets, reserved symbols, vocabularies of users -----------------------------------------------------------


def test_case_markers_give_case_back():
    tokenizer = make(texts=["the USA'S and new york's McDonald"], case="markers")
    text = "The USA, New York's ÉCOLE and McDonald"
    assert [piece.decode() for piece in tokenizer.pieces([text]).to_list()[0]] == (
        [
            "<title>",
            "the",
            "<upper>",
            "usa",
            ",",
            "<title>",
            "new",
            "<title>",
            "york",
            "'s",
            "<upper>",
            "école",
            "and",
            "mcdonald",
        ]
    )
    known = "The USA'S and New York's mcdonald"
    ids = tokenizer.tokenize([known, ""])
    assert ids.to_list()[0][:3] == [4, tokenizer.vocabulary.index("the") + 6, 5]
    assert tokenizer.detokenize(ids).numpy().tolist() == [known.encode(), b""]
    assert "<title>" not in tokenizer.vocabulary


def test_unknown_words_share_buckets_by_their_hash():
    tokenizer = make(oov_buckets=3)
    ids = tokenizer.tokenize(["zebra good yak zebra", "gnu"]).to_list()
    first = tokenizer.vocab_size - 3
    assert ids[0][0] == ids[0][3] >= first
    assert ids[0][1] == 4 + tokenizer.vocabulary.index("good")
    assert all(first <= number < tokenizer.vocab_size for number in (ids[0][0], ids[0][2], ids[1][0]))
    assert tokenizer.detokenize([[ids[0][0], ids[0][1]]]).numpy()[0].decode() == "\ufffd good"


def test_subwords_are_trained_on_the_parts_between_reserved_symbols():
    tokenizer = Tokenizer("subword", reserved=["-"])
    tokenizer.adapt(["well-known ill-known"] * 50 + ["abcdefgh"], vocab_size=280)
    assert tokenizer.pieces(["well-known"]).to_list()[0][-2:] == [b"-", b"known"]


@pytest.mark.parametrize("level", ["word", "char"])
def test_reserved_symbols_are_never_split(level):
    tokenizer = make(level, reserved=["<sep>", "[x\\1]"])
    texts = ["good<sep>film [x\\1]", "<SEP>"]
    ids = tokenizer.tokenize(texts).to_list()
    assert (ids[0].count(4), ids[0].count(5), ids[1].count(4)) == (1, 1, 1)
    assert b"<sep>" in tokenizer.pieces(texts).to_list()[0]
    assert tokenizer.detokenize([[4, 5]]).numpy()[0] == (b"<sep> [x\\1]" if level == "word" else b"<sep>[x\\1]")
    assert tokenizer.normalize(["A<sep>\U0010f800"]).numpy()[0].decode().replace(" ", "") == "a<sep>\ufffd"


@pytest.mark.parametrize(
    ("options", "texts", "symbol_count"),
    [
        ({"reserved": ["url"]}, ["a URL and a url"], 2),
        ({"reserved": ["URL"]}, ["a URL and a url"], 2),
        ({"reserved": ["url"], "case": "markers"}, ["a URL and Url or url"], 3),
        ({"reserved": ["fi"], "nfkc": True}, ["a ﬁ and fi"], 2),
        ({"reserved": ["x"], "level": "char"}, ["aXbx"], 2),
        ({"reserved": ["``"], "splitter": "treebank"}, ['"Hi" there'], 1),
        ({"reserved": ["<a>b"], "case": "keep"}, ["x <a>b <a>"], 1),
    ],
)
def test_symbols_that_normalising_or_splitting_gives_are_found(options, texts, symbol_count):
    """They were counted as words too, and stood twice in the vocabulary."""
    tokenizer = make(options.pop("level", "word"), texts, **options)
    first = 6 if tokenizer.case == "markers" else 4
    assert tokenizer.tokenize(texts).to_list()[0].count(first) == symbol_count


def test_of_overlapping_symbols_the_longer_one_is_found():
    for reserved in (["<a>", "<a>b"], ["<a>b", "<a>"]):
        tokenizer = make(texts=["x b"], reserved=reserved)
        ids = tokenizer.tokenize(["x <a>b <a>"]).to_list()[0]
        assert ids == [7, 4 + reserved.index("<a>b"), 4 + reserved.index("<a>")]


def test_treebank_text_keeps_what_treebank_does_not_take_apart():
    text = "a - b costs £ 5 … or so"
    tokenizer = make(texts=[text], splitter="treebank")
    assert tokenizer.detokenize(tokenizer.tokenize([text])).numpy()[0].decode() == text


def test_treebank_words_are_an_option():
    tokenizer = make(texts=['He said: "I can\'t."'], splitter="treebank", case="keep")
    assert tokenizer.pieces(['He said: "I can\'t."']).to_list()[0] == [
        b"He",
        b"said",
        b":",
        b"``",
        b"I",
        b"ca",
        b"n't",
        b".",
        b"''",
    ]
    assert tokenizer.detokenize(tokenizer.tokenize(['He said: "I can\'t."'])).numpy()[0] == b'He said: "I can\'t."'


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"case": "upper"}, "case is 'upper'"),
        ({"splitter": "spaces"}, "splitter is 'spaces'"),
        ({"level": "char", "oov_buckets": 2}, "for words, but level is 'char'"),
        ({"level": "subword", "case": "markers"}, "for words, but level is 'subword'"),
        ({"reserved": ["a b"]}, "reserved symbol 'a b'"),
        ({"reserved": ["<pad>"]}, "reserved symbol '<pad>'"),
        ({"reserved": ["<a>", "<a>"]}, "reserved symbol '<a>'"),
        ({"reserved": ["<PAD>"]}, "reserved symbol '<PAD>' is '<pad>' when normalised"),
        ({"reserved": ["<a>", "<A>"]}, "reserved symbol '<a>' is '<a>' when normalised"),
        ({"reserved": ["\U0010f800"]}, "reserved symbol"),
        ({"vocabulary": ["a"], "scores": [-1.0]}, "scores must be given"),
        ({"level": "subword", "vocabulary": ["a"]}, "scores must be given"),
    ],
)
def test_mistaken_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer(**options)


def vocabulary_error(path, data, *settings):
    path.write_bytes(data)
    config = load_config(None, [f"tokenizer.vocabulary={path}", *settings]).tokenizer
    with pytest.raises(ConfigError) as caught:
        build_tokenizer(config, [])
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"tokenizer.vocabulary is {path}, ")


def test_a_users_vocabulary_is_read_and_its_mistakes_are_one_line_each(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("good\nfilm\n", encoding="utf-8")
    tokenizer = build_tokenizer(load_config(None, [f"tokenizer.vocabulary={path}"]).tokenizer, [])
    assert tokenizer.tokenize(["Film good bad"]).to_list() == [[5, 4, UNK_ID]]
    assert vocabulary_error(path, b"a\nb\na\n") == "whose line 3 repeats 'a' of line 1; correct or remove that line"
    assert (
        vocabulary_error(path, b"a\n<unk>\n")
        == "whose line 2 holds '<unk>', which every vocabulary has; correct or remove that line"
    )
    assert vocabulary_error(path, b"a\n\n") == "whose line 2 is empty; correct or remove that line"
    assert vocabulary_error(path, b"") == "which is empty; give a piece a line"
    assert (
        vocabulary_error(path, b"ab\n", "tokenizer.level=char")
        == "whose line 1 is 'ab', but tokenizer.level is char; correct or remove that line"
    )
    assert vocabulary_error(path, b"good\nFilm\n").startswith(
        "which holds capitals, such as 'Film', but tokenizer.case is lower"
    )
    assert "of a range that the tokenizer uses itself" in vocabulary_error(path, "\U0010f800\n".encode())
    assert "line 1, byte 0: not UTF-8" in vocabulary_error(path, b"\xe9\n")
    path.unlink()
    with pytest.raises(ConfigError, match="there is no such file"):
        build_tokenizer(load_config(None, [f"tokenizer.vocabulary={path}"]).tokenizer, [])


def test_ids_out_of_range_are_refused_at_every_level():
    for tokenizer in (make(oov_buckets=2), make("char")):
        for token_id in (-1, tokenizer.vocab_size):
            with pytest.raises(tf.errors.InvalidArgumentError, match="token ids must"):
                tokenizer.detokenize(tf.constant([[token_id]]))


@pytest.mark.parametrize(("keep", "expected"), [("start", [4]), ("end", [6]), ("both", [4])])
def test_a_text_may_be_one_token(keep, expected):
    tokenizer = make(texts=["a a a b b c"])
    assert encode(tokenizer, ["a b c"], 1, keep).to_list() == [expected]
