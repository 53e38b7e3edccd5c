"""push and pull between folders: what travels, what is refused, and what no crafted version may do."""

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any

import pytest

from builders.mistakes import assert_named, refused
from builders.small_dataset import tree, write_dataset
from builders.small_labels import make_labels, publish
from builders.small_runs import UNITS_OF_4, index, toy
from builders.toy import ToyConfig
from faults.crash import Fault, as_command, in_child, interrupt, kill, operations, terminate, together
from maskmill.cli.main import main
from maskmill.manifests.artifact.artifact import ARTIFACT, open_artifact
from maskmill.manifests.errors import ConfigError, CorruptArtifact, MissingArtifact, StaleArtifact
from maskmill.manifests.files import atomic, sealed
from maskmill.manifests.files.digests import fault
from maskmill.manifests.files.place import place
from maskmill.manifests.published import versions
from maskmill.manifests.published.versions import file_name, latest, read_version
from maskmill.pipeline.answers.verify import verify
from maskmill.pipeline.sharing import sharing
from maskmill.pipeline.sharing.sharing import pull, push

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two artifacts of one kind that have files in common, and one that is not finished."""
    home = tmp_path_factory.mktemp("made")
    index(write_dataset(home / "pictures"), home / "images")
    toy(home / "images", home / "toys")
    toy(home / "images", home / "others", replace(UNITS_OF_4, unit_rows=10), ToyConfig(word="longer"))
    shutil.copytree(home / "toys", home / "unfinished")
    (home / "unfinished" / ARTIFACT).unlink()
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    return tmp_path


def everything(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dataset_goes_there_and_comes_back(tmp_path: Path, capsys: Capture) -> None:
    make_labels(tmp_path)
    publish(tmp_path)
    (tmp_path / "dataset" / "notes.txt").write_text("not for others")
    url, capsys_read = str(tmp_path / "shared"), capsys.readouterr
    capsys_read()
    assert main(["push", str(tmp_path / "dataset"), url, "--json"]) == 0
    sent = json.loads(capsys_read().out)
    assert main(["pull", url, str(tmp_path / "pulled"), "--json"]) == 0
    came = json.loads(capsys_read().out)
    expected = tree(tmp_path / "dataset")
    del expected["notes.txt"]
    assert tree(tmp_path / "pulled") == expected
    assert verify(str(tmp_path / "pulled")).exit_code == 0
    assert not (tmp_path / "pulled" / ".lock").exists()
    assert open_artifact(str(tmp_path / "pulled"), "dataset").digest == open_artifact(str(tmp_path / "dataset")).digest
    assert sent["version"] == came["version"]
    assert sent["bytes"] == came["bytes"] == came["moved_bytes"]
    assert main(["push", str(tmp_path / "dataset"), url]) == 0
    assert "sent 0 files, 0 B in" in capsys_read().out
    assert main(["diff", str(tmp_path / "dataset"), str(tmp_path / "pulled")]) == 0


def test_what_is_there_is_not_sent_and_nothing_is_written(home: Path) -> None:
    first = push("toys", "shared")
    assert (first.moved_bytes, first.files) == (first.bytes, first.moved_files)
    before = {path: path.stat().st_mtime_ns for path in Path("shared").rglob("*")}
    again = push("toys", "shared")
    assert (again.moved_files, again.moved_bytes, again.version) == (0, 0, first.version)
    assert {path: path.stat().st_mtime_ns for path in Path("shared").rglob("*")} == before
    other = push("others", "shared")
    common = set(tree(home / "toys").values()) & set(tree(home / "others").values())
    assert common
    assert other.moved_files == other.files - len(common)


def test_versions_stand_beside_each_other(home: Path) -> None:
    first, second = push("toys", "shared"), push("others", "shared")
    assert pull("shared", "newest").version == second.version
    assert pull(f"shared@{first.version[:12]}", "older").version == first.version
    assert pull(f"shared@{first.version}", "whole").version == first.version
    assert tree(home / "newest") == tree(home / "others")
    assert tree(home / "older") == tree(home / "whole") == tree(home / "toys")
    assert push("toys", "shared").moved_files == 0
    assert pull("shared", "last").version == first.version, "what was pushed last is the latest"


def test_a_large_file_is_sent_and_fetched_in_pieces(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_BLOCK", 100)
    push("toys", "shared")
    pull("shared", "pulled")
    assert tree(home / "pulled") == tree(home / "toys")


def test_several_files_travel_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first waits until another is under way."""
    met = list[str]()

    def meeting(name: str) -> Callable[..., None]:
        barrier = Barrier(2, timeout=30)

        def call(*arguments: Any) -> None:
            with suppress(BrokenBarrierError):
                barrier.wait()
                met.append(name)
                barrier.abort()
            getattr(versions, name)(*arguments)

        return call

    monkeypatch.setattr(sharing, "send", meeting("send"))
    monkeypatch.setattr(sharing, "fetch", meeting("fetch"))
    assert push("toys", "shared").moved_files > 4
    pull("shared", "pulled")
    assert {"send", "fetch"} == set(met)
    assert tree(home / "pulled") == tree(home / "toys")


