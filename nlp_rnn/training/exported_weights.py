"""The weights of exported models, for trainings that begin with them. Integers are expanded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from nlp_rnn import files
from nlp_rnn.config.settings import Config
from nlp_rnn.layers.rounding import from_int4
from nlp_rnn.models.build import build_language_model, build_translator
from nlp_rnn.models.classifier import build_classifier
from nlp_rnn.models.unique import unique
from nlp_rnn.tokenization.build import tokenizer_of
from nlp_rnn.training.checkpoints import checkpoint_arrays


def load_exported(version: Path, config: Config) -> dict[str, np.ndarray]:
    """Reads the weights of an export as `checkpoints.load_arrays` reads those of a run.

    Args:
      version: the folder with saved_model.pb.
      config: the model's.

    Raises:
      LookupError: if the export does not hold the weights of one model; its text follows the model's name.
    """
    model = _build(version, config)
    reader = tf.train.load_checkpoint(str(version / "variables" / "variables"))
    weights = unique(model.weights)
    values = list(_values(reader))
    if [each.shape for each in values] != [tuple(weight.shape) for weight in weights]:
        raise LookupError("whose export does not hold the layers of one model")
    for weight, value in zip(weights, values, strict=True):
        weight.assign(value)
    return checkpoint_arrays(getattr(model, "kept_weights", model.weights))


def _build(version: Path, config: Config) -> Any:
    vocab_size = tokenizer_of(version).vocab_size
    if config.kind == "classifier":
        labels = files.read_json(version / "assets.extra" / "labels.json", list, "export it again")
        return build_classifier(
            config.model, vocab_size=vocab_size, num_classes=len(labels), outputs=config.data.outputs
        )
    build = build_language_model if config.kind == "language_model" else build_translator
    return build(config.model, vocab_size=vocab_size)


def _values(reader: Any) -> Iterator[np.ndarray]:
    """The weights in the order of the model's, as `export.saved_model` or `export.compact_weights` wrote them."""
    nodes = TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")).nodes

    def children(node: Any) -> dict[str, Any]:
        return {child.local_name: nodes[child.node_id] for child in node.children}

    def value(node: Any) -> np.ndarray:
        values: np.ndarray = reader.get_tensor(node.attributes[0].checkpoint_key)
        return values

    root = children(nodes[0])
    if "compact_weights" in root:
        kept = children(children(root["compact_weights"])["_kept"])
        for number in range(len(kept)):
            parts = children(kept[str(number)])
            values = value(parts["_values"])
            if "_scales" in parts and values.dtype == np.uint8:
                values = np.array(from_int4(values, value(parts["_scales"])))
            elif "_scales" in parts:
                values = values * value(parts["_scales"])
            yield values
    elif "ordered_weights" in root:
        ordered = children(root["ordered_weights"])
        for number in range(len(ordered)):
            yield value(ordered[str(number)])
