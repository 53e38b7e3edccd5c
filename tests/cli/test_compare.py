"""`maskmill compare`: its counts against counting pixel by pixel, what it says, and the sentence for each mistake."""

import io
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builders.configs import make_config
from builders.mistakes import refused
from builders.small_dataset import tree
from builders.small_labels import BROKEN, LABELS, MAPS, OPTIONS, MapsConfig, make_labels, publish, write_pictures
from maskmill.cli.main import main
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.datasets.layouts import TableSource
from maskmill.pipeline.running.run import run
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.refine.config import RefineConfig
from maskmill.stages.refine.stage import STAGE as REFINE

Capture = pytest.CaptureFixture[str]
LabelMaps = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Maps, labels and a dataset, others with other thresholds, and others again of fewer and of other pictures."""
    home = tmp_path_factory.mktemp("made")
    make_labels(home)
    publish(home)
    refine(home, "high", background="constant:0.7")
    refine(home, "open", background="two:0.3,0.7")
    run(MAPS, MapsConfig(by_class=False), {"images": str(home / "images")}, str(home / "objects"), OPTIONS)
    publish(home, "strict", labels="high", min_score="area>=0.4", title="strict")
    table = home / "pictures" / "fewer.csv"
    lines = (home / "pictures" / "table.csv").read_text().splitlines()
    table.write_text("\n".join([lines[0], *reversed(lines[3:]), "new.jpg,cat,train,"]) + "\n")
    shutil.copy(home / "pictures" / "p0.jpg", home / "pictures" / "new.jpg")
    (home / "fewer").mkdir()
    index(home / "fewer" / "images", table)
    run(MAPS, MapsConfig(), {"images": str(home / "fewer" / "images")}, str(home / "fewer" / "maps"), OPTIONS)
    refine(home / "fewer", "labels")
    write_pictures(home / "larger" / "pictures", dict(reversed(LABELS.items())))
    make_labels(home / "larger")
    index(home / "swapped-images", home / "pictures" / "table.csv", ("dog", "cat"))
    run(MAPS, MapsConfig(), {"images": str(home / "swapped-images")}, str(home / "swapped"), OPTIONS)
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    """A copy, and the working directory."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    return tmp_path


def refine(home: Path, out: str, **asked: Any) -> None:
    inputs = {"maps": str(home / "maps"), "images": str(home / "images")}
    run(REFINE, make_config(RefineConfig, **asked), inputs, str(home / out), OPTIONS)


def index(out: Path, table: Path, classes: tuple[str, ...] = ("cat", "dog")) -> None:
    run(INDEX, IndexConfig(source=TableSource(file=str(table), classes=classes)), {}, str(out), OPTIONS)


