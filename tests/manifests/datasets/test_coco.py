"""COCO's JSON: classes, labels, segments, and references that lead nowhere."""

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest

from maskmill.manifests.classes import ClassTable
from maskmill.manifests.datasets.layouts import CocoSource
from maskmill.manifests.datasets.readers import list_dataset
from maskmill.manifests.errors import InputError

SQUARE = [[0, 0, 2, 0, 2, 2, 0, 2]]


def content() -> dict[str, list[dict[str, Any]]]:
    return {
        "categories": [{"id": 44, "name": "bottle"}, {"id": 3, "name": "car"}, {"id": 90, "name": "toothbrush"}],
        "images": [
            {"id": 7, "file_name": "b.jpg", "width": 4, "height": 3},
            {"id": 5, "file_name": "val/a.x.jpg", "width": 2, "height": 2},
            {"id": 6, "file_name": "none.png", "width": 2, "height": 2},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 44, "iscrowd": 0, "area": 4, "segmentation": SQUARE},
            {"id": 2, "image_id": 5, "category_id": 90, "iscrowd": 1, "area": 1.5, "segmentation": {"size": [2, 2]}},
            {"id": 3, "image_id": 7, "category_id": 3, "segmentation": SQUARE},
            {"id": 4, "image_id": 7, "category_id": 3, "segmentation": SQUARE},
        ],
    }


@pytest.fixture
def source(tmp_path: Path):
    def write(annotations: Any) -> CocoSource:
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "instances.json").write_text(
            annotations if isinstance(annotations, str) else json.dumps(annotations)
        )
        return CocoSource(images=str(tmp_path / "images"), annotations=str(tmp_path / "instances.json"))

    return write


def test_classes_labels_and_segments(source):
    listing = list_dataset(source(content()))
    assert [(row.index, row.source_id, row.name) for row in listing.classes.rows] == [
        (1, "3", "car"),
        (2, "44", "bottle"),
        (3, "90", "toothbrush"),
    ]
    assert listing.mask_kind == "shapes"
    entries = list(listing.entries)
    assert [(entry.id, entry.uri, entry.labels) for entry in entries] == [
        ("b", "b.jpg", (1, 2)),
        ("val/a.x", "val/a.x.jpg", (3,)),  # a crowd alone
        ("none", "none.png", ()),
    ]
    assert json.loads(entries[0].shapes) == {
        "width": 4,
        "height": 3,
        "segments": [
            {"class": 2, "area": 4, "crowd": 0, "segmentation": SQUARE},
            {"class": 1, "area": None, "crowd": 0, "segmentation": SQUARE},
            {"class": 1, "area": None, "crowd": 0, "segmentation": SQUARE},
        ],
    }
    assert json.loads(entries[1].shapes)["segments"][0]["crowd"] == 1
    assert entries[2].shapes == '{"height":2,"segments":[],"width":2}'


def test_boxes_alone_are_labels_without_masks(source):
    boxes = content()
    boxes["annotations"][0]["segmentation"] = []
    mixed = {entry.id: entry for entry in list_dataset(source(boxes)).entries}
    assert (mixed["b"].shapes, mixed["b"].labels) == ("", (1, 2))
    assert mixed["none"].shapes
    for annotation in boxes["annotations"]:
        annotation.pop("segmentation", None)
    listing = list_dataset(source(boxes))
    assert listing.mask_kind == "none"
    assert {entry.shapes for entry in listing.entries} == {""}


def test_known_classes_keep_their_index(source):
    known = ClassTable().with_classes([("90", "toothbrush"), ("1", "person")])
    listing = list_dataset(source(content()), known)
    assert [row.source_id for row in listing.classes.rows] == ["90", "1", "3", "44"]
    assert next(listing.entries).labels == (3, 4)
    with pytest.raises(InputError, match=r"3 car\b.*cat"):
        list_dataset(source(content()), ClassTable().with_classes([("3", "cat")]))


@pytest.mark.parametrize(
    ("where", "change", "message"),
    [
        (("annotations", 1), {"image_id": 8}, r"annotation 2\b.*image_id 8"),
        (("annotations", 1), {"category_id": 1}, r"annotation 2\b.*category_id 1"),
        (("annotations", 1), {"image_id": "7"}, r"annotation 2\b.*image_id '7'"),
        (("images", 1), {"file_name": "b.jpg"}, r"b\.jpg .*7.*5"),
        (("images", 1), {"id": 7}, "id 7"),
        (("images", 1), {"id": None}, "id None"),
        (("images", 1), {"file_name": "../b.jpg"}, r"image 5\b"),
        (("images", 1), {"file_name": "/b.jpg"}, r"image 5\b.*absolute"),
        (("images", 1), {"file_name": None}, r"image 5\b.*text"),
        (("categories", 1), {"id": 44}, "categories"),
    ],
)
def test_wrong_references_are_named(source, where, change, message):
    wrong = content()
    wrong[where[0]][where[1]].update(change)
    with pytest.raises(InputError, match=message):
        list_dataset(source(wrong))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "JSON"),
        ("[" * 100_000, "JSON"),
        ("[]", "images"),
        ('{"images": [], "categories": []}', "annotations"),
        ('{"images": [], "annotations": [], "categories": []}', "images"),
        ('{"images": [1], "annotations": [], "categories": []}', "images"),
    ],
)
def test_files_that_are_no_coco_json(source, text, message):
    with pytest.raises(InputError, match=message):
        list_dataset(source(text))


def test_paths_that_are_not_there(source, tmp_path):
    given = source(content())
    with pytest.raises(InputError, match=r"/no\.json"):
        list_dataset(CocoSource(images=given.images, annotations=f"{tmp_path}/no.json"))
    with pytest.raises(InputError, match="folder"):
        list_dataset(CocoSource(images=given.images, annotations=given.images))
    with pytest.raises(InputError, match="/no"):
        list_dataset(CocoSource(images=f"{tmp_path}/no", annotations=given.annotations))


def test_at_a_url():
    fsspec.filesystem("memory").pipe_file("/coco-test/instances.json", json.dumps(content()).encode())
    listing = list_dataset(
        CocoSource(images="memory://coco-test/images/", annotations="memory://coco-test/instances.json")
    )
    assert listing.root == "memory://coco-test/images"
    assert len(list(listing.entries)) == 3


def test_the_reference_pictures(reference):
    folder = reference / "data" / "coco-mini"
    file = folder / "annotations" / "instances.json"
    entries = list(list_dataset(CocoSource(images=str(folder / "images"), annotations=str(file))).entries)
    assert len(entries) == 329
    assert all((folder / "images" / entry.uri).is_file() for entry in entries)
    annotations = json.loads(file.read_text())["annotations"]
    assert sum(len(json.loads(entry.shapes)["segments"]) for entry in entries) == len(annotations) == 2821
