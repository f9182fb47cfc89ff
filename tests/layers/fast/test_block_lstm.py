import keras
import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.layers.fast.block_lstm import MAX_ROWS
from nlp_rnn.layers.fast.recurrent import FastLSTM

UNITS, FEATURES, TIME = 5, 3, 7


def pair(*, go_backwards: bool) -> tuple[keras.layers.Layer, keras.layers.Layer]:
    """Keras's layer and ours as an export uses it, with equal weights."""
    options = {"return_sequences": True, "return_state": True, "go_backwards": go_backwards}
    stock, ours = keras.layers.LSTM(UNITS, use_cudnn=False, **options), FastLSTM(UNITS, **options)
    for layer in (stock, ours):
        layer.build((None, None, FEATURES))
    generator = np.random.default_rng(0)
    stock.set_weights([generator.normal(size=weight.shape) for weight in stock.get_weights()])
    ours.set_weights(stock.get_weights())
    ours.is_portable = True
    return stock, ours


@pytest.mark.parametrize("rows", [1, MAX_ROWS, MAX_ROWS + 1])
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.parametrize("is_static", [False, True], ids=["any rows", "known rows"])
def test_exported_layers_equal_kerass(*, rows: int, go_backwards: bool, is_padded: bool, is_static: bool) -> None:
    stock, ours = pair(go_backwards=go_backwards)
    generator = np.random.default_rng(rows)
    sequences = generator.normal(size=(rows, TIME, FEATURES)).astype(np.float32)
    states = [generator.normal(size=(rows, UNITS)).astype(np.float32) for _ in range(2)]
    lengths = np.resize([TIME, 1, 4, 0], rows)
    mask = np.arange(TIME) < lengths[:, None] if is_padded else None
    batch = rows if is_static else None

    @tf.function(
        input_signature=[
            tf.TensorSpec([batch, None, FEATURES]),
            tf.TensorSpec([batch, None], tf.bool),
            [tf.TensorSpec([batch, UNITS])] * 2,
        ]
    )
    def run(sequences: tf.Tensor, mask: tf.Tensor, states: list[tf.Tensor]) -> list[tf.Tensor]:
        return ours(sequences, initial_state=states, mask=mask if is_padded else None)

    whole = np.ones((rows, TIME), bool) if mask is None else mask
    graph = run.get_concrete_function().graph
    ops = {node.type for each in [graph, *graph._functions.values()] for node in _nodes(each)}
    assert ("BlockLSTMV2" in ops) == (not is_static or rows <= MAX_ROWS)
    outputs, *after = run(sequences, whole, states)
    expected, *expected_after = stock(sequences, initial_state=states, mask=mask)
    is_text = whole[:, ::-1] if go_backwards else whole
    np.testing.assert_allclose(outputs.numpy()[is_text], expected.numpy()[is_text], atol=1e-6)
    for each, other in zip(after, expected_after, strict=True):
        np.testing.assert_allclose(each, other, atol=1e-6)


def _nodes(graph: object) -> list:
    return graph.get_operations() if isinstance(graph, tf.Graph) else graph.graph.get_operations()
