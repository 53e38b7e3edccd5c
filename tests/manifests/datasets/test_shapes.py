"""Label maps drawn from segments, against pycocotools and against arithmetic."""

import importlib
import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from maskmill.manifests.datasets.layouts import CocoSource
from maskmill.manifests.datasets.readers import list_dataset
from maskmill.manifests.datasets.shapes import draw_shapes
from maskmill.manifests.errors import Reason, RowFailed

coco_mask = importlib.import_module("pycocotools.mask")
COCO = importlib.import_module("pycocotools.coco").COCO

# pycocotools decodes into arrays whose copying numpy 2 warns of.
decodes = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def segment(segmentation: Any, index: int = 1, area: float | None = None, crowd: int = 0) -> dict[str, Any]:
    return {"class": index, "area": area, "crowd": crowd, "segmentation": segmentation}


def shapes(*segments: dict[str, Any], width: int | None = 4, height: int | None = 3) -> str:
    return json.dumps({"width": width, "height": height, "segments": segments})


def box(x: int, y: int, right: int, bottom: int) -> list[list[int]]:
    return [[x, y, right, y, right, bottom, x, bottom]]


def runs(*counts: int, size: tuple[int, int] = (3, 4)) -> dict[str, Any]:
    return {"size": list(size), "counts": list(counts)}


def reason_of(text: str, width: int = 4, height: int = 3) -> Reason:
    with pytest.raises(RowFailed) as caught:
        draw_shapes(text, width, height)
    return caught.value.reason


def test_runs_go_down_the_columns():
    drawn_HW = draw_shapes(shapes(segment(runs(1, 2, 3, 1, 5), index=7)), 4, 3)
    assert drawn_HW.tolist() == [[0, 0, 7, 0], [7, 0, 0, 0], [7, 0, 0, 0]]
    assert drawn_HW.dtype == np.uint8


def test_nothing_is_all_background():
    assert draw_shapes(shapes(), 4, 3).tolist() == [[0] * 4] * 3


def test_who_lies_over_whom():
    crowd = segment(box(0, 0, 4, 3), index=5, area=1, crowd=1)
    large = segment(box(0, 0, 3, 3), index=1, area=9)
    small = segment(box(1, 1, 2, 2), index=2, area=1)
    expected = [[1, 1, 1, 255], [1, 2, 1, 255], [1, 1, 1, 255]]
    for order in ([crowd, large, small], [small, large, crowd], [large, crowd, small]):
        assert draw_shapes(shapes(*order), 4, 3).tolist() == expected
    hidden = segment(box(1, 1, 2, 2), index=2, area=100)  # what is annotated decides
    assert draw_shapes(shapes(hidden, large), 4, 3)[1, 1] == 1
    uncounted = [segment(box(1, 1, 2, 2), index=2), segment(box(0, 0, 3, 3), index=1)]
    assert draw_shapes(shapes(*uncounted), 4, 3)[1, 1] == 2


def test_of_equal_areas_the_later_is_on_top():
    first, second = segment(box(0, 0, 2, 2), index=1, area=4), segment(box(1, 0, 3, 2), index=2, area=4)
    assert draw_shapes(shapes(first, second), 4, 3)[0].tolist() == [1, 2, 2, 0]
    assert draw_shapes(shapes(second, first), 4, 3)[0].tolist() == [1, 1, 2, 0]


def test_an_object_of_several_polygons():
    assert draw_shapes(shapes(segment([*box(0, 0, 1, 1), *box(3, 2, 4, 3)])), 4, 3).sum() == 2


@decodes
def test_the_reference_pictures_as_pycocotools_draws_them(reference, capsys):
    folder = reference / "data" / "coco-mini"
    file = folder / "annotations" / "instances.json"
    coco = COCO(str(file))
    listing = list_dataset(CocoSource(images=str(folder / "images"), annotations=str(file)))
    by_name = {image["file_name"]: image for image in coco.imgs.values()}
    crowds = 0
    for entry in listing.entries:
        image = by_name[entry.uri]
        expected_HW = np.zeros((image["height"], image["width"]), dtype=np.uint8)
        annotations = coco.imgToAnns[image["id"]]
        for annotation in (annotation for annotation in annotations if annotation["iscrowd"]):
            expected_HW[coco.annToMask(annotation) == 1] = 255
            crowds += 1
        for annotation in sorted(annotations, key=lambda annotation: -annotation["area"]):
            if not annotation["iscrowd"]:
                index = listing.classes.index_of(str(annotation["category_id"])) or 0
                expected_HW[coco.annToMask(annotation) == 1] = index
        np.testing.assert_array_equal(draw_shapes(entry.shapes, image["width"], image["height"]), expected_HW)
    assert crowds > 0


