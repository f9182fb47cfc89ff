"""Claim: characters are generated faster than with the usual loops.

A model of 65 characters with two LSTM(512), embeddings of 256 and random weights generates 200 characters at
temperature 1, for one text and for 64 at once. Rivals: `model.predict` per character (timed for a few characters), the
single step as a tf.function as in TensorFlow's text generation tutorial, ours (the exported model's loop in the graph),
a loop over numpy, and one over PyTorch's LSTMCells if it is installed.

    python -m benchmarks.generation [--rounds 5] [--plot FILE]
"""

import importlib.util
import statistics
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks import timing
from nlp_rnn.config.loading import load_config
from nlp_rnn.export.generation import GenerationModule
from nlp_rnn.models.build import build_language_model
from nlp_rnn.models.language_model import LanguageModel
from nlp_rnn.tokenization.tokenizer import Tokenizer

CHARACTERS = [chr(number) for number in range(33, 98)]
UNITS, EMBEDDING, LENGTH = 512, 256, 200
FEW = 10  # characters that model.predict is timed with


def main() -> None:
    """Measures both batch sizes and prints a line for each."""
    options = timing.parser(__doc__, rounds=5).parse_args()
    timing.wait_until_quiet(options.wait)
    settings = [f"model.units={UNITS}", f"model.embedding_dim={EMBEDDING}", "model.num_layers=2"]
    config = load_config(None, settings, task="char_generation")
    tokenizer = Tokenizer("char", case="keep", vocabulary=CHARACTERS)
    model = build_language_model(config.model, vocab_size=tokenizer.vocab_size)
    module = GenerationModule(model, tokenizer, config)
    ratios = {}
    for rows in (1, 64):
        rivals = {
            "tutorial's step": tutorial(model, rows),
            "predict": predict(model, rows),
            "ours": ours(module, rows),
            "numpy": numpy_loop(model, rows),
        }
        if importlib.util.find_spec("torch"):
            rivals["torch cells"] = torch_loop(model, rows)
        seconds = timing.interleave(rivals, options.rounds, lead_in=True)
        seconds["predict"] = [each * LENGTH / FEW for each in seconds["predict"]]
        title = f"{rows} text{'s' if rows > 1 else ''}"
        ratios[title] = {
            name: timing.ratio(seconds, "tutorial's step", name)
            for name in rivals
            if name not in ("tutorial's step", "predict")
        }
        rates = {name: rows * LENGTH / statistics.median(seconds[name]) for name in rivals}
        shown = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
        print(f"{title}, characters/s: {shown}", flush=True)
        over = ", ".join(f"{name} {timing.ratio(seconds, name, 'ours'):.2f}" for name in rivals if name != "ours")
        print(f"{title}, ours is so many times faster than: {over}", flush=True)
    if options.plot:
        timing.plot_ratios(options.plot, "Characters a second, beside the tutorial's step", ratios)


