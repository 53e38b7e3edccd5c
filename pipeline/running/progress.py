"""How a run shows its progress on standard error: a bar on a terminal, or one JSON line per unit.

Everything else that the library reports goes through `logging.getLogger("maskmill")`.
"""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from types import TracebackType
from typing import Any, Literal

from ...manifests.counts import count_of
from .units import UnitReport

LOGGER = logging.getLogger("maskmill")


class RunProgress:
    """Counts what units report, and shows it."""

    def __init__(self, title: str, num_units: int, log: Literal["progress", "json", "quiet"]) -> None:
        self.run = self.skipped = self.rows = self.failed = 0
        self._title, self._num_units, self._log = title, num_units, log
        self._bar: Any = None

    def __enter__(self) -> "RunProgress":
        if self._log == "progress" and sys.stderr.isatty():
            self._bar = _unit_bar()
            self._bar.add_task(self._title, total=self._num_units, rows=0, failed="")
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
        elif unit.error:
            last_line = unit.error.strip().rpartition("\n")[2]
            LOGGER.warning("unit %d was given up after every try: %s; see the log", unit.unit, last_line)
        else:
            LOGGER.debug("%s: %s", self._title, _unit_text(unit))
        if self._bar is not None:
            failed = f", {self.failed} failed" if self.failed else ""
            self._bar.update(self._bar.task_ids[0], advance=1, rows=self.rows, failed=failed)


def _unit_text(unit: UnitReport) -> str:
    if unit.skipped:
        return f"unit {unit.unit} is already done ({count_of(unit.rows, 'row')})"
    seconds = unit.reading_s + unit.computing_s + unit.writing_s
    done = f"{count_of(unit.rows, 'row')}, {unit.failed} failed, {count_of(unit.size, 'byte')}"
    return f"unit {unit.unit}: {done} in {seconds:.1f} s"


@contextmanager
def transfer_bar(title: str, num_bytes: int, is_shown: bool) -> Iterator[Callable[[int], None]]:
    """A bar for files in transfer, on a terminal. Yields a function to call with the bytes of each piece, from any
    thread."""
    if not is_shown or not sys.stderr.isatty():
        yield lambda number: None
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with _bar(TextColumn("{task.description}"), *columns) as bar:
        task = bar.add_task(title, total=num_bytes)
        yield lambda number: bar.advance(task, number)


def _unit_bar() -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        """Rows per second since the start; one unit is too coarse for rich's own rate."""

        def render(self, task: Task) -> Text:
            rate = task.fields["rows"] / task.elapsed if task.elapsed else 0.0
            return Text(f"{rate:,.0f} rows/s")

    counts = TextColumn("units, {task.fields[rows]} rows{task.fields[failed]}")
    title = TextColumn("{task.description}")
    return _bar(title, BarColumn(), MofNCompleteColumn(), counts, Rate(), TimeRemainingColumn())


def _bar(*columns: Any) -> Any:
    from rich.console import Console
    from rich.progress import Progress

    return Progress(*columns, console=Console(stderr=True), transient=True)
