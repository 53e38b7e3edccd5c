"""The few-shot literature's COCO layout."""

import json

import pytest

from maskmill.manifests.classes import ClassTable
from maskmill.manifests.datasets.layouts import Coco20iSource
from maskmill.manifests.datasets.listing import PictureEntry, image_id
from maskmill.manifests.datasets.readers import list_dataset
from maskmill.manifests.errors import InputError

TREE = [
    "train2014/COCO_train2014_000000000009.jpg",
    "train2014/notes.txt",
    "val2014/COCO_val2014_000000000042.jpg",
    "annotations/train2014/COCO_train2014_000000000009.png",
    "annotations/val2014/COCO_val2014_000000000042.png",
]


def test_ids_keep_their_folder(tree):
    root = tree(TREE)
    listing = list_dataset(Coco20iSource(root=root))
    assert (listing.root, listing.mask_kind) == (root, "indexed")
    assert list(listing.entries) == [
        PictureEntry(f"{folder}/{name}", f"{folder}/{name}.jpg", None, folder, f"annotations/{folder}/{name}.png")
        for folder, name in (("train2014", "COCO_train2014_000000000009"), ("val2014", "COCO_val2014_000000000042"))
    ]
    only = list_dataset(Coco20iSource(root=root, split="val2014"))
    assert [entry.id for entry in only.entries] == ["val2014/COCO_val2014_000000000042"]


def test_classes_are_cocos_without_its_gaps(tree, reference):
    rows = list_dataset(Coco20iSource(root=tree(TREE))).classes.rows
    assert [(row.index, row.source_id) for row in rows] == [(number, str(number)) for number in range(1, 81)]
    annotations = json.loads((reference / "data/coco-mini/annotations/instances.json").read_text())
    categories = sorted(annotations["categories"], key=lambda category: category["id"])
    assert [row.name for row in rows] == [category["name"] for category in categories]


@pytest.mark.parametrize("gone", ["val2014/", "annotations/val2014/"])
def test_half_a_dataset_is_not_taken_for_all_of_it(tree, gone):
    root = tree([name for name in TREE if not name.startswith(gone)])
    with pytest.raises(InputError, match=gone.rstrip("/")):
        list_dataset(Coco20iSource(root=root))
    assert len(list(list_dataset(Coco20iSource(root=root, split="train2014")).entries)) == 1


def test_another_datasets_class_table_is_refused(tree):
    with pytest.raises(InputError, match="person"):
        list_dataset(Coco20iSource(root=tree(TREE)), ClassTable().with_classes([("cat", "cat")]))


def test_every_published_episode_joins(reference, tree):
    named: set[str] = set()
    files = sorted((reference / "golden" / "episodes").glob("coco_*.json"))
    assert len(files) == 2
    for file in files:
        for query, _, supports, _ in json.loads(file.read_text()):
            named.update([query], *supports)
    masks = [f"annotations/{name.removesuffix('.jpg')}.png" for name in named]
    root = tree([*named, *masks, "train2014/other.jpg", "annotations/train2014/other.png"])
    ids = {entry.id for entry in list_dataset(Coco20iSource(root=root)).entries}
    assert {image_id(name) for name in named} == ids - {"train2014/other"}
    assert len(named) > 1000
