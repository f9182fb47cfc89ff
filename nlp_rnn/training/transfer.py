"""Initializes a model with the weights of a trained language model (model.init_from)."""

import logging
from typing import Any

import numpy as np

from nlp_rnn.config.settings import Config
from nlp_rnn.models.unique import unique
from nlp_rnn.training.origin import find_origin

logger = logging.getLogger(__name__)


def initialize(model: Any, config: Config) -> None:
    """Assigns the embedding, recurrent layers and norms of the model in model.init_from to a built model.

    Layers without a counterpart of the same shape keep their random weights; one log line names them.
    `origin.check_origins` must have checked that the two models fit.
    """
    source = find_origin("model.init_from", config.model.init_from)
    arrays = {name.partition(":")[2]: values for name, values in source.load().items()}
    taken, left = [], []
    for name, layer in _counterparts(model, config):
        weights = {weight.path.rsplit("/", 1)[-1]: weight for weight in layer.trainable_weights}
        initial = {key: weight_of(arrays, name, key) for key in weights}
        if all(values is not None and values.shape == tuple(weights[key].shape) for key, values in initial.items()):
            for key, values in initial.items():
                weights[key].assign(values)
            taken.append(layer.name)
        else:
            left.append(layer.name)
    random = f"; random, since it has no such weights: {', '.join(left)}" if left else ""
    logger.info("model.init_from %s: took %s%s", source.path, ", ".join(taken), random)


def _counterparts(model: Any, config: Config) -> list[tuple[str, Any]]:
    """Pairs (name of a layer in the language model, layer that takes its weights)."""
    settings, numbers = config.model, range(config.model.num_layers)
    if config.kind == "classifier":
        from nlp_rnn.models.classifier import encoder_layers

        layers = {layer.name.removesuffix("_weight_drop"): layer for layer in encoder_layers(model)}
        names = [f"{settings.cell}_{number}" for number in numbers] + [f"layer_norm_{number}" for number in numbers]
        return [
            ("embedding", model.get_layer("embedding")),
            *((name, layers[name]) for name in names if name in layers),
        ]
    if config.kind == "translator":
        embeddings = unique([model.embedding, model.target_embedding])
        sides = [*zip(numbers, model.forward_layers, strict=True), *zip(numbers, model.decoder_layers, strict=True)]
        return [
            *(("embedding", layer) for layer in embeddings),
            *((f"{settings.cell}_{number}", layer) for number, layer in sides),
        ]
    recurrent = [(f"{settings.cell}_{number}", layer) for number, layer in enumerate(model.recurrent)]
    norms = [(f"layer_norm_{number}", layer) for number, layer in enumerate(model.norms) if layer is not None]
    return [("embedding", model.embedding), *recurrent, *norms, ("softmax", model.head)]


def weight_of(arrays: dict[str, np.ndarray], layer: str, name: str) -> np.ndarray | None:
    """The values of a layer's weight. The paths in a checkpoint also contain wrapper and cell."""
    values_found = [
        values for path, values in arrays.items() if layer in path.split("/")[:-1] and path.rsplit("/", 1)[-1] == name
    ]
    return values_found[0] if len(values_found) == 1 else None
