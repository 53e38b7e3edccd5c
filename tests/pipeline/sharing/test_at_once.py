"""Several calls at once: all are made, one that fails or a signal ends the others, and none is waited for for ever."""

import signal
import threading
import time
from collections.abc import Callable

import pytest

from faults.crash import as_command, in_child, interrupt
from maskmill.pipeline.sharing.at_once import Stopped, run_in_threads

Passed = Callable[[int], None]


def test_every_item_is_called_once_and_what_moved_is_told() -> None:
    called, told = list[int](), list[int]()
    threads = set[str]()

    def call(item: int, passed: Passed) -> None:
        threads.add(threading.current_thread().name)
        passed(item)
        time.sleep(0.001)
        called.append(item)

    run_in_threads(call, range(100), told.append, 4)
    assert sorted(called) == sorted(told) == list(range(100))
    assert 1 < len(threads) <= 4
    run_in_threads(call, [], told.append)


def test_what_fails_ends_the_others_before_it_is_raised() -> None:
    ended, begun = list[int](), list[int]()
    everyone = threading.Barrier(3, timeout=30)

    def call(item: int, passed: Passed) -> None:
        begun.append(item)
        if item < 3:
            everyone.wait()
        if item == 1:
            raise ValueError("the second")
        try:
            while True:
                passed(1)
                time.sleep(0.001)
        except Stopped:
            ended.append(item)
            raise

    with pytest.raises(ValueError, match="the second"):
        run_in_threads(call, range(50), lambda number: None, 3)
    assert sorted(ended) == [0, 2]
    assert sorted(begun) == [0, 1, 2], "none was begun after it"


def test_ctrl_c_does_not_wait_for_a_host_that_never_answers() -> None:
    def call(item: int, passed: Passed) -> None:
        if item == 3:
            interrupt()
        time.sleep(1000)

    def child() -> None:
        signal.alarm(60)  # with which the test would fail
        run_in_threads(call, range(4), lambda number: None, 4)

    ended = in_child(as_command(child))
    assert ended.code == 130, ended.stderr
    assert ended.stderr.startswith("maskmill: stopped by Ctrl-C; ")
    assert ended.stderr.count("\n") == 1
