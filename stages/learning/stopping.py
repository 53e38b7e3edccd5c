"""Stops a training of several processes by a signal, after the same step in all of them.

A process that left a step halfway would leave the others waiting. So SIGINT and SIGTERM are noted, sent along with the
losses of the step, and raised at its end; torchrun kills after half a minute.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ...manifests.errors import Terminated
from ...manifests.files import torchrun

INTERRUPTED = 130


class Stops:
    """The signals received so far. A single process notes none: signals raise immediately, as usual."""

    def __init__(self) -> None:
        self.noted = 0  # a signal's number
        self._raises = False

    def note(self, number: int, frame: FrameType | None = None) -> None:
        if self.noted and number == signal.SIGINT:  # a second Ctrl-C ends the process at once
            os._exit(INTERRUPTED)
        self.noted = self.noted or number
        if self._raises:
            self.raise_for(self.noted)

    def raise_for(self, number: int) -> None:
        """Raises for a signal that all processes know of; 0 is none."""
        if number:
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    @contextmanager
    def raise_at_once(self) -> Iterator[None]:
        """Wraps work of the first process during which no other waits for its part of a step."""
        self._raises = torchrun.number() == 0
        try:
            self.raise_for(self.noted if self._raises else 0)
            yield
        finally:
            self._raises = False


@contextmanager
def catch_stops() -> Iterator[Stops]:
    stops = Stops()
    signals = (signal.SIGINT, signal.SIGTERM) if torchrun.num_processes() > 1 else ()
    handlers = {number: signal.getsignal(number) for number in signals}
    handlers = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
    for number in handlers:
        signal.signal(number, stops.note)
    try:
        yield stops
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
