"""YOLO's polygons, from first principles, and as Ultralytics reads and fills them."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays
from scipy import ndimage  # type: ignore[import-untyped]

from builders.small_export import CLASSES, PICTURES, mask_of, stem_of
from maskmill.manifests.exports.outlines import pieces_of
from maskmill.manifests.exports.run import Exported

Write = Callable[[str], tuple[Path, Exported]]
ANY_SIDE = np.ones((3, 3))


def filled(outline_P2: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What a closed line of pixels goes round, with the line."""
    line_HW = np.zeros(shape, bool)
    for start, stop in zip(outline_P2, np.roll(outline_P2, -1, axis=0), strict=True):
        steps = np.abs(stop - start)
        assert 0 in steps or steps[0] == steps[1], "a line goes along a row, a column or a diagonal"
        rows, columns = np.linspace(start, stop, steps.max() + 1).round().astype(int).T
        line_HW[rows, columns] = True
    return closed(line_HW)


def labelled(inside_HW: np.ndarray, joined: np.ndarray | None = None) -> tuple[np.ndarray, int]:
    found: Any = ndimage.label(inside_HW, joined)
    return found[0], found[1]


def closed(inside_HW: np.ndarray) -> np.ndarray:
    result: Any = ndimage.binary_fill_holes(inside_HW)
    return np.asarray(result)


@settings(max_examples=60)
@given(arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=14)))
def test_an_outline_filled_is_its_piece_with_its_holes_closed(inside_HW: np.ndarray) -> None:
    labels_HW, count = labelled(inside_HW, ANY_SIDE)
    pieces = list(pieces_of(inside_HW))
    assert len(pieces) == count
    assert sum(piece.pixels for piece in pieces) == inside_HW.sum()
    for number, piece in enumerate(pieces, 1):
        piece_HW = labels_HW == number
        closed_HW = closed(piece_HW)
        np.testing.assert_array_equal(filled(piece.outline_P2, inside_HW.shape), closed_HW)
        assert piece.hole_pixels == closed_HW.sum() - piece_HW.sum()
        assert piece.holes == labelled(closed_HW & ~piece_HW)[1]


@settings(max_examples=60)
@given(arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=14)))
def test_opencv_fills_it_so(inside_HW: np.ndarray) -> None:
    cv2: Any = pytest.importorskip("cv2", reason="OpenCV, which Ultralytics fills with, is not installed")
    for piece in pieces_of(inside_HW):
        canvas = np.zeros(inside_HW.shape, np.uint8)
        cv2.fillPoly(canvas, [piece.outline_P2[:, ::-1].astype(np.int32).copy()], 1)
        np.testing.assert_array_equal(canvas > 0, filled(piece.outline_P2, inside_HW.shape))


def is_straight(piece_HW: np.ndarray) -> bool:
    points = np.argwhere(piece_HW)
    return bool(np.linalg.matrix_rank(points - points[0]) < 2)


def expected(identifier: str) -> list[tuple[int, np.ndarray]]:
    """Class and pixels of each piece that is more than a line, holes closed."""
    found = []
    label_HW = mask_of(identifier)
    for label in [each for each in np.unique(label_HW).tolist() if 0 < each < 255]:
        labels_HW, count = labelled(label_HW == label, ANY_SIDE)
        for number in range(1, count + 1):
            if not is_straight(labels_HW == number):
                found.append((label, closed(labels_HW == number)))
    return found


def test_each_line_is_a_piece(exported: Write) -> None:
    folder, _ = exported("yolo")
    texts = {path.stem: path.read_text().splitlines() for path in (folder / "labels").rglob("*.txt")}
    assert sorted(texts) == sorted(map(stem_of, PICTURES))
    for identifier in PICTURES:
        height, width = mask_of(identifier).shape
        lines = texts[stem_of(identifier)]
        pieces = expected(identifier)
        assert len(lines) == len(pieces)
        for line, (label, piece_HW) in zip(lines, pieces, strict=True):
            values = [float(value) for value in line.split()]
            assert values[0] == label - 1
            points = np.array(values[1:]).reshape(-1, 2) * (width, height)
            np.testing.assert_array_equal(filled(points.astype(int)[:, ::-1], (height, width)), piece_HW)


def test_what_is_lost_is_counted(exported: Write) -> None:
    _, found = exported("yolo")
    counted: Counter[str] = Counter()
    for identifier in PICTURES:
        label_HW = mask_of(identifier)
        counted["undecided pixels that become background"] += int((label_HW == 255).sum())
        for label in [each for each in np.unique(label_HW).tolist() if 0 < each < 255]:
            labels_HW, count = labelled(label_HW == label, ANY_SIDE)
            for number in range(1, count + 1):
                closed_HW = closed(labels_HW == number) & (labels_HW != number)
                counted["holes closed"] += labelled(closed_HW)[1]
                counted["pixels of holes that get the class around them"] += int(closed_HW.sum())
                counted["pieces left out that are a point or a straight line"] += is_straight(labels_HW == number)
    counted["pictures written anew as upright PNG"] = 2
    assert found.lost == counted
    assert all(counted.values())


def test_the_yaml_names_classes_and_splits(exported: Write) -> None:
    folder, _ = exported("yolo")
    told = yaml.safe_load((folder / "data.yaml").read_text())
    assert told.pop("names") == dict(enumerate(CLASSES))
    assert {told["train"], told["val"]} == {"images/train", "images/val"}
    assert len(told) == 3
    assert all((folder / where).is_dir() for where in told.values())


@pytest.mark.filterwarnings("ignore")
def test_ultralytics_reads_and_fills_it(exported: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    pytest.importorskip("ultralytics", reason="Ultralytics is not installed", exc_type=ImportError)
    from ultralytics.data.dataset import YOLODataset  # type: ignore[import-not-found]
    from ultralytics.data.utils import (  # type: ignore[import-not-found]
        check_det_dataset,
        polygon2mask,
        segments2boxes,
    )

    folder, _ = exported("yolo")
    data = check_det_dataset(str(folder / "data.yaml"), autodownload=False)
    assert data["names"] == dict(enumerate(CLASSES))
    by_stem = {stem_of(identifier): identifier for identifier in PICTURES}
    seen = []
    for split in ("train", "val"):
        dataset = YOLODataset(img_path=data[split], data=data, task="segment", augment=False, imgsz=64)
        for label in dataset.labels:
            identifier = by_stem[Path(label["im_file"]).stem]
            seen.append(identifier)
            height, width = mask_of(identifier).shape
            assert label["shape"] == (height, width)
            drawn = []
            for number, points in zip(label["cls"][:, 0].tolist(), label["segments"], strict=True):
                mask_HW = polygon2mask((height, width), [(points * (width, height)).reshape(-1)])
                drawn.append((int(number) + 1, mask_HW.astype(bool).tobytes()))
            assert sorted(drawn) == sorted((value, piece.tobytes()) for value, piece in expected(identifier))
            assert (segments2boxes(label["segments"])[:, 2:] > 0).all() if label["segments"] else True
    assert sorted(seen) == sorted(each for each, (_, split) in PICTURES.items() if split != "my split")
