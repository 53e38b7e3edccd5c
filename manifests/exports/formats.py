"""The export formats. Each format has a module of its name with a function `write`."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:  # formats are imported on demand
    from .export import Export

# Name → description in `maskmill export --help`.
FORMATS: Mapping[str, str] = {
    "coco": "instances_SPLIT.json with run lengths, for pycocotools, detectron2, CVAT",
    "voc": "JPEGImages, SegmentationClass, ImageSets and labelmap.txt, for CVAT and VOC readers",
    "hf": 'Parquet with pictures inside, for datasets.load_dataset("parquet")',
    "webdataset": "tar shards of picture, mask and JSON, for webdataset",
    "labelstudio": "tasks with brush predictions and a labelling config, for Label Studio",
    "fiftyone": "ImageSegmentationDirectory for each split, for FiftyOne",
    "yolo": "polygons and data.yaml, for Ultralytics YOLO",
}


def writer(name: str) -> "Callable[[Export], None]":
    """The function that writes an export in a format."""
    return cast("Callable[[Export], None]", import_module(f".{name}", __package__).write)
