"""Reads YAML files and `section.key=value` settings into a checked Config, and writes Configs as YAML.

Precedence: dataclass default < the task's defaults < YAML file < command line. All mistakes are reported at once.
Nothing here imports TensorFlow, so a misspelt key is reported within milliseconds.
"""

import copy
import dataclasses
import difflib
import functools
import itertools
import os
import re
import site
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from nlp_rnn import files
from nlp_rnn.config.rules import broken_rules
from nlp_rnn.config.settings import Config
from nlp_rnn.config.tables import TASKS, Task
from nlp_rnn.errors import ConfigError

Settings = TypeVar("Settings")

_MAX_CONFIG = 1_000_000  # characters of a file
_MAX_DEPTH = 100  # of brackets
_MAX_VALUE = 200  # characters of a wrong value in a message


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, except that 3e-4 is a number and only `true` and `false` are booleans."""

    def fetch_flow_collection_start(self, *arguments: Any) -> None:
        """Reads `[` or `{`. PyYAML takes seconds for thousands of them, until it raises the same error."""
        if self.flow_level >= _MAX_DEPTH:
            raise RecursionError
        super().fetch_flow_collection_start(*arguments)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Reads `key: value` lines. PyYAML drops all but the last of those with one key."""
        places: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in places:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} stands also in line {places[key.value]}", key.start_mark
                )
            places[str(key.value)] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if tag not in ("tag:yaml.org,2002:float", "tag:yaml.org,2002:bool")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?$|^[-+]?\.(?:inf|Inf)$|^\.(?:nan|NaN)$"),
    list("-+0123456789."),
)


def load_config(
    path: str | os.PathLike[str] | None,
    overrides: Iterable[str] | Mapping[str, Any] | None = None,
    *,
    task: str | None = None,
) -> Config:
    """Reads a YAML file and command-line overrides into a checked Config.

    Args:
      path: a YAML file, the name of a config that comes with the package, or None for the defaults.
      overrides: `section.key=value` texts, whose values are read as YAML, or a mapping of "section.key" to values.
      task: the task that the config must have; None: any task.

    Raises:
      ConfigError: if the file cannot be read or a setting is wrong; one line per mistake.
    """
    path = path if path is None else find_config(path)
    origin = str(path) if path is not None else "defaults"
    tree = _with_moved_settings(_read_yaml(Path(path))) if path is not None else {}
    origins: dict[str, str] = {}
    mistakes: list[str] = []
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            _set(tree, key, value, origins, mistakes)
    else:
        for override in overrides or []:
            _apply_override(tree, override, origins, mistakes)
    if path is None and task is not None:
        tree.setdefault("task", task)
    config, invalid = _validate(_with_task_defaults(tree), origin, origins)
    mistakes += invalid
    if config is not None and not mistakes:
        mistakes += [f"{_origin_of(key, origin, origins)}: {text}" for key, text in broken_rules(config, task)]
    if mistakes or config is None:
        raise ConfigError("\n".join(mistakes))
    if not config.name:
        config = dataclasses.replace(config, name=Path(path).stem if path is not None else config.task)
    return config


def find_config(path: str | os.PathLike[str]) -> Path:
    """The given file, or, for a name such as sentiment_demo, the config of that name that comes with the package."""
    name = os.fspath(path)
    files.check_path("--config", name)
    if re.fullmatch(r"\w+", name) and not os.path.exists(name):
        above = Path(__file__).parents[2]  # a checkout, or site-packages
        installed = Path("share", "nlp_rnn", "configs", f"{name}.yaml")
        prefixes = (above, Path(sysconfig.get_path("data")), Path(site.getuserbase()))
        for place in (above / "configs" / f"{name}.yaml", *(prefix / installed for prefix in prefixes)):
            if place.is_file():
                return place
    return Path(name)


def load_saved_config(path: Path, task: str | None = None, overrides: Iterable[str] = ()) -> Config:
    """Reads the config of a run or an exported model.

    Rules between settings are checked only where the overrides break them, since a new rule must not make models of
    earlier versions unloadable.

    Args:
      path: the saved config.yaml.
      task: the task that the model must have; None: any task.
      overrides: `section.key=value` texts, whose values are read as YAML. Texts that are only evaluated need no
        training texts, and nothing of what the model was trained on.

    Raises:
      ConfigError: if the file is damaged, the model has another task, or an override is wrong.
    """
    tree = _with_task_defaults(_with_moved_settings(_read_yaml(path)))
    saved, mistakes = _validate(copy.deepcopy(tree), str(path), {})
    if saved is not None and task is not None and saved.task != task:
        mistakes = [f"{path}: {text}" for _, text in broken_rules(saved, task)]
    if saved is None or mistakes:
        raise ConfigError("\n".join(mistakes))
    origins: dict[str, str] = {}
    for override in overrides:
        _apply_override(tree, override, origins, mistakes)
    config, invalid = _validate(tree, str(path), origins)
    mistakes += invalid
    if config is not None and not mistakes and origins:
        before = broken_rules(saved, task)
        needless = {"data.use_unlabeled"} - origins.keys()
        if config.data.validation or config.data.test:
            needless.add("data.train")
        new = [rule for rule in broken_rules(config, task) if rule not in before and rule[0] not in needless]
        mistakes = [f"{_origin_of(key, str(path), origins)}: {text}" for key, text in new]
    if config is None or mistakes:
        raise ConfigError("\n".join(mistakes))
    return config


