"""Answers with a SavedModel in a process that imports nothing but TensorFlow, for `benchmarks.verify_models`.

    python benchmarks/answer_alone.py MODEL QUESTIONS.json ANSWERS.json

QUESTIONS.json holds a list of texts. ANSWERS.json holds `answers`: labels, translations, or for language models the
nats and the number of tokens; and `seconds` to load the model and to answer.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import tensorflow as tf

_BATCH_SIZE = 64


def main() -> None:
    """Answers the questions."""
    model, questions, answers = sys.argv[1:]
    texts = json.loads(Path(questions).read_text(encoding="utf-8"))
    start = time.monotonic()
    loaded = tf.saved_model.load(model)
    loading = time.monotonic() - start
    signatures = loaded.signatures
    if "step" in signatures:
        found: Any = score_as_one_text(signatures, texts)
    elif "begin" in signatures:
        found = score(signatures, texts)
    else:
        found = answer(signatures["serving_default"], texts)
    seconds = {"load": loading, "answer": time.monotonic() - start - loading}
    assert "nlp_rnn" not in sys.modules
    Path(answers).write_text(json.dumps({"answers": found, "seconds": seconds}), encoding="utf-8")


def answer(signature: Any, texts: list[str]) -> list[str]:
    """The label or the translation of each text. Texts of similar length share a batch."""
    found = [""] * len(texts)
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    for first in range(0, len(order), _BATCH_SIZE):
        batch = order[first : first + _BATCH_SIZE]
        outputs = signature(text=tf.constant([texts[number] for number in batch]))
        name = "label" if "label" in outputs else "translation"
        for number, value in zip(batch, outputs[name].numpy(), strict=True):
            found[number] = value.decode("utf-8")
    return found


def score(signatures: Any, texts: list[str]) -> dict[str, float]:
    """The cost of all texts and their ends, each read from its beginning."""
    outputs = signatures["score"](text=tf.constant(texts))
    counts = tf.math.count_nonzero(outputs["tokens"] != "")
    return {"nats": -float(tf.reduce_sum(outputs["log_probabilities"])), "num_tokens": int(counts)}


def score_as_one_text(signatures: Any, texts: list[str]) -> dict[str, float]:
    """The cost of all texts and their ends, read one after the other with the state carried on."""
    step, size = signatures["step"], signatures["step"].structured_input_signature[1]["states"].shape[1]
    end = tf.constant([3])  # an export's id of the end of a text

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32), tf.TensorSpec([1, size], tf.float32)])
    def cost(token_ids: tf.Tensor, states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads each id but the last, given the states before; the sum of log-probabilities of each but the first."""

        def body(time: tf.Tensor, states: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, ...]:
            outputs = step(token_ids=token_ids[time : time + 1], states=states)
            total += outputs["log_probabilities"][0, token_ids[time + 1]]
            return time + 1, tf.ensure_shape(outputs["states"], [1, size]), total

        _, states, total = tf.while_loop(
            lambda time, *_: time < tf.size(token_ids) - 1, body, (0, states, tf.constant(0.0))
        )
        return total, states

    nats, num_tokens, states = 0.0, 0, tf.zeros([1, size])
    for text in texts:
        token_ids = signatures["tokenize"](text=tf.constant([text]))["token_ids"][0]
        total, states = cost(tf.concat([end, token_ids, end], axis=0), states)
        nats -= float(total)
        num_tokens += len(token_ids) + 1
    return {"nats": nats, "num_tokens": num_tokens}


if __name__ == "__main__":
    main()
