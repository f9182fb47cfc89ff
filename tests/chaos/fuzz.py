"""Coverage-guided fuzzing of the readers of files, settings and requests: each input is read, or refused clearly.

    python -m tests.chaos.fuzz jsonl -max_total_time=600    # pip install atheris; the options are libFuzzer's

The first argument is one of `TARGETS`. Any exception ends the run, and libFuzzer writes the input into a file, except a
ConfigError of one line (of a config, of one line for each mistake) and a RequestError with a short message.
"""

import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import atheris
import numpy as np

with atheris.instrument_imports(include=["nlp_rnn"]):
    from nlp_rnn.config.loading import load_config
    from nlp_rnn.config.settings import TokenizerConfig
    from nlp_rnn.data.sources import PAIR_SOURCES, SOURCES
    from nlp_rnn.errors import ConfigError
    from nlp_rnn.ondevice.continuous_cache import CacheSettings, ContinuousCache
    from nlp_rnn.ondevice.memory_file import load_memory, save_memory
    from nlp_rnn.ondevice.personal_words import PersonalWords
    from nlp_rnn.printable import message
    from nlp_rnn.serving import json_tensors
    from nlp_rnn.serving.request_errors import RequestError
    from nlp_rnn.serving.signatures import Signature, Tensor
    from nlp_rnn.tokenization import build
    from nlp_rnn.training.word_vectors import read_vectors

_FOLDER = tempfile.TemporaryDirectory()
_PATH = Path(_FOLDER.name) / "file"
_LONGEST = 3000  # characters of a message
_INPUTS = {"flag": Tensor("DT_BOOL", ()), "share": Tensor("DT_FLOAT", (None, 2)), "text": Tensor("DT_STRING", (None,))}
_SIGNATURE = Signature("serving_default", _INPUTS, {}, "tensorflow/serving/predict", defaults={"flag": False})
_TOKENIZERS = [build.untrained_tokenizer(TokenizerConfig(level=level)) for level in ("word", "char", "subword")]


def _config(content: bytes) -> None:
    """A config file, or a setting of the command line."""
    task = ("sentiment", "next_word", "char_generation", "translation")[len(content) % 4]
    if b"=" in content:
        load_config(None, [content.decode("utf-8", "surrogateescape")], task=task)
    else:
        _PATH.with_suffix(".yaml").write_bytes(content)
        load_config(_PATH.with_suffix(".yaml"), task=task)


def _source(name: str) -> Callable[[bytes], None]:
    """A file of a data source."""

    task = "translation" if name in PAIR_SOURCES else "sentiment"
    _PATH.touch()
    config = load_config(None, {"data.source": name, "data.train": str(_PATH)}, task=task)

    def read(content: bytes) -> None:
        _PATH.write_bytes(content)
        for example in (SOURCES | PAIR_SOURCES)[name](config.data)["train"]():
            example.text.encode(), example.label.encode()

    return read


def _vocabulary(content: bytes) -> None:
    """A file of tokenizer.vocabulary."""
    _PATH.write_bytes(content)
    build.read_vocabulary(_PATH, _TOKENIZERS[len(content) % len(_TOKENIZERS)])


def _vectors(content: bytes) -> None:
    """A file of model.vectors."""
    _PATH.write_bytes(content)
    read_vectors(_PATH, ["a", "b", "the"], 2)


def _small_cache() -> ContinuousCache:
    cache = ContinuousCache(CacheSettings(0.1, 0.3), vocab_size=5, features=1)
    cache.add(np.ones(1, np.float32), 3)
    return cache


def _memory(content: bytes) -> None:
    """A memory of the console; what is read can be written."""
    _PATH.write_bytes(content)
    words = PersonalWords(lambda word: word == "the", str.lower)
    cache = _small_cache()
    load_memory(_PATH, words, cache)
    words.learn("the zork zork")
    words.find("z", "the", 3)
    json.dumps([words.to_json(), cache.to_json()])


def _request(content: bytes) -> None:
    """The body of a prediction."""
    request = json_tensors.parse_body(content)
    json_tensors.signature_name(request)
    arrays, is_row_format = json_tensors.parse_predict(request, _SIGNATURE, is_strict=len(content) % 2 == 0)
    json.loads(json_tensors.predict_answer(arrays, is_row_format=is_row_format and len(arrays["share"]) > 0))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "config": _config, "vocabulary": _vocabulary, "vectors": _vectors, "memory": _memory, "request": _request,
} | {name: _source(name) for name in ("csv", "tsv", "jsonl", "text", "tmx")}  # fmt: skip
SEEDS = {
    "config": b"seed: 1\nmodel: {units: 8, pooling: [last, max]}\ntraining:\n  learning_rate: 1e-3\n",
    "vocabulary": b"the\nfilm\na\\nb\n", "vectors": b"2 2\nthe 0.1 -2e-3\na 1 2\n",
    "memory": b'{"format": 1, "words": [{"word": "Zork", "uses": 2, "after": {"the": 1}}], "cache": null}',
    "request": b'{"instances": [{"text": ["a"], "share": [[1.5, 2]], "flag": true}], "signature_name": "x"}',
    "csv": b'text,label\n"a ""b"", c",pos\nd,neg\n', "tsv": b"text\tlabel\na b\tpos\n",
    "jsonl": b'{"text": "a \\u00e9", "label": "pos"}\n{"text": "b", "label": 1}\n', "text": b"__label__pos a b\nc\n",
    "tmx": b'<tmx><tu><tuv xml:lang="en"><seg>a</seg></tuv><tuv xml:lang="de"><seg>b</seg></tuv></tu></tmx>',
}  # fmt: skip


def main() -> None:
    """Fuzzes the target that the first argument names."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        raise SystemExit(f"usage: python -m tests.chaos.fuzz TARGET ...; TARGET is one of {', '.join(TARGETS)}")
    read = TARGETS[sys.argv[1]]
    logging.disable()

    def try_one(content: bytes) -> None:
        try:
            read(content)
        except RequestError as error:  # shows the request over several lines, as TensorFlow Serving does
            if not 0 < len(error.message) <= _LONGEST:
                raise AssertionError(f"not a short message: {error.message!r}") from error
        except ConfigError as error:
            told = message(str(error))
            if len(told) > _LONGEST or (len(told.splitlines()) != 1 and read is not _config):
                raise AssertionError(f"not one clear line: {told!r}") from error

    seeds = _PATH.parent / "seeds"
    seeds.mkdir()
    (seeds / "seed").write_bytes(SEEDS[sys.argv[1]])
    if read is _memory:
        save_memory(seeds / "cache", PersonalWords(lambda _: False, str.lower), _small_cache())
    atheris.Setup([sys.argv[0], *sys.argv[2:], str(seeds)], try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
