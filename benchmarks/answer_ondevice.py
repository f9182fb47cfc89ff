"""Answers with a LiteRT export in a process without TensorFlow, for `benchmarks.verify_models`.

    python -m benchmarks.answer_ondevice MODEL QUESTIONS.json ANSWERS.json

The files are those of `answer_alone`. The model is the int8 file, with LiteRT's runtime and `nlp_rnn.ondevice`.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from nlp_rnn.ondevice import litert_file
from nlp_rnn.ondevice.classifier import OnDeviceClassifier
from nlp_rnn.ondevice.generator import OnDeviceGenerator
from nlp_rnn.ondevice.litert_model import OnDeviceModel
from nlp_rnn.special_ids import EOS_ID


def main() -> None:
    """Answers the questions."""
    folder, questions, answers = map(Path, sys.argv[1:])
    texts = json.loads(questions.read_text(encoding="utf-8"))
    start = time.monotonic()
    model_class, answer = _ANSWER[litert_file.kind_of(litert_file.read_settings(folder))]
    model = model_class(folder)
    loading = time.monotonic() - start
    found = answer(model, texts)
    seconds = {"load": loading, "answer": time.monotonic() - start - loading}
    assert "tensorflow" not in sys.modules
    answers.write_text(json.dumps({"answers": found, "seconds": seconds}), encoding="utf-8")


def labels(model: OnDeviceClassifier, texts: list[str]) -> list[str]:
    """The label of each text."""
    found = model.answer("classify", [text.encode() for text in texts])
    return [label.decode("utf-8") for label in found["label"]]


def cost(model: OnDeviceModel | OnDeviceGenerator, texts: list[str]) -> dict[str, float]:
    """The cost of all texts and their ends, read one after the other with the state carried on."""
    nats, num_tokens, output = 0.0, 0, model.step(EOS_ID, model.zero_states())
    for text in texts:
        for token_id in [*model.ids(model.split(text)), EOS_ID]:
            nats -= float(output.log_probabilities[token_id])
            num_tokens += 1
            output = model.step(token_id, output.states)
    return {"nats": nats, "num_tokens": num_tokens}


_ANSWER: dict[str, Any] = {
    "labels": (OnDeviceClassifier, labels),
    "characters": (OnDeviceGenerator, cost),
    "words": (OnDeviceModel, cost),
}

if __name__ == "__main__":
    main()
