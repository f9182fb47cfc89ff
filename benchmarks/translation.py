"""Claim: translators train and translate faster than JoeyNMT's recurrent model of similar size.

A bidirectional encoder of LSTM(256), a decoder of LSTM(512), attention, tied embeddings of 512; dropout, label
smoothing, Adam. Training steps use the same batches of 64 pairs of similar length; beam search (5) uses the same
sentences up to the same length. The data are Multi30k's if NLP_RNN_DATA has it, else CLDR's. Ours is timed without
input feeding, its default, and with it, JoeyNMT's default.

JoeyNMT needs its own virtual environment:
    python -m venv DIR; DIR/bin/pip install joeynmt==2.3.0 'setuptools<81' importlib_metadata

    python -m benchmarks.translation [--joeynmt DIR/bin/python] [--rounds 5] [--plot FILE]
"""

import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import timing
from nlp_rnn.config.loading import load_config
from nlp_rnn.data import datasets
from nlp_rnn.data.bucketing import Batches, pair_batch, pair_reader, pair_stream
from nlp_rnn.data.corpus import Corpus
from nlp_rnn.decoding.beam_search import Search, beam_search
from nlp_rnn.models.build import build_translator
from nlp_rnn.training.optimizers import build_optimizer

UNITS, BATCH, NUM_BATCHES, DECODED, BEAM, LENGTH = 512, 64, 20, 32, 5, 25


def main() -> None:
    """Measures training and decoding and prints a line for each."""
    parser = timing.parser(__doc__, rounds=5)
    parser.add_argument(
        "--joeynmt",
        metavar="PYTHON",
        help="the interpreter of an environment with JoeyNMT; without it ours alone is timed",
    )
    options = parser.parse_args()
    timing.wait_until_quiet(options.wait)
    data = (
        ["data.source=multi30k"] if os.environ.get("NLP_RNN_DATA") else ["data.source=cldr", "tokenizer.vocab_size=700"]
    )
    settings = [
        "tokenizer.vocab_size=6000",
        "model.cell=lstm",
        f"model.units={UNITS}",
        f"model.embedding_dim={UNITS}",
        *data,
    ]
    config = load_config(None, settings, task="translation")
    batches, sources, vocab_size = read(config)
    num_tokens = sum(int((target != 0).sum()) for _, target in batches)
    rivals = {"train": {}, "decode": {}}  # type: dict[str, dict[str, Callable[[], Any]]]
    for name, feeding in (("ours", False), ("ours, input feeding", True)):
        model = build_translator(
            load_config(None, [*settings, f"model.input_feeding={str(feeding).lower()}"], task="translation").model,
            vocab_size=vocab_size, training=config.training,
        )  # fmt: skip
        print(f"{name}: {model.count_params():,} parameters", flush=True)
        rivals["train"][name], rivals["decode"][name] = training(model, config, batches), decoding(model, sources)
    with tempfile.TemporaryDirectory() as folder:
        child = (
            start(options.joeynmt, Path(folder) / "batches.npz", batches, sources, vocab_size)
            if options.joeynmt
            else None
        )
        if child:
            for what, each in rivals.items():
                each["joeynmt"] = asking(child, what)
        ratios = {}
        for what, unit, count in (("train", "target tokens/s", num_tokens), ("decode", "sentences/s", DECODED)):
            seconds = timing.interleave(rivals[what], options.rounds)
            shown = ", ".join(f"{name} {count / statistics.median(each):,.1f}" for name, each in seconds.items())
            print(f"{what}, {unit}: {shown}", flush=True)
            if child:
                ratios[what] = {name: timing.ratio(seconds, "joeynmt", name) for name in seconds if name != "joeynmt"}
                print(
                    f"{what}, times faster than JoeyNMT: "
                    f"{', '.join(f'{name} {each:.2f}' for name, each in ratios[what].items())}",
                    flush=True,
                )
        if child:
            child.kill()
    if options.plot and ratios:
        timing.plot_ratios(options.plot, "Translation, beside JoeyNMT", ratios)


