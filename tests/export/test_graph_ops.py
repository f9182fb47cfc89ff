import re

import pytest
import tensorflow as tf

from nlp_rnn.errors import ConfigError
from nlp_rnn.export.graph_ops import check_ops
from nlp_rnn.serving.served_model import load_served

BODIES = {
    "write": ("WriteFile", lambda path, x: tf.io.write_file(path, "written")),
    "print": ("PrintV2", lambda path, x: tf.print("written", output_stream=f"file://{path}")),
    "python": ("EagerPyFunc", lambda path, x: tf.py_function(lambda y: y, [x], tf.float32)),
    "save": (
        "SaveV2",
        lambda path, x: tf.raw_ops.SaveV2(prefix=path, tensor_names=["x"], shape_and_slices=[""], tensors=[x]),
    ),
}


def module_with(body):
    """A model that answers with twice its input, and does something else."""
    module = tf.Module()
    module.weight = tf.Variable(2.0)

    def answer(x):
        def step(number, y):
            body(y)
            return number + 1, y

        return {"y": tf.while_loop(lambda number, _: number < 3, step, (0, x))[1] * module.weight}

    signature = [tf.TensorSpec([None], tf.float32, name="x")]
    module.answer = tf.function(answer, input_signature=signature, autograph=False)
    return module


@pytest.mark.parametrize("name", BODIES)
def test_a_model_that_could_write_files_or_run_code_is_refused(tmp_path, name):
    op, body = BODIES[name]
    module = module_with(lambda x: body(str(tmp_path / "mark"), x))
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"serving_default": module.answer})
    with pytest.raises(ConfigError) as refused:
        load_served("m", 1, tmp_path / "m")
    assert re.fullmatch(
        rf"--model is \S+/m, but its graph holds the ops [\w, ]*\b{op}, which could write files, run code or open "
        "connections; use a model whose graph has none of them",
        str(refused.value),
    )
    assert list(tmp_path.iterdir()) == [tmp_path / "m"]


def test_a_model_without_such_ops_is_loaded(tmp_path):
    module = module_with(lambda x: tf.debugging.assert_all_finite(x, "x"))
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"serving_default": module.answer})
    check_ops(tmp_path / "m")  # although it holds SaveV2, to be saved again


@pytest.mark.parametrize("saves", [False, True])
def test_a_model_of_tensorflow_1_is_refused_only_if_its_signatures_write(tmp_path, saves):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        weight = v1.get_variable("weight", initializer=2.0, use_resource=False)
        writes = [BODIES["save"][1](str(tmp_path / "mark"), x)] if saves else []
        with tf.control_dependencies(writes):
            y = x * weight
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(tmp_path / "m"), {"x": x}, {"y": y})
    if saves:
        with pytest.raises(ConfigError, match="holds the ops SaveV2, which could write files"):
            check_ops(tmp_path / "m")
    else:
        check_ops(tmp_path / "m")


def test_a_damaged_graph_is_named(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"not a graph")
    with pytest.raises(ConfigError, match=r"saved_model.pb: is damaged \(it is not a SavedModel\); export it again"):
        check_ops(tmp_path)
