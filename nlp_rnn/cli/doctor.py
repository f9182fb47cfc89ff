"""The command `nlp-rnn doctor`: looks for what is wrong, and says what follows from it and how to mend it."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from nlp_rnn import api
from nlp_rnn.cli import findings
from nlp_rnn.cli.findings import Finding
from nlp_rnn.cli.main import Result
from nlp_rnn.cli.options import Parser
from nlp_rnn.config.loading import load_config
from nlp_rnn.errors import ConfigError

_DESCRIPTION = """Looks at the installation and the hardware, and at what is given: a config and its data, a run, an
exported model. Each finding has its consequence and what to do. Exit status: 2 with errors, 1 with warnings, else 0."""


def main(arguments: list[str]) -> Result:
    """Runs `nlp-rnn doctor ...`; returns the findings, the gravest first."""
    parser = Parser(prog="nlp-rnn doctor", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="a config, whose data is read")
    parser.add_argument("--run", metavar="DIR", type=Path, help="a run directory")
    parser.add_argument("--model", metavar="DIR", help="an exported model, or its name; with --run, of that run")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("settings", metavar="section.key=value", nargs="*", help="settings that override the config's")
    options = parser.parse_intermixed_args(arguments)
    checks: list[Callable[[], Iterator[Finding]]] = [
        findings.installation,
        functools.partial(findings.hardware, options.run or Path()),
    ]
    if options.config or options.settings:
        checks.append(functools.partial(_config, options.config, options.settings))
    if options.run:
        checks.append(functools.partial(findings.run, options.run))
    if options.model:
        checks.append(functools.partial(_model, options.model, options.run))
    results = findings.everything(checks)
    status = {"error": 2, "warning": 1}.get(results[0].severity, 0) if results else 0
    return Result({"findings": [asdict(each) for each in results]}, _describe(results), status=status)


def _config(path: str | None, settings: list[str]) -> Iterator[Finding]:
    try:
        config = load_config(path, settings, task=None if path else "sentiment")
    except ConfigError as error:
        for line in str(error).splitlines():
            yield Finding("error", line, "It cannot be trained.", "See the end of that line.")
        return
    yield from findings.data(config)


def _model(name: str, run: Path | None) -> Iterator[Finding]:
    try:
        path = api.find_model(name)
    except ConfigError as error:
        yield Finding("error", f"{error}.", "No model can be looked at.", "See the end of that line.")
        return
    yield from findings.model(path, run)


def _describe(results: list[Finding]) -> str:
    if not results:
        return "nothing to mend"
    return "\n".join(f"{each.severity}: {each.what} {each.consequence} {each.mend}" for each in results)
