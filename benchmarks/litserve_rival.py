"""LitServe with a SavedModel, for benchmarks/serving.py. A module of its own, since LitServe pickles the class."""

import os
import sys
from typing import Any

import litserve


class Api(litserve.LitAPI):
    """Classifies texts; the SavedModel's folder is in the environment variable MODEL."""

    def setup(self, device: str) -> None:
        import tensorflow as tf

        self.tf = tf
        self.classify = tf.saved_model.load(os.environ["MODEL"]).signatures["serving_default"]

    def decode_request(self, request: dict[str, list[str]]) -> str:
        return request["instances"][0]

    def predict(self, texts: list[str]) -> list[Any]:
        outputs = self.classify(text=self.tf.constant(texts))
        labels = [each.decode() for each in outputs["label"].numpy()]
        return list(zip(outputs["probability"].numpy().tolist(), labels, strict=True))

    def encode_response(self, output: tuple[float, str]) -> dict[str, Any]:
        return {"probability": output[0], "label": output[1]}


if __name__ == "__main__":
    api = Api(max_batch_size=64, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(port=int(sys.argv[1]), generate_client_file=False, log_level="error", access_log=False)
