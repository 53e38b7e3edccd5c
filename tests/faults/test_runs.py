"""Several runs at once, stopped runs, and runs by other means: one artifact, and the bytes of one quiet run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders.mistakes import assert_named
from faults.cases import CASES, MAX_BAD, UNIT_ROWS, Subject, removed, tree, with_run_unit
from faults.crash import Fault, as_command, in_child, interrupt, kill, operations, start, terminate, together
from maskmill.cli import main as command_line
from maskmill.manifests.errors import InputError
from maskmill.manifests.files import lock
from maskmill.manifests.files.place import Place

PARTS = 16
TESTS = str(Path(__file__).parents[1])


def test_parts_at_once(subject: Subject, out: Path) -> None:
    """Sixteen processes and `finish` make what one run makes, from an empty directory or from another part's plan."""
    home = subject.home
    whole = home.new_out()
    home.made(whole, unit_rows=1)
    for _ in range(3):
        ended = together([part(subject, out, number) for number in range(1, PARTS + 1)])
        assert [each.code for each in ended] == [0] * PARTS, [each for each in ended if each.code]
        assert sum(each.answer["run"] for each in ended) == 10
        finished = in_child(as_command(lambda: home.finish(out)))
        assert finished.code == 0, finished
        assert finished.answer["run"] == 0
        assert tree(out) == tree(whole)
        removed(out)


def part(subject: Subject, out: Path, number: int) -> Callable[[], Any]:
    return as_command(lambda: subject.home.run(out, part=(number, PARTS), unit_rows=1))


def test_a_part_that_is_missing(subject: Subject, out: Path) -> None:
    """`finish` says which, and changes nothing; a part that was killed is run again."""
    home = subject.home
    assert home.tried(out, part=(1, 2)).code == 0
    before = tree(out)
    ended = in_child(as_command(lambda: home.finish(out)))
    assert ended.code == 2
    assert_named(ended.stderr, "2 4 units")
    assert tree(out) == before
    second = lambda: home.run(out, part=(2, 2))  # noqa: E731
    killed = in_child(second, Fault(out, 5, kill))
    assert killed.signal == signal.SIGKILL
    assert in_child(as_command(second)).code == 0
    assert in_child(as_command(lambda: home.finish(out))).code == 0
    assert tree(out) == subject.tree


def test_a_part_that_cannot_be_planned(subject: Subject, out: Path) -> None:
    """It takes nothing away from the part that began beside it."""
    stage = subject.home.case.stage

    def plan(*arguments: Any) -> Any:
        assert subject.home.tried(out, part=(1, 2)).code == 0
        raise InputError("told to raise")

    ended = subject.home.tried(out, part=(2, 2), stage=replace(stage, plan=plan))
    assert ended.code == 2, ended
    assert (out / "plan.json").exists()
    assert subject.home.tried(out, part=(2, 2)).code == 0
    finished = in_child(as_command(lambda: subject.home.finish(out)))
    assert (finished.code, finished.answer["run"]) == (0, 0)
    assert tree(out) == subject.tree


def test_two_runs_at_once(subject: Subject, out: Path) -> None:
    """Row 16: 25 times, one goes on and the other is told within a second."""
    slow = with_run_unit(subject.home.case, slowly(subject))
    for _ in range(25):
        ended = together([timed(subject, out, slow), timed(subject, out, slow)])
        assert sorted(each.code or 0 for each in ended) == [0, 75], ended
        refused = next(each for each in ended if each.code == 75)
        assert float(refused.stdout) < 1
        assert_named(refused.stderr, f"{out} another run")
        assert tree(out) == subject.tree
        removed(out)


def slowly(subject: Subject) -> Callable[..., Any]:
    def run_unit(*arguments: Any) -> Any:
        time.sleep(0.05)
        return subject.home.case.stage.run_unit(*arguments)

    return run_unit


def timed(subject: Subject, out: Path, stage: Any) -> Callable[[], Any]:
    def run() -> Any:
        began = time.monotonic()
        try:
            return as_command(lambda: subject.home.run(out, stage=stage))()
        finally:
            print(time.monotonic() - began)

    return run


