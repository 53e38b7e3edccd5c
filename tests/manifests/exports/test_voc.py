"""VOC as this package's own index, as Pillow and as datumaro, which CVAT is built on, read it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders.small_export import CLASSES, PICTURES, decoded, mask_of, stem_of
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.datasets.layouts import VocSource
from maskmill.manifests.exports.run import Exported
from maskmill.pipeline.running.run import run
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX

Write = Callable[[str], tuple[Path, Exported]]
NAMES = [CLASSES[0], CLASSES[1], "a_b", "_#hash", CLASSES[4]]


def label_map(folder: Path) -> dict[str, tuple[int, ...]]:
    """As CVAT describes it: label:color_rgb:parts:actions."""
    lines = (folder / "labelmap.txt").read_text().splitlines()
    fields = [line.split(":") for line in lines if not line.startswith("#")]
    assert all(len(each) == 4 for each in fields)
    return {each[0]: tuple(int(value) for value in each[1].split(",")) for each in fields}


def test_masks_are_palette_pictures_whose_colours_the_label_map_names(exported: Write) -> None:
    folder, found = exported("voc")
    colours = list(label_map(folder).items())
    assert [name for name, _ in colours] == ["background", *NAMES, "ignored"]
    assert found.lost["class names changed"] == 2
    by_value = {**dict(enumerate(colours[:-1])), 255: colours[-1]}
    for identifier in PICTURES:
        with Image.open(folder / "SegmentationClass" / f"{stem_of(identifier)}.png") as image:
            assert image.mode == "P"
            np.testing.assert_array_equal(np.asarray(image), mask_of(identifier))
            expected = np.array([by_value[value][1] if value in by_value else (0, 0, 0) for value in range(256)])
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), expected[mask_of(identifier)])


def test_lists_name_the_pictures_of_each_split(exported: Write) -> None:
    folder, found = exported("voc")
    lists = {path.stem: path.read_text().splitlines() for path in (folder / "ImageSets" / "Segmentation").iterdir()}
    train = ["plain", "Plain", "🐈/é b", "turned", "open", "crumbs"]
    assert lists["train"] == [stem_of(each) for each in train]
    assert lists["val"] == [stem_of(each) for each in ("cat/0.1", "nothing")]
    assert len(lists) == 3
    pictures = {path.stem for path in (folder / "JPEGImages").iterdir()}
    assert pictures == {each for of_split in lists.values() for each in of_split}
    jpegs = [path for path in (folder / "JPEGImages").iterdir() if path.suffix == ".jpg"]
    assert len(pictures) - len(jpegs) == 6
    assert found.lost["pictures that are no .jpg, which some VOC readers look for alone"] == 6


def test_what_is_jpeg_is_indexed_again_as_it_was(tmp_path: Path, exported: Write) -> None:
    """VOC's own layout knows .jpg alone."""
    folder, _ = exported("voc")
    jpegs = {stem_of(each): each for each in ("plain", "cat/0.1", "🐈/é b")}
    (tmp_path / "list.txt").write_text("".join(f"{stem}\n" for stem in jpegs))
    source = VocSource(
        root=str(folder), list_file=str(tmp_path / "list.txt"), masks="SegmentationClass", labels_from="masks"
    )
    run(INDEX, IndexConfig(source=source), {}, str(tmp_path / "again"))
    again = open_artifact(str(tmp_path / "again"))
    assert again.rows(["id"]).column("id").to_pylist() == list(jpegs)
    for identifier, cell in zip(jpegs.values(), again.cells("mask", range(len(jpegs))), strict=True):
        assert cell is not None
        np.testing.assert_array_equal(decoded(cell), mask_of(identifier))


@pytest.mark.filterwarnings("ignore")
def test_datumaro_reads_the_classes(exported: Write) -> None:
    datumaro = pytest.importorskip("datumaro", reason="datumaro, which CVAT reads VOC with, is not installed")
    folder, _ = exported("voc")
    read = datumaro.Dataset.import_from(str(folder), "voc_segmentation")
    names = [each.name for each in read.categories()[datumaro.AnnotationType.label]]
    assert {*NAMES, "background", "ignored"} <= set(names)
    value_of = {name: value for value, name in [*enumerate(["background", *NAMES]), (255, "ignored")]}
    found = {}
    for item in read:
        label_HW = np.zeros(item.media.size, np.uint8)
        for each in item.annotations:
            if each.type == datumaro.AnnotationType.mask:
                label_HW[each.image.astype(bool)] = value_of[names[each.label]]
        found[item.id] = label_HW
    for identifier in PICTURES:
        np.testing.assert_array_equal(found[stem_of(identifier)], mask_of(identifier))
