"""Selects the dataset reader of a layout."""

from typing import assert_never

from ..classes import ClassTable
from .coco import list_coco
from .coco20i import list_coco20i
from .folder import list_folder
from .layouts import Coco20iSource, CocoSource, DatasetSource, FolderSource, TableSource, VocSource
from .listing import Listing
from .table import list_table
from .voc import list_voc

_NONE_KNOWN = ClassTable()


def list_dataset(source: DatasetSource, known: ClassTable = _NONE_KNOWN) -> Listing:
    """Lists a dataset; classes in `known` keep their index and new ones follow."""
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
