"""Who writes, of the processes that torchrun started for one command: the first alone, which also holds the lock and
says how it ended.

What they need to know of each other before they are a group, or when they are one no more, is one word of the first in
torchrun's store: none yet, that the training begins, or that its command has ended. Imports torch when it is asked.
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

WAIT_S = 1800.0  # for each other: the first may look at an epoch or write a checkpoint meanwhile
AGREED = (Diverged, KeyboardInterrupt, Terminated)  # all of them end so, and the first may still have to write
_FAREWELL_S = 5.0  # between the first being lost by the others and its having said why
_ASK_EVERY_S = 0.1
_WORD, _BEGINS, _ENDED = "maskmill/first", "begins", "ended"


def num_processes() -> int:
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def number() -> int:
    """Of this process, from 0; the first alone writes."""
    return int(os.environ["RANK"]) if num_processes() > 1 else 0


def begin() -> None:
    """Of the first: the others may come. They wait for this, since the first may have nothing to do, or be refused."""
    if number() == 0:
        with _report_lost_store():
            store().set(_WORD, _BEGINS)
    elif _await_word(_BEGINS, WAIT_S) == _ENDED:
        raise EnvironmentFault("the first process ended before there was anything to compute")


def end() -> None:
    """Of the first, once it has said how its command ended: the others need not say it too."""
    if num_processes() > 1 and number() == 0:
        with suppress(EnvironmentFault), _report_lost_store():  # where torchrun is gone, so are those who would ask
            store().set(_WORD, _ENDED)


@contextmanager
def exit_with_first() -> Iterator[None]:
    """What ends a process beside the first is not said where the first has ended too and said why: then the exit code
    is 0, so that torchrun tells of the first's and no other."""
    try:
        yield
    except BaseException as error:
        if number() > 0 and _first_has_ended(WAIT_S if isinstance(error, AGREED) else _FAREWELL_S):
            raise SystemExit(0) from None
        raise


@cache
def store() -> "Store":
    """torchrun's own, where processes find each other."""
    from torch.distributed import rendezvous  # type: ignore[attr-defined]

    found, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=WAIT_S)))
    return found


@contextmanager
def _report_lost_store() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch's errors of connections are no others
        raise EnvironmentFault("torchrun does not answer any more; start the same command again") from error


def _first_has_ended(wait_s: float) -> bool:
    """After its beginning it is waited for so long; before that, until it begins or ends."""
    try:
        return _await_word(_BEGINS, WAIT_S) == _ENDED or _await_word(_ENDED, wait_s) == _ENDED
    except EnvironmentFault:
        return False


def _await_word(word: str, wait_s: float) -> str:
    """The first's word, once it is this one or the end. Asked for again and again, because no signal interrupts a wait
    within torch."""
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        with _report_lost_store():
            found = store().get(_WORD).decode() if store().check([_WORD]) else ""
        if found in (word, _ENDED):
            return found
        time.sleep(_ASK_EVERY_S)
    raise EnvironmentFault(
        f"process {number()} of {num_processes()} waited {wait_s / 60:.0f} minutes for the first; see what that says, "
        "and start the same command again"
    )
