"""What every dataset reader gives: where the pictures are, what they are called, and what is known of them.

Listing reads names, lists and annotations; it opens no picture and no mask.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..classes import ClassTable

PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".avif", ".jp2"}
)


@dataclass(frozen=True, slots=True)
class PictureEntry:
    """One picture of a dataset. `uri` and `mask` are relative to the listing's root, or URLs of their own."""

    id: str
    uri: str
    labels: tuple[int, ...] | None = ()  # class indices, sorted; None: to be read off the mask
    split: str = ""
    mask: str = ""  # a mask file; "" where there is none
    shapes: str = ""  # a mask as COCO segments in JSON (see shapes.py), drawn when the unit runs


@dataclass(frozen=True, slots=True)
class Listing:
    root: str  # absolute path or URL that relative uris start from
    classes: ClassTable
    entries: Iterator[PictureEntry]  # read once, in the dataset's own stable order
    # "indexed": pixel = class index; "binary": one object, painted with the entry's first label; "shapes": see Entry
    mask_kind: Literal["none", "indexed", "binary", "shapes"] = "none"


def image_id(relative_path: str) -> str:
    """The id of a picture: its path in the dataset without extension, in Unicode form NFC.

    Only a picture's extension is dropped, so `a.b` and `a.b.jpg` are both `a.b`, and `v1.2/x` stays whole.
    """
    stem, dot, suffix = relative_path.rpartition(".")
    is_suffix = dot and f".{suffix.lower()}" in PICTURE_SUFFIXES
    return unicodedata.normalize("NFC", stem if is_suffix else relative_path)
