"""COCO as pycocotools reads it, and as this package's own index does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays
from pycocotools.coco import COCO  # type: ignore[import-untyped]
from pycocotools.cocoeval import COCOeval  # type: ignore[import-untyped]

from builders.small_export import ANEW, CLASSES, PICTURES, decoded, mask_of, pixels_of, stem_of
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.datasets.layouts import CocoSource
from maskmill.manifests.datasets.shapes import draw_shapes
from maskmill.manifests.exports.coco import segment_of
from maskmill.manifests.exports.run import Exported
from maskmill.pipeline.running.run import run
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX

# pycocotools' own way of making arrays, when it decodes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
Write = Callable[[str], tuple[Path, Exported]]
SPLITS = {"train": ["plain", "Plain", "🐈/é b", "turned", "open", "crumbs"], "val": ["cat/0.1", "nothing"]}


def read(folder: Path) -> list[Any]:
    files = sorted((folder / "annotations").iterdir())
    assert len(files) == 3
    return [COCO(str(file)) for file in files]


def drawn(coco: Any, image: dict[str, Any]) -> np.ndarray:
    label_HW = np.zeros((image["height"], image["width"]), np.uint8)
    for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]])):
        label_HW[coco.annToMask(annotation) == 1] = 255 if annotation["iscrowd"] else annotation["category_id"]
    return label_HW


def test_masks_come_back_pixel_by_pixel(exported: Write) -> None:
    """Also where the size was swapped it would not: no mask is square."""
    folder, found = exported("coco")
    seen = {}
    for coco in read(folder):
        for image in coco.loadImgs(coco.getImgIds()):
            seen[image["maskmill_id"]] = image
            expected = mask_of(image["maskmill_id"])
            if image["maskmill_id"] == "open":  # no class was looked for
                expected = np.where(expected == 255, 0, expected)
            np.testing.assert_array_equal(drawn(coco, image), expected)
    assert sorted(seen) == sorted(PICTURES)
    assert found.lost["undecided pixels that become background, of pictures where no class was looked for"] == int(
        (mask_of("open") == 255).sum()
    )


def test_areas_and_boxes_are_those_of_the_pixels(exported: Write) -> None:
    for coco in read(exported("coco")[0]):
        for image in coco.loadImgs(coco.getImgIds()):
            label_HW = mask_of(image["maskmill_id"])
            for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]])):
                rows, columns = np.nonzero(label_HW == (255 if annotation["iscrowd"] else annotation["category_id"]))
                assert annotation["area"] == len(rows)
                box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
                assert annotation["bbox"] == box
                assert annotation["segmentation"]["size"] == list(label_HW.shape)
                if not annotation["iscrowd"]:
                    assert annotation["attributes"] == {"source": "gt", "score": None}


@settings(max_examples=100)
@given(arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=20)))
def test_run_lengths_come_back(inside_HW: np.ndarray) -> None:
    """By this package's own decoder, which is not pycocotools'."""
    height, width = inside_HW.shape
    segment = segment_of(inside_HW)
    drawing = {"class": 1, "crowd": 0, "area": segment["area"], "segmentation": segment["segmentation"]}
    shapes = json.dumps({"width": width, "height": height, "segments": [drawing]})
    np.testing.assert_array_equal(draw_shapes(shapes, width, height), inside_HW)
    assert segment["area"] == inside_HW.sum()


def test_categories_are_the_class_table_and_ids_are_those_of_the_data(home: Path, exported: Write) -> None:
    folder, _ = exported("coco")
    listed = open_artifact(str(home / "dataset")).rows(["id"]).column("id").to_pylist()
    annotations = []
    for coco in read(folder):
        assert [(each["id"], each["name"]) for each in coco.loadCats(coco.getCatIds())] == list(enumerate(CLASSES, 1))
        for image in coco.loadImgs(coco.getImgIds()):
            assert listed[image["id"] - 1] == image["maskmill_id"]
        annotations += [each["id"] for each in coco.loadAnns(coco.getAnnIds())]
    assert len(set(annotations)) == len(annotations)
    told = json.loads((folder / "annotations" / "instances_val.json").read_text())
    assert [each["name"] for each in told["licenses"]] == ["CC-BY-4.0", "cc-by-nc-4.0"]
    assert set(told["info"]) == {"description", "version"}, "no date"


def test_each_split_has_its_own_list_and_every_picture_its_file(home: Path, exported: Write) -> None:
    folder, _ = exported("coco")
    for split, ids in SPLITS.items():
        coco: Any = COCO(str(folder / "annotations" / f"instances_{split}.json"))
        assert [each["maskmill_id"] for each in coco.loadImgs(coco.getImgIds())] == ids
    for coco in read(folder):
        for image in coco.loadImgs(coco.getImgIds()):
            identifier, extension = image["maskmill_id"], PICTURES[image["maskmill_id"]][0]
            anew = identifier in ANEW
            assert image["file_name"] == f"{stem_of(identifier)}.{'png' if anew else extension}"
            data = (folder / "images" / image["file_name"]).read_bytes()
            if anew:
                np.testing.assert_array_equal(decoded(data), pixels_of(identifier, home))
            else:
                assert data == (home / "pictures" / f"{identifier}.{extension}").read_bytes()


def test_it_is_indexed_again_as_it_was(tmp_path: Path, exported: Write) -> None:
    folder, _ = exported("coco")
    file = str(folder / "annotations" / "instances_train.json")
    source = CocoSource(images=str(folder / "images"), annotations=file)
    run(INDEX, IndexConfig(source=source), {}, str(tmp_path / "again"))
    again = open_artifact(str(tmp_path / "again"))
    cells = again.cells("mask", range(again.plan.num_rows))
    for identifier, cell in zip(SPLITS["train"], cells, strict=True):
        expected = mask_of(identifier) if identifier != "open" else np.zeros_like(mask_of("open"))
        assert cell is not None
        np.testing.assert_array_equal(decoded(cell), expected)


@pytest.mark.filterwarnings("ignore")
def test_detections_of_undecided_pixels_are_neither_right_nor_wrong(
    exported: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    coco: Any = COCO(str(exported("coco")[0] / "annotations" / "instances_train.json"))
    results = [
        {"image_id": each["image_id"], "category_id": each["category_id"], "score": 0.5 + 0.4 * each["iscrowd"]}
        | {"segmentation": each["segmentation"]}
        for each in coco.loadAnns(coco.getAnnIds())
    ]
    assert any(each["score"] > 0.5 for each in results)
    judged = COCOeval(coco, coco.loadRes(results), "segm")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    assert judged.stats[0] == pytest.approx(1.0)
