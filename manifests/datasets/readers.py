"""Selects the dataset reader of a layout."""

from collections.abc import Callable, Mapping
from typing import Any

from ..classes import ClassTable
from .coco import list_coco
from .coco20i import list_coco20i
from .folder import list_folder
from .layouts import Coco20iSource, CocoSource, DatasetSource, FolderSource, TableSource, VocSource
from .listing import Listing
from .table import list_table
from .voc import list_voc

_NONE_KNOWN = ClassTable()
_READERS: Mapping[type[DatasetSource], Callable[[Any, ClassTable], Listing]] = {
    FolderSource: list_folder,
    VocSource: list_voc,
    CocoSource: list_coco,
    Coco20iSource: list_coco20i,
    TableSource: list_table,
}


def list_dataset(source: DatasetSource, known: ClassTable = _NONE_KNOWN) -> Listing:
    """Lists a dataset; classes in `known` keep their index and new ones follow."""
    return _READERS[type(source)](source, known)
