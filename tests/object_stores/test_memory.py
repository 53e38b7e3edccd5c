"""Stores that are no S3: `memory://` within one process, and `file://` as another name of a disk."""

from dataclasses import replace
from pathlib import Path

import pytest

from builders.small_dataset import tree, write_dataset
from builders.small_runs import UNITS_OF_4, echo, index, toy
from maskmill.cli.main import main
from maskmill.manifests.errors import ArtifactBusy, ConfigError
from maskmill.manifests.files import lock
from maskmill.manifests.files.place import place
from maskmill.pipeline.answers.status import status
from maskmill.pipeline.answers.verify import verify
from object_stores.buckets import tree_of


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "pictures")


def test_a_chain_in_memory_has_the_bytes_of_one_on_a_disk(pictures: Path, tmp_path: Path) -> None:
    trees = []
    for home in (f"memory://{tmp_path.name}", str(tmp_path)):
        index(pictures, f"{home}/images")
        toy(f"{home}/images", f"{home}/toys")
        assert toy(f"{home}/images", f"{home}/toys").units_skipped == 3
        assert echo(f"{home}/toys", f"{home}/echo").finished
        assert (status(f"{home}/echo").state, verify(f"{home}/echo").exit_code) == ("finished", 0)
        trees.append([tree_of(place(f"{home}/{name}")) for name in ("images", "toys", "echo")])
    for name in ("plan.json", "artifact.json"):  # they tell where the inputs lie
        for each in trees:
            del each[1][name], each[2][name]
    assert trees[0] == trees[1]


def test_memory_is_for_one_process(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = f"memory://{tmp_path.name}/images"
    with pytest.raises(ConfigError, match="--workers"):
        index(pictures, out, replace(UNITS_OF_4, workers=2))
    assert main(["index", "folder", str(pictures), "--out", out, "--workers", "2"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(place(out).names())


def test_workers_cannot_read_an_input_in_memory(pictures: Path, tmp_path: Path) -> None:
    images = f"memory://{tmp_path.name}/images"
    index(pictures, images)
    with pytest.raises(ConfigError, match="memory"):
        toy(images, tmp_path / "toys", replace(UNITS_OF_4, workers=1))


def test_a_lock_in_memory(tmp_path: Path) -> None:
    at = place(f"memory://{tmp_path.name}/a")
    with lock.hold_lock(at), pytest.raises(ArtifactBusy, match="--break-lock"), lock.hold_lock(at):
        pass
    assert not lock.is_held(at)


def test_a_file_url_is_the_disk(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "folder", f"file://{pictures}", "--out", f"file://{tmp_path}/with%20space/images"]) == 0
    assert main(["index", "folder", str(pictures), "--out", str(tmp_path / "images")]) == 0
    assert f"→ {tmp_path}/with space/images\n" in capsys.readouterr().out
    assert tree(tmp_path / "with space" / "images") == tree(tmp_path / "images")
