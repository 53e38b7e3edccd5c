"""`maskmill index …`: one subcommand per layout of a dataset."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..manifests.datasets import Coco20iSource, CocoSource, DatasetSource, FolderSource, TableSource, VocSource
from ..manifests.files.place import place
from ..manifests.pictures.decoder import DEFAULT_LIMITS, Limits
from ..stages.index.stage import STAGE, IndexConfig
from .options import run_stage, stage_options, with_options

F = TypeVar("F", bound=Callable[..., Any])

LIMITS = with_options(
    click.option(
        "--max-pixels", type=int, default=DEFAULT_LIMITS.max_pixels, show_default=True, help="Larger pictures fail."
    ),
    click.option(
        "--min-side", type=int, default=DEFAULT_LIMITS.min_side, show_default=True, help="Smaller pictures fail."
    ),
    click.option(
        "--max-aspect", type=float, default=DEFAULT_LIMITS.max_aspect, show_default=True, help="Longer ones fail."
    ),
    click.option("--update", is_flag=True, help="Append new pictures and classes, mark vanished pictures as missing."),
)


def index_options(function: F) -> F:
    return LIMITS(stage_options(function))


@click.group(context_settings={"max_content_width": 120})
def index() -> None:
    """List the pictures of a dataset, with their labels and masks, as an images artifact."""


@index.command()
@click.argument("root")
@click.option("--masks", metavar="DIR", default="", help="Masks of one object each, at the same relative path (PNG).")
@index_options
def folder(root: str, masks: str, **values: Any) -> int:
    """A folder, tar file or URL: a picture's class is its first folder."""
    return _index(FolderSource(root=place(root).uri, masks=place(masks).uri if masks else ""), values)


@index.command()
@click.argument("root")
@click.option("--split", metavar="NAME", default="", help="A list in ImageSets, such as train or trainval.")
@click.option("--list", "list_file", metavar="FILE", default="", help="A file of ids, or a Pascal-5i fold list.")
@click.option("--masks", metavar="FOLDER", default="", help="SegmentationClass or SegmentationClassAug.")
@click.option("--labels-from", type=click.Choice(["auto", "masks"]), default="auto", show_default=True)
@index_options
def voc(root: str, split: str, list_file: str, masks: str, labels_from: Any, **values: Any) -> int:
    """PASCAL VOC: ROOT holds JPEGImages. Labels come from the list, the XML files or ImageSets/Main."""
    listed = place(list_file).uri if list_file else ""
    source = VocSource(root=place(root).uri, split=split, list_file=listed, masks=masks, labels_from=labels_from)
    return _index(source, values)


@index.command()
@click.argument("images")
@click.argument("annotations")
@index_options
def coco(images: str, annotations: str, **values: Any) -> int:
    """COCO: a folder of pictures and an instances JSON; smaller objects lie over larger, crowds are ignored."""
    return _index(CocoSource(images=place(images).uri, annotations=place(annotations).uri), values)


@index.command()
@click.argument("root")
@click.option("--split", type=click.Choice(["train2014", "val2014", "all"]), default="all", show_default=True)
@index_options
def coco20i(root: str, split: Any, **values: Any) -> int:
    """COCO2014 with mask PNGs, as the few-shot literature lays it out; labels are read off the masks."""
    return _index(Coco20iSource(root=place(root).uri, split=split), values)


@index.command()
@click.argument("file")
@click.option("--root", default="", help="Where its paths start from; the table's own folder if left out.")
@click.option("--mask-kind", type=click.Choice(["indexed", "binary"]), default="indexed", show_default=True)
@click.option("--classes", metavar="NAME,…", default="", help="Class names by index; the labels found if left out.")
@index_options
def table(file: str, root: str, mask_kind: Any, classes: str, **values: Any) -> int:
    """A CSV or Parquet table with a column `path`, and `id`, `label`, `split`, `mask` where there are any."""
    start = place(root).uri if root else ""
    names = tuple(classes.split(",")) if classes else ()
    return _index(TableSource(file=place(file).uri, root=start, mask_kind=mask_kind, classes=names), values)


def _index(source: DatasetSource, values: dict[str, Any]) -> int:
    limits = Limits(max_pixels=values["max_pixels"], min_side=values["min_side"], max_aspect=values["max_aspect"])
    return run_stage(STAGE, IndexConfig(source=source, limits=limits), {}, values)
