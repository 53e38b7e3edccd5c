"""Bytes come from files, URLs and tars; each fault is either its row's or the machine's."""

import io
import os
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from maskmill.manifests.errors import ConfigError, EnvironmentFault, InputError, Reason, RowFailed
from maskmill.manifests.pictures import tars
from maskmill.manifests.pictures.sources import read_source, resolve, stat_source, tar_uri


def pack(path: Path | str, members: dict[str, bytes], **options: int) -> str:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    filesystem, key = fsspec.core.url_to_fs(str(path))
    filesystem.pipe_file(key, buffer.getvalue())
    return str(path)


def reason_of(root: Path | str, uri: str) -> Reason:
    with pytest.raises(RowFailed) as caught:
        read_source(str(root), uri)
    return caught.value.reason


def test_a_file_below_the_root(tmp_path: Path):
    (tmp_path / "kätzchen 1").mkdir()
    (tmp_path / "kätzchen 1" / "ä b.jpg").write_bytes(b"picture")
    assert read_source(str(tmp_path), "kätzchen 1/ä b.jpg") == b"picture"
    found = stat_source(str(tmp_path), "kätzchen 1/ä b.jpg")
    assert found is not None
    assert found.size == 7


def test_urls(tmp_path: Path):
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/sources-test/a/1.jpg", b"one")
    assert read_source("memory://sources-test", "a/1.jpg") == b"one"
    assert read_source(str(tmp_path), "memory://sources-test/a/1.jpg") == b"one"
    (tmp_path / "100 %.jpg").write_bytes(b"two")
    assert read_source("memory://sources-test", f"file://{tmp_path}/100%20%25.jpg") == b"two"
    assert stat_source("memory://sources-test", "a/2.jpg") is None
    assert reason_of("memory://sources-test", "a/2.jpg") is Reason.MISSING


@pytest.mark.parametrize("uri", ["../secret", "a/../../secret", "/etc/hostname", "a\0b", "", "file:///tmp/a%00b"])
def test_paths_that_lead_out_are_refused_before_reading(tmp_path: Path, uri: str):
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "data" / "a").mkdir(parents=True)
    assert reason_of(tmp_path / "data", uri) is Reason.OUTSIDE_ROOT
    with pytest.raises(RowFailed):
        stat_source(str(tmp_path / "data"), uri)


def test_links_may_stay_inside_and_not_lead_out(tmp_path: Path):
    data = tmp_path / "data"
    (data / "real").mkdir(parents=True)
    (data / "real" / "1.jpg").write_bytes(b"one")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.jpg").write_bytes(b"secret")
    (data / "inside.jpg").symlink_to("real/1.jpg")
    (data / "out.jpg").symlink_to("../secret.jpg")
    (data / "folder").symlink_to(tmp_path / "elsewhere")
    (data / "gone.jpg").symlink_to("real/2.jpg")
    (data / "gone_outside.jpg").symlink_to("../nothing.jpg")
    (data / "loop.jpg").symlink_to("loop.jpg")
    assert read_source(str(data), "inside.jpg") == b"one"
    assert reason_of(data, "out.jpg") is Reason.OUTSIDE_ROOT
    assert reason_of(data, "folder/1.jpg") is Reason.OUTSIDE_ROOT
    assert reason_of(data, "gone_outside.jpg") is Reason.OUTSIDE_ROOT
    assert reason_of(data, "gone.jpg") is Reason.MISSING
    assert reason_of(data, "loop.jpg") is Reason.UNREADABLE


def test_the_root_itself_may_be_a_link(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "1.jpg").write_bytes(b"one")
    (tmp_path / "real" / "again.jpg").symlink_to(tmp_path / "real" / "1.jpg")
    (tmp_path / "link").symlink_to("real")
    assert read_source(str(tmp_path / "link"), "1.jpg") == b"one"
    assert read_source(str(tmp_path / "link"), "again.jpg") == b"one"


