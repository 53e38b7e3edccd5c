"""Label Studio's tasks: its own decoder, and one written from the format's description, give the masks back."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as arrays

from builders.small_export import ANEW, CLASSES, PICTURES, mask_of, stem_of
from maskmill.manifests.exports import labelstudio
from maskmill.manifests.exports.brush import encode_brush
from maskmill.manifests.exports.run import Exported, export_dataset

Write = Callable[[str], tuple[Path, Exported]]
NAMES = [*CLASSES, "undecided"]


def decode(data: Sequence[int]) -> np.ndarray:
    """Bit by bit, as rle-pack's decode of thi.ng/umbrella does."""
    bits = "".join(f"{byte:08b}" for byte in data)
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, value_bits = read(32), read(5) + 1
    length_bits = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        is_run = read(1)
        count = read(length_bits[read(2)]) + 1
        values += [read(value_bits)] * count if is_run else [read(value_bits) for _ in range(count)]
    assert len(values) == total
    assert len(bits) - place < 8
    return np.array(values, np.uint8)


def masks() -> st.SearchStrategy[np.ndarray]:
    return arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40))


@settings(max_examples=25)
@given(masks(), st.integers(1, 40))
def test_run_lengths_come_back(inside_HW: np.ndarray, stretch: int) -> None:
    """Stretched, so that runs of every length occur."""
    inside_HW = np.repeat(inside_HW, stretch, axis=1)
    decoded = decode(encode_brush(inside_HW)).reshape(*inside_HW.shape, 4)
    np.testing.assert_array_equal(decoded, np.where(inside_HW, 255, 0)[..., None].repeat(4, axis=-1))


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 63, 64, 65, 16_383, 16_384, 16_385, 32_768, 40_000])
def test_runs_as_long_as_lengths_go(length: int) -> None:
    for inside_HW in (np.ones((1, length), bool), np.zeros((1, length), bool)):
        assert decode(encode_brush(inside_HW)).tolist() == [255 if inside_HW[0, 0] else 0] * 4 * length


@settings(max_examples=10)
@given(masks(), st.integers(1, 40))
def test_its_own_decoder_agrees(inside_HW: np.ndarray, stretch: int) -> None:
    theirs: Any = pytest.importorskip(
        "label_studio_sdk.converter.brush", reason="label-studio-sdk is not installed", exc_type=ImportError
    )
    inside_HW = np.repeat(inside_HW, stretch, axis=1)
    found = theirs.decode_rle(encode_brush(inside_HW)).reshape(*inside_HW.shape, 4)
    np.testing.assert_array_equal(found[..., 3] > 0, inside_HW)


def tasks_of(folder: Path) -> list[dict[str, Any]]:
    return [task for path in sorted(folder.glob("tasks-*.json")) for task in json.loads(path.read_text())]


def test_tasks_have_a_brush_for_each_class(exported: Write) -> None:
    folder, found = exported("labelstudio")
    tasks = tasks_of(folder)
    assert [task["data"]["id"] for task in tasks] == list(PICTURES)
    for task in tasks:
        identifier = task["data"]["id"]
        extension = "png" if identifier in ANEW else PICTURES[identifier][0]
        assert task["data"]["image"] == f"/data/local-files/?d=images/{stem_of(identifier)}.{extension}"
        assert (folder / "images" / f"{stem_of(identifier)}.{extension}").exists()
        expected = mask_of(identifier)
        label_HW = np.zeros_like(expected)
        for brush in task["predictions"][0]["result"]:
            size = brush["original_height"], brush["original_width"]
            assert size == expected.shape
            (name,) = brush["value"]["brushlabels"]
            inside_HW = decode(brush["value"]["rle"]).reshape(*size, 4)[..., 3] > 0
            label_HW[inside_HW] = 255 if name == "undecided" else CLASSES.index(name) + 1
        np.testing.assert_array_equal(label_HW, expected)
    assert set(found.lost) == {"pictures written anew as upright PNG"}


def test_the_config_names_what_the_brushes_name(exported: Write) -> None:
    view = ElementTree.parse(exported("labelstudio")[0] / "config.xml").getroot()
    image, brush = view.find("Image"), view.find("BrushLabels")
    assert image is not None
    assert brush is not None
    assert (image.get("name"), image.get("value")) == (brush.get("toName"), "$image") == ("image", "$image")
    assert [label.get("value") for label in brush] == NAMES
    assert len({label.get("background") for label in brush}) == len(NAMES)
    first = tasks_of(exported("labelstudio")[0])[0]["predictions"][0]["result"][0]
    assert (first["from_name"], first["to_name"]) == (brush.get("name"), image.get("name"))


def test_files_of_tasks_are_bounded(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelstudio, "_FILE_BYTES", 8_000)
    export_dataset(str(home / "dataset"), "labelstudio", str(tmp_path / "out"), None, False)
    assert len(list((tmp_path / "out").glob("tasks-*.json"))) > 1
    assert [task["data"]["id"] for task in tasks_of(tmp_path / "out")] == list(PICTURES)
