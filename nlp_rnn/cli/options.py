"""The options of the command line: parsers with one-line errors, and options from dataclasses of settings."""

import argparse
import dataclasses
import math
import re
import sys
import typing
from collections.abc import Callable
from os.path import expanduser
from types import ModuleType
from typing import Any, NoReturn

from nlp_rnn import files
from nlp_rnn.errors import ConfigError

_MAX_MESSAGE = 500  # characters of what argparse says, which repeats arguments of any length


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises one-line ConfigErrors.

    Attributes:
      source: in evaluate and export, the mutually exclusive options that name the run or model; otherwise None.
    """

    source: Any = None

    def error(self, message: str) -> NoReturn:
        shown = message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}..."
        raise ConfigError(f"{self.prog}: {shown}; see {self.prog} --help")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Also checks that no option replaces itself, and that values with the metavar DIR or FILE can be paths."""
        given = list(sys.argv[1:] if args is None else args)
        given = given[: given.index("--")] if "--" in given else given
        for action in self._actions:
            names = tuple(action.option_strings)
            times = sum(word in names or word.startswith(tuple(f"{name}=" for name in names)) for word in given)
            if times > 1 and isinstance(action, argparse._StoreAction):
                self.error(f"argument {names[0]}: is given {times} times, but only one would count; give it once")
        options, others = super().parse_known_args(args, namespace)
        for action in self._actions:
            value: Any = getattr(options, action.dest, None)
            if action.metavar in ("DIR", "FILE") and value != action.default:
                paths = value if isinstance(value, list) else [value]
                for path in paths:
                    files.check_path(action.option_strings[0], path)
                at_home = [type(path)(expanduser(path)) for path in paths]  # shells leave the ~ of --to=~/models
                setattr(options, action.dest, at_home if isinstance(value, list) else at_home[0])
        return options, others


def positive(text: str) -> int:
    if not re.fullmatch("[0-9]+", text) or not int(text):
        raise argparse.ArgumentTypeError(f"is {text!r}, but must be a whole number of 1 or more")
    return int(text)


def command_parser(program: str, command: str, text: str, pipeline: ModuleType) -> Parser:
    """The parser of a pipeline's command, without the options of the task itself.

    Args:
      program: as in messages.
      text: what the command does.
    """
    parser = Parser(prog=program, description=text, allow_abbrev=False)
    if command in ("prepare", "train", "tune"):
        parser.add_argument(
            "--config",
            metavar="FILE",
            help=f"YAML file, or a name such as {pipeline.TASK}_demo (default: the default settings)",
        )
    if command in ("prepare", "train"):
        parser.add_argument(
            "--allow",
            action="store_true",
            help="train even if many tokens are unknown; the same as tokenizer.max_unknown=1",
        )
    if command in ("evaluate", "export"):
        parser.source = parser.add_mutually_exclusive_group(required=True)
        text = "run directory that train wrote; repeat it for an ensemble"
        parser.source.add_argument("--run", metavar="DIR", action="append", help=text)
    if command == "evaluate":
        parser.add_argument(
            "--split", choices=("validation", "test"), default="validation", help="(default: %(default)s)"
        )
    if command in ("predict", "explain", "tokenizer"):
        default = "the only translator there" if pipeline.TASK == "translation" else pipeline.TASK
        parser.add_argument(
            "--model",
            metavar="DIR",
            help=f"exported model, or its name under NLP_RNN_MODELS or saved_models (default: {default})",
        )
        if command == "explain":
            parser.add_argument("text", metavar="TEXT", nargs=1, help="the text to explain")
        else:
            parser.add_argument("text", metavar="TEXT", nargs="*", help="texts; without them, lines are read")
    if command in ("predict", "tokenizer"):
        parser.add_argument(
            "--file",
            metavar="FILE",
            default="",
            help="file with one text per line, instead of TEXT (default: standard input)",
        )
    if command == "explain":
        parser.add_argument("--png", metavar="FILE", help="also write a picture to FILE")
    if command == "export":
        parser.add_argument(
            "--to", metavar="DIR", default="saved_models", help="folder for exported models (default: %(default)s)"
        )
        parser.add_argument(
            "--weights", choices=("float32", "int8", "int4"), default="float32",
            help="int8: a quarter of the space on disk, at the same speed; int4: as int8, but embeddings take an "
            "eighth (default: %(default)s)",
        )  # fmt: skip
    if command == "tune":
        _add_limits(parser)
    if command == "evaluate":
        parser.add_argument(
            "settings", metavar="data.key=value", nargs="*", help="where the data are now; overrides the saved settings"
        )
    if command in ("prepare", "train", "tune"):
        also = "; they keep their value in all trials" if command == "tune" else ""
        parser.add_argument(
            "settings", metavar="section.key=value", nargs="*", help=f"settings that override the config's{also}"
        )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _add_limits(parser: Parser) -> None:
    above_zero = between(float, sys.float_info.min, sys.float_info.max, "a number above 0")
    parser.add_argument(
        "--minutes", metavar="M", type=above_zero, required=True, help="wall-clock time; rerun the command to continue"
    )
    parser.add_argument(
        "--max-megabytes",
        metavar="N",
        type=above_zero,
        help="largest size of the exported model's weights (default: no limit)",
    )
    parser.add_argument(
        "--max-trials", metavar="N", type=positive, help="largest number of trials over all reruns (default: no limit)"
    )


