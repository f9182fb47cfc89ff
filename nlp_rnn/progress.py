"""Progress bars on standard error; none where it is not a terminal."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


class Bar:
    """A bar with a note behind it; does nothing where standard error is not a terminal.

    Args:
      title: before the bar. total: number of steps; completed: those done before.
    """

    def __init__(self, title: str, total: int, completed: int = 0) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._progress = Progress(
            *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
        )
        self._task = self._progress.add_task(title, total=total, completed=completed, note="")
        self._progress.start()

    def advance(self, note: str = "") -> None:
        """One step further."""
        self._progress.update(self._task, advance=1, note=note)

    def close(self) -> None:
        """Removes the bar; may be called twice."""
        self._progress.stop()


def track(items: Iterable[T], title: str, total: int) -> Iterator[T]:
    """Yields the items under a bar."""
    bar = Bar(title, total)
    try:
        for item in items:
            yield item
            bar.advance()
    finally:
        bar.close()
