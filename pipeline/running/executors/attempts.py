"""Tries a unit several times, and writes the log of this process."""

import json
import os
import socket
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from typing import TypeVar

from ....manifests.artifact.layout import Unit
from ....manifests.errors import MaskmillError, Reason
from ....manifests.files import atomic
from ....manifests.files.place import Place
from ..job import TRIES, Job, PreparationError
from ..progress import LOGGER
from ..units import Computed, UnitReport, compute_unit, give_up, write_unit

T = TypeVar("T")
Attempted = Computed | UnitReport | str  # computed, skipped, or the traceback of the last try


def attempt(job: Job, unit: Unit, careful: bool = False) -> UnitReport:
    """Runs a unit, several times if it raises. After the last try its rows are recorded as failed and the run goes on.

    An error of the machine or the artifact affects every unit, so it ends the run at once.
    """
    return write(job, unit, compute(job, unit, careful))


def compute(job: Job, unit: Unit, careful: bool = False) -> Attempted:
    """The first half of an attempt. Writes nothing of the unit."""
    return _try_again(job, unit, partial(compute_unit, job, unit, careful))


def write(job: Job, unit: Unit, attempted: Attempted) -> UnitReport:
    """The second half, which another thread may run."""
    if isinstance(attempted, Computed):
        attempted = _try_again(job, unit, partial(write_unit, attempted))
    if isinstance(attempted, str):
        return log_give_up(job, unit, Reason.ERROR, attempted)
    if not attempted.skipped:
        log(job.at, {"event": "unit", **asdict(attempted)})
    return attempted


def _try_again(job: Job, unit: Unit, function: Callable[[], T]) -> T | str:
    error = ""
    for number in range(1, TRIES + 1):
        try:
            return function()
        except (MaskmillError, PreparationError):
            raise
        except Exception as unexpected:
            error = "".join(traceback.format_exception(unexpected))
            log(job.at, {"event": "raised", "unit": unit.index, "try": number, "traceback": error})
            sentence = "unit %d raised %s at try %d of %d"
            LOGGER.debug(sentence, unit.index, type(unexpected).__name__, number, TRIES)
    return error


def log_give_up(job: Job, unit: Unit, reason: Reason, error: str = "") -> UnitReport:
    log(job.at, {"event": "given up", "unit": unit.index, "reason": str(reason)})
    return give_up(job, unit, reason, error)


def log(at: Place, event: dict[str, object]) -> None:
    line = {"time": time.time(), "host": socket.gethostname(), "pid": os.getpid(), **event}
    _log(at, os.getpid()).append(json.dumps(line).encode())


def close_log(at: Place) -> None:
    _log(at, os.getpid()).close()


@cache
def _log(at: Place, pid: int) -> atomic.Log:
    return atomic.Log(at, f"log/{uuid.uuid4().hex}.jsonl")
