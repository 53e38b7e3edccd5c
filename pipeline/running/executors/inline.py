"""Runs units one after another in this process: the default, and what --part uses.

While a unit is computed, a thread writes the one before it, so at most two units are in memory.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from ....manifests.artifact.layout import Unit
from ..job import Job
from ..units import UnitReport
from .attempts import close_log, compute, write


def run_inline(job: Job, units: Iterator[Unit], report: Callable[[UnitReport], None]) -> None:
    try:
        with ThreadPoolExecutor(1, "maskmill-writer") as writer:
            writing: Future[UnitReport] | None = None
            for unit in units:
                attempted = compute(job, unit)
                if writing is not None:
                    report(writing.result())
                writing = writer.submit(write, job, unit, attempted)
            if writing is not None:
                report(writing.result())
    finally:
        close_log(job.at)
