import keras
import numpy as np
import pytest
import tensorflow as tf

from nlp_rnn.layers.fast.fused_adam import FusedAdam, FusedAdamW, LazyAdam
from nlp_rnn.training.optimizers import WarmUpSchedule


def run(optimizer, *, is_sparse, steps=25, rows=6):
    """Applies drawn gradients, of a table, of which each step touches some rows, often one twice, and of a matrix.

    Drawn, not computed from the weights: there the rounding of one step would grow through the next.
    """
    generator = np.random.default_rng(1)
    table, matrix = (  # named, since Keras numbers what has no name through a whole process
        keras.Variable(generator.normal(size=(rows, 3)).astype(np.float32), name=name) for name in ("table", "matrix")
    )
    optimizer.build([table, matrix])
    for _ in range(steps):
        ids = generator.integers(0, rows - 1, 8)  # the last row is never touched
        values = generator.normal(size=(8, 3)).astype(np.float32)
        gradient = tf.IndexedSlices(values, ids, (rows, 3))
        dense = tf.constant(generator.normal(size=(rows, 3)).astype(np.float32))
        optimizer.apply([gradient if is_sparse else tf.convert_to_tensor(gradient), dense], [table, matrix])
    return table.numpy(), matrix.numpy(), optimizer


OPTIONS = [
    {},
    {"global_clipnorm": 0.5},
    {"learning_rate": WarmUpSchedule("cosine", 0.1, 25, 0.2), "use_ema": True},
    {"amsgrad": True},
    {"gradient_accumulation_steps": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "plain")
@pytest.mark.parametrize(("stock", "fused"), [(keras.optimizers.Adam, FusedAdam), (keras.optimizers.AdamW, FusedAdamW)])
def test_weights_and_state_equal_kerass(stock, fused, options):
    options = {"learning_rate": 0.05} | options
    expected = run(stock(**options), is_sparse=False)
    for is_sparse in (False, True):
        if is_sparse and "gradient_accumulation_steps" in options:
            continue  # Keras cannot accumulate sparse gradients
        found = run(fused(**options), is_sparse=is_sparse)
        for one, other in zip(found[:2], expected[:2], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
        for one, other in zip(found[2].variables, expected[2].variables, strict=True):
            assert one.path.split("/")[-1] == other.path.split("/")[-1]
            np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-5, atol=1e-5)


def test_lazy_adam_leaves_untouched_rows_alone_and_equals_adam_where_all_are_touched():
    lazy, _, optimizer = run(LazyAdam(0.05, global_clipnorm=0.5), is_sparse=True)
    generator = np.random.default_rng(1)
    np.testing.assert_array_equal(lazy[-1], generator.normal(size=(6, 3)).astype(np.float32)[-1])
    assert not optimizer._velocities[0].numpy()[-1].any()
    found = run(LazyAdam(0.05, global_clipnorm=0.5), is_sparse=True, rows=2)
    expected = run(keras.optimizers.Adam(0.05, global_clipnorm=0.5), is_sparse=False, rows=2)
    np.testing.assert_allclose(found[0][0], expected[0][0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-5)
