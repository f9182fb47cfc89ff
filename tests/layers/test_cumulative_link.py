import keras
import numpy as np
import pytest
from scipy.special import expit

from nlp_rnn.layers.cumulative_link import CumulativeLink


def test_probabilities_are_differences_between_cutpoints():
    layer = CumulativeLink(3)
    layer.build((None, 1))
    layer.first.assign([-1.0])
    layer.gaps.assign([np.log(np.expm1(2.0 - 1e-3))])  # cutpoints -1 and 1
    found = np.exp(layer(np.array([[0.0], [2.0], [-50.0], [50.0]], np.float32)).numpy())
    expected = [
        [expit(-1), expit(1) - expit(-1), expit(-1)],
        [expit(-3), expit(-1) - expit(-3), 1 - expit(-1)],
        [1, 0, 0],
        [0, 0, 1],
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)


def test_logarithms_stay_exact_where_probabilities_vanish():
    layer = CumulativeLink(3)
    layer.build((None, 1))
    layer.first.assign([0.0])
    layer.gaps.assign([np.log(np.expm1(1.0 - 1e-3))])  # cutpoints 0 and 1
    # log(sigmoid(-99) - sigmoid(-100)) = -99 + log(1 - 1 / e), to float32
    assert layer(np.array([[100.0]], np.float32)).numpy()[0, 1] == pytest.approx(-99 + np.log(1 - np.exp(-1)), rel=1e-6)


def test_cutpoints_from_counts_give_their_shares():
    layer = CumulativeLink(4)
    layer.build((None, 1))
    layer.assign_counts(np.array([1000, 3000, 0, 6000]))
    shares = np.exp(layer(np.zeros((1, 1), np.float32)).numpy()[0])
    np.testing.assert_allclose(shares, [0.1, 0.3, 0, 0.6], atol=1e-3)


def test_the_layer_comes_back_from_its_config_and_needs_three_classes():
    layer = CumulativeLink(5, name="scale")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert (copy.num_classes, copy.name) == (5, "scale")
    with pytest.raises(ValueError, match="num_classes is 2, but a scale has three or more"):
        CumulativeLink(2)


def test_in_a_model_of_half_precision_it_computes_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = CumulativeLink(4)
        found = layer(keras.ops.ones((2, 1), "bfloat16"))
    finally:
        keras.config.set_dtype_policy("float32")
    assert found.dtype == "float32"
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-6)
