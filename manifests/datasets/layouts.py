"""Options of each dataset layout that can be indexed. Paths are absolute or URLs."""

import unicodedata
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from ..artifact.config import check_config, checks_itself, option
from ..errors import ConfigError


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSource:
    """A folder, tar file or URL: the class of a picture is its first folder."""

    layout: ClassVar[str] = "folder"

    root: str = option(help="Folder, tar file or folder of tar files.", path="folder", is_argument=True)
    # masks/cat/1.png belongs to root/cat/1.jpg
    masks: str = option(
        "", "Folder of masks of one object each, at the same relative paths (PNG).", path="folder", metavar="DIR"
    )

    def __post_init__(self) -> None:
        check_config(self)


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class VocSource:
    """PASCAL VOC: ROOT holds JPEGImages. Labels come from the list, the XML files or ImageSets/Main."""

    layout: ClassVar[str] = "voc"

    root: str = option(help="Folder that holds JPEGImages.", path="folder", is_argument=True)
    split: str = option(
        "", "List in ImageSets/Segmentation or ImageSets/Main, such as train or trainval.", metavar="NAME"
    )
    list_file: str = option(
        "", "File of ids, one per line, or a Pascal-5i fold list.", flag="list", path="file", metavar="FILE"
    )
    masks: str = option(
        "", "Folder of masks in ROOT: SegmentationClass or SegmentationClassAug.", path="inside root", metavar="FOLDER"
    )
    labels_from: Literal["auto", "masks"] = option("auto", "Source of the labels; auto is list, XML, then ImageSets.")

    def __post_init__(self) -> None:
        from ..pictures.sources import path_fault

        check_config(self)
        if bool(self.split) == bool(self.list_file):
            raise ConfigError("a VOC dataset needs either --split NAME or --list FILE; give one")
        for name, value in (("--split", self.split), ("--masks", self.masks)):
            if value and (fault := path_fault(value)):
                raise ConfigError(f"{name} {value!a} {fault}; give a name inside {self.root}")
        if self.labels_from == "masks" and not self.masks:
            raise ConfigError("--labels-from masks needs --masks FOLDER, such as --masks SegmentationClass")


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class CocoSource:
    """COCO: a folder of pictures and an instances JSON. Smaller objects lie over larger ones; crowds are ignored."""

    layout: ClassVar[str] = "coco"

    images: str = option(help="Folder of pictures.", path="folder", is_argument=True)
    annotations: str = option(help="Instances JSON.", path="file", is_argument=True)

    def __post_init__(self) -> None:
        check_config(self)


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class Coco20iSource:
    """COCO 2014 with mask PNGs, as the few-shot literature lays it out. Labels are read off the masks."""

    layout: ClassVar[str] = "coco20i"

    root: str = option(help="Folder that holds train2014, val2014 and annotations.", path="folder", is_argument=True)
    split: Literal["train2014", "val2014", "all"] = option("all", "Folder of pictures to list.")

    def __post_init__(self) -> None:
        check_config(self)


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class TableSource:
    """A CSV or Parquet table with a column `path`, and optionally `id`, `label`, `split` and `mask`."""

    layout: ClassVar[str] = "table"

    file: str = option(help="Table, .csv or .parquet.", path="file", is_argument=True)
    root: str = option(
        "", "Folder that relative paths start from; the table's own by default.", path="folder", metavar="DIR"
    )
    mask_kind: Literal["indexed", "binary"] = option(
        "indexed", "Pixel values of masks: class indices, or one object of the row's class."
    )
    classes: tuple[str, ...] = option(
        (), "Class names in the order of their indices; by default the labels in the table, sorted.", metavar="NAME,…"
    )

    def __post_init__(self) -> None:
        check_config(self)
        if not self.file.lower().endswith((".csv", ".parquet")):
            raise ConfigError(f"{self.file} is neither .csv nor .parquet; give a table in one of these formats")
        names = [unicodedata.normalize("NFC", name.strip()) for name in self.classes]
        if tuple(dict.fromkeys(filter(None, names))) != self.classes:
            raise ConfigError(
                f"--classes {','.join(self.classes)} repeats a name or has an empty one; give each name once"
            )


DatasetSource: TypeAlias = FolderSource | VocSource | CocoSource | Coco20iSource | TableSource

SOURCES: dict[str, type[DatasetSource]] = {
    source.layout: source for source in (FolderSource, VocSource, CocoSource, Coco20iSource, TableSource)
}