def test_what_is_not_a_readable_file_fails_its_row(tmp_path: Path):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason_of(tmp_path, "folder.jpg") is Reason.UNREADABLE
    assert reason_of(tmp_path, "pipe.jpg") is Reason.UNREADABLE
    assert reason_of(tmp_path, "x" * 300) is Reason.UNREADABLE
    assert reason_of(tmp_path, "file/1.jpg") is Reason.MISSING
    assert reason_of(tmp_path, "nothing.jpg") is Reason.MISSING
    assert stat_source(str(tmp_path), "nothing.jpg") is None


def test_no_permission_for_one_file_fails_its_row(tmp_path: Path):
    (tmp_path / "mine.jpg").write_bytes(b"secret")
    (tmp_path / "mine.jpg").chmod(0)
    code = (
        "import sys\nfrom maskmill.manifests.pictures.sources import read_source\n"
        "from maskmill.manifests.errors import RowFailed\n"
        "try: read_source(sys.argv[1], 'mine.jpg')\nexcept RowFailed as failed: print(failed.reason)"
    )
    # A superuser reads everything, so the right to do so is given up.
    drop = "-dac_override,-dac_read_search"
    rights = ["setpriv", f"--inh-caps={drop}", f"--bounding-set={drop}"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*rights, sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "unreadable"


def test_what_the_store_does_is_no_rows_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def refuse(*_: object, **__: object) -> bytes:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "cat_file", refuse)
    with pytest.raises(EnvironmentFault, match=r"memory://sources-test/1\.jpg: Access Denied"):
        read_source("memory://sources-test", "1.jpg")
    with pytest.raises(ConfigError, match="nosuch"):
        read_source(str(tmp_path), "nosuch://bucket/1.jpg")


def test_a_failing_disk_stops_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "1.jpg").write_bytes(b"one")

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.read", fail)
    with pytest.raises(EnvironmentFault, match="Input/output error"):
        read_source(str(tmp_path), "1.jpg")


@pytest.mark.parametrize("where", ["relative", "absolute", "url"])
def test_members_of_a_tar(tmp_path: Path, where: str):
    members = {"./cat/1.jpg": b"first", "cat/" + "n" * 200 + ".jpg": b"second", "empty.jpg": b"", "a::b.jpg": b"third"}
    target = "memory://sources-test/x.tar" if where == "url" else str(tmp_path / "x.tar")
    pack(target, members)
    archive = "x.tar" if where == "relative" else target
    for name, content in members.items():
        assert read_source(str(tmp_path), tar_uri(name.removeprefix("./"), archive)) == content
        assert read_source(str(tmp_path), tar_uri(name, archive)) == content
    found = stat_source(str(tmp_path), tar_uri("cat/1.jpg", archive))
    assert found is not None
    assert found.size == 5
    assert stat_source(str(tmp_path), tar_uri("cat/2.jpg", archive)) is None
    assert reason_of(tmp_path, tar_uri("cat/2.jpg", archive)) is Reason.MISSING


def test_tars_that_are_missing_outside_or_wrongly_named(tmp_path: Path):
    data = tmp_path / "data"
    data.mkdir()
    pack(tmp_path / "outside.tar", {"1.jpg": b"one"})
    (data / "link.tar").symlink_to("../outside.tar")
    assert reason_of(data, tar_uri("1.jpg", "../outside.tar")) is Reason.OUTSIDE_ROOT
    assert reason_of(data, tar_uri("1.jpg", "link.tar")) is Reason.OUTSIDE_ROOT
    assert reason_of(data, tar_uri("1.jpg", "no.tar")) is Reason.MISSING
    assert stat_source(str(data), tar_uri("1.jpg", "no.tar")) is None
    assert reason_of(data, "tar://1.jpg") is Reason.MISSING
    assert resolve(str(data), tar_uri("1.jpg", "x.tar")).path == str(data / "x.tar")


