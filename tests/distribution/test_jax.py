"""Keras's backend JAX trains the same models from prepared ids, without TensorFlow; TensorFlow exports them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nlp_rnn.config.loading import load_config
from nlp_rnn.distribution import jax_devices
from nlp_rnn.errors import ConfigError
from tests import train_all
from tests.conftest import ROOT, SMALL, ask, differences, pipeline_environment, refused

WITHOUT_TENSORFLOW = """
import runpy, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "tensorflow_datasets"):
            raise ImportError(f"{name} is not to be had here")

sys.meta_path.insert(0, Blocked())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def jax_command(program: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-c", WITHOUT_TENSORFLOW, str(program), *arguments]


def jax_environment(folder: Path, num_devices: int = 1) -> dict[str, str]:
    """That of a machine without TensorFlow and without the texts."""
    devices = f"--xla_force_host_platform_device_count={num_devices}"
    return pipeline_environment(folder) | {
        "KERAS_BACKEND": "jax",
        "XLA_FLAGS": devices,
        "NLP_RNN_CACHE": "/nowhere",
        "NLP_RNN_DATA": "",
    }


def run(command: list[str], environment: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.fixture(scope="module")
def prepared(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/jax, prepared from texts that were deleted, and the trained run that it starts from."""
    folder = tmp_path_factory.mktemp("jax")
    (folder / "reviews.csv").write_bytes(reviews.read_bytes())
    ask("train", "name=first", *CLASSIFIER, "training.epochs=1", cwd=folder)
    ask("train", "name=tensorflow", *CLASSIFIER, *FROM_FIRST, cwd=folder)
    assert "token ids: runs/jax/ids" in ask("prepare", "name=jax", *CLASSIFIER, *FROM_FIRST, cwd=folder)
    ask("prepare", "name=again", *CLASSIFIER, *FROM_FIRST, cwd=folder)
    (folder / "reviews.csv").unlink()
    return folder


CLASSIFIER = [*SMALL, "model.dropout=0", "training.optimizer=sgd", "training.learning_rate=0.5", "training.clip_norm=0",
              "data.source=csv", "data.train=reviews.csv"]  # fmt: skip
FROM_FIRST = ["training.start_from=runs/first", "training.ema_momentum=0.5"]


CHOSEN_DEVICE = """
import jax, jax.numpy as jnp, keras
from nlp_rnn.config.settings import ModelConfig
from nlp_rnn.layers.recurrent import build_recurrent_layer
from nlp_rnn.config.loading import load_config
from nlp_rnn.distribution import jax_devices

found = jax_devices._devices
jax_devices._devices = lambda *_: found("cpu", 2)[1:]  # as if the first one were the GPU that JAX prefers
print(jax_devices.start_devices(load_config(None, ["hardware.strategy=cpu"], task="sentiment")).num_replicas)
layer = keras.layers.Dense(2)
print(layer(keras.ops.ones((1, 3))).device.id, layer.kernel.value.device.id)
jax.default_backend = lambda: "gpu"  # Keras's LSTM would call cuDNN
for fast in ("off", "on"):
    layer = build_recurrent_layer(ModelConfig(cell="lstm", units=4, is_bidirectional=False, fast=fast), name=fast)
    print(layer(jnp.ones((2, 5, 3))).shape)
"""


def test_a_training_on_jax_uses_the_device_that_was_chosen(tmp_path: Path) -> None:
    pytest.importorskip("jax", reason="needs the extra `jax`")
    done = subprocess.run(
        [sys.executable, "-c", CHOSEN_DEVICE], cwd=ROOT, env=jax_environment(tmp_path, num_devices=2),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "1\n1 1\n(2, 5, 4)\n(2, 5, 4)\n"


@pytest.mark.further
def test_a_classifier_trained_on_jax_is_tensorflows_and_exported_by_it(prepared: Path) -> None:
    program = ROOT / "pipelines" / "sentiment.py"
    said = run(
        jax_command(program, "train", "name=jax", *CLASSIFIER, *FROM_FIRST), jax_environment(prepared, 2), prepared
    )
    assert "hardware: JAX, 2 x cpu" in said
    assert max(differences(prepared / "runs" / "jax", prepared / "runs" / "tensorflow")) < 1e-4
    ask("export", "--run", "runs/jax", cwd=prepared)
    assert ask("predict", "--model", "saved_models/sentiment", "a lovely warm great story", cwd=prepared).startswith(
        "pos\t"
    )


@pytest.mark.further
@pytest.mark.parametrize(
    ("kinds", "max_examples"),
    [(["adversarial"], 0), (["adversarial", "virtual_adversarial"], 0), (["adversarial", "virtual_adversarial"], 40)],
)
def test_adversarial_training_on_jax_is_that_on_tensorflow(
    reviews: Path, prepared: Path, kinds: list[str], max_examples: int
) -> None:
    settings = [*CLASSIFIER[:-1], f"data.train={reviews}", *FROM_FIRST, "training.epochs=2"]
    settings += [f"training.{kind}=3" for kind in kinds] + [f"data.max_examples={max_examples}"]  # the rest: no label
    names = [f"{kinds[-1]}_{max_examples}_on_{backend}" for backend in ("jax", "tensorflow")]
    ask("train", f"name={names[1]}", *settings, cwd=prepared)
    ask("prepare", f"name={names[0]}", *settings, cwd=prepared)
    program = ROOT / "pipelines" / "sentiment.py"
    run(jax_command(program, "train", f"name={names[0]}", *settings), jax_environment(prepared), prepared)
    moved, tensorflow, plain = (prepared / "runs" / name for name in (*names, "tensorflow"))
    assert max(differences(moved, tensorflow)) < 1e-4
    assert max(differences(moved, plain)) > 1e-3


@pytest.mark.further
def test_a_translator_draws_its_pieces_without_tensorflow(corpora: Path, tmp_path: Path) -> None:
    settings = [
        *SMALL, "data.source=csv", f"data.train={corpora / 'pairs.csv'}", "data.max_length=100", "model.units=8",
        "tokenizer.level=subword", "tokenizer.vocab_size=290", "model.cell=gru", "training.epochs=1",
    ]  # fmt: skip
    program, environment = ROOT / "pipelines" / "translation.py", jax_environment(tmp_path)
    for temperature in (0, 5):
        more = [f"name=by_{temperature}", f"tokenizer.sampling={temperature}"]
        ask("prepare", *more, *settings, cwd=tmp_path, task="translation")
        run(jax_command(program, "train", *more, *settings), environment, tmp_path)
    assert max(differences(tmp_path / "runs" / "by_0", tmp_path / "runs" / "by_5")) > 1e-3  # it has read other pieces
    ask("export", "--run", "runs/by_5", "--to", "models", cwd=tmp_path, task="translation")
    (model,) = (tmp_path / "models").iterdir()
    assert ask("predict", "--model", model, "a cat", cwd=tmp_path, task="translation")


TAUGHT = ["training.teacher=[../first/runs/{task}]", "training.teacher_share=0.8"]


@pytest.mark.slow
@pytest.mark.parametrize(("num_devices", "more"), [(1, []), (4, []), (1, TAUGHT), (4, TAUGHT)])
def test_all_tasks_train_as_on_tensorflow(corpora: Path, tmp_path: Path, num_devices: int, more: list[str]) -> None:
    """The same weights and batches give the same losses and, by plain SGD, the same gradients."""
    program, environment = ROOT / "tests" / "train_all.py", pipeline_environment(tmp_path)
    for name in ("first", "tensorflow", "jax"):
        (tmp_path / name).mkdir()
        for file in corpora.glob("*.csv"):
            (tmp_path / name / file.name).symlink_to(file)
    settings = ["training.start_from=../first/runs/{task}", *more]
    for name, *arguments in (("first", "train"), ("tensorflow", "train", *settings), ("jax", "prepare", *settings)):
        run([sys.executable, str(program), name, *arguments], environment, tmp_path)
    for file in (tmp_path / "jax").glob("*.csv"):
        file.unlink()
    run(jax_command(program, "jax", "train", *settings), jax_environment(tmp_path, num_devices), tmp_path)
    for task in train_all.TASKS:
        assert max(differences(tmp_path / "jax" / "runs" / task, tmp_path / "tensorflow" / "runs" / task)) < 1e-4, task


@pytest.mark.slow
def test_a_stopped_training_on_jax_goes_on(reviews: Path, tmp_path: Path) -> None:
    settings = [*CLASSIFIER[:-1], f"data.train={reviews}", "training.epochs=6"]
    program, environment = ROOT / "pipelines" / "sentiment.py", jax_environment(tmp_path)
    commands = {name: jax_command(program, "train", f"name={name}", *settings) for name in ("whole", "stopped")}
    for name in commands:
        ask("prepare", f"name={name}", *settings, cwd=tmp_path)
    run(commands["whole"], environment, tmp_path)
    process = subprocess.Popen(commands["stopped"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 2"):
            os.kill(process.pid, signal.SIGTERM)
            break
    assert "everything is saved" in process.stderr.read()
    assert process.wait() == 130
    assert "resuming after epoch" in run(commands["stopped"], environment, tmp_path)
    assert differences(tmp_path / "runs" / "whole", tmp_path / "runs" / "stopped") == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "backend", "message"),
    [
        (
            ["train", "name=new"],
            "jax",
            "KERAS_BACKEND is jax, which trains from token ids, but runs/new has none; run the command prepare first",
        ),
        (["train", "name=new"], "torch", "KERAS_BACKEND is 'torch', but must be tensorflow or jax"),
        (["prepare", "name=new"], "jax", "KERAS_BACKEND is jax, which only trains models from prepared token ids"),
        (
            ["evaluate", "--run", "runs/first"],
            "jax",
            "KERAS_BACKEND is jax, which only trains models from prepared token ids",
        ),
    ],
)
def test_what_jax_does_not_do_is_refused(
    prepared: Path, reviews: Path, arguments: list[str], backend: str, message: str
) -> None:
    more = [*SMALL, "data.source=csv", f"data.train={reviews}"] if len(arguments) == 2 else []
    assert message in refused(*arguments, *more, cwd=prepared, KERAS_BACKEND=backend)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.optimizer=lazy_adam", "training.optimizer is lazy_adam, which needs Keras's backend tensorflow"),
        (
            "training.gradient_accumulation=2",
            "training.gradient_accumulation is 2, which needs Keras's backend tensorflow",
        ),
        (
            "hardware.matmul_precision=bfloat16",
            "hardware.matmul_precision is bfloat16, which needs Keras's backend tensorflow",
        ),
        ("hardware.strategy=multi_worker", "hardware.strategy is multi_worker, which needs TensorFlow"),
        (
            "hardware.input_service=reader:5000",
            "hardware.input_service is reader:5000, which needs Keras's backend tensorflow, .*; leave it empty",
        ),
    ],
)
def test_settings_that_need_tensorflow_are_refused(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        jax_devices.start_devices(load_config(None, [setting], task="sentiment"))


def test_prepared_ids_train_on_tensorflow_too(prepared: Path) -> None:
    ask("train", "name=again", *CLASSIFIER, *FROM_FIRST, cwd=prepared)
    assert differences(prepared / "runs" / "again", prepared / "runs" / "tensorflow") == (0, 0)