def checked(kind: type[Settings], values: dict[str, Any]) -> Settings:
    """Creates a dataclass of settings from a dictionary.

    Args:
      kind: the dataclass.
      values: field name -> value.

    Raises:
      ConfigError: if a name is unknown or a value is not allowed; one line per mistake.
    """
    names = [each.name for each in dataclasses.fields(kind)]  # type: ignore[arg-type]
    unknown = [name for name in values if name not in names]
    mistakes = []
    for name in unknown:
        near = difflib.get_close_matches(name, names, n=1)
        mistakes.append(
            f"{name} is not a setting; " + (f"did you mean {near[0]}?" if near else f"allowed are {', '.join(names)}")
        )
    try:
        known = {name: value for name, value in values.items() if name in names}
        settings: Settings = _adapter(kind).validate_python(known)  # type: ignore[arg-type]  # a class is hashable
    except ValidationError as errors:
        mistakes += [_explain(".".join(str(part) for part in error["loc"]), error) for error in errors.errors()]
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return settings


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def to_yaml(config: Config) -> str:
    """The config as YAML, with all defaults filled in; `load_config` reads an equal Config from it."""
    tree = dataclasses.asdict(config)
    for section, key in (
        ("data", "patterns"),
        ("data", "label_columns"),
        ("model", "pooling"),
        ("model", "cutoffs"),
        ("tokenizer", "reserved"),
        ("training", "unfreeze"),
        ("training", "teacher"),
    ):
        tree[section][key] = list(tree[section][key])
    if not isinstance(config.training.class_weights, str):
        tree["training"]["class_weights"] = dict(config.training.class_weights)
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def differences(first: Config, second: Config) -> list[str]:
    """The settings that make two configs different runs, one message per setting.

    Folders and devices are ignored, except data.dir of the source records, which names the corpus.
    """
    ignored = {
        "runs_dir", "tokenizer.max_unknown", "data.dir", "data.cache_dir", "training.checkpoint_seconds",
        "training.tensorboard", "hardware.strategy", "hardware.num_replicas", "hardware.connect_seconds",
        "hardware.input_service",
    }  # fmt: skip
    if first.data.source == "records":
        ignored.remove("data.dir")
    left, right = _flatten(dataclasses.asdict(first)), _flatten(dataclasses.asdict(second))
    return [
        f"{key} is {right[key]!r} and was {left[key]!r}"
        for key in left
        if key not in ignored and left[key] != right[key]
    ]


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(str(path), [str(p) for p in path.parent.glob("*.yaml")], n=1)
        hint = f"did you mean {near[0]}?" if near else "give the path of a YAML file, such as configs/sentiment.yaml"
        raise ConfigError(f"--config is {path}, but there is no such file; {hint}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(
            f"--config is {path}, but it cannot be read ({error.strerror}); give a readable YAML file"
        ) from None
    if len(text) > _MAX_CONFIG:
        raise ConfigError(
            f"{path}: has {len(text):,} characters, but a config has a few thousand; is it the right file?"
        )
    try:
        tree = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with other number patterns
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply; a config is sections of `key: value`") from None
    except (ValueError, TypeError, LookupError, AttributeError) as error:  # malformed numbers, dates and tags
        raise ConfigError(
            f"{path}: holds a value that is not readable as YAML ({str(error)[:100]}); correct it"
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(
            f"{path}: {place}not readable as YAML ({getattr(error, 'problem', None) or error}); fix that line"
        ) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path}: holds a {type(tree).__name__}, but a config is sections of `key: value`; "
            "see configs/sentiment.yaml"
        )
    return tree