def test_memory_within_one_process(home: Path) -> None:
    url = f"memory://{home.name}/shared"
    with ThreadPoolExecutor(4) as pool:
        sent = list(pool.map(lambda uri: push(uri, url), ["toys", "others"] * 2))
    assert latest(place(url)).version in {each.version for each in sent}
    for each, name in zip(sent, ("toys", "others"), strict=False):
        pull(f"{url}@{each.version}", f"pulled-{name}")
        assert tree(home / f"pulled-{name}") == tree(home / name)
    assert push("toys", url).moved_bytes == 0


def test_two_that_push_at_once_both_have_their_version(home: Path) -> None:
    def pushed(uri: str) -> Callable[[], str]:
        return lambda: push(uri, str(home / "shared")).version

    ended = together([pushed(str(home / uri)) for uri in ("toys", "others") * 2])
    assert [each.code for each in ended] == [0] * 4, ended
    assert len({each.answer for each in ended}) == 2
    for each, name in zip(ended[:2], ("toys", "others"), strict=True):
        pull(f"shared@{each.answer}", f"pulled-{name}")
        assert tree(home / f"pulled-{name}") == tree(home / name)
    assert not list(home.glob("shared/**/*.tmp"))


# ---- stopped at any moment


def test_a_push_that_is_killed_shows_nothing_and_goes_on(home: Path) -> None:
    url = home / "shared"
    first = push("toys", str(url)).version
    shutil.copytree(url, home / "kept")

    def again() -> str:
        return push(str(home / "others"), str(url)).version

    number, second = 0, None
    for number in range(1, 1000):  # several threads write, so how many operations there are differs a little
        shutil.rmtree(url)
        shutil.copytree(home / "kept", url)
        ended = in_child(again, Fault(url, number, kill))
        if ended.code is not None:
            assert ended.code == 0, ended.stderr
            break
        found = latest(place(url)).version
        assert found in (first, second)
        for digest in (path.stem for path in (url / "versions").glob("*.json")):
            version = read_version(place(url), digest)
            assert all(fault(place(url), file_name(each), each) is None for each in version.files.values())
        before = set(os.listdir(url / "files"))
        came = push("others", str(url))
        second = came.version
        assert came.moved_files == len(set(tree(home / "others").values()) - before)
    assert number > len(set(tree(home / "others").values()))
    pull(str(url), "pulled")
    assert tree(home / "pulled") == tree(home / "others")


def test_a_pull_that_is_killed_leaves_no_folder_and_goes_on(home: Path) -> None:
    push("others", "shared")

    def pulled() -> int:
        return pull(str(home / "shared"), str(home / "at" / "pulled")).moved_files

    (home / "at").mkdir()
    went_on = 0
    for number in range(1, 1000):
        shutil.rmtree(home / "at")
        (home / "at").mkdir()
        ended = in_child(pulled, Fault(home / "at", number, kill))
        if ended.code is not None:
            assert ended.code == 0, ended.stderr
            break
        if (home / "at" / "pulled").exists():
            assert tree(home / "at" / "pulled") == tree(home / "others")
            continue
        came = pulled()
        went_on += came < len(tree(home / "others"))
        assert tree(home / "at" / "pulled") == tree(home / "others")
        assert os.listdir(home / "at") == ["pulled"]
    assert went_on > 3


