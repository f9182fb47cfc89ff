"""The command line that all pipelines share: verbs, options, messages, exit statuses. TensorFlow is imported only when a verb needs it.

A command's result goes to standard output, everything else to standard error. Exit status: 0; 2 for a mistake of the
user's, told in one line each; 130 for Ctrl-C; 1 for a bug of ours, with its traceback.
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

from nlp_rnn.config.loading import load_config
from nlp_rnn.config.settings import Config
from nlp_rnn.errors import ConfigError
from nlp_rnn.printable import printable, to_json
from nlp_rnn.text_files import encoding_advice, read_lines

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What a verb found: an object for --json, and the same for people.

    Attributes:
      is_styled: whether the text holds escape sequences of ours; what is of the user's in it must be `printable` then.
    """

    facts: dict[str, Any]
    text: str
    is_styled: bool = False


VERBS = {
    "prepare": "compute a run's token ids: all that train then needs, without the texts and, on JAX, without TensorFlow",
    "train": "train a model, or resume the unfinished run of the same config",
    "tune": "search better settings by trials on the validation split, in a time budget; writes a config file and a picture",
    "evaluate": "score a run or an exported model on a split",
    "export": "write a run's best weights as a model to serve",
    "predict": "answer texts: arguments, the lines of a file, or the lines of standard input",
    "explain": "show why the model answers a text as it does",
    "tokenizer": "show a text's pieces and ids",
    "console": "suggest words while you type",
}


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line.

    Attributes:
      source: of the commands evaluate and export, the group of options of which one names what is scored or exported.
    """

    source: Any = None

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}; see {self.prog} --help")


def main(pipeline: ModuleType, arguments: list[str] | None = None) -> int:
    """Runs `python -m pipelines.<task> VERB ...`.

    Args:
      pipeline: a module with TASK, a function for each verb it has, and add_options(parser, verb) where it has options of its own.
      arguments: without the program's name; None for this process's.

    Returns:
      the exit status.
    """
    return guarded(lambda: _run(pipeline, sys.argv[1:] if arguments is None else arguments))


def guarded(command: Callable[[], int | None]) -> int:
    """Runs a command and turns its errors into messages and an exit status; a command may return one of its own."""
    status = None
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # of Windows and old terminals, say: characters they lack are escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        status = command()
        sys.stdout.flush()
    except ConfigError as error:
        print(printable(str(error)), file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as error:
        print(f"\n{error}" if str(error) else "\nstopped", file=sys.stderr)
        # Frees the data set's iterator now: TensorFlow complains if it outlives the interpreter.
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        return 130
    except SystemExit as error:  # --help
        return error.code if isinstance(error.code, int) else 0
    return status or 0


def run_command(command: Callable[[], Result | None], *, is_json: bool) -> int:
    """Runs a command that is no pipeline's, and prints its result; gives the exit status."""

    def run() -> None:
        _set_up_logging()
        result = command()
        if result is not None:
            print(_shown(result, is_json=is_json))

    return guarded(run)


def _run(pipeline: ModuleType, arguments: list[str]) -> None:
    program = f"python -m pipelines.{pipeline.TASK}"
    verbs = {verb: text for verb, text in VERBS.items() if hasattr(pipeline, verb)}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview(program, pipeline, verbs))
        return
    verb = arguments[0]
    if verb not in verbs:
        raise ConfigError(f"{program}: {verb!r} is not a verb; choose one of {', '.join(verbs)}")
    parser = _parser(f"{program} {verb}", verb, verbs[verb], pipeline)
    if hasattr(pipeline, "add_options"):
        pipeline.add_options(parser, verb)
    options = parser.parse_intermixed_args(arguments[1:])
    _set_up_logging()
    config = None
    if verb in ("prepare", "train"):
        allowed = ["tokenizer.max_unknown=1.0"] if options.allow else []
        config = load_config(options.config, [*options.settings, *allowed], task=pipeline.TASK)
    result = getattr(pipeline, verb)(config or options)
    for each in [result] if isinstance(result, Result) else result:
        print(_shown(each, is_json=options.json), flush=True)


def _overview(program: str, pipeline: ModuleType, verbs: dict[str, str]) -> str:
    lines = [f"usage: {program} VERB ...", "", (pipeline.__doc__ or "").split("\n")[0], ""]
    lines += [f"  {verb:<10} {text}" for verb, text in verbs.items()]
    return "\n".join([*lines, "", f"{program} VERB --help tells more."])


def positive(text: str) -> int:
    if not re.fullmatch("[0-9]+", text) or not int(text):
        raise argparse.ArgumentTypeError(f"is {text!r}, but must be a whole number of 1 or more")
    return int(text)