def _with_moved_settings(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree of a file of an earlier version, with renamed settings under their present names."""
    for old, new in _MOVED_SETTINGS.items():
        (old_section, old_name), (section, name) = old.split("."), new.split(".")
        settings = tree.get(old_section)
        if isinstance(settings, dict) and old_name in settings:
            kept = {key: value for key, value in settings.items() if key != old_name}
            tree = tree | {old_section: kept}
            others = tree.get(section) or {}
            if isinstance(others, dict):
                tree[section] = {name: settings[old_name]} | others
    return tree


_MOVED_SETTINGS = {"model.sampled_precision": "hardware.matmul_precision"}


def _apply_override(tree: dict[str, Any], override: str, origins: dict[str, str], mistakes: list[str]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"\w+(\.\w+)*", key):
        mistakes.append(f"command line: {override!r} is not of the form section.key=value, such as training.epochs=5")
        return
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        value = text  # the check of the setting reports what is allowed
    if key in TEXT_SETTINGS:
        value = text
    elif value is None and key not in OPTIONAL_SETTINGS:
        value = ""
    _set(tree, key, value, origins, mistakes)


def _set(tree: dict[str, Any], key: str, value: Any, origins: dict[str, str], mistakes: list[str]) -> None:
    *sections, name = key.split(".")
    for section in sections:
        child = tree.setdefault(section, {})
        if not isinstance(child, dict):
            mistakes.append(f"command line: {key} is not a setting; {section} is not a section")
            return
        tree = child
    tree[name] = value
    origins[key] = "command line"


def _with_task_defaults(tree: dict[str, Any]) -> dict[str, Any]:
    task = tree.get("task", Config.task)
    defaults = TASKS.get(task if isinstance(task, str) else "", Task("labels")).defaults
    whole = dict(tree)
    for section, settings in defaults.items():
        given = whole.get(section, {})
        whole[section] = settings | given if isinstance(given, dict) else given
    return whole


def _validate(tree: dict[str, Any], origin: str, origins: dict[str, str]) -> tuple[Config | None, list[str]]:
    try:
        return TypeAdapter(Config).validate_python(tree), []
    except ValidationError as errors:
        mistakes = []
        for error in errors.errors():
            key = ".".join(str(part) for part in error["loc"])
            mistakes.append(f"{_origin_of(key, origin, origins)}: {_explain(key, error)}")
        return None, list(dict.fromkeys(mistakes))


def _origin_of(key: str, origin: str, origins: dict[str, str]) -> str:
    """Where a setting was given; for a section, where one of its settings was given."""
    inside = [place for name, place in origins.items() if name.startswith(f"{key}.")]
    return origins.get(key) or next(iter(inside), origin)


def _explain(key: str, error: Any) -> str:
    shown, kind, context = _shortened(error["input"]), error["type"], error.get("ctx", {})
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{key} is not a setting; {_suggest(key)}"
    if kind == "literal_error":
        near = difflib.get_close_matches(shown.strip("'\""), re.findall(r"'([^']*)'", context["expected"]), n=1)
        return f"{key} is {shown}, but must be one of {context['expected']}" + (
            f"; did you mean {near[0]}?" if near else ""
        )
    if kind == "dataclass_type":
        return f"{key or 'the file'} is {shown}, but must be a section of `key: value`"
    reason = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if kind == "bool_type":
        reason = "true or false"
    if kind == "tuple_type":
        reason = (
            "a list; leave it out for none" if error["input"] is None else f"a list, such as [{shown.strip(chr(39))}]"
        )
    return f"{key} is {shown}, but must be {reason}"


def _shortened(value: Any) -> str:
    """A wrong value for a message.

    The value is shortened before it is formatted, since YAML's aliases can turn a short file into gigabytes.
    """
    if isinstance(value, dict | list) and len(value) > 0:
        pairs = value.items() if isinstance(value, dict) else (("", each) for each in value)
        parts = [
            (f"{_shortened(key)}: " if isinstance(value, dict) else "")
            + (_shortened(each) if not isinstance(each, dict | list) else "...")
            for key, each in itertools.islice(pairs, 5)
        ]
        inner = ", ".join(parts) + (", ..." if len(value) > 5 else "")
        return f"{{{inner}}}" if isinstance(value, dict) else f"[{inner}]"
    try:
        text = repr(value)
    except ValueError:  # Python does not format integers of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}..."


def _suggest(key: str) -> str:
    sections = {setting.split(".")[0]: None for setting in ALL_SETTINGS}
    near = difflib.get_close_matches(key, [*ALL_SETTINGS, *sections], n=1, cutoff=0.75)
    last = key.rsplit(".", 1)[-1]
    if not near:  # the right name in a wrong section
        near = [setting for setting in ALL_SETTINGS if setting.rsplit(".", 1)[-1] == last]
    if near:
        return f"did you mean {near[0]}?"
    section = key.rsplit(".", 1)[0] if "." in key else ""
    siblings = [setting for setting in ALL_SETTINGS if setting.rpartition(".")[0] == section]
    return f"allowed are {', '.join(siblings if section else sections)}"


_DEFAULTS = _flatten(dataclasses.asdict(Config()))
ALL_SETTINGS = list(_DEFAULTS)
OPTIONAL_SETTINGS = {key for key, value in _DEFAULTS.items() if value is None}
# class_weights is a word or a mapping.
TEXT_SETTINGS = {key for key, value in _DEFAULTS.items() if isinstance(value, str)} - {"training.class_weights"}
