"""Who may write an artifact on a disk. Object stores have their own tests."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from maskmill.manifests.errors import ArtifactBusy
from maskmill.manifests.files import lock
from maskmill.manifests.files.place import place


def test_one_run_alone_or_many_parts_together(tmp_path: Path) -> None:
    at = place(tmp_path / "a")
    assert not lock.is_held(at)
    with lock.hold_lock(at):
        assert lock.is_held(at)
        for shared in (False, True):
            with pytest.raises(ArtifactBusy, match=rf"\(process {os.getpid()} on "), lock.hold_lock(at, shared=shared):
                pass
    assert not lock.is_held(at)
    with lock.hold_lock(at, shared=True), lock.hold_lock(at, shared=True):
        assert lock.is_held(at)
        with pytest.raises(ArtifactBusy), lock.hold_lock(at):
            pass
    with lock.hold_lock(at):
        pass


def test_asking_does_not_take_it(tmp_path: Path) -> None:
    at = place(tmp_path)
    assert not lock.is_held(at)
    assert list(tmp_path.iterdir()) == []


def test_an_error_inside_lets_go(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="inside"), lock.hold_lock(place(tmp_path)):
        raise RuntimeError("inside")
    assert not lock.is_held(place(tmp_path))


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    script = f"""
        import time
        from maskmill.manifests.files import lock
        from maskmill.manifests.files.place import place
        with lock.hold_lock(place({str(tmp_path)!r})):
            print("held", flush=True)
            time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ArtifactBusy, match=rf"process {holder.pid} on "), lock.hold_lock(place(tmp_path)):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with lock.hold_lock(place(tmp_path)):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_a_lock_whose_file_was_removed_meanwhile_excludes_the_next(tmp_path: Path) -> None:
    at = place(tmp_path)
    with lock.hold_lock(at):
        (tmp_path / ".lock").unlink()
        with lock.hold_lock(at):  # the old lock is on a file that has no name any more
            assert lock.is_held(at)


@pytest.mark.parametrize("note", [b"", b"not json", b"[]", b"{}"])
def test_a_note_that_cannot_be_read_still_refuses(tmp_path: Path, note: bytes) -> None:
    with lock.hold_lock(place(tmp_path)):
        (tmp_path / ".lock").write_bytes(note)
        with (
            pytest.raises(ArtifactBusy, match="another process"),
            lock.hold_lock(place(tmp_path)),
        ):
            pass
