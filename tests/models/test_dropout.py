"""The two rates of dropout, between layers and before the output, in each kind of model."""

import numpy as np
import pytest

from nlp_rnn.config.settings import ModelConfig
from nlp_rnn.layers.recurrent import unwrapped
from nlp_rnn.models.build import build_language_model, build_translator
from nlp_rnn.models.classifier import build_classifier

IDS = np.random.default_rng(0).integers(4, 20, (6, 5), np.int32)
UNITS = 16


def config(**rates):
    return ModelConfig(units=UNITS, embedding_dim=UNITS, num_layers=2, is_bidirectional=False, fast="off", **rates)


def keep_inputs(layer, kept):
    """Appends the first input of each call of a layer to `kept`."""
    usual = layer.call

    def call(inputs, *arguments, **options):
        kept.append(np.array(inputs))
        return usual(inputs, *arguments, **options)

    layer.call = call


def classifier_shares(rates):
    model = build_classifier(config(pooling=("max",), **rates), vocab_size=20, num_classes=2)
    encoder, between, before = model.get_layer("encoder"), [], []
    keep_inputs(encoder.get_layer("lstm_1"), between)
    keep_inputs(encoder.get_layer("logits"), before)
    model(IDS, training=True)
    return between[0], before[0]


def language_model_shares(rates):
    model = build_language_model(config(**rates), vocab_size=20)
    between = []
    keep_inputs(unwrapped(model.recurrent[1]), between)
    hidden, _ = model.run(IDS, model.zero_states(6), training=True)
    return between[0], np.array(hidden)


def translator_shares(rates):
    model = build_translator(config(**rates), vocab_size=20)
    between = []
    keep_inputs(unwrapped(model.forward_layers[1]), between)
    return between, np.array(model((IDS, IDS), training=True))


@pytest.mark.parametrize("shares", [classifier_shares, language_model_shares, translator_shares])
@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({"dropout": 0.5, "output_dropout": 0.0}, (0.5, 0)),
        ({"dropout": 0.0, "output_dropout": 0.5}, (0, 0.5)),
        ({"dropout": 0.5}, (0.5, 0.5)),
    ],
)
def test_each_kind_of_model_has_a_rate_between_layers_and_one_before_the_output(shares, rates, expected):
    between, before = shares(rates)
    between = between[0] if isinstance(between, list) else between
    for values, rate in zip((between, before), expected, strict=True):
        share = float((values == 0).mean())
        assert share == 0 if rate == 0 else 0.2 < share < 0.8
