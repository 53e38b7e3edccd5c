"""The first stage on real trees: what each row says, masks in their one form, and what is wrong with one picture."""

import hashlib
import json
import unicodedata
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders.small_dataset import write_dataset, write_mask, write_picture
from maskmill.manifests.artifact.artifact import Artifact, open_artifact
from maskmill.manifests.datasets.layouts import CocoSource, DatasetSource, FolderSource, VocSource
from maskmill.manifests.errors import InputError, StaleArtifact
from maskmill.manifests.pictures.palette import decode_label_map
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import run
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE

ANY_BAD = RunOptions(unit_rows=4, max_bad=1.0)


def indexed(source: DatasetSource, out: Path, options: RunOptions = ANY_BAD) -> Artifact:
    run(STAGE, IndexConfig(source=source), {}, str(out), options)
    return open_artifact(str(out), "images")


def rows_of(artifact: Artifact) -> dict[str, dict[str, object]]:
    return {row["id"]: row for row in artifact.rows().to_pylist()}


def mask_of(artifact: Artifact, identifier: str) -> np.ndarray | None:
    cell = artifact.cells("mask", artifact.positions([identifier]))[0]
    return None if cell is None else decode_label_map(cell)


def test_a_row_says_what_the_file_is(tmp_path: Path) -> None:
    pictures = write_dataset(tmp_path / "pictures", 3)
    images = indexed(FolderSource(root=str(pictures)), tmp_path / "images")
    data = (pictures / "cat/2.png").read_bytes()
    row = rows_of(images)["cat/2"]
    assert row["sha256"] == hashlib.sha256(data).hexdigest()
    assert (row["width"], row["height"], row["mode"], row["bytes"]) == (22, 16, "RGB", len(data))
    assert (row["uri"], row["labels"], row["status"]) == ("cat/2.png", [1], "ok")
    assert images.plan.facts["classes"] == [
        {"index": 1, "name": "cat", "source_id": "cat"},
        {"index": 2, "name": "dog", "source_id": "dog"},
    ]


def test_a_mask_takes_the_class_of_its_row(tmp_path: Path) -> None:
    pictures = write_dataset(tmp_path / "pictures", 4, masks=True)
    images = indexed(FolderSource(root=str(pictures), masks=str(tmp_path / "masks")), tmp_path / "images")
    mask_HW = mask_of(images, "dog/3")
    assert mask_HW is not None
    inside_HW = np.random.default_rng(3).random((16, 23)) < 0.4
    np.testing.assert_array_equal(mask_HW, np.where(inside_HW, 2, 0))


@pytest.mark.parametrize("orientation", [1, 2, 3, 5, 6, 8])
def test_a_mask_of_the_raw_size_is_rotated_along(tmp_path: Path, orientation: int) -> None:
    upright_HW = np.zeros((24, 32), np.uint8)
    upright_HW[2:9, 3:20] = 1
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored_HW = {5: upright_HW.T, 6: np.rot90(upright_HW, 1), 8: np.rot90(upright_HW, -1)}.get(orientation, upright_HW)
    for folder, array_HW in [("pictures", stored_HW * 200), ("masks", stored_HW)]:
        (tmp_path / folder).mkdir()
        turned = exif if folder == "pictures" else Image.Exif()
        Image.fromarray(np.ascontiguousarray(array_HW)).save(tmp_path / folder / "a.png", exif=turned)
    source = FolderSource(root=str(tmp_path / "pictures"), masks=str(tmp_path / "masks"))
    images = indexed(source, tmp_path / "images")
    np.testing.assert_array_equal(mask_of(images, "a"), upright_HW)
    row = rows_of(images)["a"]
    assert (row["width"], row["height"], row["orientation"]) == (32, 24, orientation)
    assert row["note"] == ("mask_as_seen" if orientation in (2, 3) else "")


def test_what_is_wrong_with_a_mask_fails_its_row(tmp_path: Path) -> None:
    pictures, masks = write_dataset(tmp_path / "pictures", 8, masks=True), tmp_path / "masks"
    write_mask(masks / "cat/0.png", 0, (21, 16))
    (masks / "dog/1.png").write_bytes(b"no picture")
    Image.fromarray(np.arange(22 * 16, dtype=np.uint8).reshape(16, 22)).save(masks / "cat/2.png")
    (masks / "dog/3.png").unlink()
    Image.new("RGB", (24, 16)).save(masks / "cat/4.png")
    rows = rows_of(indexed(FolderSource(root=str(pictures), masks=str(masks)), tmp_path / "images"))
    reasons = {identifier: row["reason"] for identifier, row in rows.items() if row["reason"]}
    assert reasons == {
        "cat/0": "mask_size",
        "dog/1": "mask_undecodable",
        "cat/2": "mask_values",
        "cat/4": "mask_undecodable",
    }
    assert rows["dog/3"]["status"] == "ok"  # hardly any picture has a mask: that is no failure


