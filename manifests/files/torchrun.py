"""Coordinates the processes that torchrun started for one command: only the first writes, holds the lock and reports.

Before and after the process group exists, the first tells the others its state by one word in torchrun's store:
nothing yet, training begins, or its command has ended. torch is imported on demand.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

from ..errors import Diverged, EnvironmentFault, Terminated

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

WAIT_S = 1800.0  # the first may be validating or writing a checkpoint
AGREED = (Diverged, KeyboardInterrupt, Terminated)  # these end all processes, and the first may still be writing
_FAREWELL_S = 5.0  # from losing the first to its report
_ASK_EVERY_S = 0.1
_WORD, _BEGINS, _ENDED = "maskmill/first", "begins", "ended"


def num_processes() -> int:
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def number() -> int:
    """The number of this process, from 0; only process 0 writes."""
    return int(os.environ["RANK"]) if num_processes() > 1 else 0


def begin() -> None:
    """The first process lets the others start; they wait, because the first may have nothing to do or fail."""
    if number() == 0:
        with _report_lost_store():
            store().set(_WORD, _BEGINS)
    elif _await_word(_BEGINS, WAIT_S) == _ENDED:
        raise EnvironmentFault("the first process ended before there was anything to compute; see its message")


def end() -> None:
    """Called by the first after reporting how its command ended, so the others need not report."""
    if num_processes() > 1 and number() == 0:
        with suppress(EnvironmentFault), _report_lost_store():  # without torchrun there is nobody to tell
            store().set(_WORD, _ENDED)


@contextmanager
def exit_with_first() -> Iterator[None]:
    """Silences an error in another process if the first has ended and reported: the exit code becomes 0, so torchrun
    reports only the first."""
    try:
        yield
    except BaseException as error:
        if number() > 0 and _first_has_ended(WAIT_S if isinstance(error, AGREED) else _FAREWELL_S):
            raise SystemExit(0) from None
        raise


@cache
def store() -> "Store":
    """torchrun's store, through which processes find each other."""
    from torch.distributed import rendezvous  # type: ignore[attr-defined]

    shared, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=WAIT_S)))
    return shared


@contextmanager
def _report_lost_store() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch has no own type for connection errors
        raise EnvironmentFault("torchrun no longer answers; start the same command again") from error


def _first_has_ended(wait_s: float) -> bool:
    """Waits until the first begins or ends, then at most `wait_s` for its end."""
    try:
        return _await_word(_BEGINS, WAIT_S) == _ENDED or _await_word(_ENDED, wait_s) == _ENDED
    except EnvironmentFault:
        return False


def _await_word(word: str, wait_s: float) -> str:
    """Waits for a word of the first, or for its end. Polls, because signals do not interrupt a wait inside torch."""
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        with _report_lost_store():
            current = store().get(_WORD).decode() if store().check([_WORD]) else ""
        if current in (word, _ENDED):
            return current
        time.sleep(_ASK_EVERY_S)
    raise EnvironmentFault(
        f"process {number()} of {num_processes()} waited {wait_s / 60:.0f} minutes for the first; see its message, "
        "and start the same command again"
    )
