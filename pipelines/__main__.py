"""The installed command: `nlp-rnn <task> <command> ...` equals `python -m pipelines.<task> <command> ...`."""

import importlib
import sys

from nlp_rnn.cli import check, doctor, launch, records, serve, serve_inputs
from nlp_rnn.cli import main as cli
from nlp_rnn.config import tables
from nlp_rnn.errors import ConfigError
from nlp_rnn.printable import shortened

TASKS = tuple(tables.TASKS)


def main() -> int:
    """Runs the pipeline of the task in the first argument."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        return cli.guarded(_print_help)
    if sys.argv[1] == "check":
        return cli.run_command(lambda: check.main(sys.argv[2:], TASKS), is_json="--json" in sys.argv)
    if sys.argv[1] == "doctor":
        return cli.run_command(lambda: doctor.main(sys.argv[2:]), is_json="--json" in sys.argv)
    if sys.argv[1] == "launch":
        return cli.guarded(lambda: launch.main(sys.argv[2:], TASKS))
    if sys.argv[1] == "records":
        return cli.guarded(lambda: records.main(sys.argv[2:]))
    if sys.argv[1] == "serve":
        return cli.guarded(lambda: serve.main(sys.argv[2:]))
    if sys.argv[1] == "serve-inputs":
        return cli.guarded(lambda: serve_inputs.main(sys.argv[2:]))
    if sys.argv[1] not in TASKS:
        return cli.guarded(_reject_task)
    return cli.main(importlib.import_module(f"pipelines.{sys.argv[1]}"), sys.argv[2:])


def _print_help() -> None:
    print(f"usage: nlp-rnn TASK COMMAND ...\n\n  tasks: {', '.join(TASKS)}\n")
    print(
        "Other commands: check (what is in your data), doctor (what is wrong with a run or model), launch, records, "
        "serve (models over HTTP), serve-inputs. Each has --help."
    )


def _reject_task() -> None:
    raise ConfigError(f"nlp-rnn: {shortened(sys.argv[1])!r} is not a task; choose one of {', '.join(TASKS)}")


if __name__ == "__main__":
    sys.exit(main())