def test_coco_is_drawn_small_over_large_and_crowds_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "pictures/a.jpg")

    def box(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
        return [[left, top, right, top, right, bottom, left, bottom]]

    annotations = [
        {"id": 1, "image_id": 7, "category_id": 90, "area": 16, "iscrowd": 0, "segmentation": box(4, 4, 8, 8)},
        {"id": 2, "image_id": 7, "category_id": 3, "area": 400, "iscrowd": 0, "segmentation": box(2, 2, 22, 22)},
        {
            "id": 3,
            "image_id": 7,
            "category_id": 3,
            "area": 1,
            "iscrowd": 1,
            "segmentation": {"size": [30, 40], "counts": [0, 30, 1170]},
        },
    ]
    content = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 40, "height": 30}],
        "annotations": annotations,
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 3, "name": "car"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    source = CocoSource(images=str(tmp_path / "pictures"), annotations=str(tmp_path / "instances.json"))
    images = indexed(source, tmp_path / "images")
    mask_HW = mask_of(images, "a")
    assert mask_HW is not None
    wanted_HW = np.zeros((30, 40), np.uint8)
    wanted_HW[:, 0] = 255
    wanted_HW[2:22, 2:22] = 1
    wanted_HW[4:8, 4:8] = 2
    np.testing.assert_array_equal(mask_HW, wanted_HW)
    assert rows_of(images)["a"]["labels"] == [1, 2]
    assert [row["source_id"] for row in images.plan.facts["classes"]] == ["3", "90"]


def test_labels_can_be_read_off_the_masks(tmp_path: Path, reference: Path) -> None:
    source = VocSource(
        root=str(reference / "data/voc-mini"), split="train", masks="SegmentationClass", labels_from="masks"
    )
    images = indexed(source, tmp_path / "images", RunOptions())
    row = rows_of(images)["2007_000032" if "2007_000032" in rows_of(images) else "2007_000063"]
    stored = np.asarray(Image.open(reference / f"data/voc-mini/SegmentationClass/{row['id']}.png"))
    assert row["labels"] == sorted(set(np.unique(stored)) - {0, 255})
    np.testing.assert_array_equal(mask_of(images, str(row["id"])), stored)


def test_without_any_labels_the_way_out_is_named(reference: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--labels-from masks"):
        indexed(VocSource(root=str(reference / "data/voc-mini"), split="train"), tmp_path / "images")
    assert not (tmp_path / "images").exists()


def test_update_appends_classes_and_keeps_the_numbers_of_old_ones(tmp_path: Path) -> None:
    pictures = write_dataset(tmp_path / "pictures", 4)
    source = FolderSource(root=str(pictures))
    indexed(source, tmp_path / "images")
    write_picture(pictures / "ant/9.png", 9)
    images = indexed(source, tmp_path / "images", replace(ANY_BAD, update=True))
    assert [row["name"] for row in images.plan.facts["classes"]] == ["cat", "dog", "ant"]
    assert rows_of(images)["ant/9"]["labels"] == [3]
    (pictures / "ant/9.png").unlink()
    with pytest.raises(StaleArtifact, match=r"images lists 5 rows.*\b0\b.*\b1\b.*--update"):
        indexed(source, tmp_path / "images")


def test_ids_are_in_one_unicode_form_and_may_be_in_any_script(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Bären/ü 1")
    write_picture(tmp_path / "pictures" / f"{decomposed}.png", 0)
    write_picture(tmp_path / "pictures/熊/二.png", 1)
    write_picture(tmp_path / "pictures/a b/C.png", 2)
    write_picture(tmp_path / "pictures/a b/c.png", 3)
    rows = rows_of(indexed(FolderSource(root=str(tmp_path / "pictures")), tmp_path / "images"))
    assert set(rows) == {unicodedata.normalize("NFC", "Bären/ü 1"), "熊/二", "a b/C", "a b/c"}
    assert all(row["status"] == "ok" for row in rows.values())


def test_a_link_out_of_the_dataset_is_not_followed(tmp_path: Path) -> None:
    write_picture(tmp_path / "secret.png", 0)
    pictures = write_dataset(tmp_path / "pictures", 2)
    (pictures / "cat/out.png").symlink_to(tmp_path / "secret.png")
    (pictures / "cat/in.png").symlink_to(pictures / "cat/0.png")
    rows = rows_of(indexed(FolderSource(root=str(pictures)), tmp_path / "images"))
    assert rows["cat/out"]["reason"] == "outside_root"
    assert rows["cat/in"]["status"] == "ok"


def test_pictures_may_lie_in_a_tar(tmp_path: Path) -> None:
    import tarfile

    pictures = write_dataset(tmp_path / "pictures", 4)
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        tar.add(pictures, arcname=".")
    one = indexed(FolderSource(root=str(pictures)), tmp_path / "from_folder")
    other = indexed(FolderSource(root=str(tmp_path / "all.tar")), tmp_path / "from_tar")
    columns = ["id", "sha256", "width", "height", "labels"]
    assert other.rows(columns).sort_by("id").to_pylist() == one.rows(columns).sort_by("id").to_pylist()
    assert one.plan.field_fingerprints == other.plan.field_fingerprints  # what reads them need not be made again


def test_pngs_of_masks_are_palettes_that_viewers_show_in_colour(tmp_path: Path) -> None:
    pictures = write_dataset(tmp_path / "pictures", 2, masks=True)
    images = indexed(FolderSource(root=str(pictures), masks=str(tmp_path / "masks")), tmp_path / "images")
    cell = images.cells("mask", [0])[0]
    assert cell is not None
    with Image.open(BytesIO(cell)) as png:
        assert png.mode == "P"
        assert (png.getpalette() or [])[3:6] == [128, 0, 0]  # VOC's first colour
