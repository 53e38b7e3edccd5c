"""COCO-20i, the layout of the few-shot literature: COCO 2014 pictures, and masks of classes 1 to 80."""

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import PurePosixPath

from ..classes import ClassTable
from ..errors import InputError
from ..files.place import Place, place
from ..pictures.sources import path_fault
from .benchmark_classes import COCO_CLASSES, number_classes
from .layouts import Coco20iSource
from .listing import Listing, PictureEntry, image_id

_FOLDERS = ("train2014", "val2014")


def list_coco20i(source: Coco20iSource, known: ClassTable) -> Listing:
    """The pictures of one folder or both. The layout has no label files, so labels are read from the masks."""
    root = place(source.root)
    folders = _FOLDERS if source.split == "all" else (source.split,)
    for folder in folders:
        for required in (folder, f"annotations/{folder}"):
            if next(root.names(required), None) is None:
                sample = ", ".join(islice(root.names(), 3)) or "nothing"
                raise InputError(
                    f"no files in {root.path(required)}; a COCO-20i folder has FOLDER/*.jpg and "
                    f"annotations/FOLDER/*.png for {' and '.join(folders)} (found {sample}); "
                    "complete it or choose another --split"
                )
    entries = chain.from_iterable(_entries(root, folder) for folder in folders)
    return Listing(root.uri, number_classes(known, COCO_CLASSES), entries, "indexed")


def _entries(root: Place, folder: str) -> Iterator[PictureEntry]:
    for name in root.names(folder):
        if PurePosixPath(name).suffix.lower() not in (".jpg", ".jpeg"):
            continue
        if fault := path_fault(name):
            raise InputError(f"the name of {root.path(name)!a} {fault}; rename the file")
        yield PictureEntry(image_id(name), name, None, folder, f"annotations/{name.rpartition('.')[0]}.png")
