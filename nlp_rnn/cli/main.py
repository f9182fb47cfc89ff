"""The command line that all pipelines share: commands, options, messages and exit statuses.

TensorFlow is imported only when a command needs it. A command's result goes to standard output; everything else goes to
standard error. Exit status: 0 on success; 2 for user mistakes, with one line per mistake; 130 after Ctrl-C; 1 for a
bug, with its traceback.
"""

import argparse
import codecs
import dataclasses
import gc
import io
import itertools
import logging
import math
import os
import re
import sys
import traceback
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from nlp_rnn import files
from nlp_rnn.config.loading import load_config
from nlp_rnn.config.settings import Config
from nlp_rnn.errors import ConfigError
from nlp_rnn.printable import printable, to_json
from nlp_rnn.text_files import encoding_advice, read_lines

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """The result of a command, as an object for --json and as text for a terminal.

    Attributes:
      facts: the object that --json prints.
      text: the same as text.
      is_styled: whether the text contains terminal escape sequences. All user text in it must then be `printable`.
      status: the exit status, of commands that belong to no pipeline.
    """

    facts: dict[str, Any]
    text: str
    is_styled: bool = False
    status: int = 0


COMMANDS = {
    "prepare": "compute a run's token ids, so that train needs neither the texts nor, on JAX, TensorFlow",
    "train": "train a model, or resume the unfinished run of the same config",
    "tune": "search for better settings within a time budget; write a config file and a picture",
    "evaluate": "score a run or an exported model on a split",
    "export": "write a run's best weights as a model to serve",
    "predict": "apply an exported model to texts: arguments, or lines of a file or of standard input",
    "explain": "show how the model arrives at its output for a text",
    "tokenizer": "show the pieces and ids of texts",
    "console": "suggest words while you type",
}


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
        """Also checks that values of options with the metavar DIR or FILE can be paths."""
        options, others = super().parse_known_args(args, namespace)
        for action in self._actions:
            value: Any = getattr(options, action.dest, None)
            if action.metavar in ("DIR", "FILE") and value != action.default:
                for path in value if isinstance(value, list) else [value]:
                    files.check_path(action.option_strings[0], path)
        return options, others


def main(pipeline: ModuleType, arguments: list[str] | None = None) -> int:
    """Runs `python -m pipelines.<task> COMMAND ...`.

    Args:
      pipeline: a module with TASK, one function per command, and optionally add_options(parser, command), which adds
        the task's own options.
      arguments: the arguments without the program's name; None: those of this process.

    Returns:
      the exit status.
    """
    return guarded(lambda: _run(pipeline, sys.argv[1:] if arguments is None else arguments))


def guarded(command: Callable[[], int | None]) -> int:
    """Runs a command and turns its errors into messages and an exit status.

    Returns:
      what the command returns, with None as 0; 2 after a ConfigError; 130 after Ctrl-C.
    """
    status = None
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # escapes characters that the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        status = command()
        sys.stdout.flush()
    except ConfigError as error:
        print(printable(str(error)), file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reading end was closed, as by head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as error:
        print(printable(f"\n{error}") if str(error) else "\nstopped", file=sys.stderr)
        # Frees the data set's iterator now: TensorFlow complains if it outlives the interpreter.
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        return 130
    except SystemExit as error:  # --help
        return error.code if isinstance(error.code, int) else 0
    return status or 0


def run_command(command: Callable[[], Result | None], *, is_json: bool) -> int:
    """Runs a command that belongs to no pipeline and prints its result; returns the exit status."""

    def run() -> int:
        set_up_logging()
        result = command()
        if result is None:
            return 0
        print(_shown(result, is_json=is_json))
        return result.status

    return guarded(run)


def _run(pipeline: ModuleType, arguments: list[str]) -> None:
    program = f"python -m pipelines.{pipeline.TASK}"
    commands = {command: text for command, text in COMMANDS.items() if hasattr(pipeline, command)}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview(program, pipeline, commands))
        return
    command = arguments[0]
    if command not in commands:
        raise ConfigError(f"{program}: {command!r} is not a command; choose one of {', '.join(commands)}")
    parser = _parser(f"{program} {command}", command, commands[command], pipeline)
    if hasattr(pipeline, "add_options"):
        pipeline.add_options(parser, command)
    options = parser.parse_intermixed_args(arguments[1:])
    if command in ("predict", "explain", "tokenizer", "console") and options.model is None:
        from nlp_rnn import api

        options.model = api.default_model(pipeline.TASK, "_litert" if command == "console" else "")
    set_up_logging()
    config = None
    if command in ("prepare", "train"):
        allowed = ["tokenizer.max_unknown=1.0"] if options.allow else []
        config = load_config(options.config, [*options.settings, *allowed], task=pipeline.TASK)
    result = getattr(pipeline, command)(config or options)
    for each in [result] if isinstance(result, Result) else result:
        print(_shown(each, is_json=options.json), flush=True)


def _overview(program: str, pipeline: ModuleType, commands: dict[str, str]) -> str:
    lines = [f"usage: {program} COMMAND ...", "", (pipeline.__doc__ or "").split("\n")[0], ""]
    lines += [f"  {command:<10} {text}" for command, text in commands.items()]
    return "\n".join([*lines, "", f"For the options of a command: {program} COMMAND --help"])


def positive(text: str) -> int:
    if not re.fullmatch("[0-9]+", text) or not int(text):
        raise argparse.ArgumentTypeError(f"is {text!r}, but must be a whole number of 1 or more")
    return int(text)


