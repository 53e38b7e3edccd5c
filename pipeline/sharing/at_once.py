"""Runs calls that mostly wait for a disk or a network in threads. The first error stops all of them.

Not with concurrent.futures: it waits for its threads when the process ends, so after Ctrl-C a host that does not answer
would block.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import TypeVar

THREADS = 8
PATIENCE_S = 2.0  # for calls in the middle of a request, after Ctrl-C
T = TypeVar("T")


class Stopped(BaseException):
    """Raised in the other calls when one has failed or the user has pressed Ctrl-C."""


def run_in_threads(
    call: Callable[[T, Callable[[int], None]], None],
    items: Iterable[T],
    moved: Callable[[int], None],
    num_threads: int = THREADS,
) -> None:
    """Calls `call` with each item. Raises the first error once the other calls have ended.

    `call` must call its second argument with the size of every piece before it writes it. That reports the size to
    `moved`, or raises `Stopped`, so at most the current piece is written after a stop.
    """
    waiting, stop = deque(items), threading.Event()
    ended: SimpleQueue[BaseException | None] = SimpleQueue()

    def pass_on(number: int) -> None:
        if stop.is_set():
            raise Stopped
        moved(number)

    def work() -> None:
        try:
            while waiting and not stop.is_set():
                try:
                    item = waiting.popleft()
                except IndexError:  # another thread took the last
                    break
                call(item, pass_on)
            ended.put(None)
        except BaseException as error:
            ended.put(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(num_threads, len(waiting)))]
    try:
        for thread in threads:
            thread.start()
        for _ in threads:
            error = ended.get()
            if error is not None:
                raise error
    except BaseException as why:
        stop.set()
        _wait(threads, None if isinstance(why, Exception) else PATIENCE_S)
        raise


def _wait(threads: Iterable[threading.Thread], patience_s: float | None) -> None:
    began = time.monotonic()
    for thread in threads:
        if thread.ident is not None:  # it was started
            thread.join(None if patience_s is None else max(0.0, began + patience_s - time.monotonic()))
