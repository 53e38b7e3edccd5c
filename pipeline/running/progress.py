"""How a run shows itself: a bar with rate and time left on a terminal, or one JSON line per unit."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from types import TracebackType
from typing import Any, Literal

from .units import UnitReport


class RunProgress:
    """Counts what units report, and shows it on standard error; standard output is for the result."""

    def __init__(self, title: str, num_units: int, log: Literal["progress", "json", "quiet"]) -> None:
        self.run = self.skipped = self.rows = self.failed = 0
        self._title, self._num_units, self._log = title, num_units, log
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> "RunProgress":
        if self._log == "progress" and sys.stderr.isatty():
            self._bar = _bar()
            self._task = self._bar.add_task(self._title, total=self._num_units, rows=0, failed="")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def report(self, unit: UnitReport) -> None:
        self.skipped += unit.skipped
        self.run += not unit.skipped
        self.rows += unit.rows
        self.failed += unit.failed
        if self._log == "json":
            print(json.dumps({"stage": self._title, **asdict(unit)}), file=sys.stderr, flush=True)
        if unit.error and self._log != "json":
            last = unit.error.strip().rpartition("\n")[2]
            print(f"maskmill: unit {unit.unit} was given up after every try: {last}; see the log", file=sys.stderr)
        if self._bar is not None:
            failed = f", {self.failed} failed" if self.failed else ""
            self._bar.update(self._task, advance=1, rows=self.rows, failed=failed)


@contextmanager
def moving(title: str, num_bytes: int, is_shown: bool) -> Iterator[Callable[[int], None]]:
    """Files on their way, on a terminal: gives what is to be told of every piece, from any thread."""
    if not is_shown or not sys.stderr.isatty():
        yield lambda number: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress as RichProgress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with RichProgress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=num_bytes)
        yield lambda number: bar.advance(task, number)


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        """Rows per second since the start: units are too coarse to tell."""

        def render(self, task: Task) -> Text:
            rate = task.fields["rows"] / task.elapsed if task.elapsed else 0.0
            return Text(f"{rate:,.0f} rows/s")

    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("units, {task.fields[rows]} rows{task.fields[failed]}"),
        Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
