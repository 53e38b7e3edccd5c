"""Files that are there whole or not at all."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from builders.mistakes import assert_named
from maskmill.manifests.errors import EnvironmentFault
from maskmill.manifests.files import atomic
from maskmill.manifests.files.place import Place, place


@pytest.fixture(params=["disk", "memory"])
def at(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return place(tmp_path / "a") if request.param == "disk" else place(f"memory://{tmp_path.name}")


def test_a_file_is_replaced_whole(at: Place) -> None:
    for data in (b"first", b"", b"second, and longer"):
        atomic.write(at, "b/x", data)
        assert at.read("b/x") == data
    with atomic.replacing(at, "b/x") as stream:
        assert [stream.write(part) for part in (b"in ", memoryview(b"two parts"))] == [3, 9]
        assert (stream.size, stream.tell()) == (12, 12)
        assert at.read("b/x") == b"second, and longer"
    assert (at.read("b/x"), stream.sha256) == (b"in two parts", hashlib.sha256(b"in two parts").hexdigest())
    assert list(at.names()) == ["b/x"]


@pytest.mark.parametrize("error", [RuntimeError("half way"), KeyboardInterrupt()])
def test_a_write_that_ends_in_an_error_leaves_what_was_there(at: Place, error: BaseException) -> None:
    def write_half(name: str) -> None:
        with atomic.replacing(at, name) as stream:
            stream.write(b"half")
            raise error

    atomic.write(at, "old", b"old")
    for name in ("old", "new"):
        with pytest.raises(type(error)):
            write_half(name)
    assert list(at.names()) == ["old"]
    assert at.read("old") == b"old"


def test_only_the_first_creates(at: Place) -> None:
    assert [atomic.create(at, "b/x", data) for data in (b"1", b"2")] == [True, False]
    assert at.read("b/x") == b"1"
    assert atomic.remove(at, "b/x")
    assert not at.exists("b/x")
    assert not atomic.remove(at, "b/x")
    assert atomic.create(at, "b/x", b"3")


def test_data_is_on_the_disk_before_its_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        done.append("directory" if os.path.isdir(path) else f"data of {os.path.getsize(path)}")
        fsync(descriptor)

    def replaced(source: str, target: str) -> None:
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    atomic.write(place(tmp_path), "x", b"12345")
    assert done == ["data of 5", "rename", "directory"]


def test_temporaries_of_killed_writers_are_swept_and_nothing_else(tmp_path: Path) -> None:
    for name in ("x", "b/y", f"x.{'0' * 32}.tmp", f"b/y.{'1' * 32}.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert atomic.sweep_temporaries(place(tmp_path)) == 2
    assert list(place(tmp_path).names()) == ["b/y", "x"]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free space"),
        (errno.EDQUOT, "raise the quota"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EACCES, "change its rights"),
        (errno.EROFS, "writable disk"),
        (errno.EIO, "check the disk"),
    ],
)
def test_what_a_disk_does_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(EnvironmentFault) as raised:
        atomic.write(place(tmp_path), "x", b"data")
    told = str(raised.value)
    assert_named(told, f"{tmp_path}/x {os.strerror(number)}")
    assert remedy in told
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_directory_is_needed(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(EnvironmentFault, match=r"/x .*file"):
        atomic.check_can_write(place(tmp_path / "x" / "y"))
    atomic.check_can_write(place(tmp_path / "y" / "z"))
    assert not (tmp_path / "y").exists()


def test_a_log_grows_on_a_disk_and_is_put_whole_elsewhere(at: Place) -> None:
    log = atomic.Log(at, "log/x.jsonl")
    log.append(b"1")
    assert at.exists("log/x.jsonl") == at.is_local
    log.append(b"2")
    log.close()
    assert at.read("log/x.jsonl") == b"1\n2\n"
    log.close()
    assert at.read("log/x.jsonl") == b"1\n2\n"


def test_empty_directories_go_and_files_stay(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/d").mkdir()
    (tmp_path / "a/d/x").write_bytes(b"")
    atomic.remove_directory(place(tmp_path / "a"))
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == ["a", "a/d", "a/d/x"]
