"""Character models as LiteRT files: the texts of the SavedModel, without TensorFlow."""

import json
import subprocess
import sys

import pytest
import tensorflow as tf
from hypothesis import example, given
from hypothesis import strategies as st

import nlp_rnn
from nlp_rnn.errors import ConfigError
from nlp_rnn.ondevice.generator import OnDeviceGenerator
from nlp_rnn.ondevice.words import split_characters
from nlp_rnn.tokenization.tokenizer import Tokenizer
from tests.conftest import ROOT, ask, pipeline_environment

TASK = "char_generation"


@pytest.fixture(scope="module")
def exported(characters_trained):
    """A folder with runs/small, saved_models/char_generation and saved_models/char_generation_litert."""
    command = ("export", "--run", "runs/small", "--format", "litert", "--json")
    return characters_trained, json.loads(ask(*command, cwd=characters_trained, task=TASK))


@pytest.fixture(scope="module")
def models(exported):
    """The SavedModel, and the float file as a model of the Python API."""
    folder = exported[0] / "saved_models"
    model = nlp_rnn.load(folder / "char_generation_litert")
    model._calls = OnDeviceGenerator(folder / "char_generation_litert", precision="float")
    return nlp_rnn.load(folder / "char_generation"), model


def test_an_export_is_measured_on_validation_text(exported):
    _, facts = exported
    assert facts["tokens"] == 1000
    assert facts["largest_difference"]["float"] < 1e-4
    assert facts["mean_difference"]["int8"] < 0.01
    assert facts["bytes"]["int8"] < facts["bytes"]["float"]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0},
        {"temperature": 1.5, "top_k": 3, "seed": 2},
        {"top_p": 0.7, "repetition_penalty": 1.5, "min_length": 40},
        {"stop": ["ki", "gard", ""], "seed": 3, "min_length": 5},
        {"max_length": 3},
    ],
)
def test_the_text_is_that_of_the_savedmodel(models, settings):
    prompts = ["The cat ", "", "ü A dog\r\n sees", "Nobody" * 30]
    saved, device = ([*model.generate_all(prompts, **{"max_length": 90, **settings})] for model in models)
    assert [each.text for each in device] == [each.text for each in saved]
    assert [each.prompt for each in device] == prompts
    assert [each.log_probability for each in device] == pytest.approx(
        [each.log_probability for each in saved], abs=1e-3
    )


@pytest.mark.parametrize("settings", [{}, {"stop": ["kitchen", "gard"]}, {"max_length": 1}])
def test_the_pieces_of_a_stream_are_the_text(models, settings):
    _, model = models
    whole = model.generate("A dog ", **{"max_length": 60, **settings}).text
    pieces = [*model.stream("A dog ", **{"max_length": 60, **settings})]
    assert "".join(pieces) == whole
    assert len(pieces) > 10 or settings.get("max_length") == 1


def test_unknown_characters_are_named(models, caplog):
    models[1].generate("ü\u4e00 The", max_length=1)
    assert "they are skipped: 'ü' '\u4e00'" in caplog.text


def test_predict_writes_without_tensorflow(exported):
    folder, _ = exported
    code = (
        "import sys; from pipelines import char_generation; from nlp_rnn.cli import main as cli; "
        "status = cli.main(char_generation, ['predict', '--model', sys.argv[1], '--max-length', '20', 'The cat ']); "
        "print(status, 'tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "saved_models/char_generation_litert"], cwd=folder,
        env=pipeline_environment(folder) | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
        timeout=60,
    )  # fmt: skip
    *lines, last = done.stdout.splitlines()
    assert last == "0 False"
    assert "\n".join(lines).startswith("The cat ")
    assert len("\n".join(lines)) == len("The cat ") + 20


def test_what_needs_the_savedmodel_says_so(exported):
    with pytest.raises(ConfigError, match="which only generates; tokenize needs the SavedModel"):
        nlp_rnn.load(exported[0] / "saved_models" / "char_generation_litert").tokenize("a")


def test_the_readme_beside_the_files_runs(exported):
    folder = exported[0] / "saved_models" / "char_generation_litert" / "1"
    code = (folder / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    code += "print(repr(write('The cat ', max_length=30, temperature=0)))\n"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    settings = {"max_length": 30, "temperature": 0}
    expected = nlp_rnn.load(folder).generate("The cat ", **settings).text
    assert done.stdout.splitlines()[-1] == repr(expected)
    assert len(done.stdout) > 200


@given(st.text(st.characters(exclude_categories=("Cs", "Co", "Cn")), max_size=20), st.sampled_from(["lower", "keep"]))
@example("a\r\nb\rc\n\r \u0130\u03a3 \t\x85", "lower")
def test_characters_are_the_tokenizers(text, case):
    pieces = Tokenizer("char", case=case).pieces(tf.constant([text.encode()])).to_list()[0]
    assert split_characters(text, lowercase=case == "lower") == [piece.decode() for piece in pieces]
