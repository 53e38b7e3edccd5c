"""The dataset readers: for each layout a source, which says where it lies, and a function that lists it."""

from typing import TypeAlias, assert_never

from ..classes import ClassTable
from .coco import CocoSource, list_coco
from .coco20i import Coco20iSource, list_coco20i
from .folder import FolderSource, list_folder
from .listing import Listing, PictureEntry
from .table import TableSource, list_table
from .voc import VocSource, list_voc

__all__ = [
    "SOURCES",
    "Coco20iSource",
    "CocoSource",
    "DatasetSource",
    "FolderSource",
    "Listing",
    "PictureEntry",
    "TableSource",
    "VocSource",
    "list_dataset",
]

DatasetSource: TypeAlias = VocSource | CocoSource | Coco20iSource | FolderSource | TableSource

SOURCES: dict[str, type[DatasetSource]] = {
    source.layout: source for source in (VocSource, CocoSource, Coco20iSource, FolderSource, TableSource)
}


_NONE_KNOWN = ClassTable()


def list_dataset(source: DatasetSource, known: ClassTable = _NONE_KNOWN) -> Listing:
    """The pictures of a dataset; classes in `known` keep their index and new ones follow."""
    match source:
        case VocSource():
            return list_voc(source, known)
        case CocoSource():
            return list_coco(source, known)
        case Coco20iSource():
            return list_coco20i(source, known)
        case FolderSource():
            return list_folder(source, known)
        case TableSource():
            return list_table(source, known)
        case _:
            assert_never(source)