def _parser(program: str, verb: str, text: str, pipeline: ModuleType) -> Parser:
    parser = Parser(prog=program, description=text, allow_abbrev=False)
    if verb in ("prepare", "train", "tune"):
        parser.add_argument(
            "--config", metavar="FILE", help="YAML file, or a name such as sentiment_demo; without it, the defaults"
        )
        parser.add_argument(
            "--allow",
            action="store_true",
            help="train although many tokens are unknown, as tokenizer.max_unknown=1 does",
        )
    if verb in ("evaluate", "export"):
        parser.source = parser.add_mutually_exclusive_group(required=True)
        several: dict[str, Any] = {"action": "append"} if getattr(pipeline, "HAS_ENSEMBLES", False) else {}
        also = "; given several times, an ensemble" if several else ""
        parser.source.add_argument("--run", metavar="DIR", help=f"run directory that train wrote{also}", **several)
    if verb == "evaluate":
        parser.add_argument("--split", choices=("validation", "test"), default="validation")
    if verb in ("predict", "explain", "tokenizer"):
        parser.add_argument(
            "--model", metavar="DIR", required=True, help=f"exported model, such as saved_models/{pipeline.TASK}"
        )
        parser.add_argument("text", metavar="TEXT", nargs="*" if verb != "explain" else 1)
    if verb in ("predict", "tokenizer"):
        parser.add_argument(
            "--file", metavar="FILE", default="", help="of texts, one per line (default: standard input)"
        )
    if verb == "explain":
        parser.add_argument("--png", metavar="FILE", help="write a picture")
    if verb == "export":
        parser.add_argument(
            "--to", metavar="DIR", default="saved_models", help="folder of all exported models (default: %(default)s)"
        )
    if verb == "tune":
        _add_limits(parser)
    if verb in ("prepare", "train", "tune", "evaluate"):
        also = "; they are not searched" if verb == "tune" else ""
        parser.add_argument(
            "settings", metavar="section.key=value", nargs="*", help=f"settings that override the config's{also}"
        )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _add_limits(parser: Parser) -> None:
    above_zero = between(float, sys.float_info.min, sys.float_info.max, "a number above 0")
    parser.add_argument(
        "--minutes", metavar="M", type=above_zero, required=True, help="wall-clock time; the same command goes on later"
    )
    parser.add_argument(
        "--max-megabytes",
        metavar="N",
        type=above_zero,
        help="largest size of the exported model's weights (default: any)",
    )
    parser.add_argument(
        "--max-trials", metavar="N", type=positive, help="end after so many trials in all (default: none)"
    )


def add_settings(parser: argparse.ArgumentParser, kind: type, *names: str, **aliases: str) -> None:
    """Adds an option for each field of a dataclass of settings, with the field's default and description.

    Args:
      names: of the fields; none: all.
      aliases: field=another name of its option.
    """
    for field in dataclasses.fields(kind):
        if names and field.name not in names:
            continue
        base, *notes = typing.get_args(field.type)
        words = next(note.description for note in notes if getattr(note, "description", None))
        flags = [_flag(field.name), *([_flag(aliases[field.name])] if field.name in aliases else [])]
        if base in (int, float):
            parser.add_argument(
                *flags, type=_number(base), default=field.default, metavar="N", help=f"{words} (default: %(default)s)"
            )
        elif base is str:
            parser.add_argument(*flags, default=field.default, metavar="TEXT", help=words)
        else:
            parser.add_argument(*flags, action="append", default=[], metavar="TEXT", help=f"{words}; can be repeated")


def settings_of(kind: type["Checked"], options: argparse.Namespace) -> dict[str, Any]:
    """The values of a dataclass of settings that options give; its `checked` has taken them.

    Raises:
      ConfigError: naming the options.
    """
    names = [field.name for field in dataclasses.fields(kind) if hasattr(options, field.name)]  # type: ignore[arg-type]
    values = {name: getattr(options, name) for name in names}
    try:
        kind.checked(**values)
    except ConfigError as error:
        told = str(error)
        for name in names:
            told = re.sub(rf"\b{name} is", f"{_flag(name)} is", told)
        raise ConfigError(told) from None
    return values


class Checked(typing.Protocol):
    """A dataclass of settings that checks them."""

    @classmethod
    def checked(cls, **settings: Any) -> Any:
        """The settings, or ConfigError."""


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
    """A reader of an option's text as a number in a range; `what` says the range."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"is {text!r}, but must be {what}")
        return value

    return read


def _set_up_logging() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PrintableFormatter("%(message)s"))
    package = logging.getLogger("nlp_rnn")
    package.handlers[:] = [handler]
    package.setLevel(logging.INFO)
    package.propagate = False


def _shown(result: Result, *, is_json: bool) -> str:
    if is_json:
        encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
        return to_json(result.facts, is_ascii=encoding != "utf8")
    return result.text if result.is_styled else printable(result.text)


class _PrintableFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def input_texts(options: argparse.Namespace, *, batch_size: int = 64) -> Iterator[list[bytes]]:
    """Batches of UTF-8 texts: the command line's, else the lines of --file, else those of standard input, as they come from a terminal.

    Raises:
      ConfigError: if both texts and --file are given, the file cannot be read, or something is not UTF-8.
    """
    if options.text and options.file:
        raise ConfigError(f"--file is {options.file}, but texts are given too; give one of the two")
    if options.text:
        yield [_utf8(text) for text in options.text]
        return
    if options.file:
        try:
            for _ in read_lines(Path(options.file)):
                pass  # to the end, so that nothing is answered of a file that turns out to be damaged
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
                f"standard input: line {number} holds NUL bytes, so it is not text; {encoding_advice(line, None)}"
            )
        yield text


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:  # an argument in another encoding
        raise ConfigError(
            f"TEXT is {text[:80]!r}, which is not UTF-8; set the terminal to UTF-8, or give the text by --file"
        ) from None


def config_of(config: Config, path: str | os.PathLike[str], settings: list[str]) -> Config:
    """A saved config with this machine's `data.*` settings; others would make it another model.

    Args:
      config: as saved at `path`.
      settings: `data.key=value` texts.
    """
    for setting in settings:
        if not setting.startswith("data."):
            raise ConfigError(
                f"command line: {setting!r}: a trained model takes other data.* settings only; train anew for the rest"
            )
    if not settings:
        return config
    found = load_config(path, settings, task=config.task)
    if found.data.outputs != config.data.outputs:
        raise ConfigError(
            f"command line: data.multi_label and data.labels_are say what a model answers, so a trained one keeps those of {path}; leave "
            "them out"
        )
    return found
