"""Checks features.json of prepared TFDS data before TFDS reads it, since TFDS imports the modules named in it."""

from pathlib import Path
from typing import Any

from nlp_rnn import files
from nlp_rnn.errors import ConfigError

_PREFIX = "tensorflow_datasets.core.features."
_KNOWN = {
    f"{_PREFIX}{module}.{name}"
    for module, name in (
        ("features_dict", "FeaturesDict"), ("text_feature", "Text"), ("class_label_feature", "ClassLabel"),
        ("translation_feature", "Translation"), ("tensor_feature", "Tensor"), ("scalar", "Scalar"),
    )
}  # fmt: skip


def check_features(folder: Path, mend: str = "prepare the data set again") -> None:
    """Checks that all features.json below a folder name only TFDS's own features for texts and labels.

    Args:
      folder: the folder of a prepared data set.
      mend: what to do about a damaged file, for the message.

    Raises:
      ConfigError: if a file names another class; the message has the file and the class.
    """
    for path in sorted(folder.rglob("features.json")):
        tree = files.read_json(path, dict, mend)
        if foreign := _foreign_class(tree):
            raise ConfigError(
                f"{path}: names the Python class {foreign[:200]!r}, which reading it would import and run; "
                "use data that TFDS "
                "or nlp-rnn records wrote, and do not read this folder"
            )


def _foreign_class(root: Any) -> str:
    """The first class that is not allowed; "" if there is none."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            for key in ("pythonClassName", "type"):
                if key in node and node[key] not in _KNOWN:
                    return str(node[key])
            waiting += node.values()
    return ""
