"""The command line that all pipelines share: commands, messages and exit statuses.

TensorFlow is imported only when a command needs it. A command's result goes to standard output; everything else goes to
standard error. Exit status: 0 on success; 2 for user mistakes, with one line per mistake; 130 after Ctrl-C; 1 for a
bug, with its traceback.
"""

import gc
import io
import logging
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from nlp_rnn import files
from nlp_rnn.cli.options import command_parser
from nlp_rnn.cli.texts import utf8
from nlp_rnn.config.loading import load_config, load_saved_config
from nlp_rnn.config.settings import Config
from nlp_rnn.errors import ConfigError
from nlp_rnn.printable import message, printable, shortened, to_json

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
    "evaluate": "score a run, an ensemble of several, or (sentiment, next_word) an export on a split",
    "export": "write a run's best weights as a model to serve",
    "predict": "apply an exported model to texts: arguments, or lines of a file or of standard input",
    "explain": "show how the model arrives at its output for a text",
    "tokenizer": "show the pieces and ids of texts",
    "console": "suggest words while you type",
}


def main(pipeline: ModuleType, arguments: list[str] | None = None) -> int:
    """Runs `nlp-rnn <task> COMMAND ...`.

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
      what the command returns, with None as 0; 2 after a ConfigError or a full disk; 130 after Ctrl-C; 0 if the reader
      of standard output has closed it.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # escapes characters that the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _status_of(command)
        sys.stdout.flush()
    except BrokenPipeError:  # as by head
        _discard_output()
        return 0
    except OSError as error:
        # Errors of the user's files are told by `files.disk_errors`.
        if error.errno not in files.FULL:
            raise
        _discard_output()
        name = error.filename or "standard output or a temporary file"
        print(message(f"{name}: cannot be written ({error.strerror}); {files.FULL[error.errno]}"), file=sys.stderr)
        return 2
    return status


def _status_of(command: Callable[[], int | None]) -> int:
    try:
        return command() or 0
    except ConfigError as error:
        print(message(str(error)), file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(message(f"\n{error}") if str(error) else "\nstopped", file=sys.stderr)
        # Frees the data set's iterator now: TensorFlow complains if it outlives the interpreter.
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        return 130
    except SystemExit as error:  # --help
        return error.code if isinstance(error.code, int) else 0


def _discard_output() -> None:
    """Discards what Python would still write to standard output when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
    program = f"nlp-rnn {pipeline.TASK}"
    commands = {command: text for command, text in COMMANDS.items() if hasattr(pipeline, command)}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview(program, pipeline, commands))
        return
    command = arguments[0]
    if command not in commands:
        raise ConfigError(f"{program}: {shortened(command)!r} is not a command; choose one of {', '.join(commands)}")
    parser = command_parser(f"{program} {command}", command, commands[command], pipeline)
    if hasattr(pipeline, "add_options"):
        pipeline.add_options(parser, command)
    options = parser.parse_intermixed_args(arguments[1:])
    if command in ("predict", "explain", "tokenizer", "console") and options.model is None:
        from nlp_rnn import api

        options.model = api.default_model(pipeline.TASK, "_litert" if command == "console" else "")
    if command == "explain":
        utf8(options.text[0])
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
        return message(super().format(record))


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
    saved = load_saved_config(Path(path), config.task, settings)
    if saved.data.outputs != config.data.outputs:
        raise ConfigError(
            "command line: data.multi_label and data.labels_are say what a model answers, "
            f"so a trained one keeps those of {path}; leave "
            "them out"
        )
    return saved
