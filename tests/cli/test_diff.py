"""`maskmill diff`: what came, went and changed between two versions of a dataset."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from builders.configs import make_config
from builders.mistakes import refused
from builders.small_dataset import tree
from builders.small_labels import BROKEN, LABELS, MAPS, MASKED, OPTIONS, MapsConfig, make_labels, publish
from maskmill.cli.main import main
from maskmill.manifests.datasets.layouts import TableSource
from maskmill.pipeline.running.run import run
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.refine.config import RefineConfig
from maskmill.stages.refine.stage import STAGE as REFINE

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset; the same; with another cut; with another rule; with ground truth; of other pictures and labels."""
    home = tmp_path_factory.mktemp("made")
    make_labels(home)
    publish(home)
    shutil.copytree(home / "dataset", home / "copied")
    where = {"maps": str(home / "maps"), "images": str(home / "images")}
    run(REFINE, make_config(RefineConfig, background="constant:0.7"), where, str(home / "high"), OPTIONS)
    publish(home, "cut", labels="high")
    publish(home, "ruled", min_score="area>=0.4")
    publish(home, "truth", ground_truth=[MASKED[0]])
    grow(home)
    return home


def grow(home: Path) -> None:
    """home/grown: p0 has gone, p1 is a cat too, p6 is in another split, p7 another picture; `new` and a class came."""
    lines = (home / "pictures" / "table.csv").read_text().splitlines()
    rows = {line.partition(".")[0]: line.split(",") for line in lines[1:]}
    del rows["p0"]
    rows["p1"][1], rows["p6"][2], rows["p7"][0] = "cat|dog", "train", "moved/p7.jpg"
    (home / "later" / "moved").mkdir(parents=True)
    for path in (home / "pictures").glob("*.*g"):
        shutil.copy(path, home / "later" / path.name)
    with Image.open(home / "pictures" / "p7.jpg") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(home / "later" / "p7.jpg")
    rows["p7"][0] = "p7.jpg"
    shutil.copy(home / "pictures" / "p0.jpg", home / "later" / "new.jpg")
    rows["new"] = ["new.jpg", "bird", "train", ""]
    table = home / "later" / "table.csv"
    table.write_text("\n".join([lines[0], *(",".join(row) for row in reversed(rows.values()))]) + "\n")
    at = home / "grown"
    source = TableSource(file=str(table), classes=("cat", "dog", "bird"))
    run(INDEX, IndexConfig(source=source), {}, str(at / "images"), OPTIONS)
    run(MAPS, MapsConfig(), {"images": str(at / "images")}, str(at / "maps"), OPTIONS)
    inputs = {"maps": str(at / "maps"), "images": str(at / "images")}
    run(REFINE, make_config(RefineConfig), inputs, str(at / "labels"), OPTIONS)
    publish(at)


