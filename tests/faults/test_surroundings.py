"""Row 35: clocks, hash seeds, locales, masks of modes, directories and names around a run change no byte of it."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import maskmill
from faults.cases import CASES, Subject, content, copied, home_of, make_picture, picture_of, removed, tree
from faults.crash import Fault, in_child, kill, operations

PATH = os.pathsep.join([str(Path(maskmill.__path__[0]).parent), str(Path(__file__).parents[1])])
AT = {"long ago": 1.0, "all the same": 1_600_000_000.0, "to come": time.time() + 10 * 365 * 86400}


@pytest.mark.parametrize(
    "around",
    [
        {"PYTHONHASHSEED": "1"},
        {"PYTHONHASHSEED": "2", "TZ": "Pacific/Kiritimati"},
        {"LC_ALL": "C", "LANG": "C"},
    ],
    ids=["one seed", "another seed and time zone", "the C locale"],
)
def test_another_environment(subject: Subject, out: Path, around: dict[str, str]) -> None:
    name = next(name for name, case in CASES.items() if case is subject.home.case)
    command = [sys.executable, "-m", "faults.alone", name, str(subject.home.path), str(out), "0"]
    ended = subprocess.run(command, env={**os.environ, **around, "PYTHONPATH": PATH}, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    assert tree(out) == subject.tree


def test_another_umask(subject: Subject, out: Path) -> None:
    def run() -> Any:
        os.umask(0o077)
        return subject.home.run(out)

    assert in_child(run).code == 0
    assert tree(out) == subject.tree
    assert not any(path.stat().st_mode & 0o077 for path in out.rglob("*"))


def test_another_directory(subject: Subject, out: Path) -> None:
    """From elsewhere, and by a relative path."""

    def run() -> Any:
        os.chdir(out.parent)
        return subject.home.run(Path(out.name))

    assert in_child(run).code == 0
    assert tree(out) == subject.tree


@pytest.mark.parametrize("name", ["with  spaces", "Größe 写真 %20 #?&=::", "-r", "🎭\n"])
def test_another_name_of_the_output(subject: Subject, name: str) -> None:
    out = subject.home.path / name
    subject.home.made(out)
    assert tree(out) == subject.tree
    removed(out)


def test_pictures_under_such_names(subject: Subject, place: Path) -> None:
    """The inputs too; the artifact records another root, and the same content."""
    home = home_of(subject.home.case, place / "with  spaces, Größe 写真 %20 #")
    out = home.new_out()
    home.made(out)
    assert content(out) == content(subject.reference)
    assert home.made(out)["run"] == 0


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("when", list(AT))
def test_another_time(subject: Subject, out: Path, when: str, trust: bool) -> None:
    """Whatever the clock says of its files, a finished artifact stays as it is, and a half-finished one is finished."""
    copied(subject.reference, out)
    set_times(out, AT[when])
    assert subject.home.made(out)["run"] == 0
    subject.home.made(out, trust=trust)
    assert tree(out) == subject.tree
    removed(out)
    points = operations(lambda: subject.home.run(out), out)
    removed(out)
    in_child(lambda: subject.home.run(out), Fault(out, len(points) // 2, kill))
    set_times(out, AT[when])
    subject.home.made(out, trust=trust)
    assert tree(out) == subject.tree


@pytest.mark.parametrize("when", list(AT))
def test_a_picture_with_another_time(subject: Subject, place: Path, when: str) -> None:
    """Changed bytes are noticed whatever their time, and a changed time alone is not."""
    home = home_of(subject.home.case, place)
    out = home.new_out()
    home.made(out)
    set_times(place / "pictures", AT[when])
    home.remade_inputs()
    assert home.made(out)["run"] == 0
    make_picture(place, "dog/1", seed=96)
    os.utime(picture_of(place, "dog/1"), (AT[when], AT[when]))
    home.remade_inputs()
    assert home.made(out)["run"] == 1


def set_times(directory: Path, at: float) -> None:
    for path in [directory, *directory.rglob("*")]:
        os.utime(path, (at, at))
