"""The records of tasks and cells are complete. A cell and a task from outside train, generate and export."""

import json

import keras
import pytest

import nlp_rnn
from nlp_rnn.config.loading import ALL_SETTINGS, load_config
from nlp_rnn.config.tables import CELLS, TASKS, Cell, Task, resolve
from nlp_rnn.errors import ConfigError
from tests.conftest import ROOT, SMALL, make_lines


@pytest.mark.parametrize("name", list(CELLS))
def test_a_cells_record_is_complete(name):
    record = CELLS[name]
    layer = resolve(record.layer)(3, return_sequences=True, return_state=True)
    outputs, *states = layer(keras.ops.ones((2, 4, 5)))
    assert outputs.shape == (2, 4, 3)
    assert all(state.shape == (2, 3) for state in states)
    assert record.reads_state == hasattr(layer.cell, "recurrent_kernel")
    if record.fast_layer:
        assert issubclass(resolve(record.fast_layer), resolve(record.layer))
    if record.step:
        assert callable(resolve(record.step))


@pytest.mark.parametrize("name", list(TASKS))
def test_a_tasks_record_is_complete(name):
    record = TASKS[name]
    assert record.kind in ("classifier", "language_model", "translator")
    assert all(f"{section}.{key}" in ALL_SETTINGS for section, settings in record.defaults.items() for key in settings)
    assert (ROOT / "pipelines" / f"{name}.py").is_file()
    assert load_config(ROOT / "configs" / f"{name}_smoke.yaml", task=name).task == name


def test_names_that_are_in_no_table_are_mistakes():
    with pytest.raises(
        ConfigError,
        match=r"model.cell is 'lstmm', but must be one of 'simple_rnn', .* or 'min_lstm'; did you mean lstm\?",
    ):
        load_config(None, ["model.cell=lstmm"])
    with pytest.raises(ConfigError, match=r"task is 'sentimnt', but must be one of .* did you mean sentiment\?"):
        load_config(None, ["task=sentimnt"])


@keras.saving.register_keras_serializable("outside")
class HalfCell(keras.layers.Layer):
    """h = (h + tanh(x W)) / 2."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, inputs_shape):
        self.kernel = self.add_weight(name="kernel", shape=(inputs_shape[-1], self.units))

    def call(self, inputs, states, training=False):
        state = (states[0] + keras.ops.tanh(inputs @ self.kernel)) / 2
        return state, [state]


class HalfRNN(keras.layers.RNN):
    """HalfCell over time."""

    def __init__(self, units, **kwargs):
        super().__init__(HalfCell(units, name="cell"), **kwargs)


@pytest.fixture
def outside(monkeypatch, tmp_path):
    """A cell and a task that the package does not know, and texts of three topics."""
    monkeypatch.setitem(CELLS, "half", Cell(f"{__name__}:HalfRNN", reads_state=False))
    monkeypatch.setitem(TASKS, "topics", Task("labels", {"data": {"label_column": "topic"}, "model": {"cell": "half"}}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NLP_RNN_CACHE", str(tmp_path / "cache"))
    topics = {"sea": "ship wave storm", "food": "bread soup salt", "sky": "cloud star moon"}
    rows = [
        f"{word} number {n} again,{topic}"
        for n in range(40)
        for topic, words in topics.items()
        for word in words.split()
    ]
    (tmp_path / "topics.csv").write_text("text,topic\n" + "\n".join(rows) + "\n", encoding="utf-8")
    (tmp_path / "lines.txt").write_text("\n".join(make_lines(500, 3)) + "\n", encoding="utf-8")
    (tmp_path / "topics.yaml").write_text("task: topics\n", encoding="utf-8")
    (tmp_path / "letters.yaml").write_text("task: char_generation\nmodel: {cell: half}\n", encoding="utf-8")
    return tmp_path


@pytest.mark.further  # trains and exports
def test_a_task_and_a_cell_from_outside_train_evaluate_and_export(outside):
    settings = {key: json.loads(value) for key, _, value in (each.partition("=") for each in SMALL)}
    run = nlp_rnn.train(
        "topics.yaml", settings | {"data.source": "csv", "data.train": "topics.csv", "training.epochs": 4}
    )
    assert (run.config.model.cell, run.config.kind, run.config.data.label_column) == ("half", "classifier", "topic")
    assert run.evaluate("validation").metrics["accuracy"] > 0.9
    classify = nlp_rnn.load(run.export())
    assert isinstance(classify, nlp_rnn.TextClassifier)
    assert [found.label for found in classify(["a storm", "the soup", "one star"])] == ["sea", "food", "sky"]
    assert classify.explain("a storm").tokens == ["a", "storm"]


@pytest.mark.further
def test_a_cell_from_outside_generates(outside):
    settings = {
        "data.source": "documents",
        "data.train": "lines.txt",
        "model.units": 24,
        "training.batch_size": 8,
        "training.window": 40,
    }
    run = nlp_rnn.train(
        "letters.yaml", settings | {"training.epochs": 2, "training.learning_rate": 0.02, "model.dropout": 0.0}
    )
    exported = nlp_rnn.load(run.export())
    found = exported.generate("The ", max_length=30, seed=1)
    assert len(found.text) == 30
    assert found == run.load().generate("The ", max_length=30, seed=1)
