"""Converts ground-truth masks to the project's one form: class indices at the picture's decoded size, as palette PNG.

Letters: H W pixels.

A mask with the picture's size before its EXIF rotation is rotated along with it. If both sizes are equal (a mirrored or
half-turned picture), the mask is assumed to fit the upright picture, and the row gets a note.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from ...manifests.classes import BACKGROUND, IGNORE, ClassTable
from ...manifests.datasets.shapes import draw_shapes
from ...manifests.errors import Reason, RowFailed
from ...manifests.files.sealed import Json
from ...manifests.pictures.decoder import PictureFacts
from ...manifests.pictures.palette import decode_label_map, encode_label_map, rotate_label_map


@dataclass(frozen=True, slots=True)
class RowMask:
    png: bytes | None
    labels: list[int]  # the listed classes of the picture, or those in the mask if none are listed
    note: str = ""


def label_map(
    row: Mapping[str, Json], data: bytes | None, seen: str, picture: PictureFacts, classes: ClassTable, mask_kind: str
) -> RowMask:
    """The mask of one picture. `data` are the bytes of its mask file; if they are None, `seen` gives the reason."""
    labels = row["labels"]
    if row["shapes"]:
        return _make_row_mask(_draw_label_map(row["shapes"], picture), labels, classes, "")
    if data is None:
        if labels is None or seen not in ("", Reason.MISSING):
            raise RowFailed(Reason.MASK_MISSING, seen)
        return RowMask(None, labels, "no_mask" if seen else "")
    label_HW, note = _rotate_to_picture(decode_label_map(data), picture)
    if mask_kind == "binary":
        label_HW = _paint_label(label_HW, labels[0] if labels else 1)
    return _make_row_mask(label_HW, labels, classes, note)


def _make_row_mask(
    label_HW: UInt8[np.ndarray, "H W"], labels: list[int] | None, classes: ClassTable, note: str
) -> RowMask:
    values = [int(value) for value in np.unique(label_HW) if value not in (BACKGROUND, IGNORE)]
    if values and values[-1] > len(classes):
        raise RowFailed(Reason.MASK_VALUES, f"the mask holds {values[-1]}, expected 0 to {len(classes)} or 255")
    return RowMask(encode_label_map(label_HW), values if labels is None else labels, note)


def _draw_label_map(shapes: str, picture: PictureFacts) -> UInt8[np.ndarray, "H W"]:
    try:
        return draw_shapes(shapes, picture.width, picture.height)
    except RowFailed as failed:
        if failed.reason is not Reason.MASK_SIZE or picture.raw_size == (picture.width, picture.height):
            raise
        return rotate_label_map(draw_shapes(shapes, *picture.raw_size), picture.orientation)


def _rotate_to_picture(
    label_HW: UInt8[np.ndarray, "raw_H raw_W"], picture: PictureFacts
) -> tuple[UInt8[np.ndarray, "H W"], str]:
    size = (label_HW.shape[1], label_HW.shape[0])
    if size == (picture.width, picture.height):
        is_ambiguous = picture.orientation != 1 and size == picture.raw_size
        return label_HW, "mask_as_seen" if is_ambiguous else ""
    if size == picture.raw_size:
        return rotate_label_map(label_HW, picture.orientation), ""
    raise RowFailed(Reason.MASK_SIZE, f"the mask is {size}, expected {(picture.width, picture.height)}")


def _paint_label(mask_HW: UInt8[np.ndarray, "H W"], label: int) -> UInt8[np.ndarray, "H W"]:
    """The label map of a mask of one object. The object has any one value; 255 next to another value means ignore."""
    values = [int(value) for value in np.unique(mask_HW) if value != BACKGROUND]
    if len(values) > 2 or (len(values) == 2 and values[1] != IGNORE):
        raise RowFailed(Reason.MASK_VALUES, f"a binary mask has values {values}, expected one besides 0 and 255")
    painted_HW = np.zeros_like(mask_HW)
    if values:
        painted_HW[mask_HW == values[0]] = label
    if len(values) == 2:
        painted_HW[mask_HW == IGNORE] = IGNORE
    return painted_HW
