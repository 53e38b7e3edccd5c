"""`maskmill export`: what it says, what it leaves, and the sentence for each mistake."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from builders.mistakes import refused
from builders.small_dataset import tree
from builders.small_export import PICTURES, make_dataset
from builders.small_labels import publish
from faults.crash import Fault, in_child, interrupt
from maskmill.cli.main import main
from maskmill.manifests.exports import formats

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("made")
    make_dataset(home)
    publish(home, "inside", ground_truth=list(PICTURES), min_score="area>=1", embed_images=True)
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    return tmp_path


def as_json(capsys: Capture, *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["export", "dataset", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_it_says_what_it_wrote_and_what_was_lost(home: Path, capsys: Capture) -> None:
    assert main(["export", "dataset", "--to", "yolo", "--out", "out"]) == 0
    said = capsys.readouterr().out.splitlines()
    pattern = rf"yolo: 9 rows \(left out: 1 dropped, 1 failed\), 20 files, [\d.]+ kB → {home}/out"
    assert re.fullmatch(pattern, said[0])
    assert "  pictures written anew as upright PNG: 2" in said
    assert any(re.fullmatch(r"  undecided pixels that become background: [\d,]+", line) for line in said)
    found = as_json(capsys, "--to", "yolo", "--out", "again")
    assert (found["format"], found["rows"], found["at"]) == ("yolo", 9, f"{home}/again")
    assert found["left_out"] == {"dropped": 1, "failed": 1}
    files = [path for path in (home / "again").rglob("*") if path.is_file()]
    assert (found["files"], found["bytes"]) == (len(files), sum(path.stat().st_size for path in files))
    assert [f"  {what}: {count:,}" for what, count in found["lost"].items()] == said[1:]


@pytest.mark.parametrize("name", formats.FORMATS)
def test_equal_datasets_give_equal_bytes_wherever_their_pictures_are(home: Path, capsys: Capture, name: str) -> None:
    """No clock and no path goes in; what was embedded comes out as what lies beside."""
    as_json(capsys, "--to", name, "--out", "one")
    as_json(capsys, "--to", name, "--out", "two", "--images-root", "pictures")
    assert tree(home / "one") == tree(home / "two")
    assert main(["export", "inside", "--to", name, "--out", "three"]) == 0
    files = tree(home / "three")
    differing = {path for path, digest in tree(home / "one").items() if files[path] != digest}
    assert all("jpg" not in path and "png" not in path for path in differing)
    assert len(files) == len(tree(home / "one"))


def test_the_help_says_what_each_format_is(capsys: Capture) -> None:
    assert main(["export", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"{name:12} {what}" in said for name, what in formats.FORMATS.items())


def test_a_second_time_it_is_refused_or_replaces(home: Path, capsys: Capture) -> None:
    before = as_json(capsys, "--to", "coco", "--out", "out")
    files = tree(home / "out")
    refused(capsys, ["export", "dataset", "--to", "voc", "--out", "out"], f"{home}/out --out --overwrite")
    assert tree(home / "out") == files
    assert as_json(capsys, "--to", "coco", "--out", "out", "--overwrite") == before
    assert tree(home / "out") == files
    as_json(capsys, "--to", "voc", "--out", "out", "--overwrite")
    assert not (home / "out" / "annotations").exists()


@pytest.mark.parametrize("again", [False, True])
def test_stopped_by_ctrl_c_it_has_changed_nothing_and_says_so(home: Path, again: bool) -> None:
    command = ["export", "dataset", "--to", "coco", "--out", str(home / "out"), *(["--overwrite"] if again else [])]
    if again:
        assert main(["export", "dataset", "--to", "voc", "--out", "out"]) == 0
    before = tree(home)
    for number in (5, 10, 15):  # before, its hidden folder may stay
        ended = in_child(lambda: sys.exit(main(command)), Fault(home, number, interrupt))
        assert ended.code == 130, ended.stderr
        assert re.fullmatch(r"maskmill: stopped by Ctrl-C; [^\n]+\n", ended.stderr)
        assert tree(home) == before
        assert not list(home.glob(".out*"))
    assert main(command) == 0


def test_a_dataset_without_its_pictures_is_refused_and_leaves_nothing(home: Path, capsys: Capture) -> None:
    command = ["export", "dataset", "--to", "coco", "--out", "out"]
    refused(capsys, [*command, "--images-root", "nowhere"], f"{home}/nowhere/plain.jpg 'plain' --images-root")
    shutil.rmtree("images")
    refused(capsys, command, "dataset pictures")
    assert not (home / "out").exists()
    assert not list(home.glob(".out*"))
    assert as_json(capsys, "--to", "coco", "--out", "out", "--images-root", "pictures")["rows"] == 9


def test_a_picture_that_changed_is_refused(home: Path, capsys: Capture) -> None:
    shutil.copy(home / "pictures" / "crumbs.png", home / "pictures" / "open.png")
    command = ["export", "dataset", "--to", "fiftyone", "--out", "out", "--images-root", "pictures"]
    refused(capsys, command, "open.png 'open'")
    assert not list(home.glob("*out*"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["dataset", "--to", "pascal", "--out", "out"], "'pascal' 'coco' 'voc'"),
        (["dataset", "--out", "out"], "'--to'"),
        (["dataset", "--to", "coco"], "'--out'"),
        (["nowhere", "--to", "coco", "--out", "out"], "/nowhere"),
        (["labels", "--to", "coco", "--out", "out"], "labels dataset"),
        (["dataset", "--to", "coco", "--out", "s3://bucket/out"], "s3://bucket/out"),
        (["dataset", "--to", "coco", "--out", "dataset"], "/dataset --overwrite"),
        (["dataset", "--to", "coco", "--out", "dataset", "--overwrite"], "/dataset --overwrite"),
    ],
)
def test_a_mistake_is_one_sentence(home: Path, capsys: Capture, arguments: list[str], named: str) -> None:
    before = tree(home)
    refused(capsys, ["export", *arguments], named)
    assert tree(home) == before


def test_nothing_kept_is_nothing_to_export(home: Path, capsys: Capture) -> None:
    publish(home, "strict", min_score="area>=1")
    refused(capsys, ["export", "strict", "--to", "coco", "--out", "out"], "/strict kept")
