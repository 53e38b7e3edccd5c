"""The result of every dataset reader: location, id and annotations of each picture.

Listing reads names, lists and annotations, but opens no picture and no mask.
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
    labels: tuple[int, ...] | None = ()  # class indices, sorted; None: read from the mask
    split: str = ""
    mask: str = ""  # a mask file, or ""
    shapes: str = ""  # a mask as COCO segments in JSON (see shapes.py), drawn by the worker


@dataclass(frozen=True, slots=True)
class Listing:
    root: str  # absolute path or URL; relative uris start here
    classes: ClassTable
    entries: Iterator[PictureEntry]  # read once, in the dataset's own stable order
    # "indexed": pixel = class index; "binary": one object of the entry's first label; "shapes": see PictureEntry
    mask_kind: Literal["none", "indexed", "binary", "shapes"] = "none"


def image_id(relative_path: str) -> str:
    """The id of a picture: its path in the dataset without extension, in Unicode form NFC.

    Only picture extensions are dropped: `a.b` and `a.b.jpg` both become `a.b`, and `v1.2/x` stays as it is.
    """
    stem, dot, suffix = relative_path.rpartition(".")
    is_suffix = dot and f".{suffix.lower()}" in PICTURE_SUFFIXES
    return unicodedata.normalize("NFC", stem if is_suffix else relative_path)
