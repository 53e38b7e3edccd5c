"""Processes hurt on purpose, forked from one that has everything imported, so that a fault costs milliseconds.

An audit hook counts a child's file operations below one directory: files opened for writing, renamed, truncated and
removed, directories made and removed. At the chosen one it kills the child, fails the operation or sends a signal,
always before the operation is done. Operation N is the same in every child that runs the same function.
"""

import errno
import gc
import itertools
import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import pyarrow as pa

from maskmill.cli import main as command_line
from maskmill.pipeline.running.threads import use_threads

pa.array([""])  # at its first array pyarrow imports pandas where that is installed: half a second in every child
PATIENCE_S = 120  # a child that takes longer hangs, and SIGALRM ends it
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended."""

    code: int | None  # None where a signal ended it
    signal: int | None
    stdout: str
    stderr: str
    answer: Any  # what its function gave, after a journey through JSON


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at the `at`-th file operation below `root`, counted from 1."""

    root: Path
    at: int
    act: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Child:
    pid: int
    stdout: IO[bytes]
    stderr: IO[bytes]
    answer: IO[bytes]

    def wait(self) -> Ended:
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        answer = _read(self.answer)
        return Ended(
            code if code >= 0 else None,
            -code if code < 0 else None,
            _read(self.stdout),
            _read(self.stderr),
            json.loads(answer) if answer else None,
        )


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def in_child(function: Callable[[], Any], fault: Fault | None = None) -> Ended:
    """Runs a function in a fork of this process. What it gives must be JSON; an error of its own is exit code 1."""
    return start(function, fault).wait()


def start(function: Callable[[], Any], fault: Fault | None = None) -> Child:
    files = TemporaryFile(), TemporaryFile(), TemporaryFile()  # noqa: SIM115 - closed by whoever waits for the child
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any thread; zarr and pyarrow cope
        pid = os.fork()
    if not pid:
        os._exit(_as_child(function, fault, *files))
    return Child(pid, *files)


def together(functions: Sequence[Callable[[], Any]]) -> list[Ended]:
    """Runs functions in children that begin at the same moment."""
    reading, writing = os.pipe()

    def behind_gate(function: Callable[[], Any]) -> Callable[[], Any]:
        def begin() -> Any:
            os.close(writing)
            os.read(reading, 1)  # returns when nobody can write any more
            return function()

        return begin

    children = [start(behind_gate(function)) for function in functions]
    os.close(writing)
    os.close(reading)
    return [child.wait() for child in children]


def operations(function: Callable[[], Any], root: Path) -> list[str]:
    """The file operations of an undisturbed run, in order: what there is to be hurt."""
    seen: list[str] = []

    def counted() -> list[str]:
        _listen(root, seen.append)
        function()
        return seen

    ended = in_child(counted)
    assert ended.code == 0, ended.stderr
    return list(ended.answer)


def as_command(function: Callable[[], Any]) -> Callable[[], Any]:
    """The function as the command `maskmill` would run it: its signals, its exit code, its one line on stderr.

    For a child alone: it puts the function in the place of the command line's parser.
    """

    def command() -> Any:
        answers: list[Any] = []

        def run(arguments: Sequence[str]) -> int:
            answers.append(function())
            return 0

        there: Any = command_line
        there._run = run
        code = command_line.main([])
        if code:
            raise SystemExit(code)
        return answers[0]

    return command


def _as_child(
    function: Callable[[], Any], fault: Fault | None, stdout: IO[bytes], stderr: IO[bytes], answer: IO[bytes]
) -> int:
    code = 1
    try:
        for number in (signal.SIGALRM, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.alarm(PATIENCE_S)
        gc.freeze()  # what comes from the parent is not looked at, or all its pages would be copied
        use_threads(1)  # others stay behind in the parent, and torch would wait for them for ever
        os.dup2(stdout.fileno(), 1)
        os.dup2(stderr.fileno(), 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115 - to the end
        if fault is not None:
            _arm(fault)
        given = function()
        answer.write(json.dumps(given).encode())
        answer.flush()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return code


def _arm(fault: Fault) -> None:
    counted = itertools.count(1)  # of which no two threads have one number

    def act(operation: str) -> None:
        if next(counted) == fault.at:
            fault.act()

    _listen(fault.root, act)


def _listen(root: Path, hear: Callable[[str], None]) -> None:
    """Tells `hear` of every operation of this process that changes what lies below `root`."""
    prefix = str(root)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            if not isinstance(arguments[2], int) or not arguments[2] & WRITING:
                return
        elif event not in CHANGES:
            return
        path = _path(arguments[0])
        if path == prefix or path.startswith(f"{prefix}/"):
            hear(f"{event} {path.removeprefix(prefix)}")

    sys.addaudithook(hook)


def _path(named: Any) -> str:
    if isinstance(named, int):
        try:
            return os.readlink(f"/proc/self/fd/{named}")
        except OSError:
            return ""
    return os.path.abspath(os.fsdecode(named))


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    with file:
        return file.read().decode(errors="replace")
