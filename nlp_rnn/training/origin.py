"""The trained models that a training takes something from: weights, a vocabulary or answers."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nlp_rnn import files, manifest
from nlp_rnn.config.loading import differences, load_saved_config
from nlp_rnn.config.settings import Config
from nlp_rnn.config.tables import TASKS
from nlp_rnn.data.label_checks import shown
from nlp_rnn.errors import ConfigError
from nlp_rnn.training.checkpoints import load_arrays
from nlp_rnn.training.run_directory import load_run

logger = logging.getLogger(__name__)

# The settings of a model that determine which weights it has, and what they mean, beside the units of its layers.
_SHAPES = ("cell", "embedding_dim", "num_layers", "is_reversed", "is_residual", "layer_norm")
_SHAPES_OF_KIND = {
    "classifier": ("is_bidirectional", "pooling", "standardize"),
    "language_model": ("tie_embeddings",),
    "translator": ("is_bidirectional", "tie_embeddings", "attention", "num_heads", "input_feeding"),
}


@dataclass(frozen=True)
class Origin:
    """A trained model that another one begins with.

    Attributes:
      path: the run directory, or the export's version.
      config: its settings.
      load: reads the weights as `load_arrays` does.
    """

    path: Path
    config: Config
    load: Callable[[], dict[str, np.ndarray]]

    @property
    def labels(self) -> list[str]:
        """Class names of a classifier, in the order of the class numbers."""
        folder = self.path / "assets.extra" if (self.path / "assets.extra").is_dir() else self.path
        labels: list[str] = files.read_json(folder / "labels.json", list, "restore it from a copy")
        return labels


def find_origin(key: str, value: str, task: str | None = None) -> Origin:
    """Finds the model that a setting names.

    Args:
      key: the setting: training.start_from, model.init_from or training.teacher.
      value: a run directory, an exported model, or the folder of its versions.
      task: the task that it must have; None allows any.

    Raises:
      ConfigError: if there is none, it is of another task, damaged or not trained.
    """
    files.check_path(key, value)
    version = files.newest_version(Path(value))
    if (version / "saved_model.pb").is_file():
        if not (version / "assets.extra" / "tokenizer.json").is_file():
            raise ConfigError(
                f"{key} is {value}, which an earlier version exported, without its tokenizer; export it again, or give "
                "its run directory"
            )
        if not manifest.check(version, "export it again"):
            manifest.log_missing(version)
        config = load_saved_config(version / "assets.extra" / "config.yaml", task)
        return Origin(version, config, lambda: _exported_arrays(key, version, config))
    if not (Path(value) / "config.yaml").is_file():
        raise ConfigError(
            f"{key} is {value}, which is no run directory and no exported model; give one that train or export wrote"
        )
    run = load_run(Path(value), task)
    if not run.best_checkpoint.exists():
        raise ConfigError(f"{key} is {value}, which was not trained to its first validation; train it further")
    return Origin(run.path, run.config, lambda: load_arrays(run.best_checkpoint))


def _exported_arrays(key: str, version: Path, config: Config) -> dict[str, np.ndarray]:
    from nlp_rnn.training.exported_weights import load_exported

    try:
        return load_exported(version, config)
    except LookupError as error:
        raise ConfigError(f"{key} is {version}, {error.args[0]}; give a run directory") from None


def check_origins(config: Config, *, is_prepared: bool = False, has_begun: bool = False) -> None:
    """Checks that the model can take what training.start_from, model.init_from and training.teacher name.

    Args:
      is_prepared: whether the token ids and the teachers' answers are there already.
      has_begun: whether at least one step is done; resuming needs neither training.start_from nor model.init_from.

    Raises:
      ConfigError: if it cannot; see `find_origin`.
    """
    if not has_begun:
        _check_start(config)
        _check_init(config)
    if not is_prepared:
        _check_teachers(config)


def _check_start(config: Config) -> None:
    start = config.training.start_from
    if not start:
        return
    origin = find_origin("training.start_from", start, config.task)
    if origin.config.data.outputs != config.data.outputs:
        raise ConfigError(
            f"training.start_from is {start}, whose data.multi_label is {_as_setting(origin.config.data.multi_label)} "
            f"and data.labels_are {origin.config.data.labels_are}; use the same, or start from another model"
        )
    _check_tokenizer(origin.config, config, f"training.start_from is {start}")
    source, keys = origin.config.model, [*_SHAPES, *_SHAPES_OF_KIND[config.kind]]
    wanted: dict[str, Any] = {key: getattr(source, key) for key in keys}
    if _units(origin.config) != _units(config):
        wanted |= {"units": source.units, "last_units": source.last_units}
    if "adaptive" in (source.softmax, config.model.softmax):
        wanted |= {"softmax": source.softmax, "cutoffs": source.cutoffs}
    _check_model(config, wanted, f"the model of training.start_from, {start},")


def check_labels(config: Config, labels: list[str]) -> None:
    """Checks that a classifier has as many labels as the one of training.start_from.

    Raises:
      ConfigError: if it has not.
    """
    start = config.training.start_from
    if not start or config.kind != "classifier":
        return
    others = find_origin("training.start_from", start, config.task).labels
    if len(others) != len(labels):
        raise ConfigError(
            f"training.start_from is {start}, which has {len(others)} labels ({shown(others)}), but data.train has "
            f"{len(labels)} ({shown(labels)}); use texts with its labels, or begin with its language model "
            "(model.init_from)"
        )
    if others != labels:
        logger.warning(
            "training.start_from is %s, whose labels are %s; the output for each goes on as that for %s, in this order",
            start, shown(others), shown(labels),
        )  # fmt: skip


def _units(config: Config) -> list[int]:
    """The units of each recurrent layer."""
    model = config.model
    last = model.embedding_dim if config.kind == "language_model" and model.tie_embeddings else model.units
    return [model.units_of(number, default=last) for number in range(model.num_layers)]


def _check_init(config: Config) -> None:
    """Checks that the model can take the weights of the language model in model.init_from."""
    start, model = config.model.init_from, config.model
    if not start:
        return
    origin = find_origin("model.init_from", start)
    if origin.config.kind != "language_model":
        raise ConfigError(
            f"model.init_from is {start}, a model of the task {origin.config.task}; give a language model "
            f"({' or '.join(name for name, task in TASKS.items() if task.kind == 'language_model')})"
        )
    _check_tokenizer(origin.config, config, f"model.init_from is {start}")
    source = origin.config.model
    wanted: dict[str, Any] = {key: getattr(source, key) for key in ("cell", "embedding_dim", "units", "is_reversed")}
    if config.kind != "translator":
        wanted |= {key: getattr(source, key) for key in ("num_layers", "is_residual", "layer_norm")}
    if config.kind == "classifier":
        wanted["is_bidirectional"] = False
        last = source.units_of(
            source.num_layers - 1, default=source.embedding_dim if source.tie_embeddings else source.units
        )
        if model.units_of(model.num_layers - 1) != last:
            wanted["last_units"] = last
    _check_model(config, wanted, f"the language model of model.init_from, {start},")


def _check_model(config: Config, wanted: dict[str, Any], of_origin: str) -> None:
    """Checks that settings of the model have the values of another one, whose weights it takes."""
    wrong = [key for key in wanted if getattr(config.model, key) != wanted[key]]
    if wrong:
        differing = ", ".join(f"model.{key} is {_as_setting(getattr(config.model, key))}" for key in wrong)
        settings = " ".join(f"model.{key}={_as_setting(wanted[key])}" for key in wrong)
        raise ConfigError(f"{differing}, but {of_origin} has other values; set {settings}")


def _check_teachers(config: Config) -> None:
    own = config.data
    for path in config.training.teacher:
        setting = f"training.teacher is {path}"
        if not (Path(path) / "config.yaml").is_file():
            raise ConfigError(f"{setting}, which is no run directory; name the run directories of trained models")
        run = load_run(Path(path), config.task)
        is_calibrated = config.kind != "classifier" or (run.path / "calibration.json").is_file()
        if "training" not in run.metrics or not is_calibrated:
            raise ConfigError(f"{setting}, whose training has not ended; rerun its command")
        data = run.config.data
        if data.outputs != own.outputs:
            raise ConfigError(
                f"{setting}, whose data.multi_label is {_as_setting(data.multi_label)} and "
                f"data.labels_are {data.labels_are}; use the same, or another teacher"
            )
        if (data.source_language, data.target_language) != (own.source_language, own.target_language):
            raise ConfigError(
                f"{setting}, which translates from {data.source_language} to {data.target_language}, but "
                f"data.source_language is {own.source_language} and data.target_language {own.target_language}; use "
                "the same, or another teacher"
            )
        if run.config.model.is_reversed != config.model.is_reversed and config.kind == "language_model":
            raise ConfigError(
                f"{setting}, whose model.is_reversed is {_as_setting(run.config.model.is_reversed)}; use the same, or "
                "another teacher"
            )
        _check_tokenizer(run.config, config, setting)


def _as_setting(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_tokenizer(of_origin: Config, config: Config, setting: str) -> None:
    changed = differences(Config(tokenizer=of_origin.tokenizer), Config(tokenizer=config.tokenizer))
    if changed := [each for each in changed if not each.startswith("tokenizer.sampling ")]:
        raise ConfigError(f"{setting}, whose vocabulary is taken, but {changed[0]} there; use its tokenizer.* settings")
