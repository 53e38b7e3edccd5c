"""An export: the examples of a dataset one by one, and the folder that a format writes to.

Letters: H W pixels.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ..artifact.facts import DatasetFacts
from ..classes import BACKGROUND, IGNORE
from ..files.sealed import Json
from ..pictures.decoder import PictureFacts
from ..pictures.palette import encode_png
from ..published.dataset import Dataset
from .folder import Folder

NO_SPLIT = "train"  # split of rows without one: most readers expect this name
_AS_THEY_ARE = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png"}  # formats that every reader knows; MPO reads as JPEG
_NAME_LENGTH = 100
_CONVERTED = "pictures written anew as upright PNG"
_RENAMED = "class names changed"


@dataclass(frozen=True, slots=True)
class ExportPicture:
    """A picture with its mask and its file names."""

    number: int  # position in the dataset's row list, from 1, counting all rows
    id: str
    stem: str  # of its file names
    split: str
    picture: bytes
    extension: str
    label_HW: UInt8[np.ndarray, "H W"]
    row: Mapping[str, Json]

    @property
    def height(self) -> int:
        return self.label_HW.shape[0]

    @property
    def width(self) -> int:
        return self.label_HW.shape[1]

    @property
    def picture_name(self) -> str:
        return f"{self.stem}.{self.extension}"

    def grey_mask(self) -> bytes:
        """The mask as a grey PNG, for readers that would convert a palette to colours and lose the classes."""
        return encode_png(Image.fromarray(self.label_HW))

    def classes(self) -> list[int]:
        """Classes that have pixels."""
        return [label for label in np.unique(self.label_HW).tolist() if label not in (BACKGROUND, IGNORE)]


class Export:
    """The input of a format: examples to read, a folder to write, and counts of what is lost."""

    def __init__(self, labels: Dataset, folder: Folder) -> None:
        self.labels = labels
        self.folder = folder
        self.lost: Counter[str] = Counter()  # description → count; stored in the export, so the texts must not change

    def examples(self) -> Iterator[ExportPicture]:
        """The examples in dataset order, one in memory at a time."""
        used_stems: set[str] = set()
        for index in range(len(self.labels)):
            row = self.labels.row(index)
            picture, extension = self._picture(index)
            stem = file_name(row["id"])
            if stem.casefold() in used_stems:  # the same file on a case-insensitive disk
                stem = file_name(row["id"], with_hash=True)
            used_stems.add(stem.casefold())
            label_HW = self.labels.mask(index).numpy()
            split = file_name(row["split"] or NO_SPLIT)
            number = self.labels.position(index) + 1
            yield ExportPicture(number, row["id"], stem, split, picture, extension, label_HW, row)

    def class_names(self, clean: Callable[[str], str] = str, reserved: Iterable[str] = ()) -> dict[int, str]:
        """Distinct class names, made valid for a format by `clean`; changed names are counted."""
        taken = set(reserved)
        names: dict[int, str] = {}
        for label, name in self.labels.classes.items():
            valid = clean(name).strip() or f"class {label}"
            distinct, number = valid, 1
            while distinct in taken:
                number += 1
                distinct = f"{valid} ({number})"
            taken.add(distinct)
            names[label] = distinct
            if distinct != name:
                self.lost[_RENAMED] += 1
        return names

    @cached_property
    def licences(self) -> list[str]:
        """Licences of the dataset and of the weights it was made with."""
        facts = DatasetFacts.of(self.labels.artifact)
        return [name for name in (facts.licence, facts.weights.licence) if name not in ("", "none", None)]

    def _picture(self, index: int) -> tuple[bytes, str]:
        """The original file if every reader shows it upright, else an upright PNG; with its extension."""
        data, facts = self.labels.picture(index)
        if is_plain(facts):
            return data, _AS_THEY_ARE[facts.format]
        self.lost[_CONVERTED] += 1
        image_HW3 = self.labels.image(index).permute(1, 2, 0).numpy()
        return encode_png(Image.fromarray(image_HW3)), "png"


def is_plain(facts: PictureFacts) -> bool:
    """Whether all readers show the picture alike; only some apply the EXIF orientation."""
    return facts.format in _AS_THEY_ARE and facts.orientation == 1


def file_name(text: str, with_hash: bool = False) -> str:
    """A portable file name of ASCII letters, digits, _ and -. Changed names get a hash of 48 bits, so they stay
    distinct."""
    safe = re.sub(r"[^A-Za-z0-9_-]", "-", unicodedata.normalize("NFKD", text))
    is_same = safe == text and len(text) <= _NAME_LENGTH and not re.search(r"-[0-9a-f]{12}$", text)
    if is_same and not with_hash:
        return text
    return f"{safe[:_NAME_LENGTH]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def one_line(name: str) -> str:
    """The name without line ends and control characters, which XML and line lists cannot hold."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]+", " ", name)