def test_another_run_between_two_looks(subject: Subject, out: Path) -> None:
    """An artifact that was not there at the first look, and is at the second, is no stranger's directory."""
    there: Any = Place
    exists = Place.exists

    def late(self: Place, name: str) -> bool:
        found = exists(self, name)
        there.exists = exists
        assert subject.home.tried(out).code == 0
        return found

    def run() -> Any:
        there.exists = late  # for its first question alone: whether there is a plan
        return subject.home.run(out)

    ended = in_child(as_command(run))
    assert ended.code == 0, ended
    assert ended.answer["run"] == 0
    assert tree(out) == subject.tree


def test_the_holder_is_killed(subject: Subject, out: Path) -> None:
    """Row 17: its lock dies with it, and the next run starts at once."""

    def stuck(*arguments: Any) -> Any:
        time.sleep(60)

    child = start(lambda: subject.home.run(out, stage=with_run_unit(subject.home.case, stuck)))
    deadline = time.monotonic() + 20
    while not (lock.is_held(Place(str(out))) and (out / "plan.json").exists()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert subject.home.tried(out).code == 75
    assert subject.home.tried(out, part=(1, 2)).code == 75
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait().signal == signal.SIGKILL
    assert (out / ".lock").exists()
    began = time.monotonic()
    subject.home.made(out)
    assert time.monotonic() - began < 2
    assert tree(out) == subject.tree


@pytest.mark.parametrize(("act", "code"), [(interrupt, 130), (terminate, 143)])
def test_stopped_by_a_signal(subject: Subject, out: Path, act: Callable[[], None], code: int) -> None:
    """Row 34: at twenty points spread over the run."""
    points = operations(lambda: subject.home.run(out), out)
    for number in range(20):
        removed(out)
        at = 1 + number * (len(points) - 1) // 19
        ended = in_child(as_command(lambda: subject.home.run(out)), Fault(out, at, act))
        assert ended.code == code, (points[at - 1], ended)
        assert "Traceback" not in ended.stderr, ended.stderr
        assert "stopped by" in ended.stderr
        assert not [name for name in tree(out) if name.endswith(".tmp")], points[at - 1]
        subject.home.made(out)
        assert tree(out) == subject.tree, points[at - 1]


@pytest.mark.parametrize(("act", "code"), [(interrupt, 130), (terminate, 143)])
def test_the_command_itself_is_stopped(subject: Subject, out: Path, act: Callable[[], None], code: int) -> None:
    """The same through all of `maskmill index`; the stages of the tests have no command."""
    if subject.home.case is not CASES["index"]:
        pytest.skip("a stage of the tests has no command")
    home = subject.home.path
    arguments = ["index", "folder", str(home / "pictures"), "--masks", str(home / "masks"), "--out", str(out)]
    arguments += ["--unit-rows", str(UNIT_ROWS), "--max-bad", str(MAX_BAD)]

    def command() -> None:
        if ended := command_line.main(arguments):
            raise SystemExit(ended)

    points = operations(command, out)
    for at in range(3, len(points), len(points) // 5):
        removed(out)
        ended = in_child(command, Fault(out, at, act))
        assert ended.code == code, (points[at - 1], ended)
        assert "Traceback" not in ended.stderr
        assert in_child(command).code == 0
        assert tree(out) == subject.tree


@pytest.mark.parametrize(
    "workers", [2, pytest.param(1, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_workers_make_the_same_bytes(subject: Subject, out: Path, workers: int) -> None:
    """Row 19: in this process or in any others. Not in a fork, whose threads Dask would take for its own."""
    name = next(name for name, case in CASES.items() if case is subject.home.case)
    command = [sys.executable, "-m", "faults.alone", name, str(subject.home.path), str(out), str(workers)]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": TESTS}, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    assert tree(out) == subject.tree


@pytest.mark.slow
def test_the_scheduler_dies(subject: Subject, out: Path) -> None:
    """Row 14: client, scheduler and workers killed together, at ten moments; what is done is kept."""

    def run() -> Any:
        os.setsid()
        return subject.home.run(out, workers=2, unit_rows=1)

    whole = subject.home.new_out()
    subject.home.made(whole, unit_rows=1)
    for moment in range(10):
        removed(out)
        child = start(run)
        deadline = time.monotonic() + 600  # for hangs only
        while not (out / "plan.json").exists() or len(list(out.glob("ledger/*/*.json"))) < moment:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        subject.home.made(out, unit_rows=1)
        assert tree(out) == tree(whole)