@pytest.mark.parametrize(("act", "code"), [(interrupt, 130), (terminate, 143)])
def test_stopped_by_a_signal_it_says_so_in_one_sentence_and_goes_on(
    home: Path, act: Callable[[], None], code: int
) -> None:
    """A signal reaches the main thread at any moment after the operation at which it is sent."""

    def pushed() -> None:
        push(str(home / "toys"), str(home / "shared"))

    def pulled() -> None:
        pull(str(home / "kept"), str(home / "at" / "pulled"))

    push("toys", "kept")
    (home / "at").mkdir()
    stopped = 0
    for function, root in ((pushed, home / "shared"), (pulled, home / "at")):
        for number in range(1, len(operations(function, root)), 8):
            shutil.rmtree(root)
            (home / "at").mkdir(exist_ok=True)
            ended = in_child(as_command(function), Fault(root, number, act))
            if ended.code == 0:  # it was done before the signal came
                continue
            stopped += 1
            assert ended.code == code, ended.stderr
            assert ended.stderr.startswith("maskmill: stopped by ")
            assert ended.stderr.count("\n") == 1
            assert not list(root.glob("**/*.tmp"))
            function()
    assert stopped > 3
    assert tree(home / "at" / "pulled") == tree(home / "toys")


def test_what_killed_pushes_left_goes_after_a_day(home: Path) -> None:
    push("toys", "shared")
    left = [home / "shared" / name for name in ("files/a.1.tmp", "versions/b.2.tmp", "files/c.3.tmp")]
    for path in left:
        path.write_bytes(b"half")
    for path in left[:2]:
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - versions.FORGOTTEN_S - 10))
    push("toys", "shared")
    assert [path.exists() for path in left] == [False, False, True], "the last may be a living push's"


def test_what_cannot_be_removed_stops_no_push(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push("toys", "shared")
    (home / "shared/files/a.1.tmp").write_bytes(b"half")
    os.utime(home / "shared/files/a.1.tmp", (0, 0))

    def refused(path: str) -> None:
        raise PermissionError(1, "not yours", path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "remove", refused)
        assert push("toys", "shared").moved_files == 0
    assert (home / "shared/files/a.1.tmp").exists()


def test_how_far_it_is_is_shown_on_a_terminal_alone(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for terminal in (False, True):
        for number, more in enumerate(([], ["--json"])):
            capsys.readouterr()
            monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
            assert main(["push", "toys", f"shared-{terminal}-{number}", *more]) == 0
            assert main(["pull", f"shared-{terminal}-{number}", f"pulled-{terminal}-{number}", *more]) == 0
            shown = capsys.readouterr().err
            assert ("push" in shown and "pull" in shown) == (terminal and not more)
            assert terminal or not shown


def test_what_came_of_another_version_is_not_mixed_in(home: Path) -> None:
    push("toys", "shared")
    push("others", "shared")
    part = home / ".pulled.maskmill-pull"
    shutil.copytree("toys", part)
    (part / "square.zarr" / "c" / "0" / "0" / "0").write_bytes(b"half")
    (part / "stranger").symlink_to(home / "toys")
    pull("shared", "pulled")
    assert tree(home / "pulled") == tree(home / "others")
    assert tree(home / "toys")


def test_what_was_pulled_already_is_checked_and_left(home: Path, capsys: Capture) -> None:
    push("toys", "shared")
    pull("shared", "pulled")
    (home / "pulled" / ".lock").touch()  # as a signal at the end of a pull may leave it
    assert pull("shared", "pulled").moved_files == 0
    assert tree(home / "pulled") == tree(home / "toys")
    (home / "pulled" / "square.zarr" / "c" / "0" / "0" / "0").write_bytes(b"half")
    assert main(["pull", "shared", "pulled"]) == 4
    assert "/square.zarr/c/0/0/0" in capsys.readouterr().err
    push("others", "shared")
    assert main(["pull", "shared", "pulled"]) == 2
    assert_named(capsys.readouterr().err, "/pulled empty")


# ---- what is refused


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["push", "nowhere", "shared"], 2, "/nowhere"),
        (["push", "unfinished", "shared"], 2, "/unfinished"),
        (["push", "toys", "toys/shared"], 2, "/toys/shared"),
        (["push", "images", "filled"], 2, "/filled toys images"),
        (["push", "toys", "filled@0123456789ab"], 2, "filled version digest"),
        (["push", "toys", "nonsense://x/y"], 2, "nonsense://x"),
        (["push", "toys", "filled/latest/00000001.json"], 7, "/filled/latest/00000001.json file"),
        (["pull", "nowhere", "pulled"], 2, "/nowhere version"),
        (["pull", "filled@0123456789ab", "pulled"], 2, "version 0123456789ab"),
        (["pull", "filled@" + 64 * "0", "pulled"], 2, "version 0000"),
        (["pull", "filled", "others"], 2, "/others empty"),
        (["pull", "filled", "toys/plan.json"], 2, "/toys/plan.json"),
        (["pull", "filled", "s3://bucket/pulled"], 2, "s3://bucket/pulled"),
    ],
)
def test_a_mistake_is_one_sentence(home: Path, capsys: Capture, arguments: list[str], code: int, named: str) -> None:
    push("toys", "filled")
    before = tree(home)
    refused(capsys, arguments, named, code)
    assert tree(home) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root has every right")