def read(config: Any) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray, int]:
    """Batches of (source, target) ids, sources to translate, the size of the vocabulary."""
    corpus = Corpus(config.data, 1, is_parallel=True).survey()
    tokenizer = datasets.prepare_tokenizer(corpus, config.data, config.tokenizer)
    cache = datasets.prepare_pairs(corpus, "train", config.data, tokenizer)
    stream = pair_stream(cache, pair_reader(cache, slice(0, config.training.batch_size)), config.training, 1)
    found = []
    for (source, _), target, _ in stream():
        found.append((source, target))
        if len(found) == NUM_BATCHES + 1:
            break
    return found[:NUM_BATCHES], found[NUM_BATCHES][0][:DECODED], tokenizer.vocab_size


def training(model: Any, config: Any, batches: list[tuple[np.ndarray, np.ndarray]]) -> Callable[[], Any]:
    """A step on each batch, as `fit` takes it."""
    model.compile(build_optimizer(config.training, 10_000), jit_compile=False)
    dataset = datasets.make_dataset(Batches(lambda: (pair_batch(*sides) for sides in batches), len(batches)))
    return lambda: model.fit(dataset, verbose=0)


def decoding(model: Any, sources: np.ndarray) -> Callable[[], Any]:
    """Beam search over one batch, in the graph.

    No hypothesis ends early, so all rivals take the same number of steps.
    """

    @tf.function(autograph=False)
    def search(source_ids: tf.Tensor) -> tf.Tensor:
        encoded = model.encode(source_ids)
        repeated = encoded._replace(
            **{name: tf.repeat(getattr(encoded, name), BEAM, axis=0) for name in ("memory", "keys", "mask")}
        )

        def step(ids: tf.Tensor, states: Any) -> Any:
            hidden, after, weights = model.advance(ids, states, repeated)
            return model.head(hidden), after, weights

        rows = tf.shape(source_ids)[0]
        lengths, zeros = tf.fill([rows], LENGTH), tf.zeros([rows])
        wanted = Search(
            tf.constant(BEAM), lengths, lengths, zeros + 1, zeros, tf.constant(0), tf.zeros([rows, 0], tf.int32)
        )
        return beam_search(step, encoded.states, encoded.mask, wanted).ids

    ids = tf.constant(sources)
    return lambda: search(ids).numpy()


def start(
    python: str, path: Path, batches: list[tuple[np.ndarray, np.ndarray]], sources: np.ndarray, vocab_size: int
) -> subprocess.Popen[str]:
    """JoeyNMT's process, ready for commands."""
    settings = {
        "vocab_size": vocab_size, "units": UNITS, "dropout": 0.2, "label_smoothing": 0.1, "num_batches": len(batches),
        "beam_size": BEAM,
        "max_length": LENGTH, "threads": os.cpu_count(), "input_feeding": True,
    }  # fmt: skip
    arrays: dict[str, np.ndarray] = {"settings": np.array(json.dumps(settings)), "source_decode": sources}
    for number, (source, target) in enumerate(batches):
        arrays |= {f"source_{number}": source, f"target_{number}": target}
    np.savez(path, **arrays)  # type: ignore[arg-type]
    script = Path(__file__).with_name("joeynmt_rival.py")
    child = subprocess.Popen([python, str(script), str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    answer = asked(child)
    if not answer.startswith("ready"):
        raise SystemExit(f"--joeynmt is {python}, but JoeyNMT does not run there; see its messages above")
    print(f"JoeyNMT: {int(answer.split()[1]):,} parameters")
    return child


def asked(child: subprocess.Popen[str]) -> str:
    """The next line that JoeyNMT's process says about itself."""
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith(("ready", "done")):
            return line
    return ""


def asking(child: subprocess.Popen[str], command: str) -> Callable[[], Any]:
    """Sends a command and waits until it is done."""

    def ask() -> None:
        assert child.stdin is not None
        child.stdin.write(f"{command}\n")
        child.stdin.flush()
        if not asked(child):
            raise SystemExit("JoeyNMT has stopped; see its messages above")

    return ask


if __name__ == "__main__":
    main()