def compared(capsys: Capture, *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["compare", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def label_maps(labels: Path) -> LabelMaps:
    """Decoded by nobody of ours."""
    opened = open_artifact(str(labels))
    ids = opened.rows(["id"]).column("id").to_pylist()
    cells = opened.cells("label", range(len(ids)))
    return {
        name: np.asarray(Image.open(io.BytesIO(cell)))
        for name, cell in zip(ids, cells, strict=True)
        if cell is not None
    }


def joint(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Counter[tuple[int, int]]:
    found: Counter[tuple[int, int]] = Counter()
    for one, other in pairs:
        found.update(zip(one.ravel().tolist(), other.ravel().tolist(), strict=True))
    return found


def iou(pixels: Counter[tuple[int, int]], label: int) -> float:
    either = sum(count for pair, count in pixels.items() if label in pair)
    return pixels[label, label] / either


# ---- what is counted


@pytest.mark.parametrize("other", ["high", "open", "labels"])
def test_everything_is_as_counted_pixel_by_pixel(home: Path, capsys: Capture, other: str) -> None:
    found = compared(capsys, "labels", other, "--worst", "20")
    ours, theirs = label_maps(home / "labels"), label_maps(home / other)
    pixels = joint([(ours[name], theirs[name]) for name in ours])
    total = sum(pixels.values())
    assert found["compared"] == len(ours) == len(LABELS) - 1
    assert [tuple(each) for each in found["matrix"]] == sorted((one, two, n) for (one, two), n in pixels.items())
    assert found["agreement"] == pytest.approx(sum(n for (one, two), n in pixels.items() if one == two) / total)
    assert found["undecided_a"] == pytest.approx(sum(n for (one, _), n in pixels.items() if one == 255) / total)
    assert found["undecided_b"] == pytest.approx(sum(n for (_, two), n in pixels.items() if two == 255) / total)
    assert found["undecided_both"] == pytest.approx(pixels[255, 255] / total)
    decided = Counter({pair: count for pair, count in pixels.items() if 255 not in pair})
    ious = {label: iou(decided, label) for label in sorted({label for pair in decided for label in pair})}
    assert {each["label"]: each["iou"] for each in found["classes"]} == pytest.approx(ious)
    assert found["miou"] == pytest.approx(mean(ious.values()))
    assert found["miou_foreground"] == pytest.approx(mean(value for label, value in ious.items() if label))
    for each in found["classes"]:
        label = each["label"]
        a, b = (sum(n for pair, n in decided.items() if pair[side] == label) for side in (0, 1))
        assert (each["pixels_a"], each["pixels_b"]) == (a, b)
        assert each["kept_of_a"] == (pytest.approx(decided[label, label] / a) if a else None)
        assert each["kept_of_b"] == (pytest.approx(decided[label, label] / b) if b else None)
    assert [each["name"] for each in found["classes"]] == ["background", "cat", "dog"]


def test_the_pictures_that_differ_most_are_named_first(home: Path, capsys: Capture) -> None:
    """By the mean IoU over every value of theirs, 255 among them."""
    ours, theirs = label_maps(home / "labels"), label_maps(home / "open")
    expected = {}
    for name, label_HW in ours.items():
        pixels = joint([(label_HW, theirs[name])])
        expected[name] = mean(iou(pixels, value) for value in {value for pair in pixels for value in pair})
    ordered = sorted(expected, key=lambda name: expected[name])
    everything = compared(capsys, "labels", "open", "--worst", "99")["worst"]
    assert [each["id"] for each in everything] == ordered
    assert [each["iou"] for each in everything] == pytest.approx([expected[name] for name in ordered])
    for each in everything:
        assert each["agreement"] == pytest.approx((ours[each["id"]] == theirs[each["id"]]).mean())
    assert compared(capsys, "labels", "open", "--worst", "3")["worst"] == everything[:3]
    assert compared(capsys, "labels", "open", "--worst", "0")["worst"] == []


def test_the_other_way_round_it_is_the_same(home: Path, capsys: Capture) -> None:
    one, other = compared(capsys, "labels", "open"), compared(capsys, "open", "labels")
    for name in ("agreement", "miou", "compared", "worst", "undecided_both"):
        assert one[name] == other[name]
    assert one["a"] == other["b"]
    assert [(each["name"], each["a"]) for each in one["differences"]] == [
        (each["name"], each["b"]) for each in other["differences"]
    ]


@pytest.mark.parametrize(("a", "b"), [("maps", "labels"), ("labels", "dataset"), ("maps", "dataset")])
def test_other_kinds_say_the_same_of_the_same_pictures(home: Path, capsys: Capture, a: str, b: str) -> None:
    """Maps are cut at their own thresholds, as refine cuts them; a dataset holds the labels it was made from."""
    found = compared(capsys, a, b)
    assert (found["agreement"], found["miou"], found["compared"]) == (1.0, 1.0, len(LABELS) - 1)
    assert (found["a"]["kind"], found["b"]["kind"]) == (a, b)


def test_what_a_rule_dropped_is_compared_like_the_rest(home: Path, capsys: Capture) -> None:
    assert not all(row["kept"] for row in open_artifact("strict").rows(["kept"]).to_pylist())
    found = compared(capsys, "high", "strict")
    assert (found["compared"], found["agreement"]) == (len(LABELS) - 1, 1.0)


def test_objects_without_class_have_the_only_label_of_their_picture(home: Path, capsys: Capture) -> None:
    found = compared(capsys, "objects", "labels")
    assert found["compared"] == len(LABELS) - 1
    shutil.move("images", "elsewhere")
    refused(capsys, ["compare", "objects", "labels"], "objects --images")
    again = compared(capsys, "objects", "labels", "--images", "elsewhere")
    assert again["matrix"] == found["matrix"]
    assert compared(capsys, "maps", "labels")["agreement"] == 1.0, "maps with a class need no image"


# ---- pictures of one alone, failed ones, other sizes


def test_pictures_are_paired_by_id_and_those_of_one_alone_are_told(home: Path, capsys: Capture) -> None:
    """In whatever order they are listed; what failed in either is counted with its reason."""
    found = compared(capsys, "labels", "fewer/labels")
    assert (found["a"]["pictures"], found["a"]["alone"], found["a"]["alone_ids"]) == (8, 2, ["p0", "p1"])
    assert (found["b"]["pictures"], found["b"]["alone"], found["b"]["alone_ids"]) == (7, 1, ["new"])
    assert found["a"]["failed"] == found["b"]["failed"] == {"undecodable": 1}
    assert (found["compared"], found["agreement"]) == (5, 1.0)


def test_pictures_of_different_sizes_are_told_and_left_out(home: Path, capsys: Capture) -> None:
    found = compared(capsys, "labels", "larger/labels")
    assert found["other_size"] + found["compared"] + 1 == len(LABELS)
    assert set(found["other_size_ids"]) <= set(LABELS) - {BROKEN}
    assert main(["compare", "labels", "larger/labels"]) == 0
    assert f"  {found['other_size']} pictures not compared, because of label maps of different sizes: " in (
        capsys.readouterr().out
    )


def test_nothing_in_common_is_no_number(home: Path, capsys: Capture) -> None:
    (home / "alone").mkdir()
    table = home / "pictures" / "alone.csv"
    table.write_text("path,labels\nnew.jpg,cat\n")
    index(home / "alone" / "images", table)
    run(MAPS, MapsConfig(), {"images": str(home / "alone" / "images")}, str(home / "alone" / "maps"), OPTIONS)
    found = compared(capsys, "maps", "alone/maps")
    assert (found["compared"], found["agreement"], found["miou"], found["classes"], found["worst"]) == (
        0,
        None,
        None,
        [],
        [],
    )
    assert main(["compare", "maps", "alone/maps"]) == 0
    assert capsys.readouterr().out.startswith("0 pictures compared, pixels the same: –\n")


# ---- what they were made with


def differing(found: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {f"{each['of']}: {each['name']}": (each["a"], each["b"]) for each in found["differences"]}


def test_settings_that_differ_are_named_all_the_way_up(home: Path, capsys: Capture) -> None:
    assert differing(compared(capsys, "labels", "high")) == {"labels: background": ("rows", "constant:0.7")}
    run(MAPS, MapsConfig(threshold=0.3), {"images": str(home / "images")}, str(home / "low"), OPTIONS)
    inputs = {"maps": str(home / "low"), "images": str(home / "images")}
    run(REFINE, make_config(RefineConfig, background="constant:0.7"), inputs, str(home / "low-high"), OPTIONS)
    publish(home, "low-dataset", labels="low-high", maps="low", title="low")
    assert differing(compared(capsys, "dataset", "low-dataset")) == {
        "dataset: title": ("", "low"),
        "labels: background": ("rows", "constant:0.7"),
        "maps: threshold": (0.5, 0.3),
    }
    assert differing(compared(capsys, "labels", "labels")) == {}
    assert main(["compare", "labels", "labels"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("made with the same settings")


def test_a_stage_that_only_one_went_through_is_told(home: Path, capsys: Capture) -> None:
    assert differing(compared(capsys, "maps", "high")) == {"labels: stage": (None, "refine")}


def test_pictures_that_changed_are_where_equal_settings_part(tmp_path: Path, capsys: Capture) -> None:
    make_labels(tmp_path / "now")
    shutil.copytree(tmp_path / "now", tmp_path / "before")
    Image.new("RGB", (40, 24)).save(tmp_path / "now" / "pictures" / "p0.jpg")
    make_labels(tmp_path / "now")
    found = compared(capsys, str(tmp_path / "before" / "labels"), str(tmp_path / "now" / "labels"))
    assert list(differing(found)) == ["images: content"]


def test_what_has_gone_is_known_from_the_datasets_own_account(home: Path, capsys: Capture) -> None:
    """Its paths are cut short, and are no difference to those of what is still there."""
    before = differing(compared(capsys, "dataset", "strict"))
    shutil.rmtree("labels")
    assert differing(compared(capsys, "dataset", "strict")) == before
    for name in ("high", "maps", "images"):
        shutil.rmtree(name)
    found = differing(compared(capsys, "dataset", "strict"))
    assert found == before
    assert found["labels: background"] == ("rows", "constant:0.7")
    assert found["dataset: min_score"] == ("", "area>=0.4")


# ---- what is printed


def test_it_is_told_in_tables(home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    before = tree(home)
    assert main(["compare", "labels", "open", "--worst", "2"]) == 0
    said = capsys.readouterr().out
    found = compared(capsys, "labels", "open", "--worst", "2")
    lines = [line.split() for line in said.splitlines()]
    assert lines[0] == ["7", "pictures", "compared,", "pixels", "the", "same:", f"{found['agreement']:.3f}"]
    assert f"  A: labels {home}/labels: 8 pictures, 1 of those in both failed (1 undecodable), undecided: " in said
    for each in found["classes"]:
        assert [each["name"], f"{each['iou']:.3f}"] in [line[:2] for line in lines]
    assert [each["id"] for each in found["worst"]] == [line[0] for line in lines if line and line[0] in LABELS]
    assert ["labels:", "background", "rows", "two:0.3,0.7"] in lines
    assert tree(home) == before, "it writes nothing"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["labels", "nowhere"], "/nowhere"),
        (["images", "labels"], "images maps labels dataset"),
        (["labels", "high", "--images", "maps"], "maps images"),
        (["labels", "swapped"], "1 cat swapped"),
        (["objects", "labels", "--images", "fewer/images"], "fewer/images 'p0'"),
        (["labels", "high", "--worst", "-1"], "'--worst' -1"),
        (["labels"], "'B'"),
    ],
)
def test_a_mistake_is_one_sentence(home: Path, capsys: Capture, arguments: list[str], named: str) -> None:
    refused(capsys, ["compare", *arguments], named)


def test_damage_is_found(home: Path, capsys: Capture) -> None:
    (path,) = (home / "high").glob("label/000/00000.parquet")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert main(["compare", "labels", "high"]) == 4
