"""How a training of several processes is stopped by a signal: after the same step in all of them.

One that left a step in the middle would leave the others waiting for it. So SIGINT and SIGTERM are noted, told with the
losses of the step, and raised once the step is done; torchrun gives half a minute before it kills.
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
    """What was heard so far. Of one process nothing is: signals are raised as ever, wherever it is."""

    def __init__(self) -> None:
        self.noted = 0  # a signal's number
        self._raises = False

    def note(self, number: int, frame: FrameType | None = None) -> None:
        if self.noted and number == signal.SIGINT:  # whoever presses Ctrl-C again does not wait
            os._exit(INTERRUPTED)
        self.noted = self.noted or number
        if self._raises:
            self.raise_for(self.noted)

    def raise_for(self, number: int) -> None:
        """A signal that all processes know of; 0 is none."""
        if number:
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    @contextmanager
    def raise_at_once(self) -> Iterator[None]:
        """Around what the first process does while no other waits for its part of a step."""
        self._raises = torchrun.number() == 0
        try:
            self.raise_for(self.noted if self._raises else 0)
            yield
        finally:
            self._raises = False


@contextmanager
def catch_stops() -> Iterator[Stops]:
    stops = Stops()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heard = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    if torchrun.num_processes() == 1:
        heard = {}
    for number in heard:
        signal.signal(number, stops.note)
    try:
        yield stops
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)
