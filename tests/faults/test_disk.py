"""Disks that are full, limited or read-only: exit 7 with the path, and nothing to mend afterwards."""

import ctypes
import os
import resource
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from builders.mistakes import assert_named
from faults.cases import Home, Subject, copied, files, removed, tree, with_run_unit
from faults.crash import Ended, as_command, in_child

PAGE = 4096
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
CAPABILITIES = 0x20080522  # the third version of the kernel's structure, two words of 32 bits each
DAC_OVERRIDE, DAC_READ_SEARCH = 1, 2  # what lets root write where the mode forbids it


def test_a_full_disk(subject: Subject, out: Path) -> None:
    """Row 7: a real one, a tmpfs of too few pages in a mount namespace of the child's own, enlarged afterwards."""
    filled = 0
    needed = sum(-(-(subject.reference / name).stat().st_size // PAGE) for name in files(subject.reference))
    for share in (0.15, 0.3, 0.5, 0.7, 0.9):
        answer = in_child(partial(filled_then_enlarged, subject.home, out, int(needed * share)))
        if answer.code == 77:
            pytest.skip(f"mounting is not allowed here: {answer.stderr}")
        assert answer.code == 0, answer
        full, same = answer.answer
        assert full["code"] == 7, full
        assert "Traceback" not in full["stderr"], full
        assert same == subject.tree
        assert f"{out}" in full["stderr"], full
        if (
            "No space left on device" not in full["stderr"]
        ):  # not even its arrays have room, and that is seen beforehand
            continue
        filled += 1
    assert filled >= 3


def test_a_file_size_limit(subject: Subject, out: Path) -> None:
    """Row 8."""
    sizes = sorted({(subject.reference / name).stat().st_size for name in files(subject.reference)})
    limits = [size - 1 for size in sizes if size > 1000]  # standard error is a file here too, and has to hold a line
    assert limits
    for limit in limits:
        ended = in_child(as_command(partial(limited, subject.home, out, limit)))
        assert ended.code == 7, ended
        assert f"{out}" in ended.stderr, ended
        assert "File too large" in ended.stderr, ended
        assert "Traceback" not in ended.stderr, ended
        assert not [name for name in files(out) if name.endswith(".tmp")]
        subject.home.made(out)
        assert tree(out) == subject.tree
        removed(out)


@pytest.mark.parametrize("begun", [False, True], ids=["new", "finished"])
def test_read_only_output(subject: Subject, out: Path, begun: bool) -> None:
    """Row 9: refused before the stage is asked anything."""
    where = copied(subject.reference, out) if begun else out / "below" / "out"
    out.mkdir(exist_ok=True)
    before = tree(out)
    out.chmod(0o555)
    called = out.parent / "called"

    def run_unit(*arguments: Any) -> Any:
        called.touch()
        raise AssertionError

    def without_rights() -> dict[str, Any]:
        drop_root_rights()
        with pytest.raises(PermissionError):  # the test itself would be vacuous otherwise
            (out / "probe").touch()
        return subject.home.run(where, stage=with_run_unit(subject.home.case, run_unit))

    began = time.monotonic()
    ended = in_child(as_command(without_rights))
    seconds = time.monotonic() - began
    out.chmod(0o755)
    assert ended.code == 7, ended
    assert_named(ended.stderr, f"{where} permission {out}")
    assert seconds < 2
    assert not called.exists()
    assert tree(out) == before


def limited(home: Home, out: Path, limit: int) -> Any:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))  # Python ignores SIGXFSZ by itself
    return home.run(out)


def filled_then_enlarged(home: Home, out: Path, pages: int) -> list[Any]:
    out.mkdir(exist_ok=True)
    own_namespace()
    mount(out, f"size={pages * PAGE}")
    full = home.tried(out)
    mount(out, "remount,size=3m")
    home.made(out)
    return [_told(full), tree(out)]


def _told(ended: Ended) -> dict[str, Any]:
    return {"code": ended.code, "stderr": ended.stderr}


def own_namespace() -> None:
    """Mounts of this process and its children are seen by nobody else, and vanish with them."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) and libc.unshare(CLONE_NEWUSER | CLONE_NEWNS):
        print(os.strerror(ctypes.get_errno()))
        raise SystemExit(77)
    if subprocess.run(["mount", "--make-rprivate", "/"], check=False).returncode:
        raise SystemExit(77)


def mount(path: Path, options: str) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=False).returncode:
        raise SystemExit(77)


def drop_root_rights() -> None:
    """For a child alone: root without the capabilities that make modes mean nothing; for others no change."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the same for the upper 32
    assert libc.capget(header, sets) == 0
    for index in range(3):
        sets[index] &= ~(1 << DAC_OVERRIDE | 1 << DAC_READ_SEARCH)
    assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())