def _parser(program: str, command: str, text: str, pipeline: ModuleType) -> Parser:
    parser = Parser(prog=program, description=text, allow_abbrev=False)
    if command in ("prepare", "train", "tune"):
        parser.add_argument(
            "--config",
            metavar="FILE",
            help="YAML file, or a name such as sentiment_demo (default: the default settings)",
        )
        parser.add_argument(
            "--allow",
            action="store_true",
            help="train even if many tokens are unknown; the same as tokenizer.max_unknown=1",
        )
    if command in ("evaluate", "export"):
        parser.source = parser.add_mutually_exclusive_group(required=True)
        several: dict[str, Any] = {"action": "append"} if getattr(pipeline, "HAS_ENSEMBLES", False) else {}
        also = "; repeat it for an ensemble" if several else ""
        parser.source.add_argument("--run", metavar="DIR", help=f"run directory that train wrote{also}", **several)
    if command == "evaluate":
        parser.add_argument("--split", choices=("validation", "test"), default="validation")
    if command in ("predict", "explain", "tokenizer"):
        parser.add_argument(
            "--model", metavar="DIR", help=f"exported model (default: {pipeline.TASK}, of the folders with models)"
        )
        parser.add_argument("text", metavar="TEXT", nargs="*" if command != "explain" else 1)
    if command in ("predict", "tokenizer"):
        parser.add_argument(
            "--file", metavar="FILE", default="", help="file with one text per line (default: standard input)"
        )
    if command == "explain":
        parser.add_argument("--png", metavar="FILE", help="also write a picture to FILE")
    if command == "export":
        parser.add_argument(
            "--to", metavar="DIR", default="saved_models", help="folder for exported models (default: %(default)s)"
        )
        parser.add_argument(
            "--weights", choices=("float32", "int8"), default="float32",
            help="int8: a quarter of the space on disk, the same speed (default: %(default)s)",
        )  # fmt: skip
    if command == "tune":
        _add_limits(parser)
    if command in ("prepare", "train", "tune", "evaluate"):
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
        help=f"litert: {use}; the files are checked on validation texts (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "settings", metavar="data.key=value", nargs="*", help="where the validation texts of --format litert are now"
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


def set_up_logging(pattern: str = "%(message)s") -> None:
    """Writes the package's messages to standard error, in a pattern of `logging`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PrintableFormatter(pattern))
    package = logging.getLogger("nlp_rnn")
    package.handlers[:] = [handler]
    package.setLevel(logging.INFO)
    package.propagate = False
    logging.captureWarnings(True)  # such as matplotlib's, which quote the texts of the user
    logging.getLogger("py.warnings").handlers[:] = [handler]


def _shown(result: Result, *, is_json: bool) -> str:
    if is_json:
        encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
        return to_json(result.facts, is_ascii=encoding != "utf8")
    return result.text if result.is_styled else printable(result.text)


class _PrintableFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def input_texts(options: argparse.Namespace, *, batch_size: int = 64) -> Iterator[list[bytes]]:
    """Yields batches of UTF-8 texts: those of the command line, or the lines of --file or of standard input.

    Args:
      options: with `text` (list of str) and `file` (a path, or "").
      batch_size: texts per batch; a terminal's lines come one by one.

    Raises:
      ConfigError: if both texts and --file are given, the file cannot be read, or a text is not UTF-8.
    """
    if options.text and options.file:
        raise ConfigError(f"--file is {options.file}, but texts are given too; give one of the two")
    if options.text:
        yield [_utf8(text) for text in options.text]
        return
    if options.file:
        try:
            for _ in read_lines(Path(options.file)):
                pass  # Read to the end first, so that a damaged file gives no output at all.
        except ConfigError as error:
            raise ConfigError(f"--file is {options.file}: {str(error).removeprefix(f'{options.file}: ')}") from None
        lines: Iterator[bytes] = (line.encode() for _, line in read_lines(Path(options.file)))
    else:
        lines = _stdin_lines()
    size = batch_size if options.file or not sys.stdin.isatty() else 1
    while batch := list(itertools.islice(lines, size)):
        yield batch


def _stdin_lines() -> Iterator[bytes]:
    for number, line in enumerate(sys.stdin.buffer, start=1):
        text = line.rstrip(b"\r\n").removeprefix(codecs.BOM_UTF8 if number == 1 else b"")
        try:
            text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(
                f"standard input: line {number}, byte {error.start}: not UTF-8; {encoding_advice(line, None)}"
            ) from None
        if b"\0" in text:
            raise ConfigError(
                f"standard input: line {number} contains NUL bytes, so it is not text; {encoding_advice(line, None)}"
            )
        yield text


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:  # an argument in another encoding
        raise ConfigError(
            f"TEXT is {text[:80]!r}, which is not UTF-8; set the terminal to UTF-8, "
            "or pass the text in a file with --file"
        ) from None


def config_of(config: Config, path: str | os.PathLike[str], settings: list[str]) -> Config:
    """A saved config with other `data.*` settings, such as this machine's paths.

    Args:
      config: the config that is saved at `path`.
      path: the file of the saved config.
      settings: `data.key=value` texts.

    Raises:
      ConfigError: if another setting is given, since it would describe another model.
    """
    for setting in settings:
        if not setting.startswith("data."):
            raise ConfigError(
                f"command line: {setting!r}: only data.* settings can be changed for a trained model; "
                "for others train a new one"
            )
    if not settings:
        return config
    found = load_config(path, settings, task=config.task)
    if found.data.outputs != config.data.outputs:
        raise ConfigError(
            "command line: data.multi_label and data.labels_are say what a model answers, "
            f"so a trained one keeps those of {path}; leave "
            "them out"
        )
    return found
