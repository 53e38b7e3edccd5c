"""Small pictures, masks and soft maps as data URLs.

Letters: H W pixels, h w pixels of the small one.
"""

import base64
import colorsys
from io import BytesIO

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from ...manifests.classes import BACKGROUND, IGNORE

LONG_PX = 320  # the longer side of a small picture
HEAT_PX = 160  # longer side of a soft map, which is smooth
_QUALITY = 78
_FILL, _OUTLINE = 110, 255  # opacity
_UNDECIDED = (235, 235, 235)
_HEAT_LEVELS = 16
ThumbnailSize = tuple[int, int]  # rows and columns


def small_size(size: ThumbnailSize, long_px: int = LONG_PX) -> ThumbnailSize:
    """The size after shrinking; never larger than before."""
    share = min(1.0, long_px / max(size))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def colour_of(label: int) -> tuple[int, int, int]:
    """Hues of neighbouring classes are 137.5° apart, and their lightness alternates."""
    hue = (0.03 + 0.381966 * (label - 1)) % 1.0
    lightness = (0.52, 0.68, 0.42)[(label - 1) % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)


def hex_colour(label: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*(_UNDECIDED if label == IGNORE else colour_of(label)))


def picture_url(picture: UInt8[np.ndarray, "H W 3"]) -> str:
    height, width = small_size((picture.shape[0], picture.shape[1]))
    stream = BytesIO()
    small = Image.fromarray(picture).resize((width, height), Image.Resampling.BOX, reducing_gap=2.0)
    small.save(stream, "JPEG", quality=_QUALITY)
    return _data_url("jpeg", stream)


def mask_url(label_HW: UInt8[np.ndarray, "H W"]) -> str:
    """A palette PNG: transparent background, each class in its colour with an outline."""
    label_hw = _small_labels(label_HW)
    outline_hw = _outline(label_hw)
    labels = [label for label in np.unique(label_hw).tolist() if label != BACKGROUND]
    has_outlines = 2 * len(labels) < 256
    palette, opacity = [(0, 0, 0)], [0]
    index_hw = np.zeros_like(label_hw)
    for label in labels:
        colour, own_hw = _UNDECIDED if label == IGNORE else colour_of(label), label_hw == label
        index_hw[own_hw] = len(palette)
        palette.append(colour)
        opacity.append(_FILL)
        if has_outlines:
            index_hw[own_hw & outline_hw] = len(palette)
            palette.append(colour)
            opacity.append(_OUTLINE)
    return _palette_url(index_hw, palette, opacity)


def heat_url(map_hw: Float32[np.ndarray, "h w"]) -> str:
    """A soft map in 16 steps, from transparent (0) over red to yellow (1)."""
    level_hw = np.clip(np.floor(np.clip(map_hw, 0, 1) * _HEAT_LEVELS), 0, _HEAT_LEVELS - 1).astype(np.uint8)
    steps = [level / (_HEAT_LEVELS - 1) for level in range(_HEAT_LEVELS)]
    palette = [
        (round(90 + 165 * min(1, 2 * s)), round(230 * max(0, 1.6 * s - 0.6)), round(60 * (1 - s))) for s in steps
    ]
    return _palette_url(level_hw, palette, [round(190 * s**1.5) for s in steps])


def _small_labels(label_HW: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "h w"]:
    height, width = small_size((label_HW.shape[0], label_HW.shape[1]))
    rows = ((np.arange(height) + 0.5) * label_HW.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * label_HW.shape[1] / width).astype(int)
    return label_HW[np.ix_(rows, columns)]


def _outline(label_hw: UInt8[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels next to another label, without the border of the picture."""
    outline_hw = np.zeros(label_hw.shape, bool)
    down, across = label_hw[1:] != label_hw[:-1], label_hw[:, 1:] != label_hw[:, :-1]
    outline_hw[1:] |= down
    outline_hw[:-1] |= down
    outline_hw[:, 1:] |= across
    outline_hw[:, :-1] |= across
    return outline_hw


def _palette_url(index_hw: UInt8[np.ndarray, "h w"], palette: list[tuple[int, int, int]], opacity: list[int]) -> str:
    image = Image.fromarray(index_hw)
    image.putpalette([channel for colour in palette for channel in colour])
    stream = BytesIO()
    image.save(stream, "PNG", transparency=bytes(opacity), optimize=True)
    return _data_url("png", stream)


def _data_url(kind: str, stream: BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
