"""Progress bars on standard error, shown only on a terminal."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


class Bar:
    """A progress bar with a note. It shows nothing if standard error is not a terminal.

    Args:
      title: text before the bar.
      total: number of steps.
      completed: number of steps that are already done.
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
        """Advances the bar by one step and sets the note after it."""
        self._progress.update(self._task, advance=1, note=note)

    def close(self) -> None:
        """Removes the bar. Further calls do nothing."""
        self._progress.stop()


def track(items: Iterable[T], title: str, total: int) -> Iterator[T]:
    """Yields the items and shows a bar of `total` steps."""
    bar = Bar(title, total)
    try:
        for item in items:
            yield item
            bar.advance()
    finally:
        bar.close()
