"""The list of models for TensorFlow Serving."""

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from nlp_rnn.cli import serve
from nlp_rnn.errors import ConfigError


def read(path):
    return text_format.Parse(path.read_text(encoding="utf-8"), model_server_config_pb2.ModelServerConfig())


def test_it_lists_the_models_where_the_server_finds_them(small_models, tmp_path, capsys):
    path = tmp_path / "models.config"
    serve.main(["--models", str(small_models), "--write-tfserving-config", str(path)])
    assert capsys.readouterr().out == f"{path}\n"
    configs = read(path).model_config_list.config
    assert [(each.name, each.base_path) for each in configs] == [
        ("half_plus_three", "/models/half_plus_three"),
        ("half_plus_two", "/models/half_plus_two"),
        ("kinds", "/models/kinds"),
    ]
    assert {each.model_platform for each in configs} == {"tensorflow"}


def test_names_are_escaped(small_models, tmp_path):
    (tmp_path / "models" / 'a "quoted" modèl').mkdir(parents=True)
    (tmp_path / "models" / 'a "quoted" modèl' / "1").symlink_to(small_models / "kinds" / "1")
    arguments = ["--models", str(tmp_path / "models"), "--tfserving-base", "/data/"]
    serve.main([*arguments, "--write-tfserving-config", str(tmp_path / "out")])
    (config,) = read(tmp_path / "out").model_config_list.config
    assert (config.name, config.base_path) == ('a "quoted" modèl', '/data/a "quoted" modèl')


def test_a_folder_without_models_is_told(tmp_path):
    with pytest.raises(ConfigError, match="holds no exported model"):
        serve.main(["--models", str(tmp_path), "--write-tfserving-config", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
