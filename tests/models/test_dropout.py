"""The two rates of dropout, between layers and before the output, in each kind of model."""

import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.config.settings import ModelConfig
from nlp_rnn.layers.recurrent import unwrapped
from nlp_rnn.models import translator
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
    encoder, decoder = [], []
    keep_inputs(unwrapped(model.forward_layers[1]), encoder)
    keep_inputs(unwrapped(model.decoder_layers[1]), decoder)
    before = np.array(model((IDS, IDS), training=True))
    words = decoder[0][..., :UNITS]  # followed by the context, of which `memory` was dropped
    return np.stack([encoder[0], words]), before


def stepwise_shares(rates, monkeypatch):
    """Of a decoder that computes step by step: the inputs of its second layer, all steps."""
    model, usual, kept = build_translator(config(input_feeding=True, **rates), vocab_size=20), translator.run_cell, []

    def run_cell(layer, inputs, states):
        if layer is model.decoder_layers[1]:
            kept.append(np.array(inputs[:, :UNITS]))
        return usual(layer, inputs, states)

    monkeypatch.setattr(translator, "run_cell", run_cell)
    monkeypatch.setattr(translator.keras.ops, "scan", scan)
    before = np.array(model((IDS, IDS), training=True))
    return np.stack(kept), before


def scan(step, carried, inputs):
    """keras.ops.scan as a loop whose steps can be looked at."""
    found = []
    for row in inputs:
        carried, output = step(carried, row)
        found.append(output)
    return carried, tf.nest.map_structure(lambda *each: tf.stack(each), *found)


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
    sides = between if between.ndim == 4 else between[None]  # a translator has two
    for values, rate in [*((side, expected[0]) for side in sides), (before, expected[1])]:
        share = float((values == 0).mean())
        assert share == 0 if rate == 0 else 0.2 < share < 0.8


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_a_decoder_with_input_feeding_drops_the_same_units_at_all_steps(monkeypatch, rate):
    steps, before = stepwise_shares({"dropout": rate, "output_dropout": 0.0}, monkeypatch)
    assert len(steps) == IDS.shape[1]
    dropped = steps == 0
    assert (dropped == dropped[0]).all()
    assert dropped.mean() == 0 if rate == 0 else 0.2 < dropped.mean() < 0.8
    assert not (before == 0).any()
