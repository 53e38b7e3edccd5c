"""A folder is there whole or not at all, and nothing but an export is ever replaced."""

import os
from pathlib import Path

import pytest

from builders.small_dataset import tree
from maskmill.manifests.errors import ArtifactBusy, ConfigError
from maskmill.manifests.exports.folder import MARK, target_of, whole_folder
from maskmill.manifests.files import atomic
from maskmill.manifests.files.place import Place


def write(out: Path, text: str, overwrite: bool = False, names: tuple[str, ...] = ("a", "deep/er/b")) -> None:
    with whole_folder(target_of(str(out)), overwrite, {"format": "toy"}) as folder:
        for name in names:
            folder.write(name, text.encode())


def test_it_holds_what_was_written_and_a_list_of_it(tmp_path: Path) -> None:
    write(tmp_path / "out", "one")
    assert sorted(tree(tmp_path)) == ["out/a", "out/deep/er/b", f"out/{MARK}"]
    assert not (tmp_path / "out" / ".lock").exists()
    assert os.listdir(tmp_path) == ["out"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    class Stopped(BaseException): ...

    def stopped() -> None:
        with whole_folder(target_of(str(tmp_path / "out")), False, {}) as folder:
            folder.write("a", b"one")
            raise Stopped

    with pytest.raises(Stopped):
        stopped()
    assert os.listdir(tmp_path) == []


def test_an_empty_folder_is_taken_and_a_full_one_refused(tmp_path: Path) -> None:
    (tmp_path / "out" / "empty").mkdir(parents=True)
    write(tmp_path / "out", "one")
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match=r"/out .*--out.*--overwrite"):
        write(tmp_path / "out", "two")
    assert tree(tmp_path) == before
    assert os.listdir(tmp_path) == ["out"]


def test_overwriting_replaces_an_export_whole(tmp_path: Path) -> None:
    write(tmp_path / "out", "one")
    write(tmp_path / "out", "two", overwrite=True, names=("c",))
    assert sorted(tree(tmp_path / "out")) == ["c", MARK]
    assert os.listdir(tmp_path) == ["out"]


def test_what_no_export_wrote_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=rf"{MARK}.*--overwrite"):
        write(tmp_path / "mine", "two", overwrite=True)
    write(tmp_path / "out", "one")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"1 .*'notes\.txt'"):
        write(tmp_path / "out", "two", overwrite=True)
    assert (tmp_path / "out" / "a").read_text() == "one"
    assert sorted(os.listdir(tmp_path)) == ["mine", "out"]


def test_a_list_that_leads_elsewhere_removes_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MARK).write_text('{"files": ["../precious", "/etc/hostname"]}')
    write(tmp_path / "out", "two", overwrite=True)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    write(tmp_path / "out", "one")
    assert (tmp_path / "disk" / "a").read_text() == "one"
    assert (tmp_path / "out").is_symlink()


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    target = target_of(str(tmp_path / "out"))
    with whole_folder(target, False, {}), pytest.raises(ArtifactBusy, match="another run"):
        write(tmp_path / "out", "two")


@pytest.mark.parametrize("step", [1, 2])
def test_killed_between_its_last_steps_it_is_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Killed, nothing more is done; the next export finds what there is."""
    write(tmp_path / "out", "one")
    moves = 0

    class Killed(BaseException): ...

    def move(built: Place, target: Place) -> None:
        nonlocal moves
        moves += 1
        if moves > step:
            raise Killed
        real(built, target)

    def nothing(*_: object) -> bool:
        raise Killed

    real = atomic.move_directory
    with monkeypatch.context() as patched:
        patched.setattr(atomic, "move_directory", move)
        if step == 2:
            patched.setattr(atomic, "remove", nothing)
        with pytest.raises(Killed):
            write(tmp_path / "out", "two", overwrite=True)
    write(tmp_path / "out", "three", overwrite=True)
    assert (tmp_path / "out" / "a").read_text() == "three"
    assert os.listdir(tmp_path) == ["out"]


def test_what_a_killed_export_left_is_cleared(tmp_path: Path) -> None:
    part = tmp_path / ".out.maskmill-part"
    (part / "deep").mkdir(parents=True)
    (part / "deep" / "left").write_text("half")
    write(tmp_path / "out", "one")
    assert sorted(tree(tmp_path)) == ["out/a", "out/deep/er/b", f"out/{MARK}"]


def test_a_url_and_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="://"):
        target_of("s3://bucket/out")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(Exception, match="file"):
        write(tmp_path / "file", "one", overwrite=True)
