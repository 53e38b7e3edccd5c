"""FiftyOne: for each split an ImageSegmentationDirectory, pictures in data/ and masks of the same name in labels/.

Masks are grey, since FiftyOne reads them with OpenCV, which gives a palette's colours. What values mean stands in
mask_targets.json; FiftyOne wants it set as the dataset's `default_mask_targets`, for the layout has no place for it.
"""

import json

from ..classes import IGNORE
from .export import Export
from .grey import encode_grey


def write(export: Export) -> None:
    for example in export.examples():
        export.folder.write(f"{example.split}/data/{example.picture_name}", example.picture)
        export.folder.write(f"{example.split}/labels/{example.stem}.png", encode_grey(example.label_HW))
    targets = {**export.class_names(reserved=["undecided"]), IGNORE: "undecided"}
    export.folder.write("mask_targets.json", json.dumps(targets, ensure_ascii=False, indent=1).encode() + b"\n")