def test_a_folder_without_rights(home: Path, capsys: Capture) -> None:
    push("toys", "shared")
    (home / "shared").chmod(0o500)
    try:
        assert main(["push", "others", "shared"]) == 7
    finally:
        (home / "shared").chmod(0o700)
    assert "permission" in capsys.readouterr().err


def test_a_full_disk_is_told_before_anything_comes(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    push("toys", "shared")
    monkeypatch.setattr(atomic, "free_bytes", lambda at: 10)
    assert main(["pull", "shared", "pulled"]) == 7
    assert_named(capsys.readouterr().err, "pulled 10 free")
    assert not list(home.glob(".pulled*"))


@pytest.mark.parametrize("how", ["removed", "another"])
def test_an_artifact_that_changes_while_it_is_pushed_makes_no_version(
    home: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    one_at_a_time = threading.Lock()  # of the threads that send

    def send_and_change(*arguments: Any) -> None:
        versions.send(*arguments)
        with one_at_a_time:
            (home / "toys" / ARTIFACT).unlink(missing_ok=True)
            if how == "another":
                shutil.copytree(home / "others", home / "toys", dirs_exist_ok=True)

    monkeypatch.setattr(sharing, "send", send_and_change)
    with pytest.raises(StaleArtifact, match="changed"):
        push("toys", "shared")
    assert not (home / "shared" / "versions").exists()
    with pytest.raises(MissingArtifact):
        pull("shared", "pulled")


def test_a_damaged_artifact_is_not_pushed(home: Path) -> None:
    shard = home / "toys" / "square.zarr" / "c" / "1" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[9] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CorruptArtifact, match="c/1/0/0"):
        push("toys", "shared")
    with pytest.raises(MissingArtifact):
        pull("shared", "pulled")


@pytest.mark.parametrize("how", ["flipped", "shorter", "longer", "missing"])
def test_damage_at_the_url_is_found_and_nothing_appears(home: Path, capsys: Capture, how: str) -> None:
    version = push("toys", "shared").version
    digest = read_version(place("shared"), version).files["rows.parquet"]
    path = home / "shared" / "files" / digest.sha256
    data = path.read_bytes()
    hurt = {"flipped": bytes([data[0] ^ 1]) + data[1:], "shorter": data[:-1], "longer": data + b"x"}
    path.unlink() if how == "missing" else path.write_bytes(hurt[how])
    assert main(["pull", "shared", "pulled"]) == 4
    assert digest.sha256 in capsys.readouterr().err
    assert not (home / "pulled").exists()
    if how == "flipped":  # of the right size, so that a push takes it for what it should be
        path.unlink()
    assert push("toys", "shared").moved_files == 1
    assert main(["pull", "shared", "pulled"]) == 0
    assert tree(home / "pulled") == tree(home / "toys")


@pytest.mark.parametrize("name", ["versions/*.json", "latest/*.json"])
def test_a_damaged_list_or_pointer_is_found(home: Path, name: str) -> None:
    push("toys", "shared")
    (path,) = (home / "shared").glob(name)
    path.write_bytes(path.read_bytes().replace(b"toys", b"toyz"))
    with pytest.raises(CorruptArtifact):
        pull("shared", "pulled")


def test_a_pointer_that_was_begun_counts_for_none(home: Path) -> None:
    first = push("toys", "shared").version
    (home / "shared" / "latest" / "00000002.json").touch()
    assert pull("shared", "pulled").version == first
    second = push("others", "shared").version
    assert pull("shared", "newer").version == second


def crafted(change: Callable[[dict[str, Any]], None]) -> str:
    """The digest of a version that somebody wrote who knows the format."""
    version = read_version(place("shared"), push("toys", "shared").version).as_json()
    change(version)
    digest = sealed.digest_of(version)
    sealed.write(place("shared"), f"versions/{digest}.json", version)
    return digest


def listed(version: dict[str, Any], name: str) -> None:
    version["files"][name] = version["files"]["rows.parquet"]


NAMES = [
    "../x",
    "/x",
    "a/../../x",
    "a//x",
    "./x",
    "",
    "a\\x",
    "a\0x",
    "..",
    ".lock",
    "log/x",
    "plan.json/x",
    "more.txt",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_version_with_names_that_no_artifact_has_is_refused(home: Path, name: str) -> None:
    assert_refused(home, lambda version: listed(version, name))


LIES: dict[str, dict[str, Any]] = {
    **{f"size {size}": {"bytes": size} for size in (-1, 0, 1, "many", None)},
    **{f"digest {digest[:3]}": {"sha256": digest} for digest in ("../../../etc/passwd", "", "A" * 64, "0" * 64)},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_version_that_lies_of_a_file_is_refused(home: Path, lie: str) -> None:
    assert_refused(home, lambda version: version["files"]["rows.parquet"].update(LIES[lie]))


def test_a_version_larger_than_the_disk_is_refused_before_anything_comes(home: Path) -> None:
    digest = crafted(lambda version: version["files"]["rows.parquet"].update(bytes=10**15))
    assert main(["pull", f"shared@{digest}", "pulled"]) == 7


def test_a_version_that_is_no_whole_artifact_is_refused(home: Path) -> None:
    assert_refused(home, lambda version: version["files"].pop("rows.parquet"))
    assert_refused(home, lambda version: version["files"].pop("plan.json"))
    assert_refused(home, lambda version: version.update(files=[]))
    assert_refused(home, lambda version: version.update(kind="dataset"))
    assert_refused(home, lambda version: version.update(artifact="0" * 64))


def assert_refused(home: Path, change: Callable[[dict[str, Any]], None]) -> None:
    digest = crafted(change)
    before = tree(home)
    assert main(["pull", f"shared@{digest}", "deep/pulled"]) == 4
    assert not Path("deep/pulled").exists()
    assert {name for name in tree(home) if not name.startswith("deep/.pulled.maskmill-pull/")} == before.keys()
    shutil.rmtree("deep", ignore_errors=True)


def test_a_version_under_the_digest_of_another_is_refused(home: Path) -> None:
    digest = crafted(lambda version: version.update(fingerprint="x"))
    shutil.copy(f"shared/versions/{digest}.json", f"shared/versions/{'0' * 64}.json")
    with pytest.raises(CorruptArtifact, match="version"):
        pull(f"shared@{'0' * 64}", "pulled")


def test_a_version_of_a_later_format_is_told_as_that(home: Path) -> None:
    digest = crafted(lambda version: version.update(format=2))
    with pytest.raises(ConfigError, match=r"format\b.*2.*1"):
        pull(f"shared@{digest}", "pulled")


def test_checkpoints_and_artifacts_that_were_added_to_can_be_pushed_too(home: Path) -> None:
    toy("images", "toys", replace(UNITS_OF_4, unit_rows=2), ToyConfig(fields=("square", "wide")))
    push("toys", "shared")
    pull("shared", "pulled")
    assert tree(home / "pulled") == tree(home / "toys")