@decodes
@given(st.integers(1, 9), st.integers(1, 9), st.randoms(use_true_random=False))
def test_every_form_draws_what_pycocotools_draws(width: int, height: int, chance: random.Random):
    inside_HW = np.array([[chance.random() < 0.5 for _ in range(width)] for _ in range(height)], dtype=np.uint8)
    compressed = coco_mask.encode(np.asfortranarray(inside_HW))["counts"].decode()
    flat = inside_HW.T.ravel().tolist()
    counts, current = [0], 0
    for value in flat:
        if value != current:
            counts.append(0)
            current = value
        counts[-1] += 1
    for form in (compressed, counts):
        drawn_HW = draw_shapes(
            shapes(segment({"size": [height, width], "counts": form}), width=width, height=height), width, height
        )
        np.testing.assert_array_equal(drawn_HW, inside_HW)
    polygon = [chance.uniform(-1, max(width, height) + 1) for _ in range(2 * chance.randint(3, 6))]
    expected_HW = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([polygon], height, width)))
    drawn_HW = draw_shapes(shapes(segment([polygon]), width=width, height=height), width, height)
    np.testing.assert_array_equal(drawn_HW, expected_HW)


def test_long_runs_are_read():
    side = 3000
    inside_HW = np.zeros((side, side), dtype=np.uint8)
    inside_HW[10:20, 1500:1502] = 1
    compressed = coco_mask.encode(np.asfortranarray(inside_HW))["counts"].decode()
    text = shapes(segment({"size": [side, side], "counts": compressed}), width=side, height=side)
    np.testing.assert_array_equal(draw_shapes(text, side, side), inside_HW)


def test_another_size_than_the_pictures():
    assert reason_of(shapes(width=3, height=4)) is Reason.MASK_SIZE
    assert reason_of(shapes(segment(runs(12, size=(4, 3))), width=None, height=None)) is Reason.MASK_SIZE
    assert reason_of(shapes(segment({"counts": [12]}))) is Reason.MASK_SIZE
    assert draw_shapes(shapes(width=None, height=None), 4, 3).shape == (3, 4)


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        5,
        [],
        [[]],
        [[0, 0, 1, 1]],  # pycocotools would take it for a box
        [[0, 0, 1, 1, 2]],
        [[0, 0, 1, 1, 2, 2, 3]],
        [[0, 0, 1, 1, 2, "2"]],
        [[0, 0, 1, 1, 2, None]],
        [[0, 0, 1, 1, 2, float("nan")]],
        [[0, 0, 1, 1, 2, float("inf")]],
        [[0, 0, 1, 1, 2, 10**400]],
        [[0, 0, 1e9, 1e9, 0, 1e9]],
        [[0, 0, 1, 1, 2, 2], "abc"],
        [{"size": [3, 4], "counts": [12]}],
        runs(11),
        runs(5, 8),
        runs(20, -8),
        runs(2**32, 12),
        {"size": [3, 4], "counts": [12.0]},
        {"size": [3, 4], "counts": [True] * 12},
        {"size": [3, 4]},
        {"size": [3, 4], "counts": ""},
        {"size": [3, 4], "counts": "é<"},
        {"size": [3, 4], "counts": "\n"},
        {"size": [3, 4], "counts": "P"},  # says that more follows
        {"size": [3, 4], "counts": "\\" + "P" * 7 + "0"},  # 12, in more characters than any encoder spends
        {"size": [3, 4], "counts": "d0H"},  # 20 - 8
        {"size": [3, 4], "counts": "=="},  # 13 + 13
        {"size": [3, 4], "counts": "<" * 1000},
        {"size": [3, 4], "counts": "@<"},  # -16
    ],
)
def test_garbage_fails_its_row(segmentation):
    assert reason_of(shapes(segment(segmentation))) is Reason.MASK_UNDECODABLE


@pytest.mark.parametrize("area", ["4", float("nan"), True, [4]])
def test_areas_that_are_no_numbers(area):
    assert reason_of(shapes(segment(box(0, 0, 1, 1), area=area))) is Reason.MASK_UNDECODABLE


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"segments": 3}', '{"segments": [{}]}', '{"segments": [3]}'])
def test_what_the_index_never_wrote(text):
    assert reason_of(text) is Reason.MASK_UNDECODABLE


def test_a_class_that_no_table_can_hold():
    assert reason_of(shapes(segment(box(0, 0, 1, 1), index=255))) is Reason.MASK_UNDECODABLE


def test_polygons_longer_than_memory_are_refused():
    zigzag = [[0, 0, 1000, 1000] * 5001]
    assert reason_of(shapes(segment(zigzag), width=1000, height=1000), 1000, 1000) is Reason.MASK_UNDECODABLE


@given(st.text(alphabet=[chr(code) for code in range(44, 116)], max_size=40))
def test_no_string_of_runs_crashes(counts: str):
    outcome: object
    try:
        outcome = draw_shapes(shapes(segment({"size": [3, 4], "counts": counts})), 4, 3).shape
    except RowFailed as failed:
        outcome = failed.reason
    assert outcome in ((3, 4), Reason.MASK_UNDECODABLE)
