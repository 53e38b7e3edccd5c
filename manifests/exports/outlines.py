"""Outlines of the connected pieces of a mask, through the centres of their border pixels, as in OpenCV's findContours.

Letters: H W pixels, P points of an outline, row and column.

cv2.fillPoly, which fills an outline including its line, gives the piece back with its holes closed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64
from scipy import ndimage  # type: ignore[import-untyped]
from skimage import measure

_JOINED_AT_CORNERS = np.ones((3, 3), bool)


@dataclass(frozen=True, slots=True)
class Piece:
    """Connected pixels; corners connect."""

    outline_P2: Int64[np.ndarray, "P 2"]
    pixels: int
    holes: int
    hole_pixels: int


def pieces_of(inside_HW: Bool[np.ndarray, "H W"]) -> Iterator[Piece]:
    """The pieces in order of their first pixels."""
    labels_HW = np.empty(inside_HW.shape, np.int32)
    ndimage.label(inside_HW, _JOINED_AT_CORNERS, output=labels_HW)
    for number, window in enumerate(ndimage.find_objects(labels_HW), 1):
        height, width = labels_HW[window].shape
        corner = np.array([window[0].start, window[1].start])
        if 1 in (height, width):  # most small pieces
            ends_P2 = np.unique(np.array([[0, 0], [height - 1, width - 1]]), axis=0)
            yield Piece(ends_P2 + corner, height * width, 0, 0)
            continue
        piece_HW = np.pad(labels_HW[window] == number, 1)
        filled_HW = np.empty_like(piece_HW)
        ndimage.binary_fill_holes(piece_HW, output=filled_HW)
        holes_HW = np.empty(filled_HW.shape, np.int32)
        ndimage.label(filled_HW & ~piece_HW, output=holes_HW)
        holes = int(holes_HW.max())
        pixels = int(piece_HW.sum())
        yield Piece(_outline(filled_HW) + corner - 1, pixels, holes, int(filled_HW.sum()) - pixels)


def _outline(filled_HW: Bool[np.ndarray, "H W"]) -> Int64[np.ndarray, "P 2"]:
    """The outline of one piece without holes that touches no side. Points of find_contours lie between an inside and an
    outside pixel; the outline takes the inside one."""
    (between_P2,) = measure.find_contours(filled_HW, 0.5, fully_connected="high")  # type: ignore[no-untyped-call]
    low_P2, high_P2 = np.floor(between_P2).astype(np.int64), np.ceil(between_P2).astype(np.int64)
    is_low_P = filled_HW[low_P2[:, 0], low_P2[:, 1]]
    points_P2 = np.where(is_low_P[:, None], low_P2, high_P2)[:-1]  # the last point repeats the first
    return _corners(points_P2)


def _corners(points_P2: Int64[np.ndarray, "P 2"]) -> Int64[np.ndarray, "Q 2"]:
    """Drops repeated points and points on straight lines."""
    is_new_P = (points_P2 != np.roll(points_P2, 1, axis=0)).any(axis=1)
    points_P2 = points_P2[is_new_P] if is_new_P.any() else points_P2[:1]
    into_P2, out_of_P2 = points_P2 - np.roll(points_P2, 1, axis=0), np.roll(points_P2, -1, axis=0) - points_P2
    turns_P = (into_P2 != out_of_P2).any(axis=1)
    return points_P2[turns_P] if turns_P.any() else points_P2[:1]
