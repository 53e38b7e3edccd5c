"""Killed or out of space at every file operation: the same command goes on, and ends with the bytes of a quiet run."""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import toy
from builders.mistakes import assert_named
from faults.cases import CASES, Subject, copied, home_of, make_picture, removed, tree
from faults.crash import Ended, Fault, as_command, in_child, kill, no_space, operations, start
from maskmill.manifests.files import atomic
from maskmill.manifests.files.digests import FileDigest
from maskmill.manifests.files.place import Place
from maskmill.pipeline.running import units

# Where an operation may fail without harm: making a directory that is there already, tidying an empty one away.
ABSORBED = ("os.mkdir", "os.rmdir")


def test_killed_at_every_operation(subject: Subject, out: Path) -> None:
    points = operations(lambda: subject.home.run(out), out)
    assert len(points) > 30
    for at, point in enumerate(points, 1):
        removed(out)
        ended = in_child(lambda: subject.home.run(out), Fault(out, at, kill))
        assert ended.signal == signal.SIGKILL, (point, ended)
        subject.home.made(out)
        assert tree(out) == subject.tree, point


def test_out_of_space_at_every_operation(subject: Subject, out: Path) -> None:
    points = operations(lambda: subject.home.run(out), out)
    for at, point in enumerate(points, 1):
        removed(out)
        ended = in_child(as_command(lambda: subject.home.run(out)), Fault(out, at, no_space))
        assert_told(ended, out, point)
        subject.home.made(out)
        assert tree(out) == subject.tree, point


@pytest.mark.parametrize("act", [kill, no_space])
def test_hurt_while_it_grows(subject: Subject, place: Path, act: Callable[[], None]) -> None:
    """New pictures arrive: the same at every operation of the run that adds them to a finished artifact."""
    home = home_of(subject.home.case, place)
    before, grown = place / "before", place / "grown"
    home.made(before)
    make_picture(place, "cat/00", seed=20)
    make_picture(place, "dog/00", seed=21)
    home.remade_inputs(update=True)
    assert home.made(copied(before, grown), update=True)["run"] == 1
    out = copied(before, home.new_out())
    points = operations(lambda: home.run(out, update=True), out)
    assert len(points) > 10
    for at, point in enumerate(points, 1):
        removed(out)
        copied(before, out)
        ended = in_child(as_command(lambda: home.run(out, update=True)), Fault(out, at, act))
        if act is kill:
            assert ended.signal == signal.SIGKILL, (point, ended)
        else:
            assert_told(ended, out, point)
        home.made(out, update=True)
        assert tree(out) == tree(grown), point


def test_a_child_computes_where_its_parent_has() -> None:
    """torch's threads do not survive a fork; what they do together in the parent, a child does alone."""

    def product() -> list[Any]:
        return [torch.ones(500, 500).matmul(torch.ones(500, 500)).sum().item(), torch.get_num_threads()]

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert product() == [500.0**3, 2]
        ended = in_child(product)
    finally:
        torch.set_num_threads(before)
    assert (ended.code, ended.answer) == (0, [500.0**3, 1]), ended


@pytest.mark.slow
def test_hurt_again_while_it_recovers(subject: Subject, out: Path) -> None:
    """Row 3: sixty pairs of a crash, and a crash or a full disk in the run that should have healed it."""
    points = operations(lambda: subject.home.run(out), out)
    chance = random.Random(3)
    for _ in range(60):
        removed(out)
        first, second = chance.randint(2, len(points)), chance.randint(1, 20)
        act = chance.choice([kill, no_space])
        assert in_child(lambda: subject.home.run(out), Fault(out, first, kill)).signal == signal.SIGKILL
        ended = in_child(as_command(lambda: subject.home.run(out)), Fault(out, second, act))
        assert ended.signal == signal.SIGKILL or ended.code in (0, 7), (first, second, ended)
        subject.home.made(out)
        assert tree(out) == subject.tree, (first, second, act)


@pytest.mark.slow
def test_killed_at_random_times(subject: Subject, out: Path) -> None:
    """Row 4: two hundred kills at any moment, also between two operations."""
    began = time.monotonic()
    subject.home.made(out)
    seconds = time.monotonic() - began
    chance = random.Random(4)
    killed = 0
    for _ in range(200):
        removed(out)
        child = start(lambda: subject.home.run(out))
        time.sleep(chance.uniform(0, seconds))
        os.kill(child.pid, signal.SIGKILL)
        killed += child.wait().signal == signal.SIGKILL
        subject.home.made(out)
        assert tree(out) == subject.tree
    assert killed > 100


@pytest.mark.parametrize("naive", [pytest.param("in place", marks=pytest.mark.slow), "record first"])
def test_the_harness_finds_what_is_naive(place: Path, naive: str) -> None:
    """Written in place, or vouched for before it is written: some point leaves what the same command cannot heal."""
    home = home_of(replace(CASES["toy"], config=lambda home: toy.ToyConfig()), place)
    home.made(place / "reference")
    wanted, out = tree(place / "reference"), home.new_out()
    becoming = {"in place": write_in_place, "record first": write_record_first}[naive]

    def run_naively() -> Any:
        becoming()
        return home.run(out)

    points = operations(run_naively, out)
    assert tree(out) == wanted, "undisturbed, even the naive way ends well"
    unhealed = []
    for at, point in enumerate(points, 1):
        removed(out)
        assert in_child(run_naively, Fault(out, at, kill)).signal == signal.SIGKILL
        resumed = in_child(run_naively)
        if resumed.code != 0 or tree(out) != wanted:
            unhealed.append(point)
    assert 1 <= len(unhealed) < len(points), unhealed


def write_in_place() -> None:
    """For a child alone: files are made under their own names, their space reserved first."""

    def write(place: Place, name: str, data: bytes) -> str:
        path = Path(place.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            os.ftruncate(stream.fileno(), len(data))
            stream.write(data)
        return FileDigest.of(data).sha256

    there: Any = atomic
    there.write = write


def write_record_first() -> None:
    """For a child alone: a unit's record lands before its files, and is believed without a look at them."""
    whole, waiting = atomic.write, []

    def write(place: Place, name: str, data: bytes) -> None:
        if "/c/" in name:
            waiting.append((place, name, data))
            return
        whole(place, name, data)
        while waiting:
            whole(*waiting.pop(0))

    there: Any = atomic
    there.write = write
    there = units
    there._is_as_written = lambda *arguments: True


def assert_told(ended: Ended, out: Path, point: str) -> None:
    """Exit 7 with a sentence that names the path, or an operation whose failure does no harm."""
    if ended.code == 0:
        assert point.startswith(ABSORBED), point
        return
    assert ended.code == 7, (point, ended)
    assert_named(ended.stderr, f"{out} No space left")
