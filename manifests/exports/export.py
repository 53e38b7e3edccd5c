"""An export: the examples of a dataset, one after the other, and the folder that a format writes them into.

Letters: H W pixels.
"""

import hashlib
import io
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
from ..published.dataset import Labels
from .folder import Folder

NO_SPLIT = "train"  # of rows that are in none: most readers ask for a split of that name
_AS_THEY_ARE = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png"}  # which every reader knows; MPO is JPEG to them
_NAME_LENGTH = 100
_ANEW = "pictures written anew as upright PNG"
_RENAMED = "class names changed"


@dataclass(frozen=True, slots=True)
class ExportPicture:
    """A picture with its mask, and the names that it has in files."""

    number: int  # from 1, its place in the dataset's row list, whatever rows are left out
    id: str
    stem: str  # of its files
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

    def classes(self) -> list[int]:
        """Those that have pixels."""
        return [label for label in np.unique(self.label_HW).tolist() if label not in (BACKGROUND, IGNORE)]


class Export:
    """What a format is given: examples to read, a folder to write, and a place to count what is lost."""

    def __init__(self, labels: Labels, folder: Folder) -> None:
        self.labels = labels
        self.folder = folder
        self.lost: Counter[str] = Counter()  # what → how many

    def examples(self) -> Iterator[ExportPicture]:
        """In the dataset's order; one is in memory at a time."""
        taken: set[str] = set()
        for index in range(len(self.labels)):
            row = self.labels.row(index)
            picture, extension = self._picture(index)
            stem = file_name(row["id"])
            if stem.casefold() in taken:  # one file where letters' case does not count
                stem = file_name(row["id"], with_hash=True)
            taken.add(stem.casefold())
            label_HW = self.labels.mask(index).numpy()
            split = file_name(row["split"] or NO_SPLIT)
            number = self.labels.position(index) + 1
            yield ExportPicture(number, row["id"], stem, split, picture, extension, label_HW, row)

    def class_names(self, clean: Callable[[str], str] = str, reserved: Iterable[str] = ()) -> dict[int, str]:
        """Names that differ from each other, as `clean` makes them fit for a format; those that change are counted."""
        taken = set(reserved)
        found: dict[int, str] = {}
        for label, name in self.labels.classes.items():
            plain = clean(name).strip() or f"class {label}"
            distinct, again = plain, 1
            while distinct in taken:
                again += 1
                distinct = f"{plain} ({again})"
            taken.add(distinct)
            found[label] = distinct
            if distinct != name:
                self.lost[_RENAMED] += 1
        return found

    @cached_property
    def licences(self) -> list[str]:
        """The dataset's own, and that of the weights it was made with."""
        facts = DatasetFacts.of(self.labels.artifact)
        return [each for each in (facts.licence, facts.weights.licence) if each not in ("", "none", None)]

    def _picture(self, index: int) -> tuple[bytes, str]:
        """The picture's own file where it lies under the mask for whoever opens it, and else one that does."""
        data, facts = self.labels.picture(index)
        if is_plain(facts):
            return data, _AS_THEY_ARE[facts.format]
        self.lost[_ANEW] += 1
        image_HW3 = self.labels.image(index).permute(1, 2, 0).numpy()
        stream = io.BytesIO()
        Image.fromarray(image_HW3).save(stream, "PNG")
        return stream.getvalue(), "png"


def is_plain(facts: PictureFacts) -> bool:
    """Whether readers agree about it: some turn a picture by its EXIF orientation and some do not."""
    return facts.format in _AS_THEY_ARE and facts.orientation == 1


def file_name(text: str, with_hash: bool = False) -> str:
    """A name that any file system, list and tar takes: letters of ASCII, digits, _ and -. Text that is more than that
    is told apart by its hash; no two texts have one name but by chance in 2⁴⁸."""
    safe = re.sub(r"[^A-Za-z0-9_-]", "-", unicodedata.normalize("NFKD", text))
    is_same = safe == text and len(text) <= _NAME_LENGTH and not re.search(r"-[0-9a-f]{12}$", text)
    if is_same and not with_hash:
        return text
    return f"{safe[:_NAME_LENGTH]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def one_line(name: str) -> str:
    """Without line ends and other control characters, which XML and lists of lines cannot hold."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]+", " ", name)