@pytest.fixture
def home(made: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    monkeypatch.chdir(made)
    capsys.readouterr()
    return made


def diff(capsys: Capture, a: str, b: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["diff", a, b, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def masks(dataset: Path) -> dict[str, np.ndarray]:
    rows = [row for path in dataset.glob("data/**/*.parquet") for row in pq.read_table(path).to_pylist()]
    return {row["id"]: np.asarray(Image.open(io.BytesIO(row["mask"]["bytes"]))) for row in rows if row["mask"]}


def changes(row: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {each["name"]: (each["a"], each["b"]) for each in row["changes"]}


def test_a_copy_is_the_same(home: Path, capsys: Capture) -> None:
    found = diff(capsys, "dataset", "copied")
    assert found["unchanged"] == len(LABELS)
    assert not any(found[name] for name in ("added", "removed", "relabelled", "changed", "differences"))
    assert main(["diff", "dataset", "copied"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("0 rows added, 0 removed, 0 relabelled, 0 changed otherwise, 8 as they were\n")
    assert said.splitlines()[-1].startswith("made with the same settings")


def test_masks_that_differ_are_told_with_the_share_that_stayed(home: Path, capsys: Capture) -> None:
    found = diff(capsys, "dataset", "cut")
    ours, theirs = masks(home / "dataset"), masks(home / "cut")
    same = {name: float((ours[name] == theirs[name]).mean()) for name in ours}
    assert {row["id"]: row["same_pixels"] for row in found["relabelled"]} == pytest.approx(
        {name: share for name, share in same.items() if share < 1}
    )
    assert found["unchanged"] == sum(share == 1 for share in same.values()) + 1, "and the one that failed in both"
    assert [(each["of"], each["name"], each["a"], each["b"]) for each in found["differences"]] == [
        ("labels", "background", "rows", "constant:0.7")
    ]


def test_what_the_rule_keeps_is_no_label(home: Path, capsys: Capture) -> None:
    found = diff(capsys, "dataset", "ruled")
    assert found["relabelled"] == []
    assert found["changed"]
    assert all(changes(row) == {"kept": (True, False)} for row in found["changed"])
    assert [each["name"] for each in found["differences"]] == ["min_score"]


def test_where_a_mask_comes_from_is_told(home: Path, capsys: Capture) -> None:
    (row,) = diff(capsys, "dataset", "truth")["relabelled"]
    assert row["id"] == MASKED[0]
    assert changes(row)["sources"] == ({"cat": "pseudo"}, {"cat": "gt"})


def test_rows_come_go_and_change_whatever_their_order(home: Path, capsys: Capture) -> None:
    found = diff(capsys, "dataset", "grown/dataset")
    assert (found["added"], found["removed"]) == (["new"], ["p0"])
    assert (found["classes_added"], found["classes_removed"]) == (["bird"], [])
    (relabelled,) = found["relabelled"]
    assert relabelled["id"] == "p1"
    assert changes(relabelled)["labels"] == (["dog"], ["cat", "dog"])
    changed = {row["id"]: changes(row) for row in found["changed"]}
    assert changed["p6"] == {"split": ("val", "train")}
    assert list(changed["p7"]) == ["picture"]
    assert len(changed) == 2
    assert found["unchanged"] == len(LABELS) - 4
    back = diff(capsys, "grown/dataset", "dataset")
    assert (back["added"], back["removed"], back["unchanged"]) == (["p0"], ["new"], found["unchanged"])
    assert back["classes_removed"] == ["bird"]


def test_what_failed_once_is_told_by_its_status(home: Path, capsys: Capture, tmp_path: Path) -> None:
    again = tmp_path / "home"
    shutil.copytree(home / "pictures", again / "pictures")
    shutil.copy(again / "pictures" / "p7.jpg", again / "pictures" / f"{BROKEN}.jpg")
    make_labels(again)
    publish(again)
    found = diff(capsys, "dataset", str(again / "dataset"))
    row = next(row for row in found["changed"] if row["id"] == BROKEN)
    status = changes(row)["status"]
    assert status[0].startswith("failed: ")
    assert status[1] == "ok"


def test_it_is_told_in_tables_and_writes_nothing(home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    before = tree(home)
    assert main(["diff", "dataset", "grown/dataset"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("1 row added, 1 removed, 1 relabelled, 2 changed otherwise, 4 as they were\n")
    assert f"  A: dataset {home}/dataset: 8 rows, fingerprint " in said
    assert "  added: new\n  removed: p0\n  classes added: bird\n" in said
    assert "labels dog → cat, dog" in said
    assert "split val → train" in said
    assert "another picture" in said
    assert "images: source.classes" in said
    assert tree(home) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["dataset", "nowhere"], "/nowhere"),
        (["labels", "dataset"], "labels dataset"),
        (["dataset"], "'B'"),
    ],
)
def test_a_mistake_is_one_sentence(home: Path, capsys: Capture, arguments: list[str], named: str) -> None:
    refused(capsys, ["diff", *arguments], named)