def add_format(parser: argparse.ArgumentParser, use: str) -> None:
    """Adds the options of tasks with LiteRT exports."""
    parser.add_argument(
        "--format", choices=("savedmodel", "litert"), default="savedmodel",
        help=f"litert: {use}; the files are checked on validation texts; with --weights int8 the float file is left "
        "out, and int4 is for savedmodel only (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "settings", metavar="data.key=value", nargs="*", help="where the texts of the run are now, for --format litert"
    )


def add_settings(parser: argparse.ArgumentParser, kind: type, *names: str, **aliases: str) -> None:
    """Adds one option per field of a dataclass of settings, with the field's default and description.

    Args:
      parser: receives the options.
      kind: the dataclass.
      names: the fields to add; without names, all fields.
      aliases: field=a second name of its option.
    """
    for field in dataclasses.fields(kind):
        if names and field.name not in names:
            continue
        base, *notes = typing.get_args(field.type)
        description = next(note.description for note in notes if getattr(note, "description", None))
        flags = [_flag(field.name), *([_flag(aliases[field.name])] if field.name in aliases else [])]
        if base in (int, float):
            parser.add_argument(
                *flags,
                type=_number(base),
                default=field.default,
                metavar="N",
                help=f"{description} (default: %(default)s)",
            )
        elif base is str:
            parser.add_argument(*flags, default=field.default, metavar="TEXT", help=description)
        else:
            parser.add_argument(
                *flags, action="append", default=[], metavar="TEXT", help=f"{description}; can be repeated"
            )


def settings_of(kind: type["Checked"], options: argparse.Namespace) -> dict[str, Any]:
    """Collects the values of a dataclass of settings from options, and checks them.

    Returns:
      field name -> value.

    Raises:
      ConfigError: if `kind.checked` rejects a value; the message names the options.
    """
    names = [field.name for field in dataclasses.fields(kind) if hasattr(options, field.name)]  # type: ignore[arg-type]
    values = {name: getattr(options, name) for name in names}
    try:
        kind.checked(**values)
    except ConfigError as error:
        message = str(error)
        for name in names:
            message = re.sub(rf"\b{name} is", f"{_flag(name)} is", message)
        raise ConfigError(message) from None
    return values


class Checked(typing.Protocol):
    """A dataclass of settings that checks its values."""

    @classmethod
    def checked(cls, **settings: Any) -> Any:
        """Creates the settings; raises ConfigError if a value is wrong."""


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _number(base: type) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            return base(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"is {text!r}, but must be a {'whole ' if base is int else ''}number"
            ) from None

    return read


def between(kind: type[int] | type[float], low: float, high: float, what: str) -> Callable[[str], float]:
    """Makes an argparse type for numbers from `low` to `high`.

    Args:
      kind: int or float.
      low: smallest allowed value.
      high: largest allowed value.
      what: the allowed values in words, for the error message.
    """

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"is {text!r}, but must be {what}")
        return value

    return read
