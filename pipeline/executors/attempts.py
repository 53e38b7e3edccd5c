"""How often a unit is tried, and what is written of it in the log of this process."""

import json
import os
import socket
import time
import traceback
import uuid
from dataclasses import asdict
from functools import cache

from ...manifests import atomic
from ...manifests.errors import MaskmillError, Reason
from ...manifests.layout import Unit
from ...manifests.place import Place
from ..job import TRIES, Job, PreparationError
from ..units import UnitReport, give_up, run_unit


def attempt(job: Job, unit: Unit, careful: bool = False) -> UnitReport:
    """Runs a unit, again if it raises; after the last try its rows are recorded as failed and the run goes on.

    What is wrong with the machine or the artifact is wrong for every unit, so that ends the run at once.
    """
    error = ""
    for number in range(1, TRIES + 1):
        try:
            report = run_unit(job, unit, careful)
        except (MaskmillError, PreparationError):
            raise
        except Exception as unexpected:
            error = "".join(traceback.format_exception(unexpected))
            log(job.at, {"event": "raised", "unit": unit.index, "try": number, "traceback": error})
            continue
        if not report.skipped:
            log(job.at, {"event": "unit", **asdict(report)})
        return report
    return given_up(job, unit, Reason.ERROR, error)


def given_up(job: Job, unit: Unit, reason: Reason, error: str = "") -> UnitReport:
    log(job.at, {"event": "given up", "unit": unit.index, "reason": str(reason)})
    return give_up(job, unit, reason, error)


def log(at: Place, event: dict[str, object]) -> None:
    """A line in this process's own log file in the artifact."""
    line = {"time": time.time(), "host": socket.gethostname(), "pid": os.getpid(), **event}
    _log(at, os.getpid()).append(json.dumps(line).encode())


def close_log(at: Place) -> None:
    _log(at, os.getpid()).close()


@cache
def _log(at: Place, pid: int) -> atomic.Log:
    return atomic.Log(at, f"log/{uuid.uuid4().hex}.jsonl")
