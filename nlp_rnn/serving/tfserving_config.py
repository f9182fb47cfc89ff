"""Writes the list of models that TensorFlow Serving reads: tensorflow_model_server --model_config_file=FILE.

Source: tensorflow/serving, config/model_server_config.proto.
"""

from pathlib import Path

from google.protobuf.text_encoding import CEscape

from nlp_rnn import files
from nlp_rnn.errors import ConfigError
from nlp_rnn.serving.model_store import find_versions


def write_tfserving_config(models: Path, path: Path, base: str) -> Path:
    """Writes the file in protobuf's text format, and returns its path.

    Args:
      models: the folder of the models.
      base: where TensorFlow Serving finds that folder, such as "/models".

    Raises:
      ConfigError: if there are no models, or the file cannot be written.
    """
    names = sorted(find_versions(models))
    if not names:
        raise ConfigError(
            f"--models is {models}, but holds no exported model (NAME/VERSION/saved_model.pb); export one first"
        )
    entries = []
    for name in names:
        place = _escaped(f"{base.rstrip('/')}/{name}")
        entries.append(f'  config {{ name: "{_escaped(name)}" base_path: "{place}" model_platform: "tensorflow" }}')
    text = "\n".join(["model_config_list {", *entries, "}", ""])
    with files.atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return path


def _escaped(text: str) -> str:
    return str(CEscape(text, as_utf8=True))