def test_links_and_folders_in_a_tar_are_no_members(tmp_path: Path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, kind in (
            ("folder.jpg", tarfile.DIRTYPE),
            ("link.jpg", tarfile.SYMTYPE),
            ("hard.jpg", tarfile.LNKTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/hostname"
            archive.addfile(member)
    for name in ("folder.jpg", "link.jpg", "hard.jpg"):
        assert reason_of(tmp_path, tar_uri(name, "x.tar")) is Reason.MISSING


def test_a_repeated_member_is_the_last_and_is_named(tmp_path: Path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, content in (("a.jpg", b"old"), ("b.jpg", b"other"), ("./a.jpg", b"newer")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert read_source(str(tmp_path), tar_uri("a.jpg", "x.tar")) == b"newer"
    index = tars.tar_index(str(tmp_path / "x.tar"))
    assert (index.repeated, list(index.members)) == ("a.jpg", ["b.jpg", "a.jpg"])


def test_a_changed_tar_is_indexed_again(tmp_path: Path):
    path = pack(tmp_path / "x.tar", {"1.jpg": b"one", "2.jpg": b"two"})
    assert read_source(str(tmp_path), tar_uri("2.jpg", "x.tar")) == b"two"
    os.utime(path, (1, 1))
    assert read_source(str(tmp_path), tar_uri("2.jpg", "x.tar")) == b"two"
    pack(path, {"2.jpg": b"TWO", "1.jpg": b"ONE"})  # the same size, and every member elsewhere
    assert read_source(str(tmp_path), tar_uri("2.jpg", "x.tar")) == b"TWO"
    assert read_source(str(tmp_path), tar_uri("1.jpg", "x.tar")) == b"ONE"


def test_many_threads_scan_a_tar_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    members = {f"{number}.jpg": b"%d" % number for number in range(200)}
    pack(tmp_path / "x.tar", members)
    opened: list[str] = []
    plain = tarfile.open

    def counted(*args: object, **options: object) -> tarfile.TarFile:
        opened.append("x")
        return plain(*args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(tarfile, "open", counted)
    with ThreadPoolExecutor(8) as threads:
        got = list(threads.map(lambda name: read_source(str(tmp_path), tar_uri(name, "x.tar")), members))
    assert got == list(members.values())
    assert len(opened) == 1


def test_kept_indices_are_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(tars, "_MAX_MEMBERS_KEPT", 5)
    kept = tars._KeptIndices()
    monkeypatch.setattr(tars, "_KEPT", kept)
    for number in range(4):
        pack(tmp_path / f"{number}.tar", {f"{name}.jpg": b"%d" % number for name in range(2)})
        assert read_source(str(tmp_path), tar_uri("1.jpg", f"{number}.tar")) == b"%d" % number
    assert [Path(path).name for path in kept._indices] == ["2.tar", "3.tar"]
    assert read_source(str(tmp_path), tar_uri("1.jpg", "0.tar")) == b"0"


def test_a_damaged_tar_never_passes_for_a_shorter_one(tmp_path: Path):
    whole = Path(pack(tmp_path / "whole.tar", {f"{number}.jpg": b"x" * 700 for number in range(3)})).read_bytes()
    second = whole.index(b"1.jpg")
    damaged = {
        "header": whole[:second] + b"?" + whole[second + 1 :],  # its checksum no longer fits
        "between": whole[:second],  # cut between two members
        "inside": whole[: second + 600],
        "gzip": b"\x1f\x8b" + whole[2:],
        "empty": b"",
    }
    for name, content in damaged.items():
        (tmp_path / f"{name}.tar").write_bytes(content)
        assert reason_of(tmp_path, tar_uri("0.jpg", f"{name}.tar")) is Reason.UNREADABLE, name
        with pytest.raises(InputError, match=f"{name}.tar"):
            tars.tar_index(str(tmp_path / f"{name}.tar"))