def ours(module: GenerationModule, rows: int) -> Callable[[], Any]:
    """The signature `generate`."""
    integers = {"min_length": LENGTH, "max_length": LENGTH, "top_k": 0, "seed": 1}
    numbers = {"temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0}
    arguments = {name: tf.fill([rows], value) for name, value in (integers | numbers).items()}
    prompt, stop = tf.fill([rows], "A"), tf.zeros([rows, 0], tf.string)
    return lambda: module.generate(prompt=prompt, stop=stop, **arguments)["text"].numpy()


def stock(model: LanguageModel) -> tuple[keras.Model, int]:
    """The same network of Keras's own layers: ids and states in, logits and states out."""
    layers = [keras.layers.LSTM(UNITS, return_state=True, return_sequences=True) for _ in range(2)]
    ids = keras.Input((1,), dtype="int32")
    states = [[keras.Input((UNITS,)) for _ in range(2)] for _ in layers]
    vectors, after = keras.layers.Embedding(model.vocab_size, EMBEDDING)(ids), []
    for layer, given in zip(layers, states, strict=True):
        vectors, *found = layer(vectors, initial_state=given)
        after.append(found)
    return keras.Model([ids, states], [keras.layers.Dense(model.vocab_size)(vectors), after]), model.vocab_size


def tutorial(model: LanguageModel, rows: int) -> Callable[[], Any]:
    """The step of tensorflow.org/text/tutorials/text_generation: one tf.function call per character."""
    network, vocab_size = stock(model)
    mask = tf.one_hot([0, 1, 2], vocab_size, -np.inf, 0.0)
    mask = tf.reduce_min(mask, axis=0)

    @tf.function
    def step(ids: tf.Tensor, states: Any) -> tuple[tf.Tensor, Any]:
        logits, states = network([ids[:, None], states])
        return tf.random.categorical(logits[:, -1] + mask, 1, dtype=tf.int32)[:, 0], states

    def run() -> Any:
        ids, states = tf.fill([rows], 5), [[tf.zeros([rows, UNITS])] * 2] * 2
        found = []
        for _ in range(LENGTH):
            ids, states = step(ids, states)
            found.append(ids)
        return tf.stack(found).numpy()

    return run


def predict(model: LanguageModel, rows: int) -> Callable[[], Any]:
    """`model.predict`, a character a call."""
    network, vocab_size = stock(model)
    generator = np.random.default_rng(0)

    def run() -> Any:
        ids, states = np.full((rows, 1), 5), [[np.zeros((rows, UNITS), np.float32)] * 2] * 2
        for _ in range(FEW):
            logits, states = network.predict([ids, states], verbose=0, batch_size=rows)
            ids = (logits[:, -1] + generator.gumbel(size=(rows, vocab_size))).argmax(axis=1)[:, None]
        return ids

    return run


def numpy_loop(model: LanguageModel, rows: int) -> Callable[[], Any]:
    """A plain loop, its first product a table and its states side by side, as ours."""
    (first, second), table = model.recurrent, np.array(model.embedding.embeddings)
    table = table @ np.array(first.cell.kernel) + np.array(first.cell.bias)
    inner = np.array(first.cell.recurrent_kernel)
    outer, bias = np.concatenate([second.cell.kernel, second.cell.recurrent_kernel]), np.array(second.cell.bias)
    head, head_bias = np.ascontiguousarray(np.transpose(model.head.kernel)), np.array(model.head.bias)
    generator = np.random.default_rng(0)

    def cell(z: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gates = 0.5 * np.tanh(0.5 * z) + 0.5
        c = gates[:, UNITS : 2 * UNITS] * c + gates[:, :UNITS] * np.tanh(z[:, 2 * UNITS : 3 * UNITS])
        return gates[:, 3 * UNITS :] * np.tanh(c), c

    def run() -> Any:
        ids = np.full(rows, 5)
        h0, c0, h1, c1 = (np.zeros((rows, UNITS), np.float32) for _ in range(4))
        for _ in range(LENGTH):
            h0, c0 = cell(table[ids] + h0 @ inner, c0)
            h1, c1 = cell(np.concatenate([h0, h1], axis=1) @ outer + bias, c1)
            noise = -np.log(-np.log(generator.random((rows, head.shape[1]), np.float32) + 1e-9))
            ids = (h1 @ head + head_bias + noise)[:, 3:].argmax(axis=1) + 3
        return ids

    return run


def torch_loop(model: LanguageModel, rows: int) -> Callable[[], Any]:
    """LSTMCells under inference_mode."""
    import torch

    embedding = torch.nn.Embedding(model.vocab_size, EMBEDDING)
    first, second = torch.nn.LSTMCell(EMBEDDING, UNITS), torch.nn.LSTMCell(UNITS, UNITS)
    head = torch.nn.Linear(UNITS, model.vocab_size)

    @torch.inference_mode()
    def run() -> Any:
        ids, before, after = torch.full((rows,), 5), None, None
        for _ in range(LENGTH):
            before = first(embedding(ids), before)
            after = second(before[0], after)
            logits = head(after[0])
            logits[:, :3] = -torch.inf
            ids = torch.multinomial(torch.softmax(logits, dim=1), 1)[:, 0]
        return ids.numpy()

    return run


if __name__ == "__main__":
    main()
