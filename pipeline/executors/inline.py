"""Units one after another in this process: the default, and what a part runs."""

from collections.abc import Callable, Iterator

from ...manifests.layout import Unit
from ..job import Job
from ..units import UnitReport
from .attempts import attempt, close_log


def run_inline(job: Job, units: Iterator[Unit], report: Callable[[UnitReport], None]) -> None:
    try:
        for unit in units:
            report(attempt(job, unit))
    finally:
        close_log(job.at)
