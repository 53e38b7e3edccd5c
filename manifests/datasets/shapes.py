"""Draws label maps from COCO segments: polygons, and plain or compressed run lengths.

Run lengths are decoded here, because pycocotools does not check them and may read or write outside its memory.
Polygons are drawn by pycocotools, whose rounding is the standard for COCO masks.

Letters: H W the picture, R runs, C characters of a compressed run-length string.
"""

import json
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from pycocotools import mask as coco_mask  # type: ignore[import-untyped]

from ..classes import BACKGROUND, IGNORE
from ..errors import Reason, RowFailed

_MAX_OUTLINE_PX = 10_000_000  # pycocotools allocates five points per pixel unchecked


def draw_shapes(shapes: str, width: int, height: int) -> UInt8[np.ndarray, "H W"]:
    """A map of class indices. Crowds are ignore; objects lie over crowds, smaller over larger, later over equal ones.

    The row fails as mask_size if the segments have another size, as mask_undecodable if they cannot be drawn.
    """
    content = _parse_shapes(shapes)
    declared = (content.get("width"), content.get("height"))
    if any(stated not in (None, actual) for stated, actual in zip(declared, (width, height), strict=True)):
        raise RowFailed(
            Reason.MASK_SIZE,
            f"annotated as {declared[0]}x{declared[1]}, the picture is {width}x{height} (width x height)",
        )
    labels_HW = np.full((height, width), BACKGROUND, dtype=np.uint8)
    for segment in content["segments"]:
        if segment["crowd"]:
            labels_HW[_draw_segment(segment, width, height)] = IGNORE
    objects = [segment for segment in content["segments"] if not segment["crowd"]]
    for segment in sorted(objects, key=lambda segment: -_area(segment, width, height)):
        labels_HW[_draw_segment(segment, width, height)] = segment["class"]
    return labels_HW


def _parse_shapes(shapes: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(shapes)
        known = {"area", "class", "crowd", "segmentation"}
        if not all(known <= segment.keys() and 1 <= segment["class"] < IGNORE for segment in content["segments"]):
            raise ValueError("a key is missing or a class is out of range")
        return content
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _undecodable("the segments are not what the index writes") from error


def _undecodable(detail: str) -> RowFailed:
    return RowFailed(Reason.MASK_UNDECODABLE, detail)


def _area(segment: dict[str, Any], width: int, height: int) -> float:
    """The annotated area, which other tools sort by; the drawn pixels if there is none."""
    if segment["area"] is None:
        return float(_draw_segment(segment, width, height).sum())
    if not _is_number(segment["area"]):
        raise _undecodable(f"the area {segment['area']!a} is not a number")
    return float(segment["area"])


def _is_number(value: Any) -> bool:
    """Whether a JSON value is a plausible number: not NaN, infinite or astronomical."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e12 < value < 1e12


def _draw_segment(segment: dict[str, Any], width: int, height: int) -> Bool[np.ndarray, "H W"]:
    segmentation = segment["segmentation"]
    if isinstance(segmentation, list):
        return _from_polygons(segmentation, width, height)
    if not isinstance(segmentation, dict):
        raise _undecodable(f"a segmentation is {type(segmentation).__name__}, expected polygons or run lengths")
    if segmentation.get("size") != [height, width]:
        raise RowFailed(
            Reason.MASK_SIZE, f"run lengths of size {segmentation.get('size')!a}, the picture is {[height, width]}"
        )
    counts = segmentation.get("counts")
    runs_R = _decompress_runs(counts) if isinstance(counts, str) else _plain(counts)
    return _from_runs(runs_R, width, height)


def _from_polygons(polygons: list[Any], width: int, height: int) -> Bool[np.ndarray, "H W"]:
    if not polygons:
        raise _undecodable("a segmentation without polygons")
    for polygon in polygons:
        _check_polygon(polygon, width, height)
    runs: Any = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return _from_runs(_decompress_runs(runs["counts"].decode()), width, height)


def _check_polygon(polygon: Any, width: int, height: int) -> None:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise _undecodable("a polygon is not a list of at least three x, y pairs")
    if not all(_is_number(value) for value in polygon):
        raise _undecodable("a polygon holds something other than numbers")
    points = np.array(polygon, dtype=np.float64).reshape(-1, 2)
    side = max(width, height)
    if points.min() < -side or points.max() > 2 * side:
        raise _undecodable(f"a polygon reaches far outside the picture of {width}x{height}")
    if np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum() > _MAX_OUTLINE_PX:
        raise _undecodable(f"a polygon is more than {_MAX_OUTLINE_PX:,} pixels long")


def _plain(counts: Any) -> Int64[np.ndarray, " R"]:
    if not isinstance(counts, list) or not all(type(run) is int and 0 <= run < 2**32 for run in counts):
        raise _undecodable("run lengths are neither a string nor a list of whole numbers")
    return np.array(counts, dtype=np.int64)


def _decompress_runs(counts: str) -> Int64[np.ndarray, " R"]:
    """The runs of a compressed string: five bits per character, low bits first; 32 means more follow, 16 is the sign.

    From the fourth run on, the string holds the difference to the run two before (maskApi.c, rleToString).
    """
    try:
        bits_C = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError as error:
        raise _undecodable("a run-length string holds characters that no encoder writes") from error
    if not len(bits_C):
        return bits_C
    if bits_C.min() < 0 or bits_C.max() > 63 or bits_C[-1] & 32:
        raise _undecodable("a run-length string holds characters that no encoder writes, or is cut off")
    ends_R = np.flatnonzero(bits_C < 32)
    starts_R = np.concatenate([[0], ends_R[:-1] + 1])
    lengths_R = ends_R - starts_R + 1
    if lengths_R.max() > 7:  # 35 bits, more than any run in any picture
        raise _undecodable("a run-length string holds a number that is too long")
    place_C = np.arange(len(bits_C)) - np.repeat(starts_R, lengths_R)
    runs_R = np.add.reduceat((bits_C & 31) << (5 * place_C), starts_R)
    runs_R -= np.where(bits_C[ends_R] & 16, 1 << (5 * lengths_R), 0)
    runs_R[1::2] = np.cumsum(runs_R[1::2])
    runs_R[2::2] = np.cumsum(runs_R[2::2])
    return runs_R


def _from_runs(runs_R: Int64[np.ndarray, " R"], width: int, height: int) -> Bool[np.ndarray, "H W"]:
    """Runs go down the columns and start outside."""
    if (runs_R < 0).any() or int(runs_R.sum()) != width * height:
        raise _undecodable(f"run lengths do not add up to the {width * height} pixels of {width}x{height}")
    inside = np.arange(len(runs_R)) % 2 == 1
    return np.repeat(inside, runs_R).reshape(width, height).T
