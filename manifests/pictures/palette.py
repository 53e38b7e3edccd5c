"""Label maps as palette PNG: the pixel value is the class, the colour is only for display.

Letters: H W the label map, upright unless named raw.
"""

import math
from io import BytesIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ..errors import Reason, RowFailed
from .decoder import apply_orientation, decode_indices
from .limits import DEFAULT_LIMITS, Limits


def _voc_palette() -> bytes:
    """Colours that differ most between close indices: bits 0, 3, 6 set red, 1, 4, 7 green, 2, 5 blue.

    Source: VOClabelcolormap.m of the PASCAL VOC development kit.
    """
    index = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= (((index >> bit) & 1) << (7 - bit // 3)).astype(np.uint8)
    return colours.tobytes()


VOC_PALETTE = _voc_palette()


def encode_label_map(label_HW: UInt8[np.ndarray, "H W"]) -> bytes:
    """An 8-bit PNG with the VOC palette; equal maps give equal bytes with one version of Pillow."""
    image = Image.fromarray(label_HW)
    image.putpalette(VOC_PALETTE)
    return encode_png(image)


def encode_png(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def decode_label_map(data: bytes, limits: Limits = DEFAULT_LIMITS) -> UInt8[np.ndarray, "H W"]:
    """The indices of a mask as stored, with any palette; raises RowFailed.

    Only the limit on pixels applies; callers compare the size with the picture.
    """
    try:
        index_HW = decode_indices(data, Limits(max_pixels=limits.max_pixels, min_side=1, max_aspect=math.inf))
    except RowFailed as fault:
        if fault.reason == Reason.TOO_LARGE:
            raise
        raise RowFailed(Reason.MASK_UNDECODABLE, fault.detail) from fault
    if index_HW.size and index_HW.max() > 255:
        raise RowFailed(Reason.MASK_VALUES, f"the mask holds {index_HW.max()}, expected at most 255")
    return index_HW.astype(np.uint8)


def rotate_label_map(label_HW: UInt8[np.ndarray, "raw_H raw_W"], orientation: int) -> UInt8[np.ndarray, "H W"]:
    """Applies an EXIF orientation (1–8) to a mask that was drawn without it."""
    return np.array(apply_orientation(Image.fromarray(label_HW), orientation))
